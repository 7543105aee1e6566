# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Log-quaternions at their singular points, and rigid motion against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mspn_ros.geometry import (
    invert_pose,
    log_to_quaternion,
    matrix_to_pose,
    mean_quaternion,
    pose_to_matrix,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_to_log,
    quaternion_to_pose,
    viewing_direction,
)
from mspn_ros.metrics import rotation_error_deg
from mspn_ros.records import Pose

# Angles of rotation: zero, around the switch to the series, ordinary, around the half turn.
ANGLES = [0.0, 1e-12, 1e-7, 1.99e-4, 2.01e-4, 0.1, 1.0, 3.0, math.pi - 1e-7, math.pi]
AXIS = np.array([2.0, -3.0, 6.0]) / 7


def quaternion_of(angle, dtype=torch.float64):
    return torch.tensor(Rotation.from_rotvec(angle * AXIS).as_quat(), dtype=dtype)


def random_rotations(count):
    return Rotation.random(count, random_state=np.random.RandomState(0))


@pytest.mark.parametrize("angle", ANGLES)
def test_log_is_half_the_rotation_vector(angle):
    log = quaternion_to_log(quaternion_of(angle)).numpy()
    if angle == math.pi:  # both signs of the axis are right
        log = log * np.sign(log @ AXIS)
    np.testing.assert_allclose(log, angle / 2 * AXIS, rtol=1e-12, atol=1e-16)


def test_log_agrees_with_scipy_on_random_rotations():
    rotations = random_rotations(1000)
    log = quaternion_to_log(torch.tensor(rotations.as_quat())).numpy()
    np.testing.assert_allclose(2 * log, rotations.as_rotvec(), atol=1e-12)
    assert np.linalg.norm(log, axis=1).max() <= math.pi / 2


def test_log_of_q_and_minus_q_agree():
    quaternions = torch.tensor(random_rotations(1000).as_quat())
    torch.testing.assert_close(
        quaternion_to_log(quaternions), quaternion_to_log(-quaternions), rtol=0, atol=0
    )


def test_log_of_exact_half_turns_is_not_wiped_out():
    # sign(w) = 0 would zero the quaternion here.
    for axis in range(3):
        quaternion = torch.zeros(4, dtype=torch.float64)
        quaternion[axis] = 1.0
        log = quaternion_to_log(quaternion)
        assert log[axis].item() == pytest.approx(math.pi / 2, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", ANGLES)
def test_exponential_undoes_the_log(angle, dtype):
    quaternion = quaternion_of(angle, dtype)
    back = log_to_quaternion(quaternion_to_log(quaternion))
    assert back.dtype == dtype
    tolerance = 1e-7 if dtype == torch.float32 else 1e-15
    error = min((back - quaternion).abs().max(), (back + quaternion).abs().max())
    assert error <= 4 * tolerance


def test_log_undoes_the_exponential_below_a_quarter_turn_of_half_angle():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(1000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    logs = torch.tensor(directions * rng.uniform(0, math.pi / 2 - 1e-6, (1000, 1)))
    torch.testing.assert_close(quaternion_to_log(log_to_quaternion(logs)), logs, rtol=0, atol=1e-12)


def test_exponential_agrees_with_scipy_beyond_a_whole_turn():
    logs = np.random.default_rng(0).normal(size=(1000, 3)) * 4
    quaternions = log_to_quaternion(torch.tensor(logs)).numpy()
    true = Rotation.from_rotvec(2 * logs).as_quat()
    assert rotation_error_deg(quaternions, true).max() < 1e-10
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1, atol=1e-15)


@pytest.mark.parametrize("norm", [0.0, 1e-9, 1e-7, 1e-3, 0.5, 1.5, math.pi / 2, 3.0])
def test_gradient_of_the_exponential(norm):
    log = torch.tensor(norm * AXIS, requires_grad=True)
    assert torch.autograd.gradcheck(log_to_quaternion, log)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-7, 1e-3, 0.5, 3.0, 6.0])
