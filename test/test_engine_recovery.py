# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An engine that fails while it serves: another stands in until it works again."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from models import make_tiny_model

from mspn_ros.inference import engine_recovery
from mspn_ros.inference.engine_recovery import FAILURES, EngineRecovery
from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import ConfigError, Intrinsics

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
# Of another shape than the picture.
CAMERA = Intrinsics(50.0, 50.0, 31.5, 31.5, 64, 64)


class FailingEngine:
    """A real engine that says what a driver says, as long as it is told to."""

    def __init__(self, engine, error):
        self.name, self.shares_cores = engine.name, engine.shares_cores
        self.error, self.calls, self._engine = error, 0, engine

    def __call__(self, image_BHW3):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self._engine(image_BHW3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("recovery") / "model")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(engine_recovery, "_FIRST_WAIT_S", 0.02)


def failing(model, engine="torch_bfloat16", error=None):
    """A localizer whose engine fails, and that engine."""
    localizer = Localizer.load(model, "cpu", engine=engine)
    backbone = localizer.backbone
    backbone.engine = FailingEngine(backbone.engine, error or RuntimeError("CUDA error: lost\nX"))
    return localizer, backbone.engine


def fail(localizer, times=FAILURES):
    for _ in range(times):
        with pytest.raises(RuntimeError):
            localizer.localize([PICTURE])


