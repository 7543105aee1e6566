"""A camera for the benchmark, in a process of its own: its Python shall not hold up who measures.

    python -m mspn_ros.node.bench_camera TOPIC raw|compressed FOLDER

FOLDER holds serialized images, *.cdr, which are played in turn, each with the time as its stamp.
Every line on stdin, {"rate_hz", "seconds", "match_s"}, is answered when it has been played by one
on stdout, {"frames": [[stamp in ns, time.monotonic just before it was published], ...]}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from mspn_ros.node.session import MATCH_SLACK_S, ros_node, with_stamp
from mspn_ros.paths import PACKAGE
from mspn_ros.records import RosError

MESSAGE_TYPES = {"raw": Image, "compressed": CompressedImage}


class CameraProcess:
    """The parent's side; the process ends when the context is left."""

    def __init__(self, topic: str, transport: str, folder: Path) -> None:
        command = [sys.executable, "-m", "mspn_ros.node.bench_camera"]
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        self._log = tempfile.TemporaryFile(mode="a+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, topic, transport, str(folder)],
            env={**os.environ, "PYTHONPATH": path},
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

    def begin(self, rate_hz: float, seconds: float, match_s: float = 30.0) -> None:
        """Publish at that rate, or as near to it as this machine can; returns at once.

        A subscription is waited for ``match_s`` at most.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which the missing answer tells
            asked = {"rate_hz": rate_hz, "seconds": seconds, "match_s": match_s}
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


def _play(
    publisher: Any, messages: Sequence[bytes], rate_hz: float, seconds: float
) -> list[tuple[int, float]]:
    frames: list[tuple[int, float]] = []
    due_s = time.monotonic()
    end_s = due_s + seconds
    while due_s < end_s:
        stamp_ns = time.time_ns()
        cdr = with_stamp(messages[len(frames) % len(messages)], stamp_ns)
        time.sleep(max(0.0, due_s - time.monotonic()))
        frames.append((stamp_ns, time.monotonic()))
        publisher.publish(cdr)
        # A camera that is late goes on from there; it does not make up for frames by a burst.
        due_s = max(due_s + 1 / rate_hz, time.monotonic())
    return frames


def _wait_for_subscription(publisher: Any, topic: str, match_s: float) -> None:
    end_s = time.monotonic() + match_s
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > end_s:
            raise RosError(f"nobody subscribed to {topic} within {match_s:g} s")
        time.sleep(0.02)
    time.sleep(MATCH_SLACK_S)


def main(arguments: Sequence[str]) -> int:
    """Play what stdin asks for until it is closed."""
    topic, transport, folder = arguments
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
            frames = _play(publisher, messages, asked["rate_hz"], asked["seconds"])
            print(json.dumps({"frames": frames}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
