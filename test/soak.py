# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a node for long under several cameras, and demands that it neither grows nor loses count.

    python test/soak.py --minutes 30 --cameras 4 --hz 30 --output soak        (make soak)

A real node with a copy of the demo's model, and a process for each camera, which plays the demo's
rooms in turn as raw images. Meanwhile scenes are renamed, taken out and put back, the node is
deactivated and activated, and cameras are ended and started again. The demands:

- By camera, published = answered + overtaken + rejected + lost in DDS + published while the node
  was inactive. The cameras tell what they published, the node's /diagnostics the next three. Of
  what did not arrive, as many as were published between the request to deactivate and half a
  second after the node was active again count as inactive, the rest as lost.
- As many answers came as the node says it gave, each to a stamp that its camera published.
- No frame is rejected.
- The catalogue follows the bank.
- After a warm-up (a tenth, at least a minute of a long run) the node's resident memory grows by
  less than a hundredth: the medians of the first and the last fifth.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from PIL import Image as PilImage
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from mspn_ros.datasets.bags import BagReader
from mspn_ros.demo import BAG
from mspn_ros.evaluation.answers import write_json
from mspn_ros.evaluation.plots import (
    ERROR_COLOUR,
    ESTIMATE_COLOUR,
    TRUE_COLOUR,
    new_figure,
    save_figure,
)
from mspn_ros.node import NODE_NAME
from mspn_ros.node.bench_camera import CameraProcess
from mspn_ros.node.collector import Collector
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.session import (
    MATCH_SLACK_S,
    FrameCounts,
    ros_node,
    settled_status,
    wait_for_catalogue,
)
from mspn_ros.node.transport import loopback_environment
from mspn_ros.paths import package_file
from mspn_ros.records import MspnError
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.terminal import console, progress_bar

NAMESPACE = "/mspn_soak"
MOST_GROWTH = 0.01
# Pictures of the demo's walk that a camera plays in turn.
PICTURES = 48
FATES = ("published", "answered", "overtaken", "rejected", "lost", "inactive")


