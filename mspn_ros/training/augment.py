"""Crop, turned label and colour of training images. What is random is drawn first, on the CPU and
for the whole batch, then done in batches on the device: any number of processes augments alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mspn_ros.geometry import quaternion_multiply
from mspn_ros.training.config import AugmentConfig
from mspn_ros.training.samples import Samples

# ITU-R BT.601 luma, as torchvision's colour jitter uses.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Draw:
    """What was drawn for a batch: crop corners, and factors of brightness, contrast, saturation.

    ``factor_B3`` is 1 where a strength is 0.
    """

    top_B: Tensor
    left_B: Tensor
    factor_B3: Tensor

    def part(self, share: slice) -> Draw:
        """The draws of some of the batch's images."""
        return Draw(self.top_B[share], self.left_B[share], self.factor_B3[share])


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
    return Draw(corner_B2[:, 0], corner_B2[:, 1], factor_B3)


def turned_labels(samples: Samples, index_B: Tensor, drawn: Draw, crop: int) -> Tensor:
    """Orientations (B, 4) xyzw as the shifted crops show them; unturned without intrinsics."""
    label_B4 = samples.quaternion_S4[index_B]
    camera_BK = samples.camera_SK[index_B]
    turn_B4 = crop_turn(camera_BK, samples.size_S2[index_B], drawn.top_B, drawn.left_B, crop)
    known_B1 = camera_BK.isfinite().all(1, keepdim=True)
    return torch.where(known_B1, quaternion_multiply(label_B4, turn_B4), label_B4)


def crop_turn(
    camera_BK: Tensor, size_B2: Tensor, top_B: Tensor, left_B: Tensor, crop: int
) -> Tensor:
    """Rotations (B, 4) xyzw that take the central crop's middle ray to that of a shifted crop.

    ``camera_BK`` is ``view.camera_vector``, ``size_B2`` the image's (height, width). A camera
    turned by it sees about what the shifted crop shows (up to a homography), so that
    camera_to_world * turn is the shifted crop's true orientation. float64.
    """
    centre_B2 = (size_B2 - crop) // 2
    start = _ray(camera_BK, centre_B2[:, 0], centre_B2[:, 1], crop)
    end = _ray(camera_BK, top_B, left_B, crop)
    # The half-angle form of the shortest turn between unit vectors; never near 180 degrees here.
    vector_B3 = torch.linalg.cross(start, end)
    scalar_B1 = 1 + (start * end).sum(1, keepdim=True)
    return torch.nn.functional.normalize(torch.cat((vector_B3, scalar_B1), 1), dim=1)


def _ray(camera_BK: Tensor, top_B: Tensor, left_B: Tensor, crop: int) -> Tensor:
    fx, fy, cx, cy = camera_BK[:, :4].unbind(1)
    x, y = (left_B + crop / 2 - cx) / fx, (top_B + crop / 2 - cy) / fy
    return torch.nn.functional.normalize(torch.stack((x, y, torch.ones_like(x)), 1), dim=1)


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
