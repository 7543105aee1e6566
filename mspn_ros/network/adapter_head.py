"""A linear head behind a small adapter: what one scene needs the shared feature to be.

feature + up(hardswish(down(feature))), low rank, then the paper's dense layer. Residual adapters
after Houlsby et al. 2019 (Parameter-Efficient Transfer Learning for NLP) and Hu et al. 2021 (LoRA);
``up`` starts at zero, so that training starts from the plain feature.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mspn_ros.network.backbone import Features
from mspn_ros.network.scene_head import Reading, SceneHead, StackedLinear

# Numbers between down and up: 32 KB of a row at F = 512.
RANK = 8


class AdapterHead(SceneHead):
    """See the module; P as the linear head's."""

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