@dataclass
class Track:
    """What was seen over time, in seconds since the begin."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    latency: list[tuple[float, float, float]] = field(default_factory=list)
    rate: list[tuple[float, float]] = field(default_factory=list)
    scenes: list[tuple[float, str]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)


class Soak:
    """The node, its cameras, and who listens."""

    def __init__(self, stack: ExitStack, cameras: int, folder: Path) -> None:
        self.model = shutil.copytree(package_file("demo", "model"), folder / "model")
        self.pictures = write_pictures(folder / "pictures")
        self.topics = {f"camera{i}": f"{NAMESPACE}/camera{i}/image" for i in range(cameras)}
        parameters = {
            "model": str(self.model),
            "cameras": " ".join(self.topics),
            "diagnostics_period": 0.5,
            **{f"{name}.image_topic": topic for name, topic in self.topics.items()},
        }
        node = stack.enter_context(ros_node("mspn_soak"))
        self.collector = Collector(node, NAMESPACE, NODE_NAME, node.context)
        stack.callback(self.collector.close)
        self.process = stack.enter_context(LocalizerProcess(NAMESPACE, parameters))
        self.states = node.create_client(ChangeState, f"{NAMESPACE}/{NODE_NAME}/change_state")
        wait_for_catalogue(self.collector, self.process)
        self.cameras = {name: stack.enter_context(self.camera(name)) for name in self.topics}
        self.stack = stack
        self.begin_s = time.monotonic()
        self.track = Track()
        self.fates = {name: Counter() for name in self.topics}
        self.troubles: list[str] = []
        self.status = self.settled(time.monotonic())

    def camera(self, name: str) -> CameraProcess:
        """A process that plays the pictures."""
        return CameraProcess(self.topics[name], "raw", self.pictures)

    def settled(self, last_s: float) -> dict[str, dict[str, str]]:
        """The statuses of the cameras once all frames are dealt with."""
        settled_status(self.collector, last_s)
        return dict(self.collector.cameras)

    def now_s(self) -> float:
        """Since the begin."""
        return time.monotonic() - self.begin_s

    def note(self, event: str) -> None:
        """For the picture."""
        self.track.events.append((self.now_s(), event))

    def round(self, number: int, hz: float, seconds: float) -> None:
        """Play for so long; something happens in the middle of it, and all is accounted for."""
        for camera in self.cameras.values():
            camera.begin(hz, seconds)
        watching = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(watching,), daemon=True)
        watcher.start()
        time.sleep(seconds / 3)
        inactive = (0.0, 0.0)
        if number % 3 == 1:
            inactive = self.pause()
        else:
            self.change_bank(number)
        published = {name: camera.played() for name, camera in self.cameras.items()}
        self.process.check()
        last_s = max(at_s for frames in published.values() for _, at_s in frames)
        after = self.settled(last_s)
        watching.set()
        watcher.join()
        for name, frames in published.items():
            self.account(name, frames, after, inactive)
        self.status = after
        self.collector.forget()
        if number % 5 == 4:
            self.replace_camera(list(self.cameras)[number % len(self.cameras)])

    def account(
        self,
        name: str,
        frames: list[tuple[int, float]],
        after: dict[str, dict[str, str]],
        inactive: tuple[float, float],
    ) -> None:
        """Add up what became of one camera's frames."""
        counts = FrameCounts.between(self.status[name], after[name])
        rejected, missing = sum(counts.rejected.values()), len(frames) - counts.received
        unheard = sum(inactive[0] <= at_s <= inactive[1] for _, at_s in frames)
        records = [record for record in self.collector.records(frames) if record.processed]
        self.fates[name].update(
            published=len(frames),
            answered=counts.answered,
            overtaken=counts.overtaken,
            rejected=rejected,
            lost=missing - min(missing, unheard),
            inactive=min(missing, unheard),
        )
        handled = counts.answered + counts.overtaken + rejected
        if handled != counts.received or missing < 0:
            self.troubles.append(
                f"{name}: {len(frames)} published, {counts.received} received, {handled} dealt with"
            )
        if len(records) != counts.answered + rejected:
            self.troubles.append(
                f"{name}: {counts.answered + rejected} answers given, {len(records)} came back"
            )
        if rejected:
            self.troubles.append(f"{name}: rejected {counts.rejected}")
        start_s = frames[0][1] - self.begin_s
        self.track.scenes += [(start_s + r.published_s, r.scene) for r in records[::15]]

    def pause(self) -> tuple[float, float]:
        """Deactivate the node and activate it: from when to when it may not have listened."""
        start_s = time.monotonic()
        self.note("deactivated, activated")
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request()
            request.transition.id = transition
            future = self.states.call_async(request)
            if not self.collector.wait_for(future.done, 30) or not future.result().success:
                self.troubles.append("the node did not change its state")
        return start_s, time.monotonic() + MATCH_SLACK_S

    def change_bank(self, number: int) -> None:
        """Rename a scene, or take one out and put it back; the catalogue has to follow."""
        with SceneBank(self.model, read_only=False) as bank:
            name = bank.names()[number % len(bank.names())]
            if number % 3 == 0:
                self.note("renamed")
                bank.rename(name, name.partition("@")[0] + f"@{number}")
            else:
                self.note("removed, added")
                row = bank.row(name)
                bank.remove(name)
                bank.add(row)
            names = set(bank.names())

        def followed() -> bool:
            return {scene["name"] for scene in self.collector.catalogue or ()} == names

        if not self.collector.wait_for(followed, 20):
            self.troubles.append(f"the catalogue does not become {sorted(names)}")

    def replace_camera(self, name: str) -> None:
        """End a camera's process and start another."""
        self.note("camera replaced")
        self.cameras[name].__exit__(None, None, None)
        self.cameras[name] = self.stack.enter_context(self.camera(name))

    def watch(self, done: threading.Event) -> None:
        """Memory, latency and rate, once a second."""
        while not done.wait(1.0):
            status, now_s = self.collector.diagnostics or {}, self.now_s()
            self.track.memory.append((now_s, self.process.memory_mb()))
            self.track.rate.append((now_s, float(status.get("rate_hz", "nan"))))
            times = [float(status.get(f"latency_{p}_ms", "nan")) for p in ("p50", "p95")]
            self.track.latency.append((now_s, *times))


def write_pictures(folder: Path) -> Path:
    """The demo's walk, thinned, as serialized raw images of 640x480."""
    folder.mkdir()
    with BagReader(BAG) as bag:
        chosen = set(np.linspace(0, bag.image_count - 1, PICTURES).round().astype(int))
        for i, message in enumerate(bag.images()):
            if i in chosen:
                pixels = np.asarray(PilImage.fromarray(message.decode()).resize((640, 480)))
                image = Image(height=480, width=640, encoding="rgb8", step=3 * 640)
                image.data = pixels.tobytes()
                (folder / f"{i:05d}.cdr").write_bytes(serialize_message(image))
    return folder


