# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a row keeps of its training frames' features, and features drawn from what was kept.

A robot has no images of the scenes that it was given; what a new scene's classifier is learned
against is drawn from this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mspn_ros.records import SceneRow

# Principal axes that are kept: 8 KB of a row at F = 512.
_AXES = 16
_LEVELS = 127


class FeatureStatistics(NamedTuple):
    """The fields of ``SceneRow`` of these names."""

    feature_mean: npt.NDArray[np.float32]
    feature_std: npt.NDArray[np.float32]
    feature_axes: npt.NDArray[np.int8]
    feature_axes_scale: npt.NDArray[np.float32]


def feature_statistics(feature_SF: Tensor) -> FeatureStatistics:
    """Mean, spread and principal axes of a scene's features."""
    feature_SF = feature_SF.double()
    mean_F = feature_SF.mean(0)
    _, length_R, axis_RF = torch.linalg.svd(feature_SF - mean_F, full_matrices=False)
    axes_RF = axis_RF[:_AXES] * length_R[:_AXES, None] / len(feature_SF) ** 0.5
    scale_R = axes_RF.abs().amax(1).clamp(min=1e-12) / _LEVELS
    return FeatureStatistics(
        mean_F.float().numpy(),
        feature_SF.std(0, correction=0).float().numpy(),
        (axes_RF / scale_R[:, None]).round().to(torch.int8).numpy(),
        scale_R.float().numpy(),
    )


def draw_features(row: SceneRow, count: int, wider: float, generator: torch.Generator) -> Tensor:
    """Features (count, F) float64 that the scene may have had, spread ``wider`` than they were."""
    std_F = torch.tensor(row.feature_std).double()
    size = (count, len(std_F))
    apart = torch.randn(*size, generator=generator, dtype=torch.float64)
    if row.feature_axes is None or row.feature_axes_scale is None:
        return torch.tensor(row.feature_mean) + wider * std_F * apart
    axes_RF = torch.tensor(row.feature_axes * row.feature_axes_scale[:, None]).double()
    rest_F = (std_F**2 - (axes_RF**2).sum(0)).clamp(min=0).sqrt()
    along = torch.randn(count, len(axes_RF), generator=generator, dtype=torch.float64)
    return torch.tensor(row.feature_mean) + wider * (along @ axes_RF + rest_F * apart)
