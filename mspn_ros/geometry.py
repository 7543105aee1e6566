# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rotations as PoseNet-style networks regress them, and what the readers need of rigid motion.

Quaternions are xyzw. Torch functions are differentiable and finite everywhere in float32, float64
and bfloat16; NumPy-side rotations use ``scipy.spatial.transform.Rotation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from mspn_ros.records import Array, Pose

# Below this norm the first two series terms are exact to float64's last digit or nearly so,
# while the closed form divides a vanishing number by another.
_SMALL = 1e-4
# Below it a matrix says next to nothing of its rotation, and gradients would explode.
_LEAST_SUM = 1e-2
# Points whose second extent is less than this part of the first are on one line.
_LINE = 0.01


def quaternion_to_log(quaternion: Tensor) -> Tensor:
    """Log of unit quaternions, at half angle.

    (..., 4) xyzw -> (..., 3) rad, norm <= pi/2; q and -q agree. With w >= 0 made so first,
    log q = atan2(|v|, w) v / |v|. The gradient is finite everywhere except across the half turn
    (w = 0), where the value itself jumps. Brahmbhatt et al. 2018 (MapNet), section 3.2.
    """
    # w < 0, not sign(w): sign(0) = 0 would wipe out half turns.
    quaternion = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    v, w = quaternion[..., :3], quaternion[..., 3:]
    squared = (v * v).sum(-1, keepdim=True)
    small = squared < _SMALL**2
    norm = torch.sqrt(torch.where(small, torch.ones_like(squared), squared))
    closed = torch.atan2(norm, w) / norm
    # atan2(n, w)/n = 1/w - n^2/(3 w^3) + ...; w is near 1 in this branch.
    safe_w = torch.where(small, w, torch.ones_like(w))
    series = 1 / safe_w - squared / (3 * safe_w**3)
    return v * torch.where(small, series, closed)


def log_to_quaternion(log: Tensor) -> Tensor:
    """Exponential map: (..., 3) rad at half angle -> (..., 4) xyzw unit quaternion.

    exp u = (sin|u| u / |u|, cos|u|); the rotation vector is 2u. Inverse of
    :func:`quaternion_to_log` for norms below pi/2, any norm is accepted.
    Brahmbhatt et al. 2018 (MapNet), section 3.2.
    """
    squared = (log * log).sum(-1, keepdim=True)
    small = squared < _SMALL**2
    norm = torch.sqrt(torch.where(small, torch.ones_like(squared), squared))
    sinc = torch.where(small, 1 - squared / 6, torch.sin(norm) / norm)
    cosine = torch.where(small, 1 - squared / 2, torch.cos(norm))
    return torch.nn.functional.normalize(torch.cat((log * sinc, cosine), -1), dim=-1)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product: (..., 4) xyzw, (..., 4) xyzw -> (..., 4); b's rotation acts first."""
    av, aw = a[..., :3], a[..., 3:]
    bv, bw = b[..., :3], b[..., 3:]
    v = aw * bv + bw * av + torch.linalg.cross(av, bv)
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat((v, w), -1)


def quaternion_conjugate(quaternion: Tensor) -> Tensor:
    """Inverse of unit quaternions: (..., 4) xyzw -> (..., 4)."""
    return torch.cat((-quaternion[..., :3], quaternion[..., 3:]), -1)


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix_B33: Tensor) -> Tensor:
        u, s, vt = torch.linalg.svd(matrix_B33.double())
        signs = torch.ones_like(s)
        signs[:, 2] = torch.linalg.det(u @ vt).sign()
        u = u * signs[:, None]
        ctx.save_for_backward(u, s * signs, vt)
        rotation_B33: Tensor = u @ vt
        return rotation_B33.to(matrix_B33.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # dR = U [(U^T dM V - V^T dM^T U) / (s_i + s_j)] V^T: unlike through the decomposition's
        # own derivative nothing is divided by differences of singular values, which may be zero.
        u, s, vt = ctx.saved_tensors
        inner = u.mT @ gradient.double() @ vt.mT
        sums = (s[:, :, None] + s[:, None, :]).clamp(min=_LEAST_SUM)
        turned: Tensor = u @ ((inner - inner.mT) / sums) @ vt
        return turned.to(gradient.dtype)


def nearest_rotation(matrix_B33: Tensor) -> Tensor:
    """The rotation (B, 3, 3) nearest to each matrix in the Frobenius norm; differentiable.

    Of sum w a b^T it is the rotation that best turns vectors b into a (Kabsch 1976).
    """
    rotation_B33: Tensor = _NearestRotation.apply(matrix_B33)
    return rotation_B33


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """(..., 4) xyzw unit quaternions -> (..., 3, 3)."""
    x, y, z, w = quaternion.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 3, 3) rotations -> (..., 4) xyzw, w >= 0.

    Of the four ways to divide, the one with the largest divisor (Shepperd 1978).
    """
    m = matrix
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    trace = xx + yy + zz
    # 4 q q^T without its constant factor, a row each for x, y, z, w.
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    wx, wy, wz = (m[..., j, i] - m[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    rows = torch.stack(
        (
            torch.stack((1 + 2 * xx - trace, xy, xz, wx), -1),
            torch.stack((xy, 1 + 2 * yy - trace, yz, wy), -1),
            torch.stack((xz, yz, 1 + 2 * zz - trace, wz), -1),
            torch.stack((wx, wy, wz, 1 + trace), -1),
        ),
        -2,
    )
    largest = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(rows, largest[..., None, None], -2).squeeze(-2)
    quaternion = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def matrix_to_pose(camera_to_world: Array) -> Pose:
    """A pose from a (3, 4) or (4, 4) camera-to-world matrix.

    The rotation part is projected on the nearest rotation, since files round their digits.

    Raises:
        ValueError: not finite, or further than 0.1 from any rotation (scaled, mirrored).
    """
    if not np.isfinite(camera_to_world).all():
        raise ValueError("the pose has a NaN or an infinite number")
    matrix = camera_to_world[:3, :3].astype(np.float64)
    u, _, vt = np.linalg.svd(matrix)
    rotation = u @ vt
    if np.linalg.det(rotation) < 0 or np.abs(matrix - rotation).max() > 0.1:
        raise ValueError("the pose's 3x3 part is no rotation")
    quaternion = Rotation.from_matrix(rotation).as_quat()
    return Pose(camera_to_world[:3, 3].astype(np.float64), quaternion)


def quaternion_to_pose(position: Array, quaternion: Array) -> Pose:
    """A pose from a position (3,) and a camera-to-world quaternion (4,) xyzw, normalised here.

    Raises:
        ValueError: not finite, or a quaternion whose norm differs from 1 by more than 0.1.
    """
    position, quaternion = np.asarray(position, np.float64), np.asarray(quaternion, np.float64)
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        raise ValueError("the pose has a NaN or an infinite number")
    norm = float(np.linalg.norm(quaternion))
    if abs(norm - 1) > 0.1:
        raise ValueError(f"the quaternion's norm is {norm:.3g}, not 1")
    return Pose(position, quaternion / norm)


def pose_to_matrix(pose: Pose) -> Array:
    """(4, 4) camera-to-world matrix of a pose."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(pose.quaternion).as_matrix()
    matrix[:3, 3] = pose.position
    return matrix


