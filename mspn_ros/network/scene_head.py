# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every scene head is: all scenes' small tensors in one, gathered by scene."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mspn_ros.network.backbone import Features, Grid


class StackedRows(nn.Module):
    """A module whose parameters and buffers all have a first dimension of scenes.

    ``row`` hands out one scene's tensors as they are stored, ``set_row`` takes them in.
    """

    def _stacked(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    @property
    def rows(self) -> int:
        """How many scenes there are."""
        return len(next(self.parameters()))

    def row(self, scene: int) -> dict[str, Tensor]:
        """One scene's tensors by name, as they are stored, on the CPU; mostly float32."""
        return {
            name: tensor[scene].detach().cpu().float().clone()
            for name, tensor in self._stacked().items()
        }

    def check_row(self, tensors: dict[str, Tensor]) -> None:
        """See whether ``set_row`` of a module like this could take these tensors.

        Raises:
            ValueError: other names or shapes than ``row`` gives.
        """
        own = self._stacked()
        if tensors.keys() != own.keys():
            raise ValueError(f"tensors {sorted(tensors)} where {sorted(own)} are needed")
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape[1:]:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape[1:])}"
                )

    def set_row(self, scene: int, tensors: dict[str, Tensor]) -> None:
        """Overwrite one scene's tensors.

        Raises:
            ValueError: see ``check_row``.
        """
        StackedRows.check_row(self, tensors)
        own = self._stacked()
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name][scene] = tensor

    def round_rows(self) -> None:
        """Make all rows what they are when stored: some kinds store fewer bits than they learn."""
        for scene in range(self.rows):
            self.set_row(scene, self.row(scene))


class StackedLinear(StackedRows):
    """N dense layers F -> P as one tensor: weight (N, P, F), bias (N, P).

    ``forward`` gathers the layer of each image's scene: no loop over scenes or images.
    """

    def __init__(self, scenes: int, feature_size: int, outputs: int) -> None:
        super().__init__()
        # As nn.Linear: uniform in +-1/sqrt(F).
        bound = 1 / math.sqrt(feature_size)
        self.weight = nn.Parameter(torch.empty(scenes, outputs, feature_size))
        self.bias = nn.Parameter(torch.empty(scenes, outputs))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, feature_BxF: Tensor, scene_B: Tensor) -> Tensor:
        """(B, F) or (B, C, F) features, (B,) scenes -> (B, outputs) or (B, C, outputs)."""
        products = torch.einsum("bpf,b...f->b...p", self.weight[scene_B], feature_BxF)
        bias_BP = self.bias[scene_B]
        return products + (bias_BP if feature_BxF.dim() == 2 else bias_BP[:, None])


class Votes(NamedTuple):
    """What a dense head's C cells say, in the axes and the unit of the coding.

    ``ray_BC3``: the direction in which a cell looks; ``centre_BC3``: where the camera is. Beside
    them the cells' unit rays in the camera's axes, and which cells show anything (None: all).
    """

    ray_BC3: Tensor
    centre_BC3: Tensor
    camera_ray_BC3: Tensor
    seen_BC: Tensor | None = None


class Sightings(NamedTuple):
    """Where a landmark head's K landmarks are seen: logits of E places, and of none of them."""

    place_BKE: Tensor
    nowhere_BK: Tensor


class Seen(NamedTuple):
    """The M surest sightings: points (coded), unit rays in the camera's axes, and weights.

    Weights are 0 of those that had no part in the pose.
    """

    point_BM3: Tensor
    ray_BM3: Tensor
    weight_BM: Tensor


class Reading(NamedTuple):
    """``pose_BP`` in the coding's parameters, and what it was made of, where there is any.

    ``start_BP``: the pose that it was refined from. ``covariance_B66``: of position, then of
    rotation vectors, in the axes and the unit of the coding. ``seen``: what of the sightings the
    pose was made of.
    """

    pose_BP: Tensor
    votes: Votes | None = None
    sightings: Sightings | None = None
    start_BP: Tensor | None = None
    covariance_B66: Tensor | None = None
    seen: Seen | None = None


class SceneHead(StackedRows):
    """Maps features to poses by the rows of the images' scenes.

    ``outputs`` is P of the pose it gives: 6 or 7 (position and log-quaternion or quaternion), or
    12 (position and rotation matrix). ``grid``: of which squares of the image it needs the rays.
    ``reads``: what of ``Features`` it reads besides the pooled ones.
    """

    kind: ClassVar[str]
    grid: ClassVar[Grid] = "none"
    reads: ClassVar[tuple[str, ...]] = ()
    outputs: int

    @abstractmethod
    def read(
        self, features: Features, scene_B: Tensor, ray_BC3: Tensor | None, seen_BC: Tensor | None
    ) -> Reading:
        """Features, (B,) scene indices, and the rays of the grid's C squares -> Reading.

        ``ray_BC3`` are unit vectors in the camera's axes; ``seen_BC`` says which squares show
        anything (None: all).
        """
