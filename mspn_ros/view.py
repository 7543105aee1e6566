# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What of an image the network sees, and along which rays: training and the robot share it.

An image is a contiguous (H, W, 3) uint8 RGB array or tensor. ``View.resized`` is the one reference
resize of the project: faster ones are held against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mspn_ros.records import ImageHW3, Intrinsics

# Rounds of the fixed-point iteration that takes distortion off; OpenCV's own default is 5.
_UNDISTORT_ROUNDS = 10
# Tangent of the widest angle from the optical axis that is projected: 143 degrees of view.
_WIDEST = 3.0
# Along the longer side: between a phone (65), a webcam (60) and a depth camera (57 to 69).
ASSUMED_FIELD_OF_VIEW_DEG = 62.0
# fx, fy, cx, cy, and the first 8 distortion terms of OpenCV.
CAMERA_NUMBERS = 12


@dataclass(frozen=True)
class View:
    """How an image of any size becomes the network's square of ``size`` pixels.

    ``fit`` crop: the shorter side becomes ``resize``, of which the central square is seen (the
    paper, section 4.2). squeeze: the whole image is seen, its longer side squeezed; rays know by
    how much. ``resize`` has no part in that.
    """

    size: int
    resize: int
    fit: Literal["crop", "squeeze"] = "crop"

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the resized image, from which the square is cut."""
        if self.fit == "squeeze":
            return self.size, self.size
        scale = self.resize / min(height, width)
        return max(self.resize, round(height * scale)), max(self.resize, round(width * scale))

    def resized(self, image_HW3: Tensor) -> Tensor:
        """(H, W, 3) uint8 -> (h, w, 3) uint8 of ``resized_shape``.

        Antialiased bilinear in float32, then rounded to uint8, on whatever device the image is:
        the bytes that training keeps are the bytes that the robot computes.
        """
        height, width = self.resized_shape(image_HW3.shape[0], image_HW3.shape[1])
        if image_HW3.shape[:2] == (height, width):
            return image_HW3
        planes = image_HW3.permute(2, 0, 1).unsqueeze(0).float()
        resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
        return resized.round_().clamp_(0, 255).to(torch.uint8).squeeze(0).permute(1, 2, 0)

    def prepared(self, image: ImageHW3, device: torch.device) -> Tensor:
        """Resize and centre-crop on ``device``: (H, W, 3) array -> (size, size, 3) uint8.

        The network normalises (see ``normalise``).
        """
        tensor = torch.from_numpy(np.require(image, requirements=("C", "W"))).to(device)
        return center_crop(self.resized(tensor), self.size)

    def camera(self, intrinsics: Intrinsics) -> Intrinsics:
        """The camera that sees what ``prepared`` returns."""
        height, width = self.resized_shape(intrinsics.height, intrinsics.width)
        scaled = intrinsics.scaled_to(width, height)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return Intrinsics(
            scaled.fx,
            scaled.fy,
            scaled.cx - left,
            scaled.cy - top,
            self.size,
            self.size,
            scaled.distortion,
            scaled.assumed,
        )


def center_crop(image_HW3: Tensor, size: int) -> Tensor:
    """The central ``size`` x ``size`` square: (H, W, 3) -> (size, size, 3)."""
    top = (image_HW3.shape[0] - size) // 2
    left = (image_HW3.shape[1] - size) // 2
    return image_HW3[top : top + size, left : left + size]


def normalise(image_B3HW: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 or float (0..255) images (B, 3, H, W) -> float32, (x / 255 - mean) / std by channel."""
    return (image_B3HW.float() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def assumed_camera(width: int, height: int) -> Intrinsics:
    """A pinhole of ASSUMED_FIELD_OF_VIEW_DEG for an image of whose camera nothing is known."""
    focal = max(width, height) / 2 / math.tan(math.radians(ASSUMED_FIELD_OF_VIEW_DEG) / 2)
    middle = (width - 1) / 2, (height - 1) / 2
    return Intrinsics(focal, focal, *middle, width, height, assumed=True)


def camera_vector(camera: Intrinsics) -> list[float]:
    """A camera as CAMERA_NUMBERS numbers: fx, fy, cx, cy, then distortion terms."""
    numbers = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion]
    return [*numbers, *(0.0,) * CAMERA_NUMBERS][:CAMERA_NUMBERS]


def cell_centres(size: int, cells: int) -> Tensor:
    """Pixels (C, 2) in the middle of cells x cells equal squares of a ``size`` image, row by row.

    x right, y down; float64, C = cells * cells. The centre of the first pixel is (0, 0).
    """
    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) * size / cells - 0.5
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack((x, y), 2).view(-1, 2)


def pixel_rays(camera_BK: Tensor, pixel_BC2: Tensor) -> Tensor:
    """Unit rays (B, C, 3), in the camera's axes, along which cameras see pixels.

    ``camera_BK`` is camera_vector's, ``pixel_BC2`` x and y. Distortion (rational and tangential,
    OpenCV's model) is taken off by iteration. In the dtype of the pixels.
    """
    camera = camera_BK.to(pixel_BC2.dtype)[:, None]
    seen = (pixel_BC2 - camera[..., 2:4]) / camera[..., :2]
    terms = camera[..., 4:]
    point = seen
    for _ in range(_UNDISTORT_ROUNDS if bool(terms.any()) else 0):
        radial, shift = _distortion(point, terms)
        point = (seen - shift) / radial
    return F.normalize(F.pad(point, (0, 1), value=1.0), dim=2)


def project(camera_BK: Tensor, point_BC3: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (B, C, 2), x and y, where cameras see points given in the camera's axes.

    The inverse of pixel_rays. And whether (B, C) a camera can see there at all: it cannot behind
    itself, nor so far aside that the distortion's polynomials mean nothing.
    """
    depth_BC1 = point_BC3[..., 2:]
    plane_BC2 = point_BC3[..., :2] / depth_BC1.clamp(min=1e-9)
    ahead_BC = (depth_BC1[..., 0] > 1e-9) & (plane_BC2.abs() < _WIDEST).all(2)
    camera = camera_BK.to(point_BC3.dtype)[:, None]
    plane_BC2 = plane_BC2.clamp(-_WIDEST, _WIDEST)
    if bool(camera[..., 4:].any()):
        radial, shift = _distortion(plane_BC2, camera[..., 4:])
        plane_BC2 = plane_BC2 * radial + shift
    return plane_BC2 * camera[..., :2] + camera[..., 2:4], ahead_BC


def _distortion(point_BC2: Tensor, terms_B1D: Tensor) -> tuple[Tensor, Tensor]:
    """Radial factor (B, C, 1) and tangential shift (B, C, 2) at undistorted points."""
    k1, k2, p1, p2, k3, k4, k5, k6 = terms_B1D.unbind(2)
    x, y = point_BC2.unbind(2)
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    shift_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    shift_y = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return radial[..., None], torch.stack((shift_x, shift_y), 2)
