# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``sensor_msgs/CameraInfo`` without ROS: what it says of the camera that took the images."""

from __future__ import annotations

import functools
import math
import posixpath
from typing import Any

import torch

from mspn_ros.records import Intrinsics
from mspn_ros.view import camera_vector, cell_centres, pixel_rays, project

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

# Distortion model -> its most terms; both are OpenCV's, in OpenCV's order.
_MODELS = {"plumb_bob": 5, "rational_polynomial": 8, "": 0}

# Of what a lens may be like, in longer sides of the image, generously: as wide as view.project
# goes, or 0.6 degrees; a region cut far from the optical axis; rays that lead back to about where
# they came from.
_SHORTEST_FOCAL, _LONGEST_FOCAL, _FARTHEST_CENTRE, _MOST_OFF = 0.1, 100.0, 20.0, 0.1
_LONGEST_SIDE = 65_536
# Rays that are looked at, across and down.
_GRID = 9


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
            camera or no lens.
    """
    if message.distortion_model not in _MODELS and not rectified and any(message.d):
        raise ValueError(
            f"its distortion model {message.distortion_model!r} is not supported; publish "
            "rectified images, or plumb_bob or rational_polynomial"
        )
    matrix = message.p if rectified else message.k
    fx, fy = float(matrix[0]), float(matrix[5 if rectified else 4])
    cx, cy = float(matrix[2]), float(matrix[6 if rectified else 5])
    most = 0 if rectified else _MODELS.get(message.distortion_model, 0)
    terms = tuple(map(float, message.d[:most]))
    if fx == 0:
        raise ValueError("it is not calibrated (its K is zero); calibrate the camera")
    region, width, height = message.roi, int(message.width), int(message.height)
    if region.width and region.height:
        cx, cy = cx - region.x_offset, cy - region.y_offset
        width, height = int(region.width), int(region.height)
    numbers = (fx, fy, cx, cy, *terms)
    if not all(map(math.isfinite, numbers)) or min(fx, fy, width, height) <= 0:
        raise ValueError(f"a camera of {fx:g}, {fy:g} and {width}x{height} pixels is impossible")
    across, down = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    camera = Intrinsics(fx, fy, cx, cy, width, height, terms if any(terms) else ())
    camera = camera.scaled_to(max(1, width // across), max(1, height // down))
    if not _is_plausible(camera):
        raise ValueError(
            f"a camera of focal lengths {fx:g}, {fy:g}, centre {cx:g}, {cy:g} and distortion "
            f"{tuple(round(term, 4) for term in camera.distortion)} sees no image of "
            f"{width}x{height} pixels; calibrate it anew"
        )
    return camera


@functools.lru_cache(64)
def _is_plausible(camera: Intrinsics) -> bool:
    """Whether a lens can be like that: rays of the whole image exist, and lead back to its pixels.

    Rays of numbers that are finite and mean nothing would make poses that mean nothing.
    """
    side = max(camera.width, camera.height)
    if side > _LONGEST_SIDE or not all(
        _SHORTEST_FOCAL * side <= focal <= _LONGEST_FOCAL * side for focal in (camera.fx, camera.fy)
    ):
        return False
    if max(abs(camera.cx), abs(camera.cy)) > _FARTHEST_CENTRE * side:
        return False
    vector_1K = torch.tensor([camera_vector(camera)], dtype=torch.float64)
    corner = torch.tensor([camera.width - 1, camera.height - 1], dtype=torch.float64)
    pixel_1C2 = (cell_centres(1, _GRID) + 0.5)[None] * corner
    ray_1C3 = pixel_rays(vector_1K, pixel_1C2)
    again_1C2, ahead_1C = project(vector_1K, ray_1C3)
    off = (again_1C2 - pixel_1C2).abs().max()
    return bool(ahead_1C.all() and off <= _MOST_OFF * side)


def is_rectified(image_topic: str) -> bool:
    """Whether a topic's name says that its images are rectified: image_rect, image_rect_color."""
    return "rect" in posixpath.basename(image_topic.removesuffix("/compressed"))
