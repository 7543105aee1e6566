# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a localizer publishes, recorded beside what was sent to it."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String

from mspn_ros.node.interface import ANSWER, SCENES
from mspn_ros.node.messages import stamp_to_ns
from mspn_ros.records import Pose


@dataclass(frozen=True, slots=True)
class LiveRecord:
    """One frame that was published, and what came back for it.

    ``published_s`` counts from the first frame. ``processed`` is False for a frame that was
    overtaken or lost; then all below is empty. ``rejected`` names the cause where the node could
    not process the frame. ``pose`` is as published: in metres where the scene's scale is known,
    in the node's ``pose_axes``. Latencies run from publishing the image to receiving the answer
    and the pose, in seconds.
    """

    stamp_ns: int
    published_s: float
    processed: bool = False
    scene_id: int = -1
    scene: str = ""
    confidence: float | None = None
    reason: str = ""
    rejected: str | None = None
    pose: Pose | None = None
    frame_id: str = ""
    latency_s: float | None = None
    pose_latency_s: float | None = None


# A second of Python's standing still must not cost answers of several cameras.
_HEARD = replace(ANSWER.qos, depth=1000)


class Collector:
    """Subscribes, on its own thread, to a localizer's catalogue, answers, poses and diagnostics.

    ``node`` is an rclpy node of the context ``context``; ``namespace`` the localizer's, such as
    ``/mspn``. Times are those of ``time.monotonic``.
    """

    def __init__(self, node: Any, namespace: str, localizer_name: str, context: Any) -> None:
        self._status_name = f"{namespace}/{localizer_name}"
        self._changed = threading.Condition()
        self._answers: dict[int, list[tuple[dict[str, Any], float]]] = defaultdict(list)
        self._poses: dict[int, list[tuple[PoseStamped, float]]] = defaultdict(list)
        self.catalogue: list[dict[str, Any]] | None = None
        self.diagnostics: dict[str, str] | None = None
        self.diagnostics_s = self.last_answer_s = self.catalogue_s = float("-inf")
        # By name, the statuses of a node's cameras where it has several.
        self.cameras: dict[str, dict[str, str]] = {}
        for message_type, topic, callback, qos in (
            (String, f"{namespace}/scenes", self._on_catalogue, SCENES.qos),
            (String, f"{namespace}/answer", self._on_answer, _HEARD),
            (PoseStamped, f"{namespace}/pose", self._on_pose, _HEARD),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, ANSWER.qos),
        ):
            node.create_subscription(message_type, topic, callback, qos.profile())
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._running = True
        self._thread = threading.Thread(target=self._spin, name="collect", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._running = False
        self._thread.join()
        self._executor.shutdown()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``condition`` holds, looked at after each message and ten times a second."""
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                if time.monotonic() >= end_s:
                    return False
                self._changed.wait(0.1)
        return True

    def records(self, published: Sequence[tuple[int, float]]) -> tuple[LiveRecord, ...]:
        """One record for each published (stamp in ns, time), in that order.

        Frames that share a stamp take its answers in the order in which they came.
        """
        with self._changed:
            answers = {stamp: iter(list(found)) for stamp, found in self._answers.items()}
            poses = {stamp: iter(list(found)) for stamp, found in self._poses.items()}
        records = []
        for stamp_ns, published_s in published:
            answer = next(answers.get(stamp_ns, iter(())), None)
            # Only an answer that names a scene is followed by a pose.
            pose = None
            if answer is not None and answer[0]["scene_id"] >= 0:
                pose = next(poses.get(stamp_ns, iter(())), None)
            records.append(_record(stamp_ns, published_s, published[0][1], answer, pose))
        return tuple(records)

    def take(self) -> tuple[list[tuple[dict[str, Any], float]], list[tuple[PoseStamped, float]]]:
        """All (answer, time) and (pose, time) since the last call, as they came; forgets them."""
        with self._changed:
            answers, self._answers = self._answers, defaultdict(list)
            poses, self._poses = self._poses, defaultdict(list)
        return (
            sorted(chain(*answers.values()), key=itemgetter(1)),
            sorted(chain(*poses.values()), key=itemgetter(1)),
        )

    def _spin(self) -> None:
        while self._running:
            self._executor.spin_once(timeout_sec=0.1)

    def _on_catalogue(self, message: String) -> None:
        with self._changed:
            self.catalogue = json.loads(message.data)
            self.catalogue_s = time.monotonic()
            self._changed.notify_all()

    def _on_answer(self, message: String) -> None:
        now_s = time.monotonic()
        answer = json.loads(message.data)
        stamp = answer["stamp"]
        with self._changed:
            self._answers[stamp["sec"] * 10**9 + stamp["nanosec"]].append((answer, now_s))
            self.last_answer_s = now_s
            self._changed.notify_all()

    def _on_pose(self, message: PoseStamped) -> None:
        now_s = time.monotonic()
        with self._changed:
            self._poses[stamp_to_ns(message.header.stamp)].append((message, now_s))
            self._changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        statuses = {
            status.name: {item.key: item.value for item in status.values}
            for status in message.status
            if status.name.startswith(self._status_name)
        }
        if self._status_name not in statuses:
            return
        with self._changed:
            self.diagnostics = statuses.pop(self._status_name)
            start = f"{self._status_name}: "
            self.cameras = {name.removeprefix(start): one for name, one in statuses.items()}
            self.diagnostics_s = time.monotonic()
            self._changed.notify_all()


def _record(
    stamp_ns: int,
    published_s: float,
    start_s: float,
    answer: tuple[dict[str, Any], float] | None,
    pose: tuple[PoseStamped, float] | None,
) -> LiveRecord:
    if answer is None:
        return LiveRecord(stamp_ns, published_s - start_s)
    fields, answered_s = answer
    return LiveRecord(
        stamp_ns,
        published_s - start_s,
        processed=True,
        scene_id=fields["scene_id"],
        scene=fields["scene"],
        confidence=fields["confidence"],
        reason=fields["reason"],
        rejected=fields["rejected"],
        pose=None if pose is None else _pose(pose[0]),
        frame_id="" if pose is None else pose[0].header.frame_id,
        latency_s=answered_s - published_s,
        pose_latency_s=None if pose is None else pose[1] - published_s,
    )


def _pose(message: PoseStamped) -> Pose:
    position, turn = message.pose.position, message.pose.orientation
    return Pose(
        np.array([position.x, position.y, position.z]),
        np.array([turn.x, turn.y, turn.z, turn.w]),
    )
