# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real training processes.

Several that compute what one does, and one that is killed again and again and still ends with the
weights of an undisturbed run.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from dataset_files import write_walk

from mspn_ros.inference.localizer import Localizer
from mspn_ros.store.files import read_tensors

TRAIN = [sys.executable, "-m", "mspn_ros", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
TORCHRUN += ["-m", "mspn_ros", "train"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two scenes and settings that train in seconds."""
    root = tmp_path_factory.mktemp("place")
    for name, count in (("hall", 26), ("lab", 15)):
        write_walk(root / name, train=count, seed=count)
    settings = {
        "scenes": [f"{name}={root / name}" for name in ("hall", "lab")],
        "architecture": {"backbone": "mobilenet_v3_small", "resize": 72, "crop": 64},
        "weights": "none",
        "cache": str(root / "cache"),
        "epochs": 4,
        "batch_size": 7,
        "device": "cpu",
        "optimizer": {"backbone_lr": 1e-4, "head_lr": 1e-3, "loss_lr": 1e-2},
        "validation": {"fraction": 0.15, "blocks": 1, "gap": 0, "every": 2},
        "augment": {"brightness": 0.2},
        "checkpoint_minutes": 0.01,
    }
    (root / "run.yaml").write_text(yaml.safe_dump(settings))
    return root


def run(place, output, *settings, command=TRAIN, timeout=120):
    arguments = [str(place / "run.yaml"), "--output", str(output), "--resume"]
    given = ["--set", *settings] if settings else []
    done = subprocess.run(
        [*command, *arguments, *given], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return json.loads((output / "train.json").read_text())


def weights(output):
    return read_tensors(output / "model" / "backbone.safetensors")[0]


def test_two_processes_take_the_steps_of_one(place, tmp_path):
    # Frozen BatchNorm: with live statistics each process would normalise by its own half.
    frozen = "optimizer.freeze_batch_norm=true"
    alone = run(place, tmp_path / "one", frozen)
    together = run(place, tmp_path / "two", frozen, command=TORCHRUN)
    losses = [[entry["loss"] for entry in report["history"]] for report in (alone, together)]
    # Sums are added in another order, and Adam divides by their roots: not bit for bit.
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=1e-4)
    assert losses[0][-1] < losses[0][0]
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "two")[name], rtol=0, atol=1e-3)
    # The second process left no mark, and the model is usable.
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}
    assert len(Localizer.load(tmp_path / "two" / "model", "cpu").rows) == 2


def test_a_run_killed_again_and_again_ends_with_the_same_weights(place, tmp_path):
    # A checkpoint after each step, so that most kills fall into an epoch.
    settings = ["epochs=12", "checkpoint_minutes=0"]
    unbroken = run(place, tmp_path / "whole", *settings)
    rng = random.Random(0)
    command = [*TRAIN, str(place / "run.yaml"), "--output", str(tmp_path / "cut"), "--resume"]
    command += ["--set", *settings]
    kills = within_an_epoch = 0
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    while kills < 3:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            # Killed some time after it has got on: sooner it would do nothing but start.
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns > before:
                time.sleep(rng.uniform(0.0, 0.4))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, error = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, error
        kills += 1
        within_an_epoch += read_tensors(checkpoint)[1]["progress"]["step"] > 0
    assert kills == 3
    resumed = run(place, tmp_path / "cut", *settings)
    assert [e["loss"] for e in resumed["history"]] == [e["loss"] for e in unbroken["history"]]
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "cut")[name]), name
    assert within_an_epoch, "no kill fell between two epochs' ends: it would prove less"


def test_a_full_disk_stops_in_one_line_and_leaves_the_last_checkpoint_whole(place, tmp_path):
    output = tmp_path / "run"
    run(place, output, "optimizer.schedule=constant", "epochs=1")
    kept = (output / "checkpoint.safetensors").read_bytes()
    # The kernel refuses to write more than this into one file, as it does on a full disk.
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from mspn_ros.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", limited, "train", str(place / "run.yaml"), "--resume"]
    command += ["--output", str(output), "--set", "optimizer.schedule=constant", "epochs=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"mspn: .*checkpoint\.safetensors: cannot be written \(.*\); free space", last)
    assert (output / "checkpoint.safetensors").read_bytes() == kept
    assert not list(output.glob(".*.part"))
    assert len(run(place, output, "optimizer.schedule=constant", "epochs=3")["history"]) == 3


def test_a_run_leaves_what_is_to_be_seen_of_it(place, tmp_path):
    output = tmp_path / "run"
    report = run(place, output)
    names = {path.name for path in output.iterdir()}
    assert names >= {"config.yaml", "train.json", "metrics.json", "history.png", "errors.png"}
    assert names >= {"tracks.png", "tensorboard", "model", "checkpoint.safetensors"}
    assert report["version"]
    for entry in report["history"]:
        assert entry["images_per_second"] > 0
        assert 0 <= entry["data_wait"] < 1
        assert {score["scene"] for score in entry["training"]} == {"hall", "lab"}
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["split"] == "val"
    assert metrics["scenes"]["hall"]["frames"] == 3
    # What was written repeats the run.
    again = subprocess.run(
        [*TRAIN, str(output / "config.yaml"), "--output", str(tmp_path / "again")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0, again.stderr
    for name, tensor in weights(output).items():
        assert torch.equal(tensor, weights(tmp_path / "again")[name]), name
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(output / "tensorboard")).Reload()
    curve = [event.value for event in events.Scalars("epoch/loss")]
    assert curve == pytest.approx([entry["loss"] for entry in report["history"]], rel=1e-5)
    assert "validation/hall/median_position" in events.Tags()["scalars"]


def test_a_process_without_a_gpu_of_its_own_is_told(place, tmp_path):
    command = [*TORCHRUN, str(place / "run.yaml"), "--output", str(tmp_path), "--set"]
    done = subprocess.run(
        [*command, "device=cuda:99"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode != 0
    assert "mspn: device 'cuda:99' is not here" in done.stderr
