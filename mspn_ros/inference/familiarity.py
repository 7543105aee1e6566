# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How familiar an image is to the scene that answers: what confidences and covariances go by.

Two or three signs of an image, all by the row of that scene alone, so that other scenes coming
and going change nothing:

- logit: what the scene's row of the classifier says of the pooled feature.
- residual: minus the log share of the feature's square that the mean of the scene's training
  features and its principal axes leave unexplained.
- sightings: log of the weights of the landmarks that are seen where the answer says they are;
  for heads that look for landmarks.

Each is counted in spreads from its median on the row's held-out frames (a spread: from the median
down to the 5th percentile). Familiarity is their mean: about 0 for a usual held-out frame, -1
where all signs are at their 5th percentile. Chosen on held-out blocks and on training frames of
places left out, see docs/experiments.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mspn_ros.network.pose_solver import LAST_SCALE, direction_errors
from mspn_ros.network.scene_head import Reading
from mspn_ros.records import Array, Familiarity, SceneRow

# Familiarity at which confidence is a half: farther below the median of held-out frames than their
# 5th percentile is, since they are nearer to the training frames than what comes later. The lowest
# in steps of a half at which about 1 % of the training frames of places left out are let in.
_LIMIT = -2.5
# By how much a confidence changes about there: e to the power of so much a spread.
_SLOPE = 2.0
# By how much standard deviations grow a spread: what best predicts, of steps of a half, one
# held-out block's errors from the others'.
_GROWTH = 1.5
# No sign of a scene counts as varying less than so.
_LEAST_SPREAD = (0.1, 0.02, 0.1)
# With fewer held-out frames nothing is known of what is usual.
LEAST_FRAMES = 8
# A sum of sighting weights that is none.
_NO_SIGHTING = 0.1


def sighting_sign(reading: Reading) -> Tensor | None:
    """(B,) float64, see the module; None of heads that look for no landmarks."""
    if reading.seen is None:
        return None
    point_BM3, ray_BM3, weight_BM = (part.double() for part in reading.seen)
    pose_BP = reading.pose_BP.double()
    rotation_B33 = pose_BP[:, 3:].view(-1, 3, 3)
    error_BM3 = direction_errors(rotation_B33, pose_BP[:, :3], point_BM3, ray_BM3)
    robust_BM = weight_BM / (1 + error_BM3.square().sum(2) / LAST_SCALE**2) ** 2
    return (robust_BM.sum(1) + _NO_SIGHTING).log()


class FamiliarityOfRows(nn.Module):
    """The rows' statistics as stacked tensors; an image costs the same whatever their number."""

    def __init__(self, rows: Sequence[SceneRow]) -> None:
        super().__init__()
        size = rows[0].classifier_weight.size
        most = max(0 if row.feature_axes is None else len(row.feature_axes) for row in rows)
        axes_NRF = np.zeros((len(rows), most, size), np.int8)
        middle_NK, spread_NK = np.zeros((len(rows), 3)), np.ones((len(rows), 3))
        share_NK = np.full((len(rows), 3), np.nan)
        for i, row in enumerate(rows):
            if row.feature_axes is not None:
                axes_NRF[i, : len(row.feature_axes)] = row.feature_axes
            usual = row.held_out.familiarity if row.held_out else None
            if usual is not None:
                count = len(usual.middle)
                middle_NK[i, :count], spread_NK[i, :count] = usual.middle, usual.spread
                share_NK[i] = np.where(np.arange(3) < count, 1 / count, 0)
        arrays = {
            "weight": np.stack([row.classifier_weight for row in rows]),
            "bias": np.array([row.classifier_bias for row in rows]),
            "mean": np.stack([row.feature_mean for row in rows]),
            "axes": axes_NRF,
            "middle": middle_NK,
            "spread": spread_NK,
            "share": share_NK,
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.tensor(array))

    def signs(self, feature_BF: Tensor, sighting_B: Tensor | None, place_B: Tensor) -> Tensor:
        """(B, 3) float64 signs of images by the rows at ``place_B``; 0 where there is none."""
        part = dict(self.named_buffers())
        logit_B = (part["weight"][place_B] * feature_BF).sum(1).double() + part["bias"][place_B]
        away_BF = feature_BF - part["mean"][place_B]
        axes_BRF = nn.functional.normalize(part["axes"][place_B].float(), dim=2)
        along_BR = torch.einsum("brf,bf->br", axes_BRF, away_BF)
        left_BF = away_BF - torch.einsum("brf,br->bf", axes_BRF, along_BR)
        least = 1e-12
        share_B = (left_BF.double().square().sum(1) + least) / (
            feature_BF.double().square().sum(1) + least
        )
        if sighting_B is None:
            sighting_B = torch.zeros_like(logit_B)
        return torch.stack((logit_B, -share_B.log(), sighting_B), 1)

    def forward(self, feature_BF: Tensor, sighting_B: Tensor | None, place_B: Tensor) -> Tensor:
        """(B,) float64 familiarity; NaN for rows that do not know what is usual."""
        part = dict(self.named_buffers())
        sign_BK = self.signs(feature_BF, sighting_B, place_B)
        spreads_BK = (sign_BK - part["middle"][place_B]) / part["spread"][place_B]
        return (spreads_BK * part["share"][place_B]).sum(1)


def usual_familiarity(sign_NK: Array) -> Familiarity | None:
    """What is usual, from the (N, 2 or 3) signs of held-out frames; None of too few frames."""
    if len(sign_NK) < LEAST_FRAMES:
        return None
    middle_K, low_K = np.percentile(sign_NK, (50, 5), axis=0)
    spread_K = np.maximum(middle_K - low_K, _LEAST_SPREAD[: sign_NK.shape[1]])
    return Familiarity(tuple(middle_K.tolist()), tuple(spread_K.tolist()))


def confidence_of(familiarity: float | None, probability: float) -> float:
    """Confidence in [0, 1] from familiarity and the scene's probability among all in service.

    The product of probability and 1 / (1 + e^-2(familiarity + 2.5)), which is a half at the limit
    of what is accepted and 0.99 of a usual frame. The probability is 1 but where scenes look
    alike, and near a half between two. Rows that do not know what is usual leave it at that.
    """
    if familiarity is None:
        return probability
    return probability / (1 + math.exp(min(_SLOPE * (_LIMIT - familiarity), 700.0)))


def growth_of(familiarity: Array) -> Array:
    """What standard deviations are multiplied by, for each spread below usual more; 1 for NaN.

    Held-out frames are nearer to training frames than what comes later, and errors grow with the
    distance.
    """
    return np.asarray(1 + _GROWTH * np.maximum(0, -np.nan_to_num(familiarity, nan=0.0)))
