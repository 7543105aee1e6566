# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node's ROS interface: the table that topics, services, README.md and docs are made from.

    python -m mspn_ros.node.interface > docs/interface.md

Needs no ROS until something is made from it.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, replace
from typing import Any

from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.parameters import parameter_table_markdown


@dataclass(frozen=True, slots=True)
class Qos:
    """Quality of service: ``latched`` is transient local, ``depth`` the queue's."""

    depth: int = 10
    reliable: bool = True
    latched: bool = False

    def profile(self) -> Any:
        """As an rclpy QoSProfile."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        reliability, durability = ReliabilityPolicy, DurabilityPolicy
        return QoSProfile(
            depth=self.depth,
            reliability=reliability.RELIABLE if self.reliable else reliability.BEST_EFFORT,
            durability=durability.TRANSIENT_LOCAL if self.latched else durability.VOLATILE,
        )

    def __str__(self) -> str:
        parts = ["reliable" if self.reliable else "best effort", f"depth {self.depth}"]
        return ", ".join(parts[:1] + ["transient local"] * self.latched + parts[1:])


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic; ``name`` is relative to the namespace unless it begins with a slash.

    ``{camera}`` in the name stands for each named camera's. ``type_name`` as in
    ``std_msgs/msg/String``; of several, the first unless ``transport`` says otherwise. ``when`` is
    when there are messages, ``optional`` what has to be for the topic to be there at all.
    """

    name: str
    type_name: str
    what: str
    when: str
    qos: Qos = Qos()
    optional: str = ""

    @property
    def message_type(self) -> Any:
        """Its class.

        Raises:
            ImportError: the package is not installed.
        """
        package, _, name = self.type_name.split("/")
        return getattr(importlib.import_module(f"{package}.msg"), name)

    def resolved(self, namespace: str = f"/{NAMESPACE}", camera: str = "<camera>") -> str:
        """The name in a namespace."""
        name = self.name.format(camera=camera)
        return name if name.startswith("/") else f"{namespace}/{name}"


@dataclass(frozen=True, slots=True)
class Service:
    """A service below the node's own name."""

    name: str
    type_name: str
    what: str

    def resolved(self, namespace: str = f"/{NAMESPACE}") -> str:
        """The name in a namespace."""
        return f"{namespace}/{NODE_NAME}/{self.name}"


