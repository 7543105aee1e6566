"""From kept uint8 images to a training batch: crop, turned label, colour. All drawn from one
generator, so that an epoch repeats exactly."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from mspn_ros.geometry import quaternion_multiply
from mspn_ros.images import center_crop
from mspn_ros.records import Intrinsics
from mspn_ros.training.config import AugmentConfig
from mspn_ros.training.samples import Samples

# ITU-R BT.601 luma, as torchvision's colour jitter uses.
_LUMA = (0.299, 0.587, 0.114)


def make_batch(
    samples: Samples,
    index_B: Tensor,
    crop: int,
    config: AugmentConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Samples -> ((B, 3, crop, crop) float 0..255 images, (B, 4) xyzw orientations).

    The orientation is the label's, turned where ``config.turn_labels`` says so.
    """
    crops, quaternions = [], []
    for i in index_B.tolist():
        image, quaternion = samples.images[i], samples.quaternion_S4[i]
        if config.crop == "random":
            top = _draw(image.shape[0] - crop, generator)
            left = _draw(image.shape[1] - crop, generator)
            crops.append(image[top : top + crop, left : left + crop])
            camera = samples.intrinsics[i]
            if config.turn_labels and camera is not None:
                turn = crop_turn(camera, top, left, crop)
                quaternion = quaternion_multiply(quaternion, turn)
        else:
            crops.append(center_crop(image, crop))
        quaternions.append(quaternion)
    image_B3HW = torch.stack(crops).permute(0, 3, 1, 2).float()
    return jitter(image_B3HW, config, generator), torch.stack(quaternions)


def _draw(room: int, generator: torch.Generator) -> int:
    return int(torch.randint(room + 1, (), generator=generator))


def crop_turn(camera: Intrinsics, top: int, left: int, crop: int) -> Tensor:
    """Rotation (4,) xyzw that takes the central crop's middle ray to that of a shifted crop.

    A camera turned by it sees about what the shifted crop shows (up to a homography), so that
    camera_to_world * turn is the shifted crop's true orientation.
    """
    centre_x, centre_y = (camera.width - crop) // 2, (camera.height - crop) // 2
    rays = [
        np.array(
            [(x + crop / 2 - camera.cx) / camera.fx, (y + crop / 2 - camera.cy) / camera.fy, 1]
        )
        for x, y in ((centre_x, centre_y), (left, top))
    ]
    start, end = (ray / np.linalg.norm(ray) for ray in rays)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    if sine < 1e-9:
        return torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    angle = np.arctan2(sine, start @ end)
    return torch.tensor(Rotation.from_rotvec(axis / sine * angle).as_quat())


def jitter(image_B3HW: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, one draw of each per image; stays within 0..255."""
    b = image_B3HW.shape[0]
    luma = torch.tensor(_LUMA, device=image_B3HW.device).view(1, 3, 1, 1)

    def factor(strength: float) -> Tensor:
        drawn = 1 + strength * (2 * torch.rand(b, 1, 1, 1, generator=generator) - 1)
        return drawn.to(image_B3HW.device)

    if config.brightness:
        image_B3HW = (image_B3HW * factor(config.brightness)).clamp_(0, 255)
    if config.contrast:
        grey = (image_B3HW * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        image_B3HW = (grey + (image_B3HW - grey) * factor(config.contrast)).clamp_(0, 255)
    if config.saturation:
        grey = (image_B3HW * luma).sum(1, keepdim=True)
        image_B3HW = (grey + (image_B3HW - grey) * factor(config.saturation)).clamp_(0, 255)
    return image_B3HW
