# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writers of a model directory, to be killed: one process that forks a writer for each order.

Forked, so that torch is imported once and not for each of a hundred writers. A writer says in a
log what it is about to do and when it has done it; the log outlives it. Run as a script.
"""

import json
import os
import resource
import signal
import sqlite3
import sys
import time
import traceback
import uuid
from pathlib import Path

import numpy as np
import torch

from mspn_ros.records import HeldOutErrors, ModelError, SceneRow
from mspn_ros.store.backbone_file import BACKBONE_FILE
from mspn_ros.store.files import write_tensors
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.store.scene_file import read_scene_file, write_scene_file

FEATURES = 64
MOST_SCENES = 12


def made_row(identity: str, name: str, size: int = FEATURES) -> SceneRow:
    """The row that has this uuid: whoever knows the uuid knows all its numbers."""
    rng = np.random.default_rng(uuid.UUID(identity).int)
    return SceneRow(
        name=name,
        uuid=identity,
        frame_id=name,
        backbone_id="b" * 64,
        position_offset=rng.normal(size=3),
        position_scale=2.0,
        reference_rotation=np.array([0.0, 0.0, 0.0, 1.0]),
        head="linear",
        # Several pages of the file, so that a change of it has a middle.
        head_tensors={"weight": rng.normal(size=(48, size)).astype(np.float32)},
        classifier_weight=rng.normal(size=size).astype(np.float32),
        classifier_bias=0.5,
        s_t=0.0,
        s_q=-3.0,
        feature_mean=np.zeros(size, np.float32),
        feature_std=np.ones(size, np.float32),
        acceptance_threshold=0.25,
        held_out=HeldOutErrors(10, 0.2, 4.0, (0.04, 0.04, 0.04), (0.01, 0.01, 0.01)),
        frames=100,
        box_low=np.full(3, -1.0),
        box_high=np.full(3, 1.0),
        provenance={"data": "random"},
        created="2026-01-01T00:00:00+00:00",
    )


def state_of(bank: SceneBank) -> dict[str, str]:
    """uuid -> name of every scene; raises where a row is not whole."""
    return {row.uuid: row.name for row in bank.rows()}


def change_forever(model: Path, log: int, seed: int) -> None:
    """Change the bank in all the ways there are, one after the other, until killed."""
    rng = np.random.default_rng(seed)
    parcel = model / f"parcel{seed}.safetensors"
    with SceneBank(model, read_only=False) as bank:
        state = state_of(bank)
    while True:
        action = rng.choice(["add", "remove", "import", "merge", "rename"])
        if not state or len(state) > MOST_SCENES:
            action = "remove" if state else "add"
        after, new = dict(state), []
        if action in ("remove", "rename"):
            victim = str(rng.choice(sorted(state)))
            if action == "remove":
                del after[victim]
            else:
                after[victim] = f"renamed {uuid.uuid4()}"
        else:
            for _ in range(4 if action == "merge" else 1):
                identity = str(uuid.UUID(bytes=rng.bytes(16), version=4))
                new.append(made_row(identity, f"scene {identity[:13]}"))
            after |= {row.uuid: row.name for row in new}
        if action == "import":
            write_scene_file(parcel, new[0])
        _say(log, {"action": action, "after": after})
        # A bank of its own for each change, as for each command.
        with SceneBank(model, read_only=False) as bank:
            if action == "remove":
                bank.remove(state[victim])
            elif action == "rename":
                bank.rename(state[victim], after[victim])
            else:
                bank.add_all([read_scene_file(parcel)] if action == "import" else new)
        state = after
        _say(log, {"done": state})


def replace_forever(model: Path, log: int, seed: int) -> None:
    """Write other weights over the backbone's file until killed."""
    number = seed * 1_000_000
    while True:
        number += 1
        _say(log, {"action": "replace", "after": number})
        tensors = {"a": torch.full((200_000,), float(number)), "b": torch.tensor(number)}
        write_tensors(model / BACKBONE_FILE, tensors, {"number": number})
        _say(log, {"done": number})


# That add and remove at the same time.
WRITERS = 4


def add_and_remove(model: Path, log: int, seed: int) -> None:
    """Twenty scenes of its own, of which every second one goes again."""
    for i in range(20):
        row = made_row(str(uuid.UUID(int=(seed << 64) + i)), f"writer {seed} scene {i}")
        with SceneBank(model, read_only=False) as bank:
            stored = bank.add(row)
            _say(log, {"id": stored.id, "uuid": row.uuid})
            if i % 2:
                bank.remove(row.name)
        # Or one could be done before the next begins.
        while i == 0 and not _all_have_begun(model):
            time.sleep(0.001)


def _all_have_begun(model: Path) -> bool:
    with SceneBank(model) as bank:
        return {f"writer {w} scene 0" for w in range(1, WRITERS + 1)} <= set(bank.names())


def fill_up(model: Path, log: int, seed: int) -> None:
    """Add a scene, and tell what came of it, where files may not grow any more."""
    # As on a full disk, the write fails; without this the system ends the process instead.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = (model / "scenes.db").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + seed, size + seed))
    row = made_row(str(uuid.uuid4()), "one too many", FEATURES * 8)
    try:
        with SceneBank(model, read_only=False) as bank:
            try:
                bank.add(row)
            finally:
                # The same bank, still open: it must not hang in the half-done change.
                state = state_of(bank)
    except ModelError as error:
        _say(log, {"error": str(error), "after": state})


def read_as_nobody(model: Path, log: int, seed: int) -> None:
    """Read, and try to write, as a user whom the permissions bind."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for attempt in ("read", "write"):
        try:
            with SceneBank(model, read_only=attempt == "read") as bank:
                if attempt == "write":
                    bank.add(made_row(str(uuid.uuid4()), "new"))
                _say(log, {attempt: state_of(bank)})
        except ModelError as error:
            _say(log, {attempt: f"ModelError: {error}"})


def die_in_the_middle(model: Path, log: int, seed: int) -> None:
    """Write half of a change into the file, then be killed."""
    db = sqlite3.connect(model / "scenes.db", isolation_level=None)
    # So few pages in memory that the others must go into the file before the change is whole.
    db.execute("PRAGMA cache_size=1")
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE scenes SET name = name || ' of nobody', provenance = zeroblob(20000)")
    os.kill(os.getpid(), signal.SIGKILL)


def hold_the_lock(model: Path, log: int, seed: int) -> None:
    """Keep others from writing for ``seed`` seconds."""
    db = sqlite3.connect(model / "scenes.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    _say(log, {"held": True})
    time.sleep(seed)


def _say(log: int, line: dict) -> None:
    os.write(log, (json.dumps(line) + "\n").encode())


def _ended(pid: int, patience_s: float) -> int | None:
    """The exit code, negative for a signal's; None where it had to be killed for hanging."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main() -> None:
    """Orders on stdin, answers on stdout, one JSON a line.

    ``[FUNCTION, MODEL, LOG, SEED]`` forks a writer and answers its pid; ``["wait", PID, SECONDS]``
    answers how it ended.
    """
    for line in sys.stdin:
        order = json.loads(line)
        if order[0] == "wait":
            print(json.dumps(_ended(*order[1:])), flush=True)
            continue
        function, model, log, seed = order
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                globals()[function](Path(model), descriptor, seed)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
