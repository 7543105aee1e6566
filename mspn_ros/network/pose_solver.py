"""Poses from landmarks and the directions in which they are seen, batched and in constant time."""

from __future__ import annotations

import torch
from torch import Tensor

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
    what its sightings and its start are worth.

    ``rotation_B33`` and ``position_B3`` are where to start, and are held to: by ``error_B2``, how
    far starts usually are off in position and in rotation (rad). With few sightings the answer
    stays near, with none it is the start. ``ray_BM3`` are unit rays in the camera's axes,
    ``weight_BM`` are within 0 to 1. Gauss-Newton on the angular errors under a Geman-McClure
    loss whose scale shrinks (graduated non-convexity, Yang et al. 2020).
    """
    start_B33, start_B3 = rotation_B33.double(), position_B3.double()
    point_BM3, ray_BM3, weight_BM = point_BM3.double(), ray_BM3.double(), weight_BM.double()
    rotation_B33, position_B3 = start_B33, start_B3
    doubt_2 = torch.tensor([1.0, _ROTATION_DOUBT], dtype=torch.float64, device=error_B2.device)
    held_B2 = (_SIGHTING_ERROR / (doubt_2 * error_B2.clamp(min=_LEAST_ERROR))) ** 2
    prior_B66 = torch.diag_embed(held_B2.flip(1).repeat_interleave(3, 1))
    hessian_B66 = prior_B66
    for number in range(_ROUNDS):
        scale = max(_FIRST_SCALE * _SHRINK**number, LAST_SCALE)
        error_BM3, slope_BM36 = _errors(rotation_B33, position_B3, point_BM3, ray_BM3)
        robust_BM = weight_BM / (1 + error_BM3.square().sum(2) / scale**2) ** 2
        weighted_BM36 = robust_BM[..., None, None] * slope_BM36
        hessian_B66 = torch.einsum("bmij,bmik->bjk", weighted_BM36, slope_BM36) + prior_B66
        turned_B3 = _sine(start_B33.mT @ rotation_B33)
        off_B6 = torch.cat((turned_B3, position_B3 - start_B3), 1)
        gradient_B6 = torch.einsum("bmij,bmi->bj", weighted_BM36, error_BM3)
        gradient_B6 = gradient_B6 + (prior_B66 @ off_B6[..., None])[..., 0]
        # Without the check for singular matrices, which the prior excludes: it would make a GPU
        # wait in every round.
        step_B6 = -torch.linalg.solve_ex(hessian_B66, gradient_B6[..., None])[0][..., 0]
        length_B1 = step_B6.norm(dim=1, keepdim=True)
        step_B6 = step_B6 * (_LONGEST_STEP / length_B1.clamp(min=_LONGEST_STEP))
        rotation_B33 = rotation_B33 @ _exp(step_B6[:, :3])
        position_B3 = position_B3 + step_B6[:, 3:]
    # The last round moved hardly any more: its slopes are those of the answer.
    return rotation_B33, position_B3, _covariance(hessian_B66, rotation_B33)


def _covariance(hessian_B66: Tensor, rotation_B33: Tensor) -> Tensor:
    """Of position, then rotation about the scene's axes; the Hessian begins with the camera's."""
    inverse_B66 = _SIGHTING_ERROR**2 * torch.linalg.inv_ex(hessian_B66)[0]
    inverse_B66 = inverse_B66.roll((3, 3), (1, 2))
    axes_B66 = torch.zeros_like(inverse_B66)
    axes_B66[:, :3, :3] = torch.eye(3, dtype=axes_B66.dtype, device=axes_B66.device)
    axes_B66[:, 3:, 3:] = rotation_B33
    covariance_B66: Tensor = axes_B66 @ inverse_B66 @ axes_B66.mT
    return covariance_B66


def direction_errors(
    rotation_B33: Tensor, position_B3: Tensor, point_BM3: Tensor, ray_BM3: Tensor
) -> Tensor:
    """Expected minus seen directions (B, M, 3) of points from camera-to-scene poses."""
    return _expected(rotation_B33, position_B3, point_BM3)[0] - ray_BM3


def _expected(
    rotation_B33: Tensor, position_B3: Tensor, point_BM3: Tensor
) -> tuple[Tensor, Tensor]:
    """Unit directions (B, M, 3) of points in the camera's axes, and distances (B, M, 1)."""
    seen_BM3 = (point_BM3 - position_B3[:, None]) @ rotation_B33
    distance_BM1 = seen_BM3.norm(dim=2, keepdim=True).clamp(min=_NEAREST)
    return seen_BM3 / distance_BM1, distance_BM1


def _errors(
    rotation_B33: Tensor, position_B3: Tensor, point_BM3: Tensor, ray_BM3: Tensor
) -> tuple[Tensor, Tensor]:
    """Expected minus seen directions (B, M, 3), and their slopes (B, M, 3, 6).

    By a turn of the camera about its own axes, then by a move in the scene's.
    """
    unit_BM3, distance_BM1 = _expected(rotation_B33, position_B3, point_BM3)
    identity = torch.eye(3, dtype=unit_BM3.dtype, device=unit_BM3.device)
    across_BM33 = identity - unit_BM3[..., :, None] * unit_BM3[..., None, :]
    by_move_BM33 = -(across_BM33 @ rotation_B33.mT[:, None]) / distance_BM1[..., None]
    return unit_BM3 - ray_BM3, torch.cat((_cross_matrix(unit_BM3), by_move_BM33), 3)


def _cross_matrix(vector: Tensor) -> Tensor:
    """(..., 3) v -> (..., 3, 3) that takes x to v cross x."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).view(*vector.shape, 3)


def _sine(rotation_B33: Tensor) -> Tensor:
    """Axis times the sine of the angle: the slope of the chordal distance from no rotation."""
    odd_B33 = (rotation_B33 - rotation_B33.mT) / 2
    return torch.stack((odd_B33[:, 2, 1], odd_B33[:, 0, 2], odd_B33[:, 1, 0]), 1)


def _exp(turn_B3: Tensor) -> Tensor:
    """Rotation vectors (B, 3) -> (B, 3, 3); Rodrigues' formula."""
    angle_B11 = turn_B3.norm(dim=1).clamp(min=1e-12)[:, None, None]
    cross_B33 = _cross_matrix(turn_B3) / angle_B11
    identity = torch.eye(3, dtype=turn_B3.dtype, device=turn_B3.device)
    sine, versine = torch.sin(angle_B11), 2 * torch.sin(angle_B11 / 2) ** 2
    turn_B33: Tensor = identity + sine * cross_B33 + versine * cross_B33 @ cross_B33
    return turn_B33
