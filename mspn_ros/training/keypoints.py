# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keypoints of training images, and which of two images show the same thing.

RootSIFT (Lowe 2004; Arandjelovic and Zisserman 2012) by OpenCV. It is needed in training only: the
robot's network learns to find what was found by it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from mspn_ros.images import read_image
from mspn_ros.records import Array, Frame
from mspn_ros.view import assumed_camera, camera_vector, pixel_rays

# Keypoints kept of an image, the strongest; OpenCV's contrast threshold, below its default of 0.04
# since blurred images are what robots take.
_COUNT = 1000
_CONTRAST = 0.01
# Images are looked at in at most this width or height: the network sees a few hundred pixels.
_LONGEST_SIDE = 640
# Two descriptors are of one thing from this cosine on.
_ALIKE = 0.82


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one image: ``ray_K3`` unit rays in the camera's axes, ``descriptor_KD`` unit.

    ``rotation_33`` and ``centre_3`` are the camera's pose in its scene. ``pixel`` is the angle of
    a pixel in the middle of the image, rad.
    """

    ray_K3: Array
    descriptor_KD: npt.NDArray[np.float32]
    rotation_33: Array
    centre_3: Array
    pixel: float

    @cached_property
    def world_ray(self) -> Array:
        """The rays in the scene's axes, (K, 3)."""
        return np.asarray(self.ray_K3 @ self.rotation_33.T)


def find_keypoints(frame: Frame) -> Keypoints:
    """The keypoints of a frame's image, by its camera or ``view.assumed_camera``.

    Raises:
        ImageError: the image cannot be read.
    """
    image = read_image(frame.image_path)
    height, width = image.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    if scale < 1:
        size = round(width * scale), round(height * scale)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = image.shape[:2]
    camera = (frame.intrinsics or assumed_camera(width, height)).scaled_to(width, height)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT_create(_COUNT, contrastThreshold=_CONTRAST)  # type: ignore[attr-defined]
    found, described = detector.detectAndCompute(grey, None)
    pixel_K2 = np.array([point.pt for point in found], np.float64).reshape(-1, 2)
    descriptor_KD = np.zeros((0, 128), np.float32) if described is None else described
    vector = torch.tensor([camera_vector(camera)], dtype=torch.float64)
    ray_K3 = pixel_rays(vector, torch.from_numpy(pixel_K2)[None])[0].numpy()
    total_K1 = descriptor_KD.sum(1, keepdims=True)
    return Keypoints(
        ray_K3,
        np.sqrt(descriptor_KD / np.maximum(total_K1, 1e-9)).astype(np.float32),
        Rotation.from_quat(frame.pose.quaternion).as_matrix(),
        frame.pose.position,
        1 / camera.fx,
    )


def most_alike(a: Keypoints, b: Keypoints) -> npt.NDArray[np.int64]:
    """Pairs (M, 2) of keypoints that look alike, each the other's best."""
    if not len(a.ray_K3) or not len(b.ray_K3):
        return np.zeros((0, 2), np.int64)
    alike = a.descriptor_KD @ b.descriptor_KD.T
    best, back = alike.argmax(1), alike.argmax(0)
    own = np.arange(len(best))
    kept = np.flatnonzero((back[best] == own) & (alike[own, best] > _ALIKE))
    return np.stack((kept, best[kept]), 1)


def match(a: Keypoints, b: Keypoints, tolerance: float) -> npt.NDArray[np.int64]:
    """Pairs (M, 2) of keypoints that look alike, each the other's best.

    And whose rays lie in one plane with both centres (the epipolar constraint) to ``tolerance``
    pixels.
    """
    pair_M2 = most_alike(a, b)
    near, far = a.world_ray[pair_M2[:, 0]], b.world_ray[pair_M2[:, 1]]
    normal = np.cross(b.centre_3 - a.centre_3, near)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    off = np.abs((far * normal).sum(1))
    return np.asarray(pair_M2[off < tolerance * max(a.pixel, b.pixel)])


def triangulate(a: Keypoints, b: Keypoints, pair_M2: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Points (M, 3) nearest to both rays of matched keypoints, and the rays' angles (M,), rad.

    The angle is negative where the rays meet behind a camera.
    """
    first, second = a.world_ray[pair_M2[:, 0]], b.world_ray[pair_M2[:, 1]]
    baseline = b.centre_3 - a.centre_3
    cosine = (first * second).sum(1)
    sine2 = np.maximum(1 - cosine**2, 1e-12)
    along, across = first @ baseline, second @ baseline
    depth_a = (along - cosine * across) / sine2
    depth_b = (cosine * along - across) / sine2
    points = a.centre_3 + depth_a[:, None] * first + b.centre_3 + depth_b[:, None] * second
    angle = np.arcsin(np.sqrt(np.minimum(sine2, 1)))
    return points / 2, np.where((depth_a > 0) & (depth_b > 0), angle, -angle)
