# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The project's numbers, worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mspn_ros.metrics import (
    confusion,
    mean_score,
    median_error,
    position_error,
    position_extent,
    recall,
    rotation_error_deg,
    score_scene,
)

INF = math.inf
IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])


def turned(degrees):
    return Rotation.from_euler("x", degrees, degrees=True).as_quat()


def test_position_error_is_the_distance():
    estimated = np.array([[3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
    true = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert position_error(estimated, true).tolist() == [5.0, 0.0]


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 0.001, 1.0, 90.0, 179.0, 180.0])
def test_rotation_error_is_the_angle_between(degrees):
    assert rotation_error_deg(turned(degrees), IDENTITY) == pytest.approx(degrees, rel=1e-9)
    assert rotation_error_deg(-turned(degrees), IDENTITY) == pytest.approx(degrees, rel=1e-9)


def test_rotation_error_agrees_with_scipy():
    a = Rotation.random(500, random_state=np.random.RandomState(0))
    b = Rotation.random(500, random_state=np.random.RandomState(1))
    true = np.degrees((a * b.inv()).magnitude())
    np.testing.assert_allclose(rotation_error_deg(a.as_quat(), b.as_quat()), true, atol=1e-9)


def test_rotation_error_goes_below_what_arccos_can_tell_in_float32():
    # 2 arccos(|q1 . q2|) reads 0.04 deg for equal poses in float32 and 0 for 0.01 deg.
    rotations = Rotation.random(200, random_state=np.random.RandomState(0))
    single = rotations.as_quat().astype(np.float32)
    assert rotation_error_deg(single, single).max() == 0
    for degrees in (0.001, 0.01):
        moved = (rotations * Rotation.from_euler("y", degrees, degrees=True)).as_quat()
        errors = rotation_error_deg(moved.astype(np.float32), single)
        np.testing.assert_allclose(errors, degrees, atol=2e-5)


def test_rotation_error_does_not_depend_on_the_norm():
    assert rotation_error_deg(3 * turned(40), 0.1 * IDENTITY) == pytest.approx(40)


def test_infinite_errors_count_in_the_median():
    assert median_error(np.array([1.0, 2.0, INF])) == 2.0
    assert median_error(np.array([1.0, INF, INF])) == INF
    assert median_error(np.array([1.0, INF])) == INF
    assert median_error(np.array([1.0, 2.0, 3.0, INF])) == 2.5
    assert median_error(np.array([])) == INF


def test_nan_errors_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        median_error(np.array([1.0, math.nan]))


def test_extent_leaves_out_the_outermost_twentieths():
    line = np.linspace(0, 100, 101)[:, None] * [1.0, 0.0, 0.0]
    line[0], line[-1] = (-1e6, 0, 0), (1e6, 0, 0)
    assert position_extent(line) == pytest.approx(90)
    box = np.array([[0.0, 0, 0], [3, 4, 0]]).repeat(50, 0)
    assert position_extent(box) == pytest.approx(5)


def test_recall_needs_both_bounds_and_includes_them():
    positions = np.array([0.05, 0.25, 0.04, 5.0, INF])
    rotations = np.array([5.0, 2.0, 6.0, 10.0, INF])
    assert recall(positions, rotations) == {
        "0.05/5": 0.2,
        "0.25/2": 0.2,
        "0.5/5": 0.4,
        "5/10": 0.8,
    }
    assert set(recall(np.array([]), np.array([])).values()) == {0.0}


def test_scene_score_by_hand():
    score = score_scene(
        "kitchen",
        "m",
        4.0,
        np.array([0.2, 0.4, INF, INF, 0.1]),
        np.array([1.0, 3.0, INF, INF, 2.0]),
        np.array([True, True, True, False, True]),
        np.array([True, True, False, False, True]),
    )
    assert dataclasses.asdict(score) == {
        "scene": "kitchen",
        "frames": 5,
        "answered": 4,
        "unit": "m",
        "median_position": 0.4,
        "median_rotation_deg": 3.0,
        "percent_of_extent": 10.0,
        "scene_accuracy": 0.6,
        "recall": {"0.05/5": 0.0, "0.25/2": 0.4, "0.5/5": 0.6, "5/10": 0.6},
    }


def test_mean_is_over_scenes_not_over_frames():
    right = np.array([True])
    one = score_scene("a", "m", 1.0, np.array([1.0]), np.array([2.0]), right, right)
    many = score_scene(
        "b", "m", 1.0, np.full(9, 3.0), np.full(9, 6.0), np.ones(9, bool), np.zeros(9, bool)
    )
    mean = mean_score([one, many])
    assert (mean.scene, mean.frames, mean.answered, mean.unit) == ("mean", 10, 10, "m")
    assert (mean.median_position, mean.median_rotation_deg) == (2.0, 4.0)
    assert (mean.percent_of_extent, mean.scene_accuracy) == (200.0, 0.5)
    assert mean.recall["5/10"] == 1.0
    assert mean_score([one, dataclasses.replace(many, unit="u")]).unit == "mixed"


def test_extent_of_zero_gives_no_percentage():
    right = np.array([True])
    score = score_scene("a", "m", 0.0, np.array([1.0]), np.array([2.0]), right, right)
    assert score.percent_of_extent == INF


def test_confusion_counts_true_by_named():
    names = ["a", "b", "unknown"]
    counts = confusion(["a", "a", "b", "b"], ["a", "b", "b", "unknown"], names)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
