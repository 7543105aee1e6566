# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listens to what the camera driver says of the camera that takes the images."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from mspn_ros.datasets.camera_info import intrinsics_of, is_rectified
from mspn_ros.node.interface import CAMERA_INFO
from mspn_ros.node.qos import Mismatches
from mspn_ros.records import Intrinsics


class CameraListener:
    """Keeps what the driver last said of the camera of one image topic.

    ``trouble`` says why it cannot be used; empty where it can, or nothing has been said.
    """

    def __init__(self, node: Any, qos: Mismatches, topic: str, image_topic: str) -> None:
        """``topic`` "" listens to nothing."""
        self._node, self._qos = node, qos
        self._rectified = is_rectified(image_topic)
        self._lock = threading.Lock()
        self._latest: bytes | None = None
        self._read: bytes | None = None
        self._said: Intrinsics | str = "nothing was said yet"
        self.trouble = ""
        self._subscription = None
        if topic:
            self._subscription = qos.subscription(
                CameraInfo, topic, CAMERA_INFO.qos.profile(), self._keep
            )
        self.topic = self._subscription.topic_name if self._subscription is not None else ""

    @property
    def in_use(self) -> str:
        """For diagnostics: the camera in use, or that there is none."""
        if isinstance(self._said, str) or self.trouble:
            return "none: that of the training frames"
        return f"{self.topic}: focal length {self._said.fx:.1f} px"

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._qos.forget(self._subscription)
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _keep(self, serialized: bytes) -> None:
        with self._lock:
            self._latest = serialized

    def camera(self, height: int, width: int) -> Intrinsics | None:
        """The camera of an image that was decoded to this size; None where nothing usable is known.

        It is of the size as sent.
        """
        with self._lock:
            latest = self._latest
        if latest is None:
            return None
        # A camera says the same with every frame; reading it costs 0.1 ms.
        if latest is not self._read:
            self._read = latest
            self._said = _read(latest, self._rectified)
        self.trouble = ""
        if isinstance(self._said, str):
            self.trouble = self._said
        elif not self._said.fits(width, height):
            self.trouble = (
                f"it is of {self._said.width}x{self._said.height} pixels, the images are of "
                f"{width}x{height} as decoded"
            )
        else:
            return self._said
        return None


def _read(serialized: bytes, rectified: bool) -> Intrinsics | str:
    """The camera of a message, or why it cannot be used."""
    try:
        return intrinsics_of(deserialize_message(serialized, CameraInfo), rectified)
    except ValueError as error:
        return str(error)
    except Exception as error:  # whatever a broken message makes rclpy raise
        return f"it cannot be read ({str(error).partition(chr(10))[0]})"