def test_gradient_of_the_log(angle):
    # 6 rad has w < 0: the branch that turns the sign.
    half = angle / 2
    quaternion = torch.tensor([*(math.sin(half) * AXIS), math.cos(half)], requires_grad=True)
    assert torch.autograd.gradcheck(quaternion_to_log, quaternion.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("angle", [0.0, 1e-30, 1e-20, 1e-7, 2e-4, 1.0, math.pi])
def test_gradients_are_finite_in_short_floats(angle, dtype):
    quaternion = quaternion_of(angle, dtype).requires_grad_()
    log = quaternion_to_log(quaternion)
    log.sum().backward()
    assert torch.isfinite(log).all()
    assert torch.isfinite(quaternion.grad).all()
    log = torch.tensor(angle / 2 * AXIS, dtype=dtype, requires_grad=True)
    log_to_quaternion(log).sum().backward()
    assert torch.isfinite(log.grad).all()


def test_gradient_at_the_identity_is_the_identity():
    # 2 arccos(w) forms have none or an infinite one here.
    quaternion = torch.tensor([0.0, 0.0, 0.0, 1.0])
    jacobian = torch.autograd.functional.jacobian(quaternion_to_log, quaternion)
    torch.testing.assert_close(jacobian[:, :3], torch.eye(3))
    jacobian = torch.autograd.functional.jacobian(log_to_quaternion, torch.zeros(3))
    torch.testing.assert_close(jacobian, torch.eye(4)[:, :3])


def test_series_and_closed_form_meet():
    # The switch lies at a half angle of 1e-4.
    for angle in (1.9999e-4, 2.0001e-4):
        log = quaternion_to_log(quaternion_of(angle)).numpy()
        np.testing.assert_allclose(log, angle / 2 * AXIS, rtol=1e-14)


def test_products_and_conjugates_agree_with_scipy():
    a, b = random_rotations(200)[:100], random_rotations(200)[100:]
    a4, b4 = torch.tensor(a.as_quat()), torch.tensor(b.as_quat())
    product = quaternion_multiply(a4, b4).numpy()
    assert rotation_error_deg(product, (a * b).as_quat()).max() < 1e-10
    identity = quaternion_multiply(a4, quaternion_conjugate(a4)).numpy()
    np.testing.assert_allclose(identity, np.tile([0, 0, 0, 1.0], (100, 1)), atol=1e-15)


def test_batch_shapes_are_kept():
    quaternion = torch.tensor(random_rotations(6).as_quat()).view(2, 3, 4)
    assert quaternion_to_log(quaternion).shape == (2, 3, 3)
    assert log_to_quaternion(quaternion[..., :3]).shape == (2, 3, 4)
    assert quaternion_multiply(quaternion, quaternion[:, :1]).shape == (2, 3, 4)
    assert viewing_direction(quaternion.numpy()).shape == (2, 3, 3)


# --- poses ---------------------------------------------------------------------------------


def test_matrix_and_pose_are_the_same_motion():
    rotation = random_rotations(1)[0]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), (1.0, -2.0, 3.0)
    for shape in (3, 4):
        pose = matrix_to_pose(matrix[:shape])
        np.testing.assert_allclose(pose_to_matrix(pose), matrix, atol=1e-14)
    point = np.array([0.3, 0.2, 5.0])
    moved = rotation.apply(point) + matrix[:3, 3]
    np.testing.assert_allclose((pose_to_matrix(pose) @ [*point, 1])[:3], moved, atol=1e-12)


def test_rounded_matrix_gives_the_nearest_rotation():
    rotation = random_rotations(1)[0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix().round(3)
    pose = matrix_to_pose(matrix)
    assert rotation_error_deg(pose.quaternion, rotation.as_quat()) < 0.1
    assert np.linalg.norm(pose.quaternion) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (np.diag([1.0, 1, -1, 1]), "no rotation"),  # mirrored
        (np.diag([2.0, 2, 2, 1]), "no rotation"),  # scaled
        (np.zeros((4, 4)), "no rotation"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.array([[1.0, 0, 0, np.inf], [0, 1, 0, 0], [0, 0, 1, 0]]), "NaN or an infinite"),
    ],
)
def test_matrix_that_is_no_pose_is_refused(matrix, match):
    with pytest.raises(ValueError, match=match):
        matrix_to_pose(matrix)


def test_quaternion_is_normalised_or_refused():
    pose = quaternion_to_pose(np.zeros(3), np.array([0, 0, 0.6, 0.8001]))
    assert np.linalg.norm(pose.quaternion) == pytest.approx(1, abs=1e-15)
    for quaternion in ([0, 0, 0, 0], [0, 0, 0, 2.0], [0, 0, 0, np.nan]):
        with pytest.raises(ValueError, match=r"norm|NaN"):
            quaternion_to_pose(np.zeros(3), np.array(quaternion))
    with pytest.raises(ValueError, match="NaN"):
        quaternion_to_pose(np.array([0, np.nan, 0]), np.array([0, 0, 0, 1.0]))


def test_inverse_brings_the_camera_to_its_own_origin():
    pose = Pose(np.array([1.0, 2.0, 3.0]), random_rotations(1)[0].as_quat())
    inverse = invert_pose(pose)
    np.testing.assert_allclose((pose_to_matrix(inverse) @ [1, 2, 3, 1])[:3], 0, atol=1e-14)
    back = invert_pose(inverse)
    np.testing.assert_allclose(back.position, pose.position, atol=1e-14)
    assert rotation_error_deg(back.quaternion, pose.quaternion) < 1e-12


def test_viewing_direction_is_the_optical_axis():
    # A camera that was turned left about its own y axis (down) looks to its left, -x.
    quaternion = Rotation.from_euler("y", -90, degrees=True).as_quat()
    np.testing.assert_allclose(viewing_direction(quaternion), [-1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(viewing_direction(np.array([0, 0, 0, 1.0])), [0, 0, 1])


def test_mean_rotation_ignores_the_sign_of_quaternions():
    angles = np.array([-20.0, 0.0, 20.0])
    quaternions = Rotation.from_euler("z", angles[:, None], degrees=True).as_quat()
    signs = np.array([[1.0], [-1.0], [-1.0]])
    assert rotation_error_deg(mean_quaternion(quaternions * signs), np.array([0, 0, 0, 1.0])) < 1e-9
