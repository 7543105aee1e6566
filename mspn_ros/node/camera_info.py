"""``sensor_msgs/CameraInfo``: what the camera driver says of the camera that takes the images."""

from __future__ import annotations

import math
import posixpath
import threading
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from mspn_ros.records import Intrinsics, RosError

# Distortion model -> its most terms; both are OpenCV's, in OpenCV's order.
_MODELS = {"plumb_bob": 5, "rational_polynomial": 8, "": 0}


def camera_info_topic(setting: str, image_topic: str) -> str:
    """``auto``: ``camera_info`` beside the images, where image_transport looks, too; ``none``: "".

    Below compressed topics it lies beside the raw one: /cam/image_raw/compressed has
    /cam/camera_info.
    """
    if setting == "none":
        return ""
    if setting != "auto":
        return setting
    if image_topic.endswith("/compressed"):
        image_topic = posixpath.dirname(image_topic)
    return posixpath.join(posixpath.dirname(image_topic), "camera_info")


def intrinsics_of(message: Any, rectified: bool) -> Intrinsics:
    """The camera of the images as they come: region and binning applied.

    ``rectified`` images have the projection matrix P and no distortion, others K and D.

    Raises:
        RosError: not calibrated, a lens model that is not OpenCV's, or numbers that make no camera.
    """
    if message.distortion_model not in _MODELS and not rectified and any(message.d):
        raise RosError(
            f"its distortion model {message.distortion_model!r} is not supported; publish "
            "rectified images, or plumb_bob or rational_polynomial"
        )
    matrix = message.p if rectified else message.k
    fx, fy = float(matrix[0]), float(matrix[5 if rectified else 4])
    cx, cy = float(matrix[2]), float(matrix[6 if rectified else 5])
    terms = () if rectified else tuple(map(float, message.d))[: _MODELS[message.distortion_model]]
    if fx == 0:
        raise RosError("it is not calibrated (its K is zero); calibrate the camera")
    region, width, height = message.roi, int(message.width), int(message.height)
    if region.width and region.height:
        cx, cy = cx - region.x_offset, cy - region.y_offset
        width, height = int(region.width), int(region.height)
    numbers = (fx, fy, cx, cy, *terms)
    if not all(map(math.isfinite, numbers)) or min(fx, fy, width, height) <= 0:
        raise RosError(f"a camera of {fx:g}, {fy:g} and {width}x{height} pixels is impossible")
    camera = Intrinsics(fx, fy, cx, cy, width, height, terms if any(terms) else ())
    across, down = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    return camera.scaled_to(max(1, width // across), max(1, height // down))


class CameraListener:
    """Keeps what the driver last said of the camera of one image topic.

    ``trouble`` says why it cannot be used; empty where it can, or nothing has been said.
    """

    def __init__(self, node: Any, topic: str, image_topic: str, qos: Any) -> None:
        """``topic`` "" listens to nothing."""
        self._node = node
        # Drivers and image_proc name rectified images so: image_rect, image_rect_color.
        self._rectified = "rect" in posixpath.basename(image_topic.removesuffix("/compressed"))
        self._lock = threading.Lock()
        self._latest: bytes | None = None
        self._read: bytes | None = None
        self._said: Intrinsics | str = "nothing was said yet"
        self.trouble = ""
        self._subscription = None
        if topic:
            # raw: rclpy would end the node over a message that cannot be deserialized.
            self._subscription = node.create_subscription(
                CameraInfo, topic, self._keep, qos, raw=True
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
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _keep(self, serialized: bytes) -> None:
        with self._lock:
            self._latest = serialized

    def camera(self, height: int, width: int) -> Intrinsics | None:
        """The camera of an image of this size; None where nothing usable is known of it."""
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
                f"{width}x{height}"
            )
        else:
            return self._said
        return None


def _read(serialized: bytes, rectified: bool) -> Intrinsics | str:
    """The camera of a message, or why it cannot be used."""
    try:
        return intrinsics_of(deserialize_message(serialized, CameraInfo), rectified)
    except RosError as error:
        return str(error)
    except Exception as error:  # whatever a broken message makes rclpy raise
        return f"it cannot be read ({str(error).partition(chr(10))[0]})"
