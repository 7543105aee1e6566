# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Killed, crowded out, short of disk or of rights: the model directory holds all or nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import bank_writer
import numpy as np
import pytest
from bank_writer import made_row, state_of

from mspn_ros.records import ModelError
from mspn_ros.store import bank_file
from mspn_ros.store.backbone_file import BACKBONE_FILE
from mspn_ros.store.files import read_tensors, write_whole
from mspn_ros.store.scene_bank import SceneBank

KILLS = int(os.environ.get("MSPN_KILLS", "100"))
BACKBONE_KILLS = KILLS // 4
PATIENCE_S = 60


class Writers:
    """The process that forks writers, and what they log."""

    def __init__(self):
        command = [sys.executable, bank_writer.__file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _order(self, *order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, function, model, log, seed=0):
        return self._order(function.__name__, str(model), str(log), seed)

    def wait(self, pid):
        return self._order("wait", pid, PATIENCE_S)

    def close(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def writers():
    writers = Writers()
    yield writers
    writers.close()


@pytest.fixture
def model(tmp_path):
    """A model directory with a bank of three scenes that anybody may read."""
    model = tmp_path / "model"
    model.mkdir()
    with SceneBank(model, read_only=False) as bank:
        bank.add_all([made_row(str(uuid.UUID(int=i)), f"old {i}") for i in range(3)])
    return model


@pytest.fixture
def public(model):
    """The same in a folder that other users can reach, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield Path(shutil.copytree(model, folder / "model"))
    (folder / "model").chmod(0o755)
    shutil.rmtree(folder)


def logged(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def last_states(log, before):
    """What the last change that is known to be done left, and what one after it would leave."""
    lines = logged(log)
    done = [line["done"] for line in lines if "done" in line]
    before = done[-1] if done else before
    after = lines[-1]["after"] if lines and "after" in lines[-1] else before
    return before, after


def is_hot(model):
    """Whether a journal says that a change of the bank is half done."""
    journal = model / "scenes.db-journal"
    return journal.is_file() and any(journal.read_bytes()[:8])


def begun(log):
    """Wait until a writer has logged something."""
    end = time.monotonic() + PATIENCE_S
    while not logged(log):
        assert time.monotonic() < end, "the writer has not begun"
        time.sleep(0.001)


def kill_at_random(writers, function, model, log, seed, rng):
    """Let a writer work for a random time once it has begun; kill it."""
    pid = writers.start(function, model, log, seed)
    begun(log)
    time.sleep(rng.uniform(0, 0.06))
    os.kill(pid, signal.SIGKILL)
    assert writers.wait(pid) == -signal.SIGKILL


def test_a_writer_killed_at_any_moment_leaves_all_or_nothing(writers, model, tmp_path):
    rng = random.Random(5)
    owner: dict[int, str] = {}
    found = Counter()
    with SceneBank(model) as bank:
        state = state_of(bank)
    for kill in range(KILLS):
        log = tmp_path / f"log{kill}"
        kill_at_random(writers, bank_writer.change_forever, model, log, kill, rng)
        hot = is_hot(model)
        before, after = last_states(log, state)
        # Readers and writers take turns in being the first to open what was left.
        with SceneBank(model, read_only=bool(kill % 2)) as bank:
            rows = bank.rows()
        state = {row.uuid: row.name for row in rows}
        assert state in (before, after), f"kill {kill}: neither before nor after the change"
        for row in rows:
            expected = made_row(row.uuid, "")
            np.testing.assert_array_equal(row.position_offset, expected.position_offset)
            np.testing.assert_array_equal(
                row.head_tensors["weight"], expected.head_tensors["weight"]
            )
            assert owner.setdefault(row.id, row.uuid) == row.uuid, f"kill {kill}: id used again"
        assert not is_hot(model)
        last = logged(log)[-1]
        if hot:
            found["hot, first opened by a " + ("reader" if kill % 2 else "writer")] += 1
            found[f"hot in {last.get('action')}"] += 1
        if before != after:
            found["undone" if state == before else "kept"] += 1
    print(f"{KILLS} kills: {dict(found)}")
    # Kills that all fell between two changes would show nothing.
    hot = [count for what, count in found.items() if what.startswith("hot, first")]
    assert len(hot) == 2
    assert sum(hot) >= KILLS // 20
    assert found["undone"] >= KILLS // 20


def test_a_killed_writer_of_the_backbone_leaves_the_old_or_the_new_one(writers, model, tmp_path):
    rng = random.Random(6)
    number, left = None, 0
    for kill in range(BACKBONE_KILLS):
        log = tmp_path / f"log{kill}"
        kill_at_random(writers, bank_writer.replace_forever, model, log, kill + 1, rng)
        before, after = last_states(log, number)
        if not (model / BACKBONE_FILE).exists():
            assert number is None
            continue
        tensors, fields = read_tensors(model / BACKBONE_FILE)
        number = fields["number"]
        assert number in (before, after)
        assert (tensors["a"] == float(number)).all()
        assert tensors["b"] == number
        left += len(list(model.glob(".*.part"))) > left
    print(f"{BACKBONE_KILLS} kills: {left} temporary files left")
    assert left >= max(1, BACKBONE_KILLS // 20)


def test_what_killed_writers_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "x[1].safetensors"
    old, fresh, other = (
        tmp_path / name
        for name in (".x[1].safetensors.7.part", ".x[1].safetensors.8.part", ".y.7.part")
    )
    for part in (old, fresh, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (1, 1))
    write_whole(path, b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, fresh.name, other.name}


def test_many_writers_at_once_lose_nothing(writers, model, tmp_path):
    logs = [tmp_path / f"log{i}" for i in range(1, bank_writer.WRITERS + 1)]
    pids = [
        writers.start(bank_writer.add_and_remove, model, log, i)
        for i, log in enumerate(logs, start=1)
    ]
    while not all(log.exists() for log in logs):
        with SceneBank(model) as bank:
            bank.rows()
    assert [writers.wait(pid) for pid in pids] == [0] * 4
    given = [line["id"] for log in logs for line in logged(log)]
    assert sorted(given) == list(range(4, 84))
    # They did work at the same time.
    assert any(
        logged(a)[0]["id"] < logged(b)[0]["id"] < logged(a)[-1]["id"] for a in logs for b in logs
    )
    kept = {f"writer {w} scene {i}" for w in range(1, 5) for i in range(0, 20, 2)}
    with SceneBank(model) as bank:
        assert {row.name for row in bank.rows()} == kept | {"old 0", "old 1", "old 2"}


def test_a_lock_held_too_long_is_an_error_with_a_remedy(writers, model, tmp_path, monkeypatch):
    monkeypatch.setattr(bank_file, "BUSY_TIMEOUT_S", 0.2)
    log = tmp_path / "log"
    pid = writers.start(bank_writer.hold_the_lock, model, log, 600)
    begun(log)
    try:
        with pytest.raises(ModelError, match=r"scenes\.db: .*locked.*another process.*try again"):
            SceneBank(model, read_only=False)
        with SceneBank(model) as bank:
            assert len(bank.rows()) == 3
    finally:
        os.kill(pid, signal.SIGKILL)
        writers.wait(pid)
    with SceneBank(model, read_only=False) as bank:
        bank.remove("old 1")


@pytest.mark.parametrize("room", [0, 4096, 30_000, 100_000])
def test_a_full_disk_leaves_the_bank_as_it_was(writers, model, tmp_path, room):
    with SceneBank(model) as bank:
        before = state_of(bank)
    log = tmp_path / "log"
    assert writers.wait(writers.start(bank_writer.fill_up, model, log, room)) == 0
    (said,) = logged(log)
    assert said["after"] == before
    assert "scenes.db: cannot be written" in said["error"]
    assert "the bank is as it was" in said["error"]
    assert "\n" not in said["error"]
    with SceneBank(model, read_only=False) as bank:
        assert state_of(bank) == before
        bank.add(made_row(str(uuid.uuid4()), "now there is room"))


def as_nobody(writers, model):
    log = model.parent / "log"
    log.touch()
    log.chmod(0o666)
    assert writers.wait(writers.start(bank_writer.read_as_nobody, model, log)) == 0
    read, write = logged(log)
    log.unlink()
    return read["read"], write["write"]


def test_a_folder_without_the_right_to_write_can_be_read(writers, public):
    with SceneBank(public) as bank:
        before = state_of(bank)
    read, write = as_nobody(writers, public)
    assert read == before
    assert "scenes.db: cannot be" in write
    assert "right to write" in write
    # SQLite needs the folder for its journal: the right to the file is not enough.
    (public / "scenes.db").chmod(0o666)
    read, write = as_nobody(writers, public)
    assert read == before
    assert "right to write to the file and its folder" in write


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_half_a_change_that_a_reader_may_not_undo_is_named(writers, public, mode):
    with SceneBank(public) as bank:
        before = state_of(bank)
    whole = (public / "scenes.db").read_bytes()
    die(writers, public)
    assert (public / "scenes.db").read_bytes() != whole
    (public / "scenes.db").chmod(mode)
    for said in as_nobody(writers, public):
        assert "scenes.db: cannot be opened" in said
        assert "a writer was interrupted" in said
        assert "mspn scenes list" in said
    # The remedy.
    with SceneBank(public) as bank:
        assert state_of(bank) == before
    assert as_nobody(writers, public)[0] == before


def die(writers, model):
    log = model.parent / "death"
    pid = writers.start(bank_writer.die_in_the_middle, model, log)
    assert writers.wait(pid) == -signal.SIGKILL
    assert is_hot(model)


def test_a_reader_undoes_half_a_change_and_writes_nothing_else(writers, model):
    with SceneBank(model) as bank:
        before = state_of(bank)
    die(writers, model)
    with SceneBank(model) as bank:
        assert state_of(bank) == before
        with pytest.raises(ModelError, match="cannot be written"):
            bank.remove("old 1")
    content = (model / "scenes.db").read_bytes()
    with SceneBank(model) as bank:
        bank.rows()
    assert (model / "scenes.db").read_bytes() == content


def test_one_file_copied_alone_opens(writers, model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with SceneBank(model, read_only=False) as idle:
        idle.remove("old 0")
        shutil.copy(model / "scenes.db", other)
        with SceneBank(other) as bank:
            assert state_of(bank) == state_of(idle)
    with SceneBank(other, read_only=False) as bank:
        assert bank.add(made_row(str(uuid.uuid4()), "new")).id == 4
