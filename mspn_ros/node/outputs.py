"""What the node publishes about the frames: the topics of the ROS interface, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Int32, String

from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.node.messages import answer_json, catalogue_json, pose_stamped, pose_with_covariance
from mspn_ros.records import PoseEstimate

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# Answers are the record of what was done with each frame: a slow reader should not miss one.
ANSWERS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_DEPTH = 10


def image_qos(reliability: str) -> QoSProfile:
    """Depth 1 (a queue only ages the frames), ``best_effort`` or ``reliable``."""
    policies = {
        "best_effort": ReliabilityPolicy.BEST_EFFORT,
        "reliable": ReliabilityPolicy.RELIABLE,
    }
    return QoSProfile(depth=1, reliability=policies[reliability])


class Outputs:
    """The publishers of one configured node; names are relative to its namespace."""

    def __init__(self, node: Any, cameras: Iterable[str] = ()) -> None:
        """``cameras``: names of those that have a pose topic of their own."""
        self._node = node
        create = node.create_lifecycle_publisher
        self._pose = create(PoseStamped, "pose", _DEPTH)
        self._pose_with_covariance = create(
            PoseWithCovarianceStamped, "pose_with_covariance", _DEPTH
        )
        self._scene_id = create(Int32, "scene_id", _DEPTH)
        self._scene = create(String, "scene", _DEPTH)
        self._answer = create(String, "answer", ANSWERS)
        self._catalogue = create(String, "scenes", LATCHED)
        self._probabilities = self._create_probabilities()
        self._camera_poses = {name: create(PoseStamped, f"{name}/pose", _DEPTH) for name in cameras}

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in (
            self._pose,
            self._pose_with_covariance,
            self._scene_id,
            self._scene,
            self._answer,
            self._catalogue,
            self._probabilities,
            *self._camera_poses.values(),
        ):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)

    def publish_catalogue(self, scenes: Iterable[SceneInfo]) -> None:
        """The latched list of scenes, also for those who come later."""
        self._catalogue.publish(String(data=catalogue_json(scenes)))

    def publish_rejection(self, header: Any, camera: str, cause: str, reason: str) -> None:
        """The answer for a frame that could not be processed; nothing else is published."""
        self._answer.publish(String(data=answer_json(header, camera, None, reason, cause)))

    def publish_answer(
        self, header: Any, camera: str, estimate: PoseEstimate, scale: float, axes: str
    ) -> None:
        """One camera's answer and, where it has a topic for that and knows the place, its pose.

        ``camera``: its name, or its topic. ``scale`` (metres per unit of the scene) and ``axes``:
        see ``messages.pose_stamped``.
        """
        text = answer_json(header, camera, estimate, estimate.reason, None)
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
            from vision_msgs.msg import Classification
        except ImportError:
            self._node.get_logger().info(
                "vision_msgs is not installed: scene_probabilities is not published "
                "(apt install ros-$ROS_DISTRO-vision-msgs)"
            )
            return None
        return self._node.create_lifecycle_publisher(Classification, "scene_probabilities", _DEPTH)


def _classification(header: Any, estimate: PoseEstimate) -> Any:
    from vision_msgs.msg import Classification, ObjectHypothesis

    ranked = sorted(estimate.probabilities.items(), key=lambda item: -item[1])
    results = [ObjectHypothesis(class_id=name, score=score) for name, score in ranked]
    return Classification(header=header, results=results)
