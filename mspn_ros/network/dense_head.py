# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The dense head: every cell of the image votes for the pose, and the votes are joined in one step.

A scene's matrix (8 x D and a bias) is applied to each cell. A cell says in which direction of the
scene it looks, where the camera is, and how far each of the two is to be believed. The rotation is
the one that best turns the cells' camera rays into the voted ones (Kabsch 1976), the position the
weighted mean of the voted centres. Rays are known exactly for every crop, squeeze, zoom and roll
of an image, so that the label of a turned view is exact, too.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mspn_ros.geometry import nearest_rotation
from mspn_ros.network.backbone import Features, Grid
from mspn_ros.network.coding import MATRIX_PARAMETERS
from mspn_ros.network.scene_head import Reading, SceneHead, StackedLinear, Votes

# Ray, centre, and the logits of how far each is to be believed.
_OUTPUTS = 3 + 3 + 2


class DenseHead(SceneHead):
    """See the module; P = 12: position and rotation matrix, row by row."""

    kind: ClassVar[str] = "dense"
    grid: ClassVar[Grid] = "cells"
    reads: ClassVar[tuple[str, ...]] = ("cell_BCD",)
    outputs = MATRIX_PARAMETERS

    def __init__(self, scenes: int, cell_features: int) -> None:
        super().__init__()
        self.cells = StackedLinear(scenes, cell_features, _OUTPUTS)

    def read(
        self, features: Features, scene_B: Tensor, ray_BC3: Tensor | None, seen_BC: Tensor | None
    ) -> Reading:
        """See ``SceneHead``."""
        assert features.cell_BCD is not None
        assert ray_BC3 is not None
        said_BC8 = self.cells(features.cell_BCD, scene_B)
        votes = Votes(said_BC8[..., :3], said_BC8[..., 3:6], ray_BC3, seen_BC)
        logit_BC2 = said_BC8[..., 6:]
        if seen_BC is not None:
            logit_BC2 = logit_BC2.masked_fill(~seen_BC[..., None], float("-inf"))
        weight_BC2 = logit_BC2.softmax(1)
        turned_B33 = torch.einsum("bc,bci,bcj->bij", weight_BC2[..., 0], votes.ray_BC3, ray_BC3)
        position_B3 = torch.einsum("bc,bci->bi", weight_BC2[..., 1], votes.centre_BC3)
        rotation_B33 = nearest_rotation(turned_B33)
        return Reading(torch.cat((position_B3, rotation_B33.flatten(1)), 1), votes)
