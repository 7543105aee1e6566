# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses over time, by geometry, and TUM files as other tools read them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mspn_ros.datasets.trajectory import Trajectory, write_tum
from mspn_ros.metrics import rotation_error_deg

S = 10**9


def test_interpolation_turns_and_moves_evenly():
    # A turn of 10 degrees a second about a skew axis, with the sign of every second
    # quaternion swapped: interpolating the raw numbers would spin the long way round.
    axis = np.array([1.0, 2.0, -2.0]) / 3
    times = np.arange(0, 40, 0.5)
    rotations = Rotation.from_rotvec(np.radians(10) * times[:, None] * axis)
    quaternions = rotations.as_quat() * np.where(np.arange(80) % 2, -1, 1)[:, None]
    positions = times[:, None] * [0.5, -1.0, 2.0]
    track = Trajectory.from_samples((times * S).astype(np.int64), positions, quaternions)
    for time in np.random.default_rng(0).uniform(0, 39, 200):
        stamp_ns = int(time * S)
        pose = track.interpolate(stamp_ns)
        true = Rotation.from_rotvec(np.radians(10) * stamp_ns / S * axis).as_quat()
        assert rotation_error_deg(pose.quaternion, true) < 1e-9
        np.testing.assert_allclose(pose.position, np.array([0.5, -1, 2]) * stamp_ns / S, atol=1e-9)


def test_interpolation_never_extrapolates_nor_bridges_a_gap():
    identity = np.tile([0.0, 0.0, 0.0, 1.0], (4, 1))
    stamps = np.array([1.0, 1.5, 3.0, 3.4]) * S
    positions = np.array([[1.0, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]])
    track = Trajectory.from_samples(stamps.astype(np.int64), positions, identity)
    assert track.interpolate(S - 1) is None
    assert track.interpolate(int(3.4 * S) + 1) is None
    assert track.interpolate(2 * S) is None
    assert track.interpolate(2 * S, max_gap_s=1.5).position[0] == pytest.approx(2 + 1 / 3)
    # Exact hits always answer, also beside a gap and at both ends, and at the largest gap allowed.
    for stamp, position in zip(track.stamps_ns, positions, strict=True):
        np.testing.assert_array_equal(track.interpolate(int(stamp)).position, position)
    assert track.interpolate(int(1.25 * S)).position[0] == pytest.approx(1.5)


def test_trajectory_sorts_and_drops_what_is_unusable():
    quaternions = np.tile([0.0, 0, 0, 1], (6, 1))
    quaternions[2] = (0, 0, 0, 1.05)  # normalised
    quaternions[3] = (0, 0, 0, 0)
    positions = np.arange(18.0).reshape(6, 3)
    positions[4, 1] = np.inf
    track = Trajectory.from_samples(np.array([5, 2, 9, 3, 4, 5]), positions, quaternions)
    assert track.stamps_ns.tolist() == [2, 5, 9]
    assert track.positions[:, 0].tolist() == [3, 0, 6]
    assert track.dropped == 3
    np.testing.assert_allclose(np.linalg.norm(track.quaternions, axis=1), 1)


def test_empty_trajectory_has_no_pose():
    track = Trajectory.from_samples(np.empty(0, np.int64), np.empty((0, 3)), np.empty((0, 4)))
    assert track.interpolate(0) is None


def test_tum_file_has_the_columns_of_the_format(tmp_path):
    quaternion = Rotation.from_euler("xyz", (0.1, 0.2, 0.3)).as_quat()
    path = tmp_path / "poses.txt"
    write_tum(path, np.array([1700000000.125, 1700000000.25]), np.eye(3)[:2], [quaternion] * 2)
    lines = path.read_text().splitlines()
    assert lines[0] == "# timestamp tx ty tz qx qy qz qw"
    assert lines[1].split()[:4] == ["1700000000.125000000", "1.000000000"] + ["0.000000000"] * 2
    with pytest.raises(ValueError, match="NaN"):
        write_tum(path, np.array([1.0]), np.full((1, 3), np.nan), [quaternion])


def test_evo_reads_the_tum_file(tmp_path):
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="needs evo")
    quaternion = Rotation.from_euler("xyz", (0.1, 0.2, 0.3)).as_quat()
    write_tum(tmp_path / "poses.txt", np.array([1.5, 2.5]), np.eye(3)[:2], [quaternion] * 2)
    track = file_interface.read_tum_trajectory_file(str(tmp_path / "poses.txt"))
    assert track.timestamps.tolist() == [1.5, 2.5]
    np.testing.assert_allclose(track.positions_xyz, np.eye(3)[:2])
    np.testing.assert_allclose(track.orientations_quat_wxyz[0], np.roll(quaternion, 1), atol=1e-8)
