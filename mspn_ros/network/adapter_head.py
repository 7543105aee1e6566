# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Heads with an adapter: a scene's own small change to what the shared backbone says.

A new scene's row is learned on a backbone that never saw the scene. What its head reads is bent a
little first, by a few thousand weights that are part of the row. Residual adapters after Houlsby et
al. 2019 (Parameter-Efficient Transfer Learning for NLP) and Hu et al. 2021 (LoRA).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mspn_ros.network.backbone import Features
from mspn_ros.network.cells import PLACE_WIDTH
from mspn_ros.network.landmark_head import LandmarkHead
from mspn_ros.network.scene_head import Reading, SceneHead, StackedLinear

# Numbers between down and up: 32 KB of a row at F = 512.
RANK = 8


class AdapterHead(SceneHead):
    """feature + up(hardswish(down(feature))), of low rank, then the paper's dense layer.

    P as the linear head's. ``up`` starts at zero, so that training starts from the plain feature.
    """

    kind: ClassVar[str] = "adapter"

    def __init__(self, scenes: int, feature_size: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.down = StackedLinear(scenes, feature_size, RANK)
        self.up = nn.Parameter(torch.zeros(scenes, RANK, feature_size))
        self.pose = StackedLinear(scenes, feature_size, outputs)

    def read(
        self, features: Features, scene_B: Tensor, ray_BC3: Tensor | None, seen_BC: Tensor | None
    ) -> Reading:
        """See ``SceneHead``; rays have no part in it."""
        low_BR = F.hardswish(self.down(features.pooled_BF, scene_B))
        moved_BF = features.pooled_BF + torch.einsum("br,brf->bf", low_BR, self.up[scene_B])
        return Reading(self.pose(moved_BF, scene_B))


class AdaptedLandmarkHead(LandmarkHead):
    """A landmark head that describes places by a dense layer of the scene's own.

    Of the W numbers that the backbone knows of a place it picks the D that tell this scene's
    landmarks apart; those that the shared layer picks tell apart those of the scenes it was
    trained on.
    """

    kind: ClassVar[str] = "adapted_landmarks"
    reads: ClassVar[tuple[str, ...]] = ("cell_BCD", "rough_BEW")

    def __init__(self, scenes: int, cell_features: int, features: int, landmarks: int) -> None:
        super().__init__(scenes, cell_features, features, landmarks)
        self.describe = StackedLinear(scenes, PLACE_WIDTH, features)

    def start_from(self, weight_DW: Tensor, bias_D: Tensor) -> None:
        """Let all scenes start with the shared layer."""
        with torch.no_grad():
            self.describe.weight[:] = weight_DW
            self.describe.bias[:] = bias_D

    def described(self, features: Features, scene_B: Tensor) -> Tensor:
        """See ``LandmarkHead``."""
        assert features.rough_BEW is not None
        return F.normalize(self.describe(features.rough_BEW, scene_B), dim=2)