IMAGES = Topic(
    "/camera/image_raw",
    "sensor_msgs/msg/Image",
    "The camera's images, or those of several cameras; of type `sensor_msgs/msg/CompressedImage` "
    "by `transport`. The newest of each camera only; JPEGs much larger than the network sees are "
    "decoded at a half, quarter or eighth.",
    "taken while the node is active; the topic by `image_topic`, reliability by `image_qos`",
    Qos(depth=1, reliable=False),
)
CAMERA_INFO = Topic(
    "/camera/camera_info",
    "sensor_msgs/msg/CameraInfo",
    "What the driver says of the camera: one that sees more than that of the training frames is "
    "[cut to its field of view](docs/scenes.md#another-camera-than-in-training), and models with "
    "landmarks or cells read rays by it; without it the camera of the training frames stands in.",
    "beside each image topic, or by `camera_info_topic`",
    Qos(depth=1, reliable=False),
    optional="where the model knows its training frames' camera or reads rays",
)
POSE = Topic(
    "pose",
    "geometry_msgs/msg/PoseStamped",
    "The pose of the camera, or of `base_frame` where `mounting` is known, in metres where the "
    "scene's scale is. The stamp is the image's, `frame_id` the scene's frame or its map's.",
    "with each answer that speaks for the robot and knows the place",
)
POSE_WITH_COVARIANCE = Topic(
    "pose_with_covariance",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "The same pose with the covariance of that image, as large as errors on held-out frames (of "
    "the scene, for linear heads); in m^2 and rad^2, about the axes of `frame_id`.",
    "as `pose`, where the scene has held-out errors",
)
SCENE_ID = Topic(
    "scene_id",
    "std_msgs/msg/Int32",
    "The scene's number in the bank; -1 where no scene is sure enough.",
    "with each answer that speaks for the robot",
)
SCENE = Topic(
    "scene",
    "std_msgs/msg/String",
    "The scene's name; `unknown` where no scene is sure enough.",
    "with each answer that speaks for the robot",
)
# The record of what was done with each frame: a slow reader should not miss one.
ANSWER = Topic(
    "answer",
    "std_msgs/msg/String",
    "JSON: stamp, camera, scene_id, scene, confidence, reason, rejected.",
    "one for each processed frame of each camera, before the pose",
    Qos(depth=100),
)
SCENE_PROBABILITIES = Topic(
    "scene_probabilities",
    "vision_msgs/msg/Classification",
    "The ten most likely scenes.",
    "with each answer that speaks for the robot",
    optional="only where vision_msgs is installed",
)
CAMERA_POSE = Topic(
    "{camera}/pose",
    "geometry_msgs/msg/PoseStamped",
    "One named camera's own pose; the best answer of all cameras is on the topics above.",
    "with each answer of that camera that knows the place",
    optional="for each name in `cameras`",
)
SCENES = Topic(
    "scenes",
    "std_msgs/msg/String",
    "JSON: the catalogue of scenes, a list of id, uuid, name, frame_id, frames, bytes and "
    "backbone_id.",
    "when the node is activated and when the bank has changed",
    Qos(depth=1, latched=True),
)
# Not latched: a pose that waited for AMCL to start might no longer be true.
INITIALPOSE = Topic(
    "/initialpose",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "Where the robot is, for AMCL or robot_localization; remap it for a nav2 in a namespace.",
    "once for each `~/publish_initialpose` that has found answers that agree",
    Qos(depth=1),
)
TF = Topic(
    "/tf",
    "tf2_msgs/msg/TFMessage",
    "The robot's pose as a transform, map -> base or map -> odom.",
    "with each pose of the robot, where `publish_tf` asks for it",
    Qos(depth=100),
    optional="off by default, and only where tf2_ros is installed",
)
DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "A status of the node, and one of each named camera: rate, latency percentiles and what they "
    "are made of, drops by cause, scene, device, engine, and what is wrong with its remedy.",
    "every `diagnostics_period`, in every state",
)
SUBSCRIPTIONS = (IMAGES, CAMERA_INFO)
PUBLISHERS = (
    POSE,
    POSE_WITH_COVARIANCE,
    SCENE_ID,
    SCENE,
    ANSWER,
    SCENE_PROBABILITIES,
    CAMERA_POSE,
    SCENES,
    INITIALPOSE,
    TF,
    DIAGNOSTICS,
)
RELOAD = Service(
    "reload",
    "std_srvs/srv/Trigger",
    "Reads the model again at once and says what changed; the node also watches it, see "
    "[docs/scenes.md](docs/scenes.md#a-running-node).",
)
PUBLISH_INITIALPOSE = Service(
    "publish_initialpose",
    "std_srvs/srv/Trigger",
    "Sends `/initialpose` once several answers agree, for AMCL or robot_localization: "
    "[docs/navigation.md](docs/navigation.md#kidnapped-robot-amcls-first-pose).",
)
SERVICES = (RELOAD, PUBLISH_INITIALPOSE)

# Values of the node's status on /diagnostics; {cause}, {stage} and {row} stand for names.
DIAGNOSTIC_VALUES = {
    "state": "of the lifecycle",
    "rate_hz": "answers a second since the status before",
    "received": "frames that DDS has delivered",
    "answered": "frames with an answer that is no rejection",
    "overtaken": "frames for which a newer one of their camera came before their turn",
    "rejected": "frames that could not be processed",
    "rejected.{cause}": "of these, by cause",
    "in_progress": "received, and none of the three yet",
    "skipped": "of the overtaken, those that `max_rate` has left out",
    "idle_s": "seconds since the last frame",
    "stamp_age_s": "by how much the last frame's stamp is behind the node's clock",
    "latency_{percentile}_ms": "from a frame's arrival to its answer: p50, p95, p99",
    "{stage}_{percentile}_ms": "what that is made of: waiting, decode, localize, publish "
    "(ros_adds: all but localize); p50, p95",
    "scene": "of the last answer",
    "scenes": "in service",
    "pose_axes": "as the parameter",
    "pose_of": "base_frame, or camera where no mounting is known",
    "model": "the directory",
    "device": "the network runs there",
    "engine": "what runs the backbone",
    "engine_reason": "why that one",
    "bank_version": "counts the bank's changes",
    "reload": "why the model as it is on disk is not in service; empty if it is",
    "refused": "rows of the bank that are left out",
    "refused.{row}": "of these, why (the first 20)",
    "image_topic": "as resolved, of each camera",
    "image_type": "of each camera",
    "camera_info": "of each camera: what is in use",
    "fastdds_profile": "the profile that this process has read",
}

