# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The cameras of one node: what is configured of each, and its subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from mspn_ros.datasets.camera_info import camera_info_topic
from mspn_ros.node.camera_info import CameraListener
from mspn_ros.node.declared_parameters import camera_names, read_camera_parameter
from mspn_ros.node.interface import image_qos
from mspn_ros.node.qos import Mismatches


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
    answers: its name, or its topic where it has none. ``field_of_view`` is what was last said of
    it beside that of the training frames.
    """

    def __init__(
        self, node: Any, qos: Mismatches, config: CameraConfig, submit: Callable[[bytes], None]
    ) -> None:
        """``submit`` gets serialized images.

        Raises:
            ConfigError: an override of the topic's quality of service that does not go.
        """
        self._node, self._qos, self.config = node, qos, config
        self.message_type = config.message_type
        self.listener: CameraListener | None = None
        self.field_of_view = ""
        self._subscription = qos.subscription(
            self.message_type, config.image_topic, image_qos(config.image_qos), submit
        )
        self.topic: str = self._subscription.topic_name
        self.label = config.name or self.topic

    @property
    def camera_in_use(self) -> str:
        """For diagnostics; empty where cameras are not read."""
        in_use = self.listener.in_use if self.listener is not None else ""
        return "; ".join(filter(None, (in_use, self.field_of_view)))

    def listen(self) -> None:
        """Listen to the ``camera_info`` as well, from now on."""
        if self.listener is None:
            topic = self.config.image_topic
            beside = camera_info_topic(self.config.camera_info_topic, topic)
            self.listener = CameraListener(self._node, self._qos, beside, topic)

    def close(self) -> None:
        """Unsubscribe."""
        self._qos.forget(self._subscription)
        self._node.destroy_subscription(self._subscription)
        if self.listener is not None:
            self.listener.close()
            self.listener = None
