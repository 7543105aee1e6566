"""Scene heads, stacked: all scenes' small matrices in one tensor, gathered by scene.

Nothing outside this module knows which head a row of the scene bank holds. A head kind has a
name, is built for N scenes, maps (features, scene index) to pose parameters and hands out or takes
in one scene's tensors. To add one, write such a class and enter it in HEADS.
"""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn


class SceneHead(Protocol):
    """What a stacked head offers; every class in HEADS has it."""

    kind: ClassVar[str]

    def __call__(self, feature_BF: Tensor, scene_B: Tensor) -> Tensor:
        """(B, F) features and (B,) scene indices -> (B, P) pose parameters."""
        ...

    def row(self, scene: int) -> dict[str, Tensor]:
        """One scene's tensors, float32 on the CPU, as they are stored."""
        ...

    def set_row(self, scene: int, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``row``; raises ValueError for wrong names or shapes."""
        ...


class StackedLinear(nn.Module):
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

    def forward(self, feature_BF: Tensor, scene_B: Tensor) -> Tensor:
        """(B, F), (B,) -> (B, outputs)."""
        products = torch.einsum("bpf,bf->bp", self.weight[scene_B], feature_BF)
        return products + self.bias[scene_B]

    def row(self, scene: int) -> dict[str, Tensor]:
        """``{"weight": (outputs, F), "bias": (outputs,)}`` of one scene."""
        return {
            name: parameter[scene].detach().cpu().float().clone()
            for name, parameter in (("weight", self.weight), ("bias", self.bias))
        }

    def set_row(self, scene: int, tensors: dict[str, Tensor]) -> None:
        """Overwrite one scene's layer.

        Raises:
            ValueError: other names or shapes than ``row`` gives.
        """
        own = {"weight": self.weight, "bias": self.bias}
        if tensors.keys() != own.keys():
            raise ValueError(f"tensors {sorted(tensors)} where {sorted(own)} are needed")
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape[1:]:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape[1:])}"
                )
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name][scene] = tensor


class LinearHead(StackedLinear):
    """The paper's database: F x P dense layers (section 4)."""

    kind: ClassVar[str] = "linear"


class SceneClassifier(nn.Module):
    """N logits from the feature, one stored row (F weights and a bias) per scene (section 4)."""

    def __init__(self, scenes: int, feature_size: int) -> None:
        super().__init__()
        self.rows = StackedLinear(scenes, feature_size, 1)

    def forward(self, feature_BF: Tensor) -> Tensor:
        """(B, F) -> (B, N) logits."""
        return feature_BF @ self.rows.weight[:, 0].T + self.rows.bias[:, 0]


HEADS: dict[str, type[LinearHead]] = {LinearHead.kind: LinearHead}