# What rclpy makes for every lifecycle node, below the node's name.
LIFECYCLE_SERVICES = {
    "change_state": "lifecycle_msgs/srv/ChangeState",
    "get_state": "lifecycle_msgs/srv/GetState",
    "get_available_states": "lifecycle_msgs/srv/GetAvailableStates",
    "get_available_transitions": "lifecycle_msgs/srv/GetAvailableTransitions",
    "get_transition_graph": "lifecycle_msgs/srv/GetAvailableTransitions",
}
TRANSITION_EVENT = "lifecycle_msgs/msg/TransitionEvent"
_LIFECYCLE = (
    ("unconfigured", "diagnostics and parameters only", "configure"),
    ("inactive", "the model is loaded, the topics are there; nothing is subscribed", "activate"),
    ("active", "images are answered", "deactivate"),
    ("finalized", "the end", "none"),
)


def image_qos(reliability: str) -> Any:
    """QoSProfile of depth 1 (a queue only ages the frames), ``best_effort`` or ``reliable``."""
    return replace(IMAGES.qos, reliable=reliability == "reliable").profile()


def interface_table_markdown() -> str:
    """Topics and services as README.md shows them, in Markdown."""
    lines = ["| what | type | notes |", "|---|---|---|"]
    for topic in SUBSCRIPTIONS:
        lines.append(f"| `{topic.name}`, in | {_type(topic.type_name)} | {_notes(topic)} |")
    for topic in PUBLISHERS:
        lines.append(f"| `{topic.resolved()}` | {_type(topic.type_name)} | {_notes(topic)} |")
    for service in SERVICES:
        lines.append(f"| `~/{service.name}` | {_type(service.type_name)} | {service.what} |")
    return "\n".join(lines) + "\n"


def interface_markdown() -> str:
    """docs/interface.md: all that a user of the node can see, in Markdown."""
    parts = [
        "# The ROS interface\n",
        "Made by `python -m mspn_ros.node.interface` from the tables that the node itself is made "
        "from; a test holds this page against them and against the graph of a running node.\n",
        f"Node `{NODE_NAME}`, namespace `{NAMESPACE}` by default. Names without a leading slash "
        "are relative to the namespace, so that `-r __ns:=/robot1` works; all can be remapped.\n",
        "## Subscriptions\n",
        _topic_table(SUBSCRIPTIONS),
        "## Publishers\n",
        "All but `/diagnostics` belong to the node's lifecycle: they are there once it is "
        "configured, and speak while it is active.\n",
        _topic_table(PUBLISHERS),
        "## Services\n",
        _table(
            ("name", "type", "what"),
            [(f"`~/{s.name}`", f"`{s.type_name}`", s.what.replace("(docs/", "(")) for s in SERVICES]
            + [
                (f"`~/{name}`", f"`{kind}`", "of every lifecycle node")
                for name, kind in LIFECYCLE_SERVICES.items()
            ],
        ),
        "## Parameters\n",
        parameter_table_markdown(),
        "Those of a camera are there once more for each name in `cameras`, as "
        "`<camera>.image_topic`.\n",
        "## Lifecycle\n",
        "By `autostart` the node configures and activates itself; otherwise a manager does, as "
        f"nav2's, by `~/change_state`. `~/transition_event` (`{TRANSITION_EVENT}`) tells of each "
        "change.\n",
        _table(("state", "what the node does", "on to the next"), _LIFECYCLE),
        "## Values on `/diagnostics`\n",
        f"One status is named as the node (`/{NAMESPACE}/{NODE_NAME}`); each named camera has one "
        "more, with counts, times and topic of its own.\n",
        _table(("key", "what"), [(f"`{k}`", v) for k, v in DIAGNOSTIC_VALUES.items()]),
    ]
    return "\n".join(parts)


def _type(type_name: str) -> str:
    return f"`{type_name.replace('/msg/', '/').replace('/srv/', '/')}`"


def _notes(topic: Topic) -> str:
    optional = f" {topic.optional[0].upper()}{topic.optional[1:]}." if topic.optional else ""
    return topic.what + optional


def _topic_table(topics: tuple[Topic, ...]) -> str:
    rows = [
        (
            f"`{topic.name.format(camera='<camera>')}`",
            f"`{topic.type_name}`",
            str(topic.qos),
            topic.when + (f"; {topic.optional}" if topic.optional else ""),
            topic.what.replace("(docs/", "("),
        )
        for topic in topics
    ]
    return _table(("name", "type", "QoS", "when", "what"), rows)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(interface_markdown())
