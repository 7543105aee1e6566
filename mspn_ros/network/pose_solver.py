# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses from landmarks and the directions in which they are seen, batched and in constant time.

Refining is a few hundred steps on small arrays, which take PyTorch longer to call than to compute.
On a CPU the same lines call NumPy: ``xp`` is the one or the other.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mspn_ros.records import Array

# Fixed, so that every image takes as long: the robust scale shrinks from the first to the last
# value, in rad. Wide at first to mend a wrong start, narrow at last to leave wrong sightings out.
_ROUNDS = 12
_FIRST_SCALE, _SHRINK, LAST_SCALE = 0.25, 0.75, 0.02
# Error of a certain sighting, in rad: more than a place's own, since sightings of one image err
# alike. A start's rotation is believed this much less than it earns: sightings know it better.
# Both chosen on held-out blocks, see docs/experiments.md.
_SIGHTING_ERROR = 0.03
_ROTATION_DOUBT = 3.0
# No start is known better than so, in spreads and rad.
_LEAST_ERROR = 1e-3
# No round moves by more, in rad and spreads: a bad start may be far from where it is quadratic.
_LONGEST_STEP = 0.5
# A landmark at the camera's very centre has no direction.
_NEAREST = 1e-3


# The matrices that take vectors to their cross product with x, y and z, row by row: (3, 9).
_TO_CROSS = np.array(
    [[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0]],
    float,
)