def memory_growth(memory: list[tuple[float, float]]) -> tuple[float, float, float]:
    """MB at the begin and at the end, and a fitted MB an hour, after the warm-up."""
    times_s, mb = np.array(memory).T
    warm_s = max(0.1 * times_s[-1], min(60.0, 0.3 * times_s[-1]))
    times_s, mb = times_s[times_s >= warm_s], mb[times_s >= warm_s]
    fifth = max(1, len(mb) // 5)
    slope = float(np.polyfit(times_s, mb, 1)[0]) * 3600 if len(mb) > 2 else 0.0
    return float(np.median(mb[:fifth])), float(np.median(mb[-fifth:])), slope


def run(
    minutes: float, cameras: int, hz: float, output: Path, most_growth: float, round_s: float
) -> int:
    """The soak; 0 where all demands hold."""
    os.environ.update(loopback_environment())
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    output.mkdir(parents=True, exist_ok=True)
    rounds = max(2, round(minutes * 60 / round_s))
    with (
        tempfile.TemporaryDirectory(prefix="mspn_soak_") as folder,
        ExitStack() as stack,
        progress_bar("soak") as update,
    ):
        soak = Soak(stack, cameras, Path(folder))
        for number in range(rounds):
            soak.round(number, hz, round_s)
            update(number + 1, rounds)
        engine = (soak.collector.diagnostics or {}).get("engine", "")
    start_mb, end_mb, slope = memory_growth(soak.track.memory)
    total = sum(soak.fates.values(), Counter())
    growth = end_mb / start_mb - 1
    if growth >= most_growth:
        soak.troubles.append(f"memory grew by {growth:.2%}: {start_mb:.1f} to {end_mb:.1f} MB")
    if sum(total[fate] for fate in FATES[1:]) != total["published"] or not total["answered"]:
        soak.troubles.append(f"frames are not accounted for: {dict(total)}")
    result = {
        "minutes": minutes,
        "cameras": cameras,
        "hz": hz,
        "engine": engine,
        "frames": {fate: total[fate] for fate in FATES},
        "by_camera": {name: {f: fates[f] for f in FATES} for name, fates in soak.fates.items()},
        "memory_start_mb": start_mb,
        "memory_end_mb": end_mb,
        "memory_growth": growth,
        "memory_mb_per_hour": slope,
        "events": dict(Counter(event for _, event in soak.track.events)),
        "troubles": soak.troubles,
    }
    write_json(output / "soak.json", result)
    plot(soak.track, output / "soak.png")
    console.print(json.dumps(result, indent=1), highlight=False)
    return 1 if soak.troubles else 0


def plot(track: Track, path: Path) -> None:
    """Memory, latency, rate and scenes over time, with what happened."""
    figure, axes = new_figure(1, 4, width=10.0, height=2.2)
    rows = list(axes[:, 0])
    rows[0].plot(*np.array(track.memory).T, color=TRUE_COLOUR)
    rows[0].set_ylabel("resident memory, MB")
    latency = np.array(track.latency).T
    rows[1].plot(latency[0], latency[1], color=TRUE_COLOUR, label="p50")
    rows[1].plot(latency[0], latency[2], color=ESTIMATE_COLOUR, label="p95")
    rows[1].set_ylabel("latency, ms")
    rows[1].legend(loc="upper right")
    rows[2].plot(*np.array(track.rate).T, color=TRUE_COLOUR)
    rows[2].set_ylabel("answers a second")
    names = sorted({scene.partition("@")[0] for _, scene in track.scenes})
    places = {name: place for place, name in enumerate(names)}
    seen = [(at_s, places[scene.partition("@")[0]]) for at_s, scene in track.scenes]
    rows[3].plot(*np.array(seen).T, ".", ms=2, color=ESTIMATE_COLOUR)
    rows[3].set_yticks(range(len(names)), names)
    rows[3].set_xlabel("seconds; lines: a scene renamed or replaced, the node paused (dashed)")
    for axis in rows:
        axis.set_xlim(0, track.memory[-1][0])
    for at_s, event in track.events:
        style = "--" if event.startswith("deactivated") else "-"
        for axis in rows:
            axis.axvline(at_s, color=ERROR_COLOUR, lw=0.4, ls=style)
    save_figure(figure, path)


def main() -> int:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--hz", type=float, default=30.0)
    parser.add_argument("--round", type=float, default=20.0, help="seconds between two events")
    parser.add_argument("--output", type=Path, default=Path("soak"))
    parser.add_argument("--most-growth", type=float, default=MOST_GROWTH, help="of memory")
    given = parser.parse_args()
    try:
        return run(
            given.minutes, given.cameras, given.hz, given.output, given.most_growth, given.round
        )
    except MspnError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
