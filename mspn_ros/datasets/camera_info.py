# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``sensor_msgs/CameraInfo`` without ROS: what it says of the camera that took the images."""

from __future__ import annotations

import math
import posixpath
from typing import Any

from mspn_ros.records import Intrinsics

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

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
        ValueError: not calibrated, a lens model that is not OpenCV's, or numbers that make no
            camera.
    """
    if message.distortion_model not in _MODELS and not rectified and any(message.d):
        raise ValueError(
            f"its distortion model {message.distortion_model!r} is not supported; publish "
            "rectified images, or plumb_bob or rational_polynomial"
        )
    matrix = message.p if rectified else message.k
    fx, fy = float(matrix[0]), float(matrix[5 if rectified else 4])
    cx, cy = float(matrix[2]), float(matrix[6 if rectified else 5])
    terms = () if rectified else tuple(map(float, message.d))[: _MODELS[message.distortion_model]]
    if fx == 0:
        raise ValueError("it is not calibrated (its K is zero); calibrate the camera")
    region, width, height = message.roi, int(message.width), int(message.height)
    if region.width and region.height:
        cx, cy = cx - region.x_offset, cy - region.y_offset
        width, height = int(region.width), int(region.height)
    numbers = (fx, fy, cx, cy, *terms)
    if not all(map(math.isfinite, numbers)) or min(fx, fy, width, height) <= 0:
        raise ValueError(f"a camera of {fx:g}, {fy:g} and {width}x{height} pixels is impossible")
    camera = Intrinsics(fx, fy, cx, cy, width, height, terms if any(terms) else ())
    across, down = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    return camera.scaled_to(max(1, width // across), max(1, height // down))


def is_rectified(image_topic: str) -> bool:
    """Whether a topic's name says that its images are rectified: image_rect, image_rect_color."""
    return "rect" in posixpath.basename(image_topic.removesuffix("/compressed"))
