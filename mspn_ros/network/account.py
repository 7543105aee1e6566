# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the network costs in parameters, counted from its own tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from mspn_ros.network.backbone import Architecture
from mspn_ros.network.mspn import MSPN

# PoseNet's hidden layer, as in the paper's comparison.
POSENET_FEATURE_SIZE = 2048


@dataclass(frozen=True)
class ParameterAccount:
    """Parameters of MSPN, and of one PoseNet on the same backbone.

    ``backbone`` and ``projection`` are shared by all scenes; ``head`` (pose) and
    ``classifier_row`` are added by each scene. s_t and s_q exist in training only.
    """

    backbone: int
    projection: int
    head: int
    classifier_row: int
    posenet: int

    @property
    def shared(self) -> int:
        """What all scenes share."""
        return self.backbone + self.projection

    @property
    def per_scene(self) -> int:
        """What each scene adds."""
        return self.head + self.classifier_row

    def ratio(self, scenes: int) -> float:
        """MSPN for ``scenes`` scenes over one PoseNet for each of them."""
        return (self.shared + scenes * self.per_scene) / (scenes * self.posenet)

    def to_json(self) -> dict[str, Any]:
        """Keys that scripts rely on."""
        return {
            "shared": self.shared,
            "per_scene": self.per_scene,
            "scenes": {str(count): self.ratio(count) for count in (10, 100)},
        }


def parameter_account(architecture: Architecture) -> ParameterAccount:
    """Build both networks for one scene and count.

    Raises:
        ConfigError: no such backbone.
    """
    network = MSPN(architecture, 1)
    posenet_architecture = replace(architecture, feature_size=POSENET_FEATURE_SIZE, neck="posenet")
    posenet = MSPN(posenet_architecture, 1, shared_head=True)
    return ParameterAccount(
        backbone=_count([network.backbone.network]),
        projection=_count([network.backbone.projection]),
        head=_count([network.heads]),
        classifier_row=_count([network.classifier]),
        posenet=_count([posenet.backbone, posenet.heads]),
    )


def _count(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
