# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Crop or warp, rays, turned label and colour of training images.

What is random is drawn first, on the CPU and for the whole batch, then done in batches on the
device: any number of processes augments alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mspn_ros.geometry import matrix_to_quaternion, nearest_rotation, quaternion_multiply
from mspn_ros.training.config import AugmentConfig
from mspn_ros.training.samples import Samples
from mspn_ros.view import cell_centres, pixel_rays

# ITU-R BT.601 luma, as torchvision's colour jitter uses.
_LUMA = (0.299, 0.587, 0.114)
# What lies beyond an image.
_GREY = 128
# Cells along a side by which a turned view is compared with the central one.
_TURN_CELLS = 4


@dataclass(frozen=True)
class Draw:
    """What was drawn for a batch: crop corners, and factors of brightness, contrast, saturation.

    ``factor_B3`` is 1 where a strength is 0. ``warp_B23`` takes a pixel (x, y, 1) of the square
    to the pixel of the resized image that is shown there; None where images are cropped only.
    """

    top_B: Tensor
    left_B: Tensor
    factor_B3: Tensor
    warp_B23: Tensor | None = None

    def part(self, share: slice) -> Draw:
        """The draws of some of the batch's images."""
        warp_B23 = None if self.warp_B23 is None else self.warp_B23[share]
        return Draw(self.top_B[share], self.left_B[share], self.factor_B3[share], warp_B23)

    def sources(self, pixel_C2: Tensor) -> Tensor:
        """Where in the resized images (B, C, 2) the square's pixels (C, 2) come from; x, y."""
        if self.warp_B23 is None:
            return pixel_C2 + torch.stack((self.left_B, self.top_B), 1)[:, None]
        return pixel_C2 @ self.warp_B23[:, :, :2].mT + self.warp_B23[:, None, :, 2]

    def targets(self, pixel_BC2: Tensor) -> Tensor:
        """Where in the square the resized images' pixels (B, C, 2) come to lie; x, y."""
        if self.warp_B23 is None:
            return pixel_BC2 - torch.stack((self.left_B, self.top_B), 1)[:, None]
        shifted_BC2 = pixel_BC2 - self.warp_B23[:, None, :, 2]
        unwarp_B22: Tensor = torch.linalg.inv(self.warp_B23[:, :, :2])
        return shifted_BC2 @ unwarp_B22.mT


def draw(
    samples: Samples, index_B: Tensor, crop: int, config: AugmentConfig, generator: torch.Generator
) -> Draw:
    """Draw for the images ``index_B``; the same generator state gives the same draws."""
    room_B2 = samples.size_S2[index_B] - crop
    if config.crop == "random":
        where = torch.rand(len(index_B), 2, generator=generator, dtype=torch.float64)
        corner_B2 = (where * (room_B2 + 1)).long()
    else:
        corner_B2 = room_B2 // 2
    strength = torch.tensor([config.brightness, config.contrast, config.saturation])
    factor_B3 = 1 + strength * (2 * torch.rand(len(index_B), 3, generator=generator) - 1)
    warp_B23 = _draw_warp(samples, index_B, crop, config, generator) if config.warps else None
    return Draw(corner_B2[:, 0], corner_B2[:, 1], factor_B3, warp_B23)


