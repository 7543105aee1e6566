# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a row learns from its held-out frames: what is usual there, and how large errors are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import chi2

from mspn_ros import metrics
from mspn_ros.inference.familiarity import FamiliarityOfRows, growth_of, usual_familiarity
from mspn_ros.records import Array, HeldOutErrors, SceneRow
from mspn_ros.training.held_out import HeldOut

# Rounds of the scatter's fixed point, and the degrees of freedom of its Student distribution.
_ROUNDS = 20
_FREEDOM = 3.0
# No direction has less than this share of the mean variance, nor any axis less than this.
_LEAST_SHARE, _LEAST_VARIANCE = 1e-3, 1e-12


def calibrated(row: SceneRow, held_out: HeldOut) -> SceneRow:
    """``row`` with what it learns from held-out frames: ``row.held_out``.

    Nothing of any other row takes part: adding a scene shifts none that is there.
    """
    ready = FamiliarityOfRows([row])
    place_B = torch.zeros(len(held_out.feature_BF), dtype=torch.int64)
    sighting_B = None if held_out.sighting_B is None else torch.tensor(held_out.sighting_B)
    sign_BK = ready.signs(held_out.feature_BF, sighting_B, place_B).numpy()
    usual = usual_familiarity(sign_BK[:, : 2 if sighting_B is None else 3])
    errors = replace(held_out.errors, familiarity=usual)
    row = replace(row, held_out=errors)
    familiarity_B = FamiliarityOfRows([row])(held_out.feature_BF, sighting_B, place_B).numpy()
    return replace(row, held_out=with_covariance(errors, held_out, growth_of(familiarity_B)))


def with_covariance(errors: HeldOutErrors, held_out: HeldOut, growth_B: Array) -> HeldOutErrors:
    """``errors`` with the covariances that explain the held-out frames, see ``HeldOutErrors``."""
    turns = held_out.position_error_B3, held_out.turn_B3
    scatters = [_scatter(error_B3 / growth_B[:, None]) for error_B3 in turns]
    scaled = [
        scatter * region_factor(error_B3, np.repeat(scatter[None], len(error_B3), 0), growth_B)
        for scatter, error_B3 in zip(scatters, turns, strict=True)
    ]
    own = None
    if held_out.covariance_B66 is not None:
        covariance = held_out.covariance_B66
        own = (
            region_factor(turns[0], covariance[:, :3, :3], growth_B),
            region_factor(turns[1], covariance[:, 3:, 3:], growth_B),
        )
    (px, py, pz), (rx, ry, rz) = (np.diag(matrix).tolist() for matrix in scaled)
    (pxy, pxz, pyz), (rxy, rxz, ryz) = (m[np.triu_indices(3, 1)].tolist() for m in scaled)
    return replace(
        errors,
        position_variance=(px, py, pz),
        rotation_variance=(rx, ry, rz),
        position_products=(pxy, pxz, pyz),
        rotation_products=(rxy, rxz, ryz),
        own_factors=own,
    )


def region_factor(error_N3: Array, covariance_N33: Array, growth_N: Array) -> float:
    """By what covariances are to be multiplied for their 95 % region to hold 95 % of errors.

    The conformal quantile of normalized errors. With n < 19 there is none: the largest stands
    for its own share n / (n + 1), and is carried on to 95 % as chi-squared errors would be.
    """
    square_N = metrics.normalized_error_squared(error_N3, covariance_N33) / growth_N**2
    quantile = metrics.conformal_quantile(square_N, metrics.REGION)
    count = len(square_N)
    if math.isinf(quantile):
        quantile = square_N.max() * metrics.CHI2_REGION / chi2.ppf(count / (count + 1), 3)
    return max(float(quantile) / metrics.CHI2_REGION, 1e-6)


def _scatter(error_N3: Array) -> Array:
    """(3, 3) shape of errors about zero: the likeliest one of a Student distribution.

    Outliers of pose regression are gross and would swamp a mean of squares. With few frames it
    is drawn to its own diagonal (as three frames more would draw it).
    """
    count = len(error_N3)
    scatter = np.diag(np.maximum((error_N3**2).mean(0), _LEAST_VARIANCE))
    for _ in range(_ROUNDS):
        square_N = metrics.normalized_error_squared(error_N3, np.repeat(scatter[None], count, 0))
        weight_N = (_FREEDOM + 3) / (_FREEDOM + square_N)
        found = (weight_N[:, None] * error_N3).T @ error_N3 / count
        least = np.maximum(_LEAST_SHARE * np.trace(found) / 3, _LEAST_VARIANCE)
        diagonal = np.diag(np.diag(found))
        scatter = (count * found + 3 * diagonal) / (count + 3) + least * np.eye(3)
    return np.asarray(scatter)
