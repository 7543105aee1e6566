# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes about the frames: the topics of the ROS interface, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from std_msgs.msg import Int32, String

from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.node import interface
from mspn_ros.node.messages import answer_json, catalogue_json, pose_stamped, pose_with_covariance
from mspn_ros.node.qos import Mismatches
from mspn_ros.records import PoseEstimate


class Outputs:
    """The publishers of one configured node; names are relative to its namespace."""

    def __init__(self, node: Any, qos: Mismatches, cameras: Iterable[str] = ()) -> None:
        """``cameras``: names of those that have a pose topic of their own.

        Raises:
            ConfigError: an override of a topic's quality of service that does not go.
        """
        self._node, self._qos = node, qos
        self._publishers: list[Any] = []
        try:
            self._pose = self._create(interface.POSE)
            self._pose_with_covariance = self._create(interface.POSE_WITH_COVARIANCE)
            self._scene_id = self._create(interface.SCENE_ID)
            self._scene = self._create(interface.SCENE)
            self._answer = self._create(interface.ANSWER)
            self._catalogue = self._create(interface.SCENES)
            self._probabilities = self._create_probabilities()
            self._camera_poses = {
                name: self._create(interface.CAMERA_POSE, name) for name in cameras
            }
        except BaseException:
            self.destroy()
            raise

    def _create(self, topic: interface.Topic, camera: str = "") -> Any:
        name = topic.name.format(camera=camera)
        publisher = self._qos.publisher(topic.message_type, name, topic.qos.profile())
        self._publishers.append(publisher)
        return publisher

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers:
            self._qos.forget(publisher)
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = []

    def publish_catalogue(self, scenes: Iterable[SceneInfo]) -> None:
        """The latched list of scenes, also for those who come later."""
        self._catalogue.publish(String(data=catalogue_json(scenes)))

    def publish_rejection(self, header: Any, camera: str, cause: str, reason: str) -> None:
        """The answer for a frame that could not be processed; nothing else is published."""
        self._answer.publish(String(data=answer_json(header, camera, None, reason, cause)))

    def publish_answer(
        self, header: Any, camera: str, estimate: PoseEstimate, scale: float, axes: str, reason: str
    ) -> None:
        """One camera's answer and, where it has a topic for that and knows the place, its pose.

        ``camera``: its name, or its topic. ``scale`` (metres per unit of the scene) and ``axes``:
        see ``messages.pose_stamped``. ``reason``: why it gives no pose of the robot, or empty.
        """
        text = answer_json(header, camera, estimate, reason, None)
        self._answer.publish(String(data=text))
        if estimate.known and camera in self._camera_poses:
            pose = pose_stamped(header.stamp, estimate, scale, axes)
            self._camera_poses[camera].publish(pose)

    def publish_best(self, header: Any, estimate: PoseEstimate, scale: float, axes: str) -> None:
        """The answer that speaks for the robot: scene, probabilities and, where known, the pose."""
        self._scene_id.publish(Int32(data=estimate.scene_id))
        self._scene.publish(String(data=estimate.scene))
        if self._probabilities is not None:
            self._probabilities.publish(_classification(header, estimate))
        if not estimate.known:
            return
        pose = pose_stamped(header.stamp, estimate, scale, axes)
        self._pose.publish(pose)
        with_covariance = pose_with_covariance(pose, estimate, scale)
        if with_covariance is not None:
            self._pose_with_covariance.publish(with_covariance)

    def _create_probabilities(self) -> Any:
        # Not among the ROS 2 wheels; its absence costs this topic only.
        try:
            return self._create(interface.SCENE_PROBABILITIES)
        except ImportError:
            self._node.get_logger().info(
                "vision_msgs is not installed: scene_probabilities is not published "
                "(apt install ros-$ROS_DISTRO-vision-msgs)"
            )
            return None


def _classification(header: Any, estimate: PoseEstimate) -> Any:
    from vision_msgs.msg import Classification, ObjectHypothesis

    ranked = sorted(estimate.probabilities.items(), key=lambda item: -item[1])
    results = [ObjectHypothesis(class_id=name, score=score) for name, score in ranked]
    return Classification(header=header, results=results)