def _draw_warp(
    samples: Samples, index_B: Tensor, size: int, config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Zoom, roll about the optical axis, and shift, as one map of pixels (B, 2, 3), float64."""
    zoom_B, roll_B, x_B, y_B = (2 * torch.rand(4, len(index_B), generator=generator) - 1).double()
    zoom_B = torch.exp(zoom_B * math.log(1 + config.zoom))
    roll_B = torch.deg2rad(roll_B * config.roll)
    cosine, sine = zoom_B * torch.cos(roll_B), zoom_B * torch.sin(roll_B)
    # A squeezed image's pixels are not square; a roll is one in the world only by their aspect.
    camera_BK = samples.camera_SK[index_B]
    aspect_B = camera_BK[:, 0] / camera_BK[:, 1]
    linear_B22 = torch.stack((cosine, -sine * aspect_B, sine / aspect_B, cosine), 1).view(-1, 2, 2)
    middle = torch.full((2,), (size - 1) / 2, dtype=torch.float64)
    # What is looked at from nearer may be looked at anywhere.
    room_B1 = size * ((1 - zoom_B).clamp(min=0) / 2 + config.shift)[:, None]
    target_B2 = middle + room_B1 * torch.stack((x_B, y_B), 1)
    return torch.cat((linear_B22, (target_B2 - linear_B22 @ middle)[..., None]), 2)


def cell_rays(
    samples: Samples, index_B: Tensor, drawn: Draw, size: int, cells: int
) -> tuple[Tensor, Tensor]:
    """Rays (B, C, 3) of the square's cells in the camera's axes, and whether (B, C) they are seen.

    Exact under any crop and warp; a cell is not seen where the warp shows what lies beyond the
    image.
    """
    pixel_BC2 = drawn.sources(cell_centres(size, cells))
    ray_BC3 = pixel_rays(samples.camera_SK[index_B], pixel_BC2)
    bound_B12 = samples.size_S2[index_B].flip(1)[:, None]
    seen_BC = ((pixel_BC2 >= -0.5) & (pixel_BC2 <= bound_B12 - 0.5)).all(2)
    return ray_BC3.float(), seen_BC


def warp(image_BHW3: Tensor, warp_B23: Tensor) -> Tensor:
    """Square images (B, H, H, 3) uint8 -> float, each pixel taken from where the warp says.

    Bilinear; mid-grey beyond the image.
    """
    batch, size = image_BHW3.shape[:2]
    # From pixels, of which the first has its centre at 0, to grid_sample's -1 .. 1 at the edges.
    to_unit = torch.tensor(
        [[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]], dtype=torch.float64
    )
    whole_B33 = F.pad(warp_B23, (0, 0, 0, 1))
    whole_B33[:, 2, 2] = 1
    unit_B33 = to_unit @ whole_B33 @ torch.linalg.inv(to_unit)
    theta_B23 = unit_B33[:, :2].to(image_BHW3.device, torch.float32)
    grid = F.affine_grid(theta_B23, [batch, 3, size, size], align_corners=False)
    planes = image_BHW3.permute(0, 3, 1, 2).float() - _GREY
    warped = F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False) + _GREY
    return warped.permute(0, 2, 3, 1).contiguous()


def turned_labels(samples: Samples, index_B: Tensor, drawn: Draw, size: int) -> Tensor:
    """Orientations (B, 4) xyzw of the cameras whose central view shows what was drawn; float64.

    A shifted crop, a roll or a warp is, up to a homography, what the camera would see if it were
    turned: by the rotation that best takes the central view's rays to those that are shown.
    Unturned where the camera is not known.
    """
    label_B4 = samples.quaternion_S4[index_B]
    shown_BC3, _ = cell_rays(samples, index_B, drawn, size, _TURN_CELLS)
    plain_BC3 = samples.central_rays(index_B, size, _TURN_CELLS)
    turn_B33 = nearest_rotation(torch.einsum("bci,bcj->bij", shown_BC3, plain_BC3).double())
    known_B1 = samples.camera_known_S[index_B, None]
    turned_B4 = quaternion_multiply(label_B4, matrix_to_quaternion(turn_B33))
    return torch.where(known_B1, turned_B4, label_B4)


def jitter(image_BHW3: Tensor, factor_B3: Tensor, config: AugmentConfig) -> Tensor:
    """Brightness, contrast and saturation, each image by its own factors.

    (B, H, W, 3) uint8 or float -> float within 0..255; contrast is about the image's mean grey,
    saturation about each pixel's, as in torchvision. Colours last: as images are kept, and one
    product of a matrix and a vector for all their greys.
    """
    image = image_BHW3.float()
    factors = factor_B3.to(image.device)
    brightness, contrast, saturation = (factors[:, i].view(-1, 1, 1, 1) for i in range(3))
    luma = torch.tensor(_LUMA, device=image.device)
    if config.brightness:
        image = (image * brightness).clamp_(0, 255)
    if config.contrast:
        grey = (image @ luma).mean((1, 2)).view(-1, 1, 1, 1)
        image = (image * contrast).add_(grey * (1 - contrast)).clamp_(0, 255)
    if config.saturation:
        grey = (image @ luma)[..., None]
        image = (image * saturation).add_(grey * (1 - saturation)).clamp_(0, 255)
    return image
