# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A real node under cameras for as long as is asked, while its model, state and cameras change.

    make soak MINUTES=30 CAMERAS=4 HZ=30
    python test/soak.py --minutes 30 --cameras 4 --hz 30 --output soak

Every camera is a process that publishes raw images of the demo's rooms; all show the same image,
another one every second. Meanwhile scenes of the node's bank are renamed, removed and added, its
backbone is exchanged for another one, cameras are killed and return, and the node is deactivated
and activated. What is demanded of it, and what each number means: ``soak_report.py``. Writes
soak.json and soak.png; exits with 1 where a demand fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ros_tools  # noqa: F401  first: a DDS domain of this process's own
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from soak_report import Event, Heard, Life, Recording, SoakResult, judge, plot_soak

from mspn_ros.demo import MODEL
from mspn_ros.evaluation.answers import write_json
from mspn_ros.evaluation.bench_frames import camera_frames
from mspn_ros.evaluation.timing import Progress, machine
from mspn_ros.node import NODE_NAME
from mspn_ros.node.bench_camera import CameraProcess, read_journal
from mspn_ros.node.bench_node import serialized
from mspn_ros.node.collector import Collector
from mspn_ros.node.messages import stamp_to_ns
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.session import change_state, ros_node, settled_status, wait_for_catalogue
from mspn_ros.records import MspnError, RosError
from mspn_ros.store.backbone_file import BACKBONE_FILE, load_backbone, save_backbone
from mspn_ros.store.bank_file import BANK_FILE
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.terminal import progress_bar, say

NAMESPACE = "/mspn_soak"
RELOADS = ("rename", "exchange", "remove", "add")
FAULTS = ("deactivate", "kill")
# Seconds for the node to follow a change, to answer again; that it stays inactive.
_FOLLOW_S, _INACTIVE_S = 120.0, 1.0
# Seconds without an event at the end, at least.
_PEACE_S = 1.0
# Seconds between two looks at the node's memory.
_SAMPLE_S = 1.0
# Of the exchanged backbone's weights: other numbers, next to the same poses.
_OTHER_WEIGHTS = 1.001


@dataclass(frozen=True, slots=True)
class Plan:
    """``cameras`` publish ``hz`` frames a second each, for ``seconds``.

    ``events`` are (second, kind), kinds of RELOADS and FAULTS. Memory is judged after
    ``warm_up_s``; it may grow by the share ``most_growth``. Images are ``size`` (width, height),
    each shown for ``hold_s``. ``model`` has three scenes or more.
    """

    seconds: float
    cameras: int
    hz: float
    events: tuple[tuple[float, str], ...]
    warm_up_s: float
    most_growth: float = 0.01
    size: tuple[int, int] = (640, 480)
    hold_s: float = 1.0
    model: Path = MODEL
    engine: str = "auto"

    @classmethod
    def of(cls, minutes: float, cameras: int, hz: float) -> Plan:
        """A reload every 20 s and a fault every minute, none in the last 20 s.

        The warm-up is a tenth, or a minute where that is longer, but never over half.
        """
        seconds = 60 * minutes
        warm_up_s = min(max(60.0, 0.1 * seconds), 0.5 * seconds)
        events = [(20.0 * (i + 1), RELOADS[i % 4]) for i in range(int(seconds / 20))]
        events += [(30.0 + 60 * i, FAULTS[i % 2]) for i in range(int(seconds / 60 + 1))]
        kept = tuple(sorted(event for event in events if event[0] < seconds - 20))
        return cls(seconds, cameras, hz, kept, warm_up_s)


def run_soak(plan: Plan, progress: Progress) -> SoakResult:
    """Do it all, and judge.

    Raises:
        MspnError: a process did not start or ended, or the node did not follow a change.
    """
    with tempfile.TemporaryDirectory(prefix="mspn_soak_") as name, Soak(plan, Path(name)) as soak:
        return judge(soak.run(progress), plan.warm_up_s, plan.most_growth)


def put(source: Path, target: Path) -> None:
    """Replace a file by rename, as file syncs do."""
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.replace(target)


def make_other_model(model: Path, folder: Path) -> None:
    """The same model with a backbone of other weights, and so of another identity."""
    folder.mkdir()
    backbone, _, _ = load_backbone(model)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(_OTHER_WEIGHTS)
            break
    identity = save_backbone(folder, backbone, {"weights": "another's, scaled"})
    with SceneBank(model) as bank:
        rows = bank.rows()
    with SceneBank(folder, read_only=False) as bank:
        bank.add_all([replace(row, backbone_id=identity) for row in rows])


