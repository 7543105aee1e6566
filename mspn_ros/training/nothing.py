# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images that show no place, for a classifier to learn that it knows none of them.

Outlier exposure (Hendrycks et al., ICLR 2019). A classifier that has seen nothing but its scenes
is as sure of noise, of a covered lens or of scrambled pixels as it is of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Blocks along a side of a scrambled image.
_FEWEST_BLOCKS, _MOST_BLOCKS = 3, 12
# Share of a buried image that is hidden.
_LEAST_HIDDEN, _MOST_HIDDEN = 0.7, 1.0


def nothing_images(image_B3HW: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` images as large as a batch's, (count, 3, H, W) of 0 .. 255, of three kinds.

    Noise of any coarseness, from single pixels to one colour, and of any contrast; images of the
    batch in blocks that change places; images of the batch of which most is hidden by noise.
    """
    made = []
    for _ in range(count):
        kind = torch.rand((), generator=generator)
        image_3HW = image_B3HW[torch.randint(len(image_B3HW), (), generator=generator)].cpu()
        noise_3HW = _noise(image_3HW, generator)
        if kind < 0.4:
            made.append(noise_3HW)
        elif kind < 0.7:
            made.append(_scrambled(image_3HW, generator))
        else:
            made.append(torch.where(_hidden(image_3HW, generator), noise_3HW, image_3HW))
    return torch.stack(made).to(image_B3HW.device).contiguous(memory_format=torch.channels_last)


def _noise(like_3HW: Tensor, generator: torch.Generator) -> Tensor:
    """About a random colour; its grains as likely of two as of sixty-four to a side."""
    height, width = like_3HW.shape[1:]
    drawn = torch.rand(6, generator=generator)
    colour_311, contrast, coarse, kind = drawn[:3].view(3, 1, 1), drawn[3], drawn[4], drawn[5]
    grains = round(2 * math.exp(float(coarse) * math.log(max(height, width) / 2)))
    size = (
        max(1, grains * height // max(height, width)),
        max(1, grains * width // max(height, width)),
    )
    channels = 1 if kind < 0.3 else 3
    grain_1CHW = torch.rand(1, channels, *size, generator=generator)
    mode = "nearest" if kind < 0.6 else "bicubic"
    grain_3HW = F.interpolate(grain_1CHW, (height, width), mode=mode)[0].expand(3, -1, -1)
    return 255 * (colour_311 + contrast * (grain_3HW - colour_311)).clamp(0, 1)


def _hidden(like_3HW: Tensor, generator: torch.Generator) -> Tensor:
    """Which pixels (H, W): scattered ones, or all but some rows at one end."""
    height, width = like_3HW.shape[1:]
    drawn, kind = torch.rand(2, generator=generator).tolist()
    share = _LEAST_HIDDEN + (_MOST_HIDDEN - _LEAST_HIDDEN) * drawn
    if kind < 0.5:
        return torch.rand(height, width, generator=generator).less(share)
    row_H = (torch.arange(height) + 0.5) / height
    if kind < 0.75:
        row_H = 1 - row_H
    return row_H.less(share)[:, None].expand(-1, width)


def _scrambled(image_3HW: Tensor, generator: torch.Generator) -> Tensor:
    """Blocks in another order, each turned as it comes."""
    height, width = image_3HW.shape[1:]
    blocks = int(torch.randint(_FEWEST_BLOCKS, _MOST_BLOCKS + 1, (), generator=generator))
    high, wide = height // blocks, width // blocks
    whole = image_3HW[:, : high * blocks, : wide * blocks]
    part_N3hw = (
        whole.reshape(3, blocks, high, blocks, wide)
        .permute(1, 3, 0, 2, 4)
        .reshape(-1, 3, high, wide)
    )
    part_N3hw = part_N3hw[torch.randperm(len(part_N3hw), generator=generator)]
    flipped_N = torch.rand(len(part_N3hw), generator=generator) < 0.5
    part_N3hw = torch.where(flipped_N.view(-1, 1, 1, 1), part_N3hw.flip(3), part_N3hw)
    joined = (
        part_N3hw.view(blocks, blocks, 3, high, wide)
        .permute(2, 0, 3, 1, 4)
        .reshape(1, 3, high * blocks, wide * blocks)
    )
    return F.interpolate(joined, (height, width), mode="nearest")[0]
