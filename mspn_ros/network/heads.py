# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The kinds of scene heads, the classifier, and the one place that builds a head by its kind.

Nothing outside network/ knows which head a row of the scene bank holds. To add a kind, write a
SceneHead and enter it in make_head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from mspn_ros.network.adapter_head import AdaptedLandmarkHead, AdapterHead
from mspn_ros.network.backbone import Architecture, Features
from mspn_ros.network.dense_head import DenseHead
from mspn_ros.network.landmark_head import ROW_PADDING, LandmarkHead
from mspn_ros.network.scene_head import Reading, SceneHead, StackedLinear
from mspn_ros.records import ConfigError

HeadKind = Literal["linear", "adapter", "dense", "landmarks", "adapted_landmarks"]


class LinearHead(StackedLinear, SceneHead):
    """The paper's database: F x P dense layers (section 4)."""

    kind: ClassVar[str] = "linear"

    def __init__(self, scenes: int, feature_size: int, outputs: int) -> None:
        super().__init__(scenes, feature_size, outputs)
        self.outputs = outputs

    def read(
        self, features: Features, scene_B: Tensor, ray_BC3: Tensor | None, seen_BC: Tensor | None
    ) -> Reading:
        """See ``SceneHead``; rays have no part in it."""
        return Reading(self(features.pooled_BF, scene_B))


def make_head(
    kind: str, scenes: int, architecture: Architecture, feature_size: int, landmarks: int = 0
) -> SceneHead:
    """A head of ``kind`` for N scenes behind a backbone of this architecture.

    ``landmarks``: the most that a scene may have, for the kind that has any.

    Raises:
        ConfigError: no such kind, or one that reads cells or places behind a backbone without.
    """
    if kind == LinearHead.kind:
        return LinearHead(scenes, feature_size, architecture.pose_parameters)
    if kind == AdapterHead.kind:
        return AdapterHead(scenes, feature_size, architecture.pose_parameters)
    finders = {finder.kind: finder for finder in (LandmarkHead, AdaptedLandmarkHead)}
    if kind in (DenseHead.kind, *finders) and architecture.cells == "none":
        raise ConfigError(f"a {kind} head reads cells: set architecture.cells=fine (or coarse)")
    if kind == DenseHead.kind:
        return DenseHead(scenes, architecture.cell_features)
    if kind in finders:
        features = architecture.descriptor_features
        if not features:
            raise ConfigError(
                f"a {kind} head reads descriptors: set architecture.descriptor_features=32"
            )
        return finders[kind](scenes, architecture.cell_features, features, landmarks)
    known = ", ".join(get_args(HeadKind))
    raise ConfigError(f"scene head {kind!r} is unknown; this version has {known}")


def padded_landmarks(row: Mapping[str, Sized]) -> int:
    """How many landmarks a stored row is filled up to; the least number for kinds without."""
    return max(1, -(-len(row.get("point", ())) // ROW_PADDING)) * ROW_PADDING


def head_of_rows(
    kind: str, rows: Sequence[dict[str, Tensor]], architecture: Architecture, feature_size: int
) -> SceneHead:
    """The head that ``SceneHead.row`` gave these rows.

    Raises:
        ConfigError: see ``make_head``.
        ValueError: a row has other tensors or shapes than a row of this kind.
    """
    landmarks = max((padded_landmarks(row) for row in rows), default=ROW_PADDING)
    heads = make_head(kind, len(rows), architecture, feature_size, landmarks)
    for i, row in enumerate(rows):
        heads.set_row(i, row)
    return heads


class SceneClassifier(nn.Module):
    """N logits from the feature, one stored row (F weights and a bias) per scene (section 4)."""

    def __init__(self, scenes: int, feature_size: int) -> None:
        super().__init__()
        self.rows = StackedLinear(scenes, feature_size, 1)

    def forward(self, feature_BF: Tensor) -> Tensor:
        """(B, F) -> (B, N) logits."""
        return feature_BF @ self.rows.weight[:, 0].T + self.rows.bias[:, 0]