def invert_pose(pose: Pose) -> Pose:
    """World-to-camera from camera-to-world, or the other way round: x -> R^T (x - t)."""
    inverse = Rotation.from_quat(pose.quaternion).inv()
    return Pose(-inverse.apply(pose.position), inverse.as_quat())


def viewing_direction(quaternion: Array) -> Array:
    """Unit vectors along the optical axis (camera z) in the world: (..., 4) xyzw -> (..., 3)."""
    flat = np.asarray(quaternion, np.float64).reshape(-1, 4)
    directions = Rotation.from_quat(flat).apply([0.0, 0.0, 1.0])
    return np.asarray(directions).reshape((*np.shape(quaternion)[:-1], 3))


def mean_quaternion(quaternions_N4: Array) -> Array:
    """Chordal mean rotation of (N, 4) xyzw quaternions; q and -q count alike -> (4,) xyzw."""
    return np.asarray(Rotation.from_quat(quaternions_N4).mean().as_quat())


@dataclass(frozen=True, slots=True)
class Similarity:
    """x -> scale * R x + translation: carries a scene's frame into a shared map frame."""

    translation: Array
    rotation: Rotation
    scale: float

    @classmethod
    def from_array(cls, packed: Array) -> Similarity:
        """From (8,): translation, quaternion xyzw, scale."""
        return cls(packed[:3], Rotation.from_quat(packed[3:7]), float(packed[7]))

    def apply(self, position: Array, quaternion: Array) -> tuple[Array, Array]:
        """A pose's position (3,) and quaternion (4,) xyzw in the map frame."""
        turned = self.rotation * Rotation.from_quat(quaternion)
        moved = self.scale * self.rotation.apply(position) + self.translation
        return np.asarray(moved), np.asarray(turned.as_quat())

    def apply_to_covariance(self, covariance: Array) -> Array:
        """A (6, 6) covariance, positions then rotations about fixed axes, in the map frame."""
        blocks = np.zeros((6, 6))
        blocks[:3, :3] = self.scale * self.rotation.as_matrix()
        blocks[3:, 3:] = self.rotation.as_matrix()
        return np.asarray(blocks @ covariance @ blocks.T)


def fit_similarity(from_N3: Array, to_N3: Array) -> Similarity:
    """The similarity that carries points to points with the least squared distances (Umeyama 1991).

    Raises:
        ValueError: fewer than three points, or all of them on one line or in one place, which
            leaves a rotation open.
    """
    source, target = np.asarray(from_N3, np.float64), np.asarray(to_N3, np.float64)
    if len(source) < 3:
        raise ValueError(f"{len(source)} points do not determine a similarity, three do")
    middle, aim = source.mean(0), target.mean(0)
    a, b = source - middle, target - aim
    spread = np.linalg.svd(a, compute_uv=False), np.linalg.svd(b, compute_uv=False)
    if any(s[1] <= _LINE * s[0] for s in spread):
        raise ValueError("the points lie on one line or in one place")
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = Rotation.from_matrix(u @ (signs[:, None] * vt))
    scale = float((s * signs).sum() / (a * a).sum())
    return Similarity(aim - scale * rotation.apply(middle), rotation, scale)