class Soak:
    """The node, its cameras, and who listens."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._topics = {f"camera{i}": f"{NAMESPACE}/camera{i}/image" for i in range(plan.cameras)}
        # Models to exchange; the first is in service.
        self._models = [folder / "first", folder / "other"]
        self._model = folder / "model"
        self._stack = ExitStack()
        self._cameras: dict[str, CameraProcess] = {}
        self._journals: dict[str, list[Path]] = {name: [] for name in self._topics}
        self._recording = Recording()
        self._start_s = self._sampled_s = 0.0
        self._kills = 0

    def __enter__(self) -> Soak:
        with ExitStack() as stack:
            shutil.copytree(self._plan.model, self._models[0])
            shutil.copytree(self._plan.model, self._model)
            make_other_model(self._plan.model, self._models[1])
            # One scene is renamed and back, one goes and returns.
            self._renamed, *_, self._removed = self._names()
            self._write_images()
            node = stack.enter_context(ros_node("mspn_soak"))
            self._collector = Collector(node, NAMESPACE, NODE_NAME, node.context)
            stack.callback(self._collector.close)
            parameters: dict[str, Any] = {
                "model": str(self._model),
                "cameras": " ".join(self._topics),
                **{f"{name}.image_topic": topic for name, topic in self._topics.items()},
                "engine": self._plan.engine,
                "diagnostics_period": 0.5,
            }
            self._process = stack.enter_context(LocalizerProcess(NAMESPACE, parameters))
            self._states = node.create_client(ChangeState, f"{NAMESPACE}/{NODE_NAME}/change_state")
            for name in self._topics:
                self._cameras[name] = self._new_camera(name)
            stack.push(self._close_cameras)
            wait_for_catalogue(self._collector, self._process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def _close_cameras(self, *exception: Any) -> None:
        for camera in self._cameras.values():
            camera.__exit__(*exception)

    def _write_images(self) -> None:
        width, height = self._plan.size
        folder = self._folder / "images"
        folder.mkdir()
        for i, image in enumerate(camera_frames(width, height, 24)):
            (folder / f"{i:03}.cdr").write_bytes(serialized(image, "raw"))

    def _new_camera(self, name: str) -> CameraProcess:
        return CameraProcess(self._topics[name], "raw", self._folder / "images")

    def _begin(self, name: str) -> None:
        journal = self._folder / f"{name}_{len(self._journals[name])}.txt"
        self._journals[name].append(journal)
        # Longer than all, however slow the machine: they are told when it is over.
        seconds = self._plan.seconds + len(self._plan.events) * _FOLLOW_S
        self._cameras[name].begin(self._plan.hz, seconds, hold_s=self._plan.hold_s, journal=journal)

    def run(self, progress: Progress) -> Recording:
        """All events in their turn while the cameras play; what was seen."""
        self._start_s = self._recording.start_s = time.monotonic()
        for scene in self._names():
            self._recording.lives.append(Life(scene, self._start_s))
        for name in self._topics:
            self._begin(name)
        self._wait_for_answers(self._topics)
        note = "warming up"
        for at_s, kind in self._plan.events:
            self._pass_until(self._start_s + at_s, progress, note)
            note = self._do(kind)
        # Where events took longer than planned, some time without one all the same.
        end_s = max(self._start_s + self._plan.seconds, time.monotonic() + _PEACE_S)
        self._pass_until(end_s, progress, note)
        for camera in self._cameras.values():
            camera.end()
        for camera in self._cameras.values():
            camera.played()
        status = settled_status(self._collector, time.monotonic())
        self._sample()
        self._recording.status = {"": status, **self._collector.cameras}
        self._recording.published = {
            name: [frame for path in paths if path.exists() for frame in read_journal(path)]
            for name, paths in self._journals.items()
        }
        self._recording.machine = machine()
        return self._recording

    def _pass_until(self, end_s: float, progress: Progress, note: str) -> None:
        while time.monotonic() < end_s:
            memory = self._recording.memory[-1][1] if self._recording.memory else 0.0
            done_s = int(time.monotonic() - self._start_s)
            progress(done_s, int(self._plan.seconds), f"s; {note}; {memory:.0f} MB")
            self._pause()

    def _pause(self) -> None:
        time.sleep(0.1)
        self._sample()

    def _sample(self) -> None:
        """Take what has come, and look at the node."""
        self._process.check()
        answers, poses = self._collector.take()
        recording = self._recording
        for answer, at_s in answers:
            stamp = answer["stamp"]["sec"] * 10**9 + answer["stamp"]["nanosec"]
            heard = Heard(at_s, stamp, answer["camera"], answer["scene"], answer["rejected"])
            recording.heard.append(heard)
            recording.last_heard[heard.camera] = heard
        recording.poses += [(stamp_to_ns(pose.header.stamp), at_s) for pose, at_s in poses]
        now_s = time.monotonic()
        if now_s - self._sampled_s >= _SAMPLE_S:
            self._sampled_s = now_s
            recording.memory.append((now_s - self._start_s, self._process.memory_mb()))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + _FOLLOW_S
        while not condition():
            if time.monotonic() > end_s:
                said = (self._collector.diagnostics or {}).get("reload", "")
                raise RosError(f"{what} did not show within {_FOLLOW_S:.0f} s; {said}")
            self._pause()

    def _do(self, kind: str) -> str:
        start_s = time.monotonic()
        note = getattr(self, f"_{kind}")()
        took_s = time.monotonic() - start_s
        self._recording.events.append(Event(start_s - self._start_s, kind, note, took_s))
        return f"{note} ({took_s:.1f} s)"

    # Reloads.

    def _names(self) -> list[str]:
        with SceneBank(self._model) as bank:
            return bank.names()

    def _change(self, change: Callable[[SceneBank], object], note: str) -> str:
        with SceneBank(self._model, read_only=False) as bank:
            self._changing(lambda: change(bank))
        self._follow(note)
        return note

    def _changing(self, change: Callable[[], object]) -> None:
        """Change the model; what scenes it has then may be named in answers from before on."""
        before_s, before = time.monotonic(), set(self._names())
        change()
        for scene in set(self._names()) - before:
            self._recording.lives.append(Life(scene, before_s))

    def _follow(self, what: str) -> None:
        """Wait until the node tells of the scenes that the model has; others are gone by then."""
        with SceneBank(self._model) as bank:
            wanted = {(row.name, row.backbone_id) for row in bank.rows()}

        def told() -> bool:
            entries = self._collector.catalogue or []
            return {(entry["name"], entry["backbone_id"]) for entry in entries} == wanted

        self._wait(told, what)
        names = {name for name, _ in wanted}
        for life in self._recording.lives:
            if life.end_s is None and life.scene not in names:
                life.end_s = self._collector.catalogue_s

    def _rename(self) -> str:
        there = self._renamed in self._names()
        names = (self._renamed, f"{self._renamed}_renamed")
        old, new = names if there else names[::-1]
        return self._change(lambda bank: bank.rename(old, new), f"{old} renamed to {new}")

    def _remove(self) -> str:
        return self._change(lambda bank: bank.remove(self._removed), f"{self._removed} removed")

    def _add(self) -> str:
        with SceneBank(self._models[0]) as bank:
            row = bank.row(self._removed)
        return self._change(lambda bank: bank.add(row), f"{self._removed} added")

    def _exchange(self) -> str:
        """Backbone and bank, one after the other as a file sync does it."""
        self._models.reverse()

        def change() -> None:
            for file in (BACKBONE_FILE, BANK_FILE):
                put(self._models[0] / file, self._model / file)

        self._changing(change)
        self._follow("the exchange of the backbone")
        return "backbone exchanged"

    # Faults.

    def _deactivate(self) -> str:
        change_state(self._states, Transition.TRANSITION_DEACTIVATE, self._collector, self._process)
        end_s = time.monotonic() + _INACTIVE_S
        while time.monotonic() < end_s:
            self._pause()
        change_state(self._states, Transition.TRANSITION_ACTIVATE, self._collector, self._process)
        self._wait_for_answers(self._topics)
        return "deactivated and activated"

    def _kill(self) -> str:
        name = list(self._topics)[self._kills % len(self._topics)]
        self._kills += 1
        self._cameras[name].kill()
        self._cameras[name].__exit__(None, None, None)
        self._cameras[name] = self._new_camera(name)
        self._begin(name)
        self._wait_for_answers([name])
        return f"{name} killed, and back"

    def _wait_for_answers(self, names: Sequence[str] | dict[str, str]) -> None:
        """To frames that are published from now on, of each of these cameras."""
        since_ns = time.time_ns()

        def answered() -> bool:
            last = self._recording.last_heard
            return all(name in last and last[name].stamp_ns > since_ns for name in names)

        self._wait(answered, f"an answer to {', '.join(names)}")


def main(words: Sequence[str]) -> int:
    """The command line; 1 where a demand fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--hz", type=float, default=30.0, help="frames a second of each camera")
    parser.add_argument("--output", type=Path, default=Path("soak"), help="folder of the results")
    arguments = parser.parse_args(words)
    if not (arguments.minutes > 0 and 1 <= arguments.cameras <= 16 and 1 <= arguments.hz <= 1000):
        parser.error("minutes over 0, 1 to 16 cameras, 1 to 1000 Hz")
    # One thread a process, as in the tests: threads of several processes wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    plan = Plan.of(arguments.minutes, arguments.cameras, arguments.hz)
    try:
        with progress_bar("soak") as progress:
            result = run_soak(plan, progress)
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output / "soak.json", result.to_json())
        plot_soak(result, arguments.output / "soak.png")
    except MspnError as error:
        say(f"soak: {error}", style="red")
        return 1
    result.show()
    say(f"{arguments.output / 'soak.json'}, {arguments.output / 'soak.png'}")
    return 0 if result.holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
