"""The cameras of one node: what is configured of each, and its subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from mspn_ros.datasets.camera_info import camera_info_topic
from mspn_ros.node.camera_info import CameraListener
from mspn_ros.node.outputs import image_qos
from mspn_ros.node.parameters import camera_names, read_camera_parameter


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """One camera's parameters; ``name`` is "" for the only camera of a node without ``cameras``."""

    name: str
    image_topic: str
    transport: str
    image_qos: str
    camera_info_topic: str
    mounting: str

    @property
    def message_type(self) -> Any:
        """Of its images: ``sensor_msgs/Image`` or ``CompressedImage``."""
        transport = self.transport
        if transport == "auto":
            transport = "compressed" if self.image_topic.endswith("/compressed") else "raw"
        return CompressedImage if transport == "compressed" else Image


def read_cameras(node: Any) -> tuple[CameraConfig, ...]:
    """The cameras that a node's parameters name, in their order; at least one."""
    fields = ("image_topic", "transport", "image_qos", "camera_info_topic", "mounting")
    return tuple(
        CameraConfig(name, *(read_camera_parameter(node, name, field) for field in fields))
        for name in camera_names(node) or ("",)
    )


class Camera:
    """A camera in service. Subscribes when made, for the thread that makes subscriptions.

    ``topic`` is that of its images as resolved; ``label`` names the camera to people and in
    answers: its name, or its topic where it has none.
    """

    def __init__(self, node: Any, config: CameraConfig, submit: Callable[[bytes], None]) -> None:
        self._node, self.config = node, config
        self.message_type = config.message_type
        self.listener: CameraListener | None = None
        # raw: rclpy would end the node over a message that cannot be deserialized, and an
        # overtaken frame need not be deserialized at all.
        self._subscription = node.create_subscription(
            self.message_type, config.image_topic, submit, image_qos(config.image_qos), raw=True
        )
        self.topic: str = self._subscription.topic_name
        self.label = config.name or self.topic

    @property
    def reliable(self) -> bool:
        """Whether it was asked to be sent every image."""
        return self.config.image_qos == "reliable"

    @property
    def camera_in_use(self) -> str:
        """For diagnostics; empty where cameras are not read."""
        return self.listener.in_use if self.listener is not None else ""

    def listen(self) -> None:
        """Listen to the ``camera_info`` as well, from now on."""
        if self.listener is None:
            topic = self.config.image_topic
            beside = camera_info_topic(self.config.camera_info_topic, topic)
            self.listener = CameraListener(self._node, beside, topic, image_qos("best_effort"))

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)
        if self.listener is not None:
            self.listener.close()
            self.listener = None