def until_said(localizer, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if text := localizer.recover():
            return text
        time.sleep(0.005)
    raise AssertionError("nothing was done")


def test_the_plain_path_stands_in_at_once_and_the_engine_comes_back(made):
    localizer, broken = failing(made)
    [expected] = Localizer.load(made, "cpu", engine="torch_float32").localize([PICTURE])
    fail(localizer, FAILURES - 1)
    assert localizer.recover() == localizer.engine_trouble == ""
    fail(localizer, 1)
    said = localizer.recover()
    assert said == (
        "torch_bfloat16 on cpu failed (RuntimeError: CUDA error: lost); "
        "torch_float32 on cpu stands in"
    )
    assert localizer.engine == "torch_float32"
    assert localizer.engine_trouble == said
    assert localizer.engine_reason == f"cpu: {said}; torch_float32: as set"
    [found] = localizer.localize([PICTURE])
    np.testing.assert_array_equal(found.position, expected.position)
    until_said(localizer)
    assert (localizer.engine, localizer.engine_trouble) == ("torch_bfloat16", "")
    assert localizer.backbone.engine is not broken
    assert localizer.localize([PICTURE])[0].scene == expected.scene


def test_an_engine_is_left_alone_that_fails_now_and_then_or_answers_test_images(made):
    localizer, broken = failing(made)
    error, broken.error = broken.error, None
    for wrong in ({"scene": "attic"}, {"cameras": [CAMERA]}) * FAILURES:
        with pytest.raises(ConfigError):  # of what is asked, no fault of the engine's
            localizer.localize([PICTURE], **wrong)
    for _ in range(2 * FAILURES):
        broken.error = None
        localizer.localize([PICTURE])
        broken.error = error
        fail(localizer, 1)
    assert localizer.recover() == ""
    fail(localizer)
    broken.error = None  # as after a moment without memory
    assert localizer.recover() == ""
    assert localizer.backbone.engine is broken
    assert localizer.localize([PICTURE])


def test_the_plain_path_itself_is_made_anew(made):
    localizer, broken = failing(made, "torch_float32", MemoryError("no room"))
    for _ in range(FAILURES):
        with pytest.raises(MemoryError):
            localizer.localize([PICTURE])
    assert "failed (MemoryError: no room); it was made anew" in localizer.recover()
    assert localizer.engine_trouble == ""
    assert localizer.localize([PICTURE])
    assert localizer.backbone.engine is not broken


def test_where_nothing_can_be_made_it_is_said_tried_again_and_the_engine_may_come_round(
    made, tmp_path
):
    model = shutil.copytree(made, tmp_path / "model")
    localizer, broken = failing(model)
    model.rename(tmp_path / "away")
    fail(localizer)
    said = localizer.recover()
    assert "no engine can be made in its place" in said
    assert str(model) in said
    assert localizer.engine_trouble == said
    broken.error = None
    assert localizer.localize([PICTURE])
    assert localizer.recover() == "torch_bfloat16 on cpu answers again"
    assert localizer.engine_trouble == ""
    broken.error = RuntimeError("again")
    fail(localizer)
    (tmp_path / "away").rename(model)
    assert "stands in" in until_said(localizer)
    assert localizer.localize([PICTURE])


class Reader:
    """Makes models of one whose engine always fails; counts them."""

    wanted = "cpu", "torch_float16"
    placement = torch.device("cpu"), "torch_float16"

    def __init__(self, model):
        self.model, self.made = model, []

    def renewed(self, device, engine):
        self.made.append((str(device), engine))
        return self.model


def test_an_engine_that_fails_every_time_is_tried_less_and_less(made):
    model = failing(made)[0]._model
    reader, shift_s = Reader(model), 6 * 3600
    recovery = EngineRecovery(reader)

    def pass_a_shift():
        reader.made.clear()
        for second in range(shift_s):
            recovery.failed(RuntimeError("as ever"))
            recovery.step(model, pass_a_shift.start_s + second)
        pass_a_shift.start_s += shift_s
        return len(reader.made)

    pass_a_shift.start_s = 0.0
    assert 10 < pass_a_shift() < shift_s / 250
    assert set(reader.made) == {("cpu", "torch_float32"), reader.wanted}
    assert pass_a_shift() <= shift_s / 300
    # What stands in proves nothing, however long it answers.
    later_s = pass_a_shift.start_s
    answer_a_thousand(recovery)
    assert recovery.step(model, later_s) is None
    assert recovery.step(model, later_s + 300) is not None  # the engine is back
    answer_a_thousand(recovery)
    recovery.step(model, later_s + 300)
    for _ in range(FAILURES):
        recovery.failed(RuntimeError("after long"))
    # One that has proven itself is helped at once again.
    assert recovery.step(model, later_s + 301) is not None


def answer_a_thousand(recovery):
    for _ in range(1000):
        recovery.answered()


def test_a_reload_keeps_to_the_engine_that_stands_in(made, tmp_path):
    model = shutil.copytree(made, tmp_path / "model")
    localizer, _ = failing(model)
    fail(localizer)
    assert "stands in" in localizer.recover()
    shutil.copytree(make_tiny_model(tmp_path / "other", seed=1), model, dirs_exist_ok=True)
    assert localizer.reload().backbone
    assert localizer.engine == "torch_float32"
    until_said(localizer)
    assert localizer.engine == "torch_bfloat16"


def test_help_needs_no_threads(made):
    """OpenMP makes some for each thread that computes, and ends the process where it cannot."""
    localizer, _ = failing(made)
    fail(localizer)
    threads = []

    def recover():
        threads.append(len(list(Path("/proc/self/task").iterdir())))
        assert "stands in" in localizer.recover()
        threads.append(len(list(Path("/proc/self/task").iterdir())))

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        other = threading.Thread(target=recover)
        other.start()
        other.join()
    finally:
        torch.set_num_threads(before)
    assert threads[0] == threads[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device present")
def test_a_gpu_without_memory_is_left_for_the_cpu_and_come_back_to(made):
    localizer = Localizer.load(made, "cuda")
    engine = localizer.engine
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        fail(localizer)
        assert "stands in" in until_said(localizer)
        assert (localizer.device.type, localizer.engine) == ("cpu", "torch_float32")
        assert localizer.localize([PICTURE])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "answers again" in until_said(localizer)
    assert (localizer.device.type, localizer.engine) == ("cuda", engine)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device present")
def test_a_lost_cuda_context_leaves_the_cpu(made):
    """In a process of its own, since no later test could use the device."""
    import subprocess
    import sys

    code = (
        "import numpy as np, torch\n"
        "from mspn_ros.inference.localizer import Localizer\n"
        f"localizer = Localizer.load({str(made)!r}, 'cuda')\n"
        "image = np.zeros((48, 64, 3), np.uint8)\n"
        "try:\n"
        "    torch.zeros(2, device='cuda')[torch.tensor([9], device='cuda')].cpu()\n"
        "except RuntimeError: pass\n"
        f"for _ in range({FAILURES}):\n"
        "    try: localizer.localize([image])\n"
        "    except RuntimeError: pass\n"
        "assert 'stands in' in localizer.recover()\n"
        "print(localizer.localize([image])[0].scene, localizer.device)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "cpu"
