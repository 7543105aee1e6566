# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mountings: what is typed, and what a camera's pose then says of the robot's."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

from scipy.spatial.transform import Rotation

from mspn_ros.node.mounting import (
    RigidTransform,
    base_estimate,
    parse_mounting,
    require_all_or_none,
)
from mspn_ros.records import ConfigError, PoseEstimate


def estimate_of(position, rotation, covariance=None, metres_per_unit=1.0):
    return PoseEstimate(
        7,
        "hall",
        0.9,
        frame_id="map",
        position=np.asarray(position, float),
        quaternion=rotation.as_quat(),
        covariance=covariance,
        metres_per_unit=metres_per_unit,
    )


def random_covariance(rng, position_m=0.1, rotation_rad=0.02):
    half = rng.normal(size=(6, 6)) * np.repeat([position_m, rotation_rad], 3)[:, None]
    return half @ half.T


def matrix(transform):
    """4x4, as TF's chains are multiplied."""
    homogeneous = np.eye(4)
    homogeneous[:3, :3] = transform.rotation.as_matrix()
    homogeneous[:3, 3] = transform.translation
    return homogeneous


def test_a_camera_without_turn_looks_straight_ahead_from_where_it_sits():
    mounting = parse_mounting("mounting", "0.2 0 0.3 0 0 0")
    np.testing.assert_array_equal(mounting.translation, [0.2, 0, 0.3])
    # Optical z, x and y are forward, right and down: x, -y and -z of base_link.
    np.testing.assert_allclose(mounting.rotation.apply([0, 0, 1]), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(mounting.rotation.apply([1, 0, 0]), [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(mounting.rotation.apply([0, 1, 0]), [0, 0, -1], atol=1e-12)


def test_a_camera_that_looks_left_and_down_is_typed_as_in_a_urdf():
    # Yaw by a quarter turn to the left; then, about the camera's new left, pitch nods down.
    mounting = parse_mounting("mounting", f"0 0.1 0.5 0 {np.pi / 6} {np.pi / 2}")
    looks = mounting.rotation.apply([0, 0, 1])
    np.testing.assert_allclose(looks, [0, np.cos(np.pi / 6), -0.5], atol=1e-12)


def test_six_numbers_and_seven_are_the_same_mounting():
    rng = np.random.default_rng(0)
    for _ in range(20):
        position, angles = rng.normal(size=3), rng.uniform(-1.5, 1.5, 3)
        # A URDF's rpy as a matrix, written out: Rz(yaw) Ry(pitch) Rx(roll).
        x, y, z = (Rotation.from_rotvec(a * e) for a, e in zip(angles, np.eye(3), strict=True))
        quaternion = (z * y * x).as_quat()
        six = parse_mounting("mounting", " ".join(map(str, (*position, *angles))))
        seven = parse_mounting("mounting", "  ".join(map(str, (*position, *quaternion))))
        np.testing.assert_allclose(matrix(six), matrix(seven), atol=1e-12)


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_mounting_is_unknown(value):
    assert parse_mounting("mounting", value) is None
    assert parse_mounting("mounting", " tf ") == "tf"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("0.2 0 0.3", "3 numbers, not 6 or 7"),
        ("0.2 0 0.3 0 0 0 0 1", "8 numbers"),
        ("0.2, 0, 0.3, 0, 0, 0", "not numbers with spaces"),
        ("camera_link", "not numbers"),
        ("0 0 nan 0 0 0", "finite"),
        ("0 0 1e400 0 0 0", "finite"),
        ("200 0 300 0 0 0", "millimetres"),
        ("0.2 0 0.3 0 0 90", "degrees"),
        ("0 0 0 0 0 0 0", "norm 0, not 1"),
        ("0 0 0 1 0 0 1", "norm 1.41, not 1"),
    ],
)
def test_raises_on_a_mounting_that_is_none(value, why):
    with pytest.raises(ConfigError) as raised:
        parse_mounting("front.mounting", value)
    text = str(raised.value)
    assert text.startswith(f"parameter front.mounting: {value!r}: ")
    assert why in text
    assert "x y z roll pitch yaw" in text
    assert "\n" not in text


def test_raises_where_only_some_cameras_have_a_mounting():
    require_all_or_none({"a.mounting": "", "b.mounting": " "})
    require_all_or_none({"a.mounting": "tf", "b.mounting": "0 0 0 0 0 0"})
    with pytest.raises(ConfigError, match=r"b\.mounting: no mounting, while a\.mounting has one"):
        require_all_or_none({"a.mounting": "tf", "b.mounting": ""})


def test_base_frame_is_where_a_chain_of_transforms_puts_it():
    rng = np.random.default_rng(1)
    for _ in range(20):
        camera = RigidTransform(rng.normal(size=3), Rotation.random(random_state=rng))
        mounting = RigidTransform(rng.normal(size=3), Rotation.random(random_state=rng))
        found = base_estimate(estimate_of(camera.translation, camera.rotation), mounting)
        expected = matrix(camera) @ np.linalg.inv(matrix(mounting))
        base = RigidTransform(found.position, Rotation.from_quat(found.quaternion))
        np.testing.assert_allclose(matrix(base), expected, atol=1e-12)
        np.testing.assert_allclose(matrix(base @ mounting), matrix(camera), atol=1e-12)
        assert (found.scene, found.frame_id, found.confidence) == ("hall", "map", 0.9)
        assert found.covariance is None


def test_a_robot_that_faces_north_is_behind_the_camera_at_its_front():
    """By hand, since a chain that is wrong both ways agrees with itself."""
    # The camera at (5, 2, 0.3), level, looks along the map's y: body yaw a quarter turn.
    optical = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    found = base_estimate(
        estimate_of([5, 2, 0.3], optical), parse_mounting("mounting", "0.2 0 0.3 0 0 0")
    )
    np.testing.assert_allclose(found.position, [5, 1.8, 0], atol=1e-12)
    yaw, pitch, roll = Rotation.from_quat(found.quaternion).as_euler("ZYX")
    assert (yaw, pitch, roll) == pytest.approx((np.pi / 2, 0, 0))


def test_the_covariance_is_that_of_poses_drawn_with_the_cameras_errors():
    rng = np.random.default_rng(2)
    mounting = RigidTransform(np.array([0.8, -0.5, 1.2]), Rotation.random(random_state=rng))
    rotation, covariance = Rotation.random(random_state=rng), random_covariance(rng)
    found = base_estimate(estimate_of([3, -1, 2], rotation, covariance), mounting)
    errors = rng.multivariate_normal(np.zeros(6), covariance, size=100_000)
    turned = Rotation.from_rotvec(errors[:, 3:]) * rotation
    base = turned * mounting.rotation.inv()
    moved = np.array([3, -1, 2]) + errors[:, :3] - base.apply(mounting.translation)
    turn = (base * Rotation.from_quat(found.quaternion).inv()).as_rotvec()
    drawn = np.cov(np.hstack((moved - found.position, turn)).T)
    deviation = np.sqrt(np.diag(drawn))
    np.testing.assert_allclose(
        found.covariance / np.outer(deviation, deviation),
        drawn / np.outer(deviation, deviation),
        atol=0.03,
    )
    # The lever arm matters here: without it, or with its sign turned, it would not fit.
    assert abs(found.covariance[:3, 3:] - covariance[:3, 3:]).max() > 3 * deviation[3:].min() ** 2


def test_positions_and_covariances_of_a_scene_in_feet_become_metres_before_the_lever_arm():
    rng = np.random.default_rng(3)
    rotation, covariance = Rotation.random(random_state=rng), random_covariance(rng)
    mounting = parse_mounting("mounting", "0.2 0.1 0.3 0.1 0 1")
    units = np.repeat([0.3048, 1.0], 3)
    in_metres = base_estimate(
        estimate_of([0.3048, 0, 0.6096], rotation, covariance * np.outer(units, units)), mounting
    )
    found = base_estimate(estimate_of([1, 0, 2], rotation, covariance, 0.3048), mounting)
    np.testing.assert_allclose(found.position, in_metres.position)
    np.testing.assert_allclose(found.covariance, in_metres.covariance)
    assert found.metres_per_unit == 1.0


def test_raises_where_metres_on_the_robot_mean_nothing_in_the_scene():
    mounting = parse_mounting("mounting", "0.2 0 0.3 0 0 0")
    with pytest.raises(ConfigError, match=r"'hall' has no known scale.*metres_per_unit"):
        base_estimate(estimate_of([1, 0, 2], Rotation.identity(), None, None), mounting)
