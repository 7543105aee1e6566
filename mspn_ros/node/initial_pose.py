# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``~/publish_initialpose``: tells AMCL where the robot is once several answers agree on it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.clock import Clock, ClockType
from rclpy.task import Future
from scipy.spatial.transform import Rotation

from mspn_ros.node.agreement import Agreed, Agreement, Bounds, PoseAnswer
from mspn_ros.node.declared_parameters import read_parameter
from mspn_ros.node.interface import INITIALPOSE
from mspn_ros.node.messages import ns_to_stamp


@dataclass(slots=True)
class _Round:
    """One collection of answers, for all who have asked since it began."""

    agreement: Agreement
    timeout_s: float
    future: Any
    timer: Any = None


class InitialPose:
    """Collects answers on request and publishes their pose, or says why not.

    Asked on the executor's thread, fed on the worker's.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = node.create_lifecycle_publisher(
            PoseWithCovarianceStamped, INITIALPOSE.name, INITIALPOSE.qos.profile()
        )
        self._lock = threading.Lock()
        self._round: _Round | None = None

    @property
    def collecting(self) -> bool:
        """Whether answers are wanted."""
        return self._round is not None

    async def answer(self, response: Any) -> Any:
        """Fill a ``std_srvs/Trigger`` response when there is a pose, or the time is over."""
        current = self._round or self._begin()
        # Awaited, not waited for: the executor goes on to take frames.
        response.success, response.message = await current.future
        if current.timer is not None:
            self._node.destroy_timer(current.timer)
            current.timer = None
        return response

    def add(self, answer: PoseAnswer) -> None:
        """An answer's pose of the robot, or of its camera."""
        with self._lock:
            current = self._round
            agreed = current.agreement.add(answer) if current is not None else None
        if current is not None and agreed is not None:
            self._end(current, *self._publish(agreed))

    def miss(self, reason: str) -> None:
        """A frame that gave no pose."""
        with self._lock:
            if self._round is not None:
                self._round.agreement.miss(reason)

    def stop(self, reason: str) -> None:
        """No more answers come; whoever waits is told so."""
        current = self._round
        if current is not None:
            self._end(current, False, f"{reason}: {current.agreement.shortfall()}")

    def destroy(self) -> None:
        """Take the topic away."""
        self.stop("the node was cleaned up")
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _begin(self) -> _Round:
        bounds = Bounds(
            read_parameter(self._node, "initialpose_answers"),
            read_parameter(self._node, "initialpose_max_distance"),
            read_parameter(self._node, "initialpose_max_angle"),
        )
        timeout_s = read_parameter(self._node, "initialpose_timeout")
        current = _Round(Agreement(bounds), timeout_s, Future())
        # Steady: the time limit holds while simulated time stands still, too.
        current.timer = self._node.create_timer(
            timeout_s,
            lambda: self._end(
                current, False, f"{current.agreement.shortfall()}, in {timeout_s:g} s"
            ),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._round = current
        return current

    def _end(self, current: _Round, success: bool, text: str) -> None:
        with self._lock:
            if self._round is not current:
                return
            self._round = None
        current.future.set_result((success, text))
        if self._node.executor is not None:
            self._node.executor.wake()

    def _publish(self, agreed: Agreed) -> tuple[bool, str]:
        self._publisher.publish(_message(agreed.pose))
        topic = self._publisher.topic_name
        text = f"sent to {topic}: {describe(agreed)}"
        if not self._publisher.get_subscription_count():
            return False, f"nobody subscribes to {topic}: start AMCL or remap the topic; {text}"
        return True, text


def _message(answer: PoseAnswer) -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped()
    message.header.stamp = ns_to_stamp(answer.stamp_ns)
    message.header.frame_id = answer.frame_id
    position, turn = message.pose.pose.position, message.pose.pose.orientation
    position.x, position.y, position.z = (float(v) for v in answer.position)
    turn.x, turn.y, turn.z, turn.w = (float(v) for v in answer.quaternion)
    message.pose.covariance = answer.covariance.ravel()
    return message


def describe(agreed: Agreed) -> str:
    """The pose in words, as AMCL reads it: x, y and yaw, and how they were found."""
    pose = agreed.pose
    yaw = math.degrees(Rotation.from_quat(pose.quaternion).as_euler("ZYX")[0])
    deviation = np.sqrt(np.diag(pose.covariance))
    text = (
        f"{pose.subject} at x {pose.position[0]:.2f} m, y {pose.position[1]:.2f} m, "
        f"yaw {yaw:.1f} deg in {pose.frame_id!r} (scene {pose.scene}), standard deviations "
        f"{deviation[0]:.2g} m, {deviation[1]:.2g} m, {math.degrees(deviation[5]):.2g} deg; "
        f"{agreed.count} answers agree within {agreed.spread_m:.2f} m and "
        f"{math.degrees(agreed.spread_rad):.1f} deg of it"
    )
    if agreed.speed_m_s or agreed.turn_rad_s:
        text += (
            f"; it moved at {agreed.speed_m_s:.2g} m/s and {math.degrees(agreed.turn_rad_s):.2g} "
            "deg/s meanwhile: the pose is that at the message's stamp"
        )
    return text
