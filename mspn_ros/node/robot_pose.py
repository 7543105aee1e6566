# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From what cameras see to where the robot is: base_frame's pose, TF, and the initial pose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.mounting import BODY_TO_OPTICAL
from mspn_ros.node.agreement import PoseAnswer
from mspn_ros.node.cameras import CameraConfig
from mspn_ros.node.declared_parameters import camera_parameter, read_parameter
from mspn_ros.node.initial_pose import InitialPose
from mspn_ros.node.messages import covariance_in_metres, stamp_to_ns
from mspn_ros.node.mounting import (
    FROM_TF,
    RigidTransform,
    base_estimate,
    parse_mounting,
    require_all_or_none,
)
from mspn_ros.node.tf_output import MAP_TO_ODOM, NO_TF, TfOutput, require_tf_frames
from mspn_ros.node.transforms import Transforms, require_tf2
from mspn_ros.records import ConfigError, MspnError, PoseEstimate, RosError


class RobotPose:
    """What one configured node knows of the robot around its cameras.

    ``mounted``: whether the topics ``pose`` and ``pose_with_covariance`` are of ``base_frame``;
    otherwise they are of the camera. ``log`` gets warnings, with a key for each kind.
    """

    def __init__(
        self, node: Any, configs: Sequence[CameraConfig], log: Callable[[str, str], None]
    ) -> None:
        """On the executor's thread.

        Raises:
            ConfigError: a mounting that is none, mountings of some cameras only, or TF that is
                asked for where it is not installed or not possible.
        """
        self._log = log
        names = [camera_parameter(config.name, "mounting") for config in configs]
        values = [config.mounting for config in configs]
        self._mountings = [parse_mounting(*one) for one in zip(names, values, strict=True)]
        require_all_or_none(dict(zip(names, values, strict=True)))
        _require_own(read_parameter(node, "mounting"), names)
        self.mounted = self._mountings[0] is not None
        self.base_frame = read_parameter(node, "base_frame")
        mode, odom_frame = read_parameter(node, "publish_tf"), read_parameter(node, "odom_frame")
        require_tf_frames(mode, self.mounted, self.base_frame, odom_frame)
        self._transforms: Transforms | None = None
        self._broadcaster: Any = None
        self._tf_output: TfOutput | None = None
        # By camera, or by what else; what is to be said as long as it is so.
        self._troubles: dict[str, str] = {}
        tf2_ros = None
        if mode != NO_TF:
            tf2_ros = require_tf2("publish_tf", mode, "set publish_tf to none")
        if FROM_TF in self._mountings:
            name = names[self._mountings.index(FROM_TF)]
            tf2_ros = require_tf2(name, FROM_TF, "give the mounting in numbers")
        if FROM_TF in self._mountings or mode == MAP_TO_ODOM:
            self._transforms = Transforms(node, tf2_ros)
        if tf2_ros is not None and mode != NO_TF:
            self._broadcaster = tf2_ros.TransformBroadcaster(node)
            self._tf_output = TfOutput(
                self._broadcaster.sendTransform,
                self._transforms if mode == MAP_TO_ODOM else None,
                self.base_frame,
                odom_frame,
                read_parameter(node, "transform_tolerance"),
            )
        self.initial_pose = InitialPose(node)
        self._node = node

    @property
    def warnings(self) -> list[str]:
        """What is to be said as long as it is so."""
        texts = list(dict.fromkeys(self._troubles.values()))
        output = self._tf_output
        return texts + ([output.trouble] if output is not None and output.trouble else [])

    def estimate(self, camera: int, header: Any, estimate: PoseEstimate) -> PoseEstimate:
        """What a camera's answer says of the robot.

        The pose of ``base_frame``, or none if it does not follow; without mountings the camera's
        own.
        """
        if not self.mounted or not estimate.known:
            return estimate
        try:
            found = base_estimate(estimate, self._base_from_camera(camera, header))
        except MspnError as error:
            trouble = f"no pose of {self.base_frame}: {error}"
            self._troubles[f"camera {camera}"] = trouble
            self._log(f"base {camera}", trouble)
            return replace(
                estimate, position=None, quaternion=None, covariance=None, reason=trouble
            )
        self._troubles.pop(f"camera {camera}", None)
        return found

    def hear(self, label: str, header: Any, robot: PoseEstimate) -> None:
        """Each camera's answer, as ``estimate`` has made it, for the initial pose."""
        if not self.initial_pose.collecting:
            return
        reason = robot.reason or f"scene {robot.scene!r} has no known scale"
        covariance = covariance_in_metres(robot, robot.metres_per_unit or 1.0)
        if not robot.known or robot.metres_per_unit is None or covariance is None:
            self.initial_pose.miss(reason)
            return
        assert robot.position is not None
        assert robot.quaternion is not None
        rotation, subject = Rotation.from_quat(robot.quaternion), self.base_frame
        if not self.mounted:
            rotation = rotation * BODY_TO_OPTICAL
            subject = f"camera {label} (no mounting says where {self.base_frame} is)"
        position = robot.metres_per_unit * np.asarray(robot.position)
        self.initial_pose.add(
            PoseAnswer(
                stamp_to_ns(header.stamp),
                robot.scene,
                robot.frame_id,
                subject,
                position,
                np.asarray(rotation.as_quat()),
                covariance,
            )
        )

    def broadcast(self, header: Any, robot: PoseEstimate) -> None:
        """The answer that speaks for the robot, to TF if that is asked for."""
        output = self._tf_output
        if output is not None and robot.known:
            output.publish(header.stamp, robot)
            if output.trouble:
                self._log("publish_tf", output.trouble)

    def stop(self, reason: str) -> None:
        """No answers come any more, for ``reason``."""
        self.initial_pose.stop(reason)
        self._troubles.clear()
        if self._tf_output is not None:
            self._tf_output.reset()

    def close(self) -> None:
        """Let subscriptions and topics go."""
        self.initial_pose.destroy()
        if self._broadcaster is not None:
            self._node.destroy_publisher(self._broadcaster.pub_tf)
        if self._transforms is not None:
            self._transforms.close()

    def _base_from_camera(self, camera: int, header: Any) -> RigidTransform:
        mounting = self._mountings[camera]
        if isinstance(mounting, RigidTransform):
            return mounting
        assert self._transforms is not None
        if not header.frame_id:
            raise RosError("the images' header names no frame_id to look up in TF")
        return self._transforms.parent_from_child(self.base_frame, header.frame_id, header.stamp)


def _require_own(shared: str, names: Sequence[str]) -> None:
    """Refuse numbers that would put several cameras in one place."""
    if len(names) > 1 and isinstance(parse_mounting("mounting", shared), RigidTransform):
        raise ConfigError(
            f"parameter mounting: {shared!r} would be that of {len(names)} cameras; set "
            f"{', '.join(names)} instead"
        )
