# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From poses to the numbers a head regresses, and back: one place for training and the robot.

Each scene has an offset and a scale of positions and a reference rotation. The paper's recipe is
offset 0, scale 1, reference identity (raw metres, absolute orientation).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mspn_ros.geometry import (
    log_to_quaternion,
    matrix_to_quaternion,
    mean_quaternion,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_to_log,
    quaternion_to_matrix,
)
from mspn_ros.records import Array

# Position and rotation matrix.
MATRIX_PARAMETERS = 12


class PoseCoding:
    """Per-scene affine coding of poses; tensors of N scenes in float64, gathered by scene.

    ``position_offset`` (N, 3) and ``position_scale`` (N,) in the scene's unit,
    ``reference_rotation`` (N, 4) xyzw. float64, because map coordinates reach 1e6 m.
    """

    def __init__(
        self, position_offset: Tensor, position_scale: Tensor, reference_rotation: Tensor
    ) -> None:
        self.position_offset = position_offset.double()
        self.position_scale = position_scale.double()
        self.reference_rotation = reference_rotation.double()

    @classmethod
    def fit(
        cls, positions: list[Array], quaternions: list[Array], normalise: bool, reference: bool
    ) -> PoseCoding:
        """From each scene's training poses, [(n, 3)], [(n, 4) xyzw].

        With ``normalise``, offset is the mean position and scale the root mean square distance
        per axis from it; with ``reference``, the reference is the mean rotation, so that the
        log's jump at 180 degrees lies where the fewest frames are.
        """
        offsets, scales, references = [], [], []
        for position_N3, quaternion_N4 in zip(positions, quaternions, strict=True):
            offset = position_N3.mean(0)
            spread = float(np.sqrt(((position_N3 - offset) ** 2).mean()))
            offsets.append(offset if normalise else np.zeros(3))
            # A scene whose camera never moves has no spread to divide by.
            scales.append(spread if normalise and spread > 1e-6 else 1.0)
            identity = np.array([0.0, 0.0, 0.0, 1.0])
            references.append(mean_quaternion(quaternion_N4) if reference else identity)
        return cls(
            torch.tensor(np.stack(offsets)),
            torch.tensor(scales),
            torch.tensor(np.stack(references)),
        )

    def to(self, device: torch.device) -> PoseCoding:
        """The same coding with its tensors on ``device``."""
        return PoseCoding(
            self.position_offset.to(device),
            self.position_scale.to(device),
            self.reference_rotation.to(device),
        )

    def encode(
        self, position_B3: Tensor, quaternion_B4: Tensor, scene_B: Tensor, parameters: int
    ) -> Tensor:
        """Poses -> (B, P) float32 targets: position, then rotation, from the scene's reference.

        The rotation is a log-quaternion (P = 6, half angle) or a quaternion with w >= 0 (P = 7).
        P = 12 has the rotation's matrix row by row, and gives the position in the reference's
        axes, too: what a cell says of directions and of places is then said in one frame.
        """
        position = self._normalised(position_B3, scene_B)
        relative = quaternion_multiply(
            quaternion_conjugate(self.reference_rotation[scene_B]), quaternion_B4.double()
        )
        if parameters == MATRIX_PARAMETERS:
            position = self._in_reference_axes(position, scene_B)
            rotation = quaternion_to_matrix(relative).flatten(1)
        elif parameters == 6:
            rotation = quaternion_to_log(relative)
        else:
            rotation = torch.where(relative[:, 3:] < 0, -relative, relative)
        return torch.cat((position, rotation), 1).float()

    def encode_points(self, point_K3: Tensor, scene: int) -> Tensor:
        """Points of one scene's frame as P = 12 has positions: (K, 3) -> (K, 3) float64."""
        scene_K = torch.full((len(point_K3),), scene, device=point_K3.device)
        return self._in_reference_axes(self._normalised(point_K3, scene_K), scene_K)

    def _normalised(self, position_B3: Tensor, scene_B: Tensor) -> Tensor:
        offset_B3 = position_B3.double() - self.position_offset[scene_B]
        return offset_B3 / self.position_scale[scene_B, None]

    def _in_reference_axes(self, position_B3: Tensor, scene_B: Tensor) -> Tensor:
        axes_B33 = quaternion_to_matrix(self.reference_rotation[scene_B])
        return (axes_B33.mT @ position_B3[..., None]).squeeze(2)

    def decode_points(self, point_K3: Tensor, scene: int) -> Tensor:
        """The inverse of ``encode_points``: (K, 3) -> (K, 3) float64."""
        axes_33 = quaternion_to_matrix(self.reference_rotation[scene])
        turned_K3 = point_K3.double() @ axes_33.mT
        return self.position_offset[scene] + self.position_scale[scene] * turned_K3

    def decode_covariance(self, covariance_B66: Tensor, scene_B: Tensor) -> Tensor:
        """Of P = 12's position and rotation vector -> of the scene's, (B, 6, 6) float64."""
        axes_B33 = quaternion_to_matrix(self.reference_rotation[scene_B])
        turned_B66 = torch.zeros_like(covariance_B66, dtype=torch.float64)
        turned_B66[:, :3, :3] = self.position_scale[scene_B, None, None] * axes_B33
        turned_B66[:, 3:, 3:] = axes_B33
        return turned_B66 @ covariance_B66.double() @ turned_B66.mT

    def decode(self, pose_BP: Tensor, scene_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P) network output -> (B, 3) positions and (B, 4) xyzw unit quaternions, float64."""
        pose = pose_BP.double()
        offset_B3 = pose[:, :3]
        if pose.shape[1] == MATRIX_PARAMETERS:
            axes_B33 = quaternion_to_matrix(self.reference_rotation[scene_B])
            offset_B3 = (axes_B33 @ offset_B3[..., None]).squeeze(2)
            relative = matrix_to_quaternion(pose[:, 3:].view(-1, 3, 3))
        elif pose.shape[1] == 6:
            relative = log_to_quaternion(pose[:, 3:])
        else:
            relative = torch.nn.functional.normalize(pose[:, 3:], dim=1)
        position = self.position_offset[scene_B] + self.position_scale[scene_B, None] * offset_B3
        quaternion = quaternion_multiply(self.reference_rotation[scene_B], relative)
        return position, torch.nn.functional.normalize(quaternion, dim=1)
