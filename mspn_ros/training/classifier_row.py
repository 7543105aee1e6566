# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A new scene's row of the classifier, learned beside rows that stay as they are.

On a robot the other scenes' images are gone: features drawn from what their rows store of them
stand in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mspn_ros.records import SceneRow
from mspn_ros.training.feature_statistics import draw_features

# Features drawn for each of the other scenes.
_DRAWN = 256
# What a robot will see of the other scenes varies more than their training frames did.
_WIDER = 2.5
# Of the squared weights, in units of the features' spread.
_DECAY = 1e-4
_STEPS = 200
# Where the scene begins, between the others' farthest features (0) and its own (1): it is known
# from its images, the others are guessed at, and their frames must not change hands.
_BORDER = 0.8


def fit_classifier_row(
    feature_SF: Tensor, others: Sequence[SceneRow], seed: int
) -> tuple[Tensor, float]:
    """Weight (F,) and bias of a scene with these features, float32.

    The direction by cross entropy over all scenes of the bank, of the scene's features and of those
    drawn for the others, the scene's and the others' each counting half; then the bias. Without
    others there is nothing to tell the scene from: zeros.
    """
    feature_SF = feature_SF.double()
    if not others:
        return torch.zeros(feature_SF.shape[1]), 0.0
    weight_NF, bias_N = (
        torch.tensor(np.stack([getattr(row, name) for row in others])).double()
        for name in ("classifier_weight", "classifier_bias")
    )
    generator = torch.Generator().manual_seed(seed)
    drawn_MF = torch.cat([draw_features(row, _DRAWN, _WIDER, generator) for row in others])
    scene_M = torch.arange(len(others)).repeat_interleave(_DRAWN)
    middle_F = torch.cat((feature_SF, drawn_MF)).mean(0)
    spread_F = torch.cat((feature_SF - middle_F, drawn_MF - middle_F)).std(0).clamp(min=1e-6)
    own_SF, drawn = (feature_SF - middle_F) / spread_F, (drawn_MF - middle_F) / spread_F
    own_SN, drawn_MN = feature_SF @ weight_NF.T + bias_N, drawn_MF @ weight_NF.T + bias_N
    weight_F = torch.zeros(feature_SF.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_F, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")
    new_S = torch.full((len(own_SF),), len(others))

    def loss() -> Tensor:
        optimizer.zero_grad()
        own = torch.cat((own_SN, (own_SF @ weight_F + bias)[:, None]), 1)
        theirs = torch.cat((drawn_MN, (drawn @ weight_F + bias)[:, None]), 1)
        total = F.cross_entropy(own, new_S) + F.cross_entropy(theirs, scene_M)
        total = total + _DECAY * (weight_F**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight = (weight_F / spread_F).detach()
    own_S = feature_SF @ weight - own_SN.amax(1)
    others_M = drawn_MF @ weight - drawn_MN.amax(1)
    border = torch.lerp(others_M.quantile(0.999), own_S.quantile(0.01), _BORDER)
    return weight.float(), -float(border)
