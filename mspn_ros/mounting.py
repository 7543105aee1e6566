# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms between frames, and a camera's place on a robot as users write it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.records import Array, ConfigError, Pose

# Rotation from body axes (x forward, y left, z up) to optical axes (x right, y down, z forward),
# the inverse of the camera joint in REP-103: columns are the body axes seen from the camera.
BODY_TO_OPTICAL = Rotation.from_matrix([[0, -1, 0], [0, 0, -1], [1, 0, 0]])

# Farther from base_frame no camera is mounted; millimetres are.
_FARTHEST_M = 100.0
# How far from 1 the norm of a quaternion may be that somebody has typed with three digits.
_NORM_SLACK = 0.01


@dataclass(frozen=True, slots=True)
class RigidTransform:
    """x -> R x + translation: carries points of the child frame into the parent frame.

    ``translation`` (3,) in metres is where the child's origin is in the parent.
    """

    translation: Array
    rotation: Rotation

    @classmethod
    def of_pose(cls, pose: Pose) -> RigidTransform:
        """A pose as what it is: world_from_camera."""
        return cls(np.asarray(pose.position), Rotation.from_quat(pose.quaternion))

    def __matmul__(self, other: RigidTransform) -> RigidTransform:
        """a_from_b @ b_from_c = a_from_c."""
        moved = self.rotation.apply(other.translation) + self.translation
        return RigidTransform(np.asarray(moved), self.rotation * other.rotation)

    def inverse(self) -> RigidTransform:
        """parent_from_child -> child_from_parent."""
        turned = self.rotation.inv()
        return RigidTransform(np.asarray(-turned.apply(self.translation)), turned)

    def pose(self) -> Pose:
        """The child's pose in the parent frame."""
        return Pose(self.translation, np.asarray(self.rotation.as_quat()))


# From a camera's body axes (x forward, z up) to its optical frame, at the same place.
BODY_FROM_OPTICAL = RigidTransform(np.zeros(3), BODY_TO_OPTICAL.inv())


def mounting_of(option: str, value: str, remedy: str) -> RigidTransform:
    """base_from_camera of 'x y z roll pitch yaw' or 'x y z qx qy qz qw', in metres and radians.

    It carries the camera's OPTICAL frame (z forward) into base_frame; the numbers are of its body
    axes, so that "0.2 0 0.3 0 0 0" looks straight ahead. Roll, pitch and yaw are about
    base_frame's fixed axes x, y, z in this order, as in a URDF's origin.

    Raises:
        ConfigError: it is neither; names ``option``, the value and ``remedy``.
    """

    def refused(why: str) -> ConfigError:
        return ConfigError(f"{option}: {value!r}: {why}; {remedy}")

    try:
        numbers = [float(word) for word in value.split()]
    except ValueError:
        raise refused("these are not numbers with spaces between them") from None
    if len(numbers) not in (6, 7):
        raise refused(f"{len(numbers)} numbers, not 6 or 7")
    if not all(math.isfinite(number) for number in numbers):
        raise refused("not all of the numbers are finite")
    position, turn = np.array(numbers[:3]), np.array(numbers[3:])
    if (distance := float(np.linalg.norm(position))) > _FARTHEST_M:
        raise refused(f"{distance:g} m from base_frame; are these millimetres?")
    if len(turn) == 3:
        if (np.abs(turn) > 2 * math.pi).any():
            raise refused("angles beyond a full turn; are these degrees?")
        body = Rotation.from_euler("xyz", turn)
    else:
        if abs(norm := float(np.linalg.norm(turn)) - 1) > _NORM_SLACK:
            raise refused(f"a quaternion of norm {norm + 1:.3g}, not 1")
        body = Rotation.from_quat(turn)
    return RigidTransform(position, body * BODY_TO_OPTICAL.inv())
