# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A camera for the benchmark, in a process of its own: its Python shall not hold up who measures.

    python -m mspn_ros.node.bench_camera TOPIC raw|compressed FOLDER

FOLDER holds serialized images, *.cdr, which are played in turn, each with the time as its stamp.
Every line on stdin, {"rate_hz", "seconds", "match_s", "hold_s", "journal"}, is answered when it has
been played by one on stdout, {"frames": [[stamp in ns, time.monotonic just before it was
published], ...]}. With "hold_s" all cameras of a machine show the same image at a time, for so
long. "journal" names a file that tells of each frame though the camera be killed, see
``read_journal``. SIGUSR1 ends what is played before its time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from mspn_ros.node.session import MATCH_SLACK_S, ros_node, with_stamp
from mspn_ros.node.transport import process_environment
from mspn_ros.paths import PACKAGE
from mspn_ros.records import RosError

MESSAGE_TYPES = {"raw": Image, "compressed": CompressedImage}


class CameraProcess:
    """The parent's side; the process ends when the context is left.

    ``profile``: with the Fast DDS profile, if this process has it, see ``process_environment``.
    """

    def __init__(self, topic: str, transport: str, folder: Path, profile: bool = True) -> None:
        command = [sys.executable, "-m", "mspn_ros.node.bench_camera"]
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        self._log = tempfile.TemporaryFile(mode="a+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, topic, transport, str(folder)],
            env={**process_environment(profile), "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> CameraProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if any(exception):
            self._process.terminate()  # it may be playing
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def end(self) -> None:
        """What it plays is over now; ``played`` tells of it as ever."""
        self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """SIGKILL: it neither ends what it plays nor answers."""
        self._process.kill()
        self._process.wait()

    def begin(
        self,
        rate_hz: float,
        seconds: float,
        match_s: float = 30.0,
        hold_s: float = 0.0,
        journal: Path | None = None,
    ) -> None:
        """Publish at that rate, or as near to it as this machine can; returns at once.

        A subscription is waited for ``match_s`` at most. ``hold_s``, ``journal``: see the module.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which the missing answer tells
            asked: dict[str, Any] = {"rate_hz": rate_hz, "seconds": seconds, "match_s": match_s}
            asked |= {"hold_s": hold_s, "journal": str(journal) if journal else ""}
            print(json.dumps(asked), file=self._process.stdin, flush=True)

    def played(self) -> list[tuple[int, float]]:
        """Wait for the end of what was begun: (stamp in ns, time) of each image.

        Times are those of ``time.monotonic``.

        Raises:
            RosError: nobody subscribes, or the process ended.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # Fast DDS may say something as well
                return [(stamp_ns, time_s) for stamp_ns, time_s in json.loads(line)["frames"]]
        self._log.seek(0)
        said = [line for line in self._log.read().splitlines() if line.strip()] or ["no output"]
        raise RosError(f"the camera of the benchmark ended: {said[-1]}")


@dataclass(frozen=True, slots=True)
class JournalFrame:
    """One frame of a camera: stamp in ns, ``time.monotonic`` just before it was published.

    ``matched``: the camera had a subscription right before or right after it published the frame.
    ``whole`` is False for the one frame that a camera was at when it was killed, if it was at one;
    whether that frame left is not known.
    """

    stamp_ns: int
    time_s: float
    matched: bool
    whole: bool = True


def read_journal(path: Path) -> list[JournalFrame]:
    """The frames that a camera published, in their order; of one that was killed too."""
    frames = []
    for line in path.read_text().splitlines():
        stamp, time_s, *matched = line.split()
        whole = bool(matched)
        frames.append(JournalFrame(int(stamp), float(time_s), matched != ["0"], whole))
    return frames


def image_at(stamp_ns: int, hold_s: float, count: int) -> int:
    """Which of ``count`` images cameras with that ``hold_s`` show at a time."""
    return int(stamp_ns // int(hold_s * 1e9)) % count


def _play(
    publisher: Any,
    messages: Sequence[bytes],
    rate_hz: float,
    seconds: float,
    hold_s: float,
    journal: int | None,
    ended: threading.Event,
) -> list[tuple[int, float]]:
    frames: list[tuple[int, float]] = []
    due_s = time.monotonic()
    end_s = due_s + seconds
    while due_s < end_s and not ended.is_set():
        stamp_ns = time.time_ns()
        place = image_at(stamp_ns, hold_s, len(messages)) if hold_s else len(frames) % len(messages)
        cdr = with_stamp(messages[place], stamp_ns)
        time.sleep(max(0.0, due_s - time.monotonic()))
        frames.append((stamp_ns, time.monotonic()))
        if journal is None:
            publisher.publish(cdr)
        else:
            _publish_noted(publisher, cdr, frames[-1], journal)
        # A camera that is late goes on from there; it does not make up for frames by a burst.
        due_s = max(due_s + 1 / rate_hz, time.monotonic())
    return frames


def _publish_noted(publisher: Any, cdr: bytes, frame: tuple[int, float], journal: int) -> None:
    # What is written is there though the process be killed next.
    os.write(journal, f"{frame[0]} {frame[1]:.6f}".encode())
    before = publisher.get_subscription_count()
    publisher.publish(cdr)
    matched = bool(before or publisher.get_subscription_count())
    os.write(journal, f" {matched:d}\n".encode())


def _wait_for_subscription(publisher: Any, topic: str, match_s: float) -> None:
    end_s = time.monotonic() + match_s
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > end_s:
            raise RosError(f"nobody subscribed to {topic} within {match_s:g} s")
        time.sleep(0.02)
    time.sleep(MATCH_SLACK_S)


def _open_journal(path: str) -> int | None:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else None


def main(arguments: Sequence[str]) -> int:
    """Play what stdin asks for until it is closed."""
    topic, transport, folder = arguments
    ended = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: ended.set())
    messages = [path.read_bytes() for path in sorted(Path(folder).glob("*.cdr"))]
    with ros_node("bench_camera") as node:
        publisher = node.create_publisher(MESSAGE_TYPES[transport], topic, qos_profile_sensor_data)
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                _wait_for_subscription(publisher, topic, asked["match_s"])
            except RosError as error:
                print(error, file=sys.stderr)
                return 1
            ended.clear()
            journal = _open_journal(asked["journal"])
            frames = _play(
                publisher,
                messages,
                asked["rate_hz"],
                asked["seconds"],
                asked["hold_s"],
                journal,
                ended,
            )
            if journal is not None:
                os.close(journal)
            print(json.dumps({"frames": frames}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
