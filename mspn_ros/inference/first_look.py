# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The classifier of a large bank in bfloat16: half of the memory to read, and exact all the same.

The product with 100,000 rows takes as long as reading them. A first look in bfloat16 leaves few
rows that can be among the likeliest; those are computed in float32. Where rounding could have
changed the order, or a probability by more than TOLERANCE, the first look says that it cannot tell.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Rows that are computed in float32 after the first look.
_CHECKED = 64
# How far a product may be off, as a share of the lengths of both vectors. Rounding both to 8 bits
# gives at most 2 * 2^-9 (Cauchy-Schwarz), rounding the product 2^-9; the rest is for its sums.
_ROUNDING = 2**-7
# How far the best scene's probability may be off.
TOLERANCE = 1e-3


class Best(NamedTuple):
    """Of B images: the logits and places of the K likeliest scenes, best first.

    And the logarithm of the sum over all scenes of exp(logit), float64.
    """

    logit_BK: Tensor
    scene_BK: Tensor
    total_B1: Tensor


class FirstLook:
    """Rows of a matrix in bfloat16, and their lengths; the matrix itself stays with its owner."""

    def __init__(self, rows: int, size: int) -> None:
        self._half_NF = torch.zeros(rows, size, dtype=torch.bfloat16)
        self._length_N = torch.zeros(rows)

    def take(self, places: slice, weight_NF: Tensor) -> None:
        """Put rows in at these places."""
        self._half_NF[places] = weight_NF.bfloat16()
        self._length_N[places] = weight_NF.norm(dim=1)

    def rough(self, feature_1F: Tensor) -> Tensor:
        """(1, F) -> (rows,) products, off by at most ``margin``."""
        return (feature_1F.bfloat16() @ self._half_NF.T)[0].float()

    def margin(self, feature_1F: Tensor) -> Tensor:
        """(rows,): how far ``rough`` may be off."""
        return self._length_N * (_ROUNDING * float(feature_1F.norm()))

    def best(
        self, feature_1F: Tensor, weight_NF: Tensor, bias_N: Tensor, count: int
    ) -> Best | None:
        """The ``count`` likeliest of the bias' N scenes; None where this cannot tell for sure."""
        scenes = len(bias_N)
        rough_N = self.rough(feature_1F)[:scenes] + bias_N
        margin_N = self.margin(feature_1F)[:scenes]
        chosen_C = rough_N.topk(_CHECKED).indices
        logit_C = weight_NF[chosen_C] @ feature_1F[0] + bias_N[chosen_C]
        logit_K, order_K = logit_C.topk(count)
        rough_N[chosen_C] = -math.inf
        if not float(logit_K[-1]) > float((rough_N + margin_N).max()):
            return None
        rest, known = rough_N.double().logsumexp(0), logit_C.double().logsumexp(0)
        total = torch.logaddexp(rest, known)
        probability, share = float((logit_K[0] - total).exp()), float((rest - total).exp())
        if not probability * share * math.expm1(float(margin_N.max())) < TOLERANCE:
            return None
        return Best(logit_K[None], chosen_C[order_K][None], total.reshape(1, 1))