def refine_pose(
    rotation_B33: Tensor,
    position_B3: Tensor,
    point_BM3: Tensor,
    ray_BM3: Tensor,
    weight_BM: Tensor,
    error_B2: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Camera-to-scene poses that best explain in which directions M points are seen; float64.

    Returns rotations (B, 3, 3), positions (B, 3) and covariances (B, 6, 6) of positions and of
    rotation vectors about the scene's axes, as far as one image can tell them: the inverse of
    what its sightings and its start are worth. No gradients.

    ``rotation_B33`` and ``position_B3`` are where to start, and are held to: by ``error_B2``, how
    far starts usually are off in position and in rotation (rad). With few sightings the answer
    stays near, with none it is the start. ``ray_BM3`` are unit rays in the camera's axes,
    ``weight_BM`` are within 0 to 1. Gauss-Newton on the angular errors under a Geman-McClure
    loss whose scale shrinks (graduated non-convexity, Yang et al. 2020).
    """
    parts = rotation_B33, position_B3, point_BM3, ray_BM3, weight_BM, error_B2
    if rotation_B33.device.type == "cpu":
        refined = _refined(np, *(part.detach().double().numpy() for part in parts))
        rotation, position, covariance = (torch.from_numpy(part) for part in refined)
        return rotation, position, covariance
    return _refined(torch, *(part.detach().double() for part in parts))


def _refined(
    xp: Any,
    start_B33: Any,
    start_B3: Any,
    point_BM3: Any,
    ray_BM3: Any,
    weight_BM: Any,
    error_B2: Any,
) -> tuple[Any, Any, Any]:
    """See ``refine_pose``.

    Steps are counted in the camera's axes: what sightings add up to is then the same linear
    function of them for all rotations.
    """
    to_normal, to_cross, to_held, identity_33, identity_66 = _tables(xp, start_B33)
    held_B6 = (_SIGHTING_ERROR / (error_B2.clip(min=_LEAST_ERROR) @ to_held)) ** 2
    prior_B66 = held_B6[:, None] * identity_66
    rotation_B33, position_B3, hessian_B66 = start_B33, start_B3, prior_B66
    for number in range(_ROUNDS):
        scale = max(_FIRST_SCALE * _SHRINK**number, LAST_SCALE)
        sums_B86 = _sums(xp, rotation_B33, position_B3, point_BM3, ray_BM3, weight_BM, scale)
        normal_BX = sums_B86.reshape(-1, 48) @ to_normal
        hessian_B66 = normal_BX[:, :36].reshape(-1, 6, 6) + prior_B66
        # Of a rotation, its axis times twice the sine of the angle.
        turned_B3 = (start_B33.swapaxes(1, 2) @ rotation_B33).reshape(-1, 9) @ to_cross.T
        moved_B31 = rotation_B33.swapaxes(1, 2) @ (position_B3 - start_B3)[:, :, None]
        off_B6 = xp.concatenate((turned_B3 / 2, moved_B31[:, :, 0]), 1)
        step_B6 = _solved(xp, hessian_B66, -normal_BX[:, 36:] - held_B6 * off_B6)
        step_B6 = step_B6 * (_LONGEST_STEP / _length(xp, step_B6).clip(min=_LONGEST_STEP))
        position_B3 = position_B3 + (rotation_B33 @ step_B6[:, 3:, None])[:, :, 0]
        # Rodrigues' formula.
        angle_B11 = _length(xp, step_B6[:, :3]).clip(min=1e-12)[:, :, None]
        cross_B33 = (step_B6[:, :3] @ to_cross).reshape(-1, 3, 3) / angle_B11
        versine_B11 = 2 * xp.sin(angle_B11 / 2) ** 2
        turn_B33 = xp.sin(angle_B11) * cross_B33 + versine_B11 * (cross_B33 @ cross_B33)
        rotation_B33 = rotation_B33 @ (identity_33 + turn_B33)
    # The last round moved hardly any more: its slopes are those of the answer.
    return rotation_B33, position_B3, _covariance(xp, hessian_B66, rotation_B33)


def _sums(
    xp: Any,
    rotation_B33: Any,
    position_B3: Any,
    point_BM3: Any,
    ray_BM3: Any,
    weight_BM: Any,
    scale: float,
) -> Any:
    """All that is needed of the sightings, see ``_normal_equations``: (B, 8, 6)."""
    unit_BM3, distance_BM1 = _expected(xp, rotation_B33, position_B3, point_BM3)
    cosine_BM1 = (unit_BM3 * ray_BM3).sum(2)[:, :, None]
    # The square of the chord between two unit vectors is 2 - 2 cosine.
    robust_BM1 = weight_BM[:, :, None] / (1 + 2 / scale**2 - 2 / scale**2 * cosine_BM1) ** 2
    near_BM1 = robust_BM1 / distance_BM1
    left_BM8 = xp.concatenate(
        (
            robust_BM1 * unit_BM3,
            near_BM1 / distance_BM1 * unit_BM3,
            near_BM1,
            near_BM1 * cosine_BM1,
        ),
        2,
    )
    return left_BM8.swapaxes(1, 2) @ xp.concatenate((unit_BM3, ray_BM3), 2)


def _normal_equations(sums_86: Array) -> Array:
    """Hessian (6, 6) and gradient (6), flat, by a turn of the camera, then by a move of it.

    With u the expected and r the seen direction, d the distance and P = I - u u^T, an error is
    u - r, and its slopes are [u]x and -P / d. Multiplied out, the Hessian's blocks are sums of
    w P, w [u]x / d and w P / d^2, the gradient's of w u x r and w P r / d.
    """
    by_turn = sums_86[:3, :3]
    by_move = sums_86[3:6, :3]
    both = (sums_86[6, :3] @ _TO_CROSS).reshape(3, 3)
    identity = np.eye(3)
    hessian = np.block(
        [
            [by_turn.trace() * identity - by_turn, both],
            [both.T, by_move.trace() * identity - by_move],
        ]
    )
    turn = -_TO_CROSS @ sums_86[:3, 3:].ravel()
    return np.concatenate((hessian.ravel(), turn, sums_86[6, 3:] - sums_86[7, :3]))


def _tables(xp: Any, like: Any) -> tuple[Any, ...]:
    return _tables_on(None if xp is np else like.device)


@functools.cache
def _tables_on(device: torch.device | None) -> tuple[Any, ...]:
    """``_normal_equations``, ``_TO_CROSS``, and which error holds what, as matrices; identities."""
    tables = (
        np.stack([_normal_equations(basis) for basis in np.eye(48).reshape(48, 8, 6)]),
        _TO_CROSS,
        np.array([[0, 0, 0, 1, 1, 1], [_ROTATION_DOUBT] * 3 + [0] * 3], float),
        np.eye(3),
        np.eye(6),
    )
    if device is None:
        return tables
    with torch.inference_mode(False):
        return tuple(torch.tensor(table, device=device) for table in tables)


def _solved(xp: Any, matrix_B66: Any, right_B6: Any) -> Any:
    if xp is np:
        return np.linalg.solve(matrix_B66, right_B6[:, :, None])[:, :, 0]
    # Without the check for singular matrices, which the prior excludes: it would make a GPU wait
    # in every round.
    return torch.linalg.solve_ex(matrix_B66, right_B6[:, :, None])[0][:, :, 0]


def _covariance(xp: Any, hessian_B66: Any, rotation_B33: Any) -> Any:
    """Of position, then rotation, about the scene's axes.

    The Hessian has rotation first, and the camera's axes.
    """
    inverse_B66 = np.linalg.inv(hessian_B66) if xp is np else torch.linalg.inv_ex(hessian_B66)[0]
    nothing_B33 = xp.zeros_like(rotation_B33)
    swapped_B66 = xp.concatenate(
        (
            xp.concatenate((nothing_B33, rotation_B33), 2),
            xp.concatenate((rotation_B33, nothing_B33), 2),
        ),
        1,
    )
    return _SIGHTING_ERROR**2 * swapped_B66 @ inverse_B66 @ swapped_B66.swapaxes(1, 2)


def direction_errors(
    rotation_B33: Tensor, position_B3: Tensor, point_BM3: Tensor, ray_BM3: Tensor
) -> Tensor:
    """Expected minus seen directions (B, M, 3) of points from camera-to-scene poses."""
    expected_BM3: Tensor = _expected(torch, rotation_B33, position_B3, point_BM3)[0]
    return expected_BM3 - ray_BM3


def _expected(xp: Any, rotation_B33: Any, position_B3: Any, point_BM3: Any) -> tuple[Any, Any]:
    """Unit directions (B, M, 3) of points in the camera's axes, and distances (B, M, 1)."""
    seen_BM3 = (point_BM3 - position_B3[:, None]) @ rotation_B33
    distance_BM1 = _length(xp, seen_BM3).clip(min=_NEAREST)
    return seen_BM3 / distance_BM1, distance_BM1


def _length(xp: Any, vector: Any) -> Any:
    """(..., 3 or 6) -> (..., 1)."""
    return xp.sqrt((vector * vector).sum(-1)[..., None])
