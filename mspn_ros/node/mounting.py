# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a camera sits on the robot, and what its pose then says of the robot's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.mounting import RigidTransform as RigidTransform  # transforms.py and others ask here
from mspn_ros.mounting import mounting_of
from mspn_ros.records import Array, ConfigError, PoseEstimate

# The value of the parameter that has the mounting looked up from TF.
FROM_TF = "tf"
_REMEDY = (
    "give 'x y z roll pitch yaw' (metres and radians, of the camera's body axes, x forward and z "
    f"up, in base_frame), 'x y z qx qy qz qw', or {FROM_TF}; nothing where it is unknown"
)


def parse_mounting(parameter: str, value: str) -> RigidTransform | str | None:
    """The value of a ``mounting`` parameter: base_from_camera, FROM_TF, or None where it is empty.

    What the numbers mean: mspn_ros.mounting.mounting_of.

    Raises:
        ConfigError: neither; names ``parameter``, the value and what to give.
    """
    text = value.strip()
    if not text or text == FROM_TF:
        return text or None
    return mounting_of(f"parameter {parameter}", value, _REMEDY)


def require_all_or_none(mountings: Mapping[str, str]) -> None:
    """Hold the values of the ``mounting`` parameters, by parameter name, against each other.

    Raises:
        ConfigError: some cameras have a mounting and some have none: poses of base_frame and of
            a camera would be mixed up on one topic.
    """
    without = [name for name, value in mountings.items() if not value.strip()]
    if without and len(without) < len(mountings):
        given = ", ".join(name for name in mountings if name not in without)
        raise ConfigError(
            f"parameter {', '.join(without)}: no mounting, while {given} has one; the topic pose "
            "would be of base_frame and of a camera in turn: give every camera a mounting, or none"
        )


def base_estimate(estimate: PoseEstimate, base_from_camera: RigidTransform) -> PoseEstimate:
    """The estimate of a camera's pose -> that of base_frame's, in metres.

    With r = R_map_base t, t where the camera is in base_frame, both turn by the same error e
    (about the map's fixed axes), and the position's is that of the camera plus r x e: with
    J = [[1, [r]x], [0, 1]] the covariance is J C J^T. Exact to first order; where e is large, J
    says more than is possible (an arc is never longer than its tangent).

    Raises:
        ConfigError: the scene's scale is not known, so that metres on the robot cannot be taken
            from its positions.
    """
    assert estimate.position is not None
    assert estimate.quaternion is not None
    scale = estimate.metres_per_unit
    if scale is None:
        raise ConfigError(
            f"scene {estimate.scene!r} has no known scale: its positions are not in metres, so no "
            "pose of base_frame follows from them and the mounting; set metres_per_unit when "
            "training it, or leave the parameter mounting empty"
        )
    map_from_camera = RigidTransform(
        scale * np.asarray(estimate.position, np.float64), Rotation.from_quat(estimate.quaternion)
    )
    map_from_base = map_from_camera @ base_from_camera.inverse()
    covariance = estimate.covariance
    if covariance is not None:
        lever = map_from_base.rotation.apply(base_from_camera.translation)
        units = np.array([scale, scale, scale, 1.0, 1.0, 1.0])
        jacobian = np.eye(6)
        jacobian[:3, 3:] = _cross_matrix(lever)
        jacobian = jacobian * units
        covariance = jacobian @ covariance @ jacobian.T
    return replace(
        estimate,
        position=map_from_base.translation,
        quaternion=np.asarray(map_from_base.rotation.as_quat()),
        covariance=covariance,
        metres_per_unit=1.0,
    )


def _cross_matrix(vector: Array) -> Array:
    """[v]x: [v]x e = v x e."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
