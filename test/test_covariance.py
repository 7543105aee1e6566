# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Covariances that hold as many errors as they say, from held-out frames to the tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import make_tiny_model
from scipy.spatial.transform import Rotation

from mspn_ros.inference.estimates import scene_covariance
from mspn_ros.inference.familiarity import growth_of
from mspn_ros.metrics import (
    CHI2_REGION,
    conformal_quantile,
    normalized_error_squared,
    score_covariance,
    turn_vector,
)
from mspn_ros.records import ModelError
from mspn_ros.store.row_format import pack_row, unpack_row
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.calibration import calibrated, region_factor
from mspn_ros.training.held_out import HeldOut, held_out_errors


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    with SceneBank(make_tiny_model(tmp_path_factory.mktemp("covariance") / "model")) as bank:
        return bank.read().rows[0]


def held_out_of(error, turn, feature, covariance=None):
    length = np.linalg.norm(error, axis=1), np.degrees(np.linalg.norm(turn, axis=1))
    return HeldOut(
        scene="hall",
        errors=held_out_errors(*length, error, turn),
        scene_accuracy=1.0,
        confidence_B=np.ones(len(error)),
        position_B=length[0],
        rotation_deg_B=length[1],
        position_error_B3=error,
        turn_B3=turn,
        covariance_B66=covariance,
        sighting_B=None,
        feature_BF=feature,
    )


def test_the_turn_is_about_the_axes_of_the_scene():
    true = Rotation.from_euler("xyz", (20, -50, 130), degrees=True)
    for turn in ((0.3, -0.2, 0.1), (0.0, 0.0, 1e-9), (0.0, 3.1, 0.0), (0.0, 0.0, 0.0)):
        estimated = Rotation.from_rotvec(turn) * true
        for sign in (1, -1):
            found = turn_vector(sign * estimated.as_quat(), true.as_quat())
            np.testing.assert_allclose(found, turn, atol=1e-12)


def test_normalized_errors_by_hand():
    covariance = np.diag([4.0, 1.0, 0.25])
    found = normalized_error_squared(np.array([[2.0, 1.0, 0.5]]), covariance[None])
    assert found == pytest.approx([3.0])
    assert (
        score_covariance(
            "x",
            np.array([[2.0, 1.0, 0.5], [0, 3.0, 0]]),
            np.zeros((2, 3)),
            np.eye(6)[None].repeat(2, 0),
        ).position_coverage
        == 0.5
    )


def test_the_conformal_quantile_is_the_rank_that_it_says():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert conformal_quantile(values, 0.95) == 96  # ceil(101 * 0.95)
    assert conformal_quantile(values[:19], 0.95) == values[:19].max()
    assert conformal_quantile(values[:18], 0.95) == np.inf


@pytest.mark.parametrize(("count", "least"), [(5, 0.91), (18, 0.94), (19, 0.94), (60, 0.94)])
def test_regions_of_calibrated_covariances_hold_95_percent_of_new_errors(count, least):
    rng = np.random.default_rng(count)
    shape = rng.normal(size=(3, 3))
    said, covered = 0.01 * shape.T @ shape, []  # of the right shape and much too small
    for _ in range(300):
        errors = rng.normal(size=(count + 20, 3)) @ shape
        all_said = np.repeat(said[None], count + 20, 0)
        factor = region_factor(errors[:count], all_said[:count], np.ones(count))
        square = normalized_error_squared(errors[count:], factor * all_said[count:])
        covered.append((square <= CHI2_REGION).mean())
    # With fewer than 19 frames there is no such quantile: the largest error is carried on.
    assert least < np.mean(covered) < 0.98


def test_a_row_gets_a_full_covariance_of_what_its_errors_are(row):
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.9, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 0.1]])
    error, turn = rng.normal(size=(400, 3)) @ mixing, 0.05 * rng.normal(size=(400, 3))
    error[:8] *= 50  # gross outliers must not blow it up
    feature = torch.randn(400, row.feature_mean.size)
    found = calibrated(row, held_out_of(error, turn, feature))
    stored = unpack_row(1, pack_row(found), "x")
    covariance = scene_covariance(stored)
    np.testing.assert_array_equal(covariance, covariance.T)
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert correlation == pytest.approx(0.9 / np.hypot(0.9, 0.4), abs=0.05)
    assert 0.5 < covariance[0, 0] < 2
    # An unfamiliar image's grows; errors of the held-out frames lie inside as often as they should.
    familiarity = rng.normal(size=400)
    assert (growth_of(familiarity) >= 1).all()
    assert growth_of(np.array([np.nan, 2.0])).tolist() == [1, 1]


def test_own_covariances_are_scaled_each_by_its_own_errors(row):
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, 200)
    error, turn = 3 * scale[:, None] * rng.normal(size=(200, 3)), 0.1 * rng.normal(size=(200, 3))
    own = np.zeros((200, 6, 6))
    own[:, :3, :3] = scale[:, None, None] ** 2 * np.eye(3)
    own[:, 3:, 3:] = np.eye(3)
    feature = torch.randn(200, row.feature_mean.size)
    position, rotation = calibrated(
        row, held_out_of(error, turn, feature, own)
    ).held_out.own_factors
    # Not more than the errors ask for: growth takes its part of unfamiliar frames.
    assert 2 < position <= 13
    assert 0.002 < rotation <= 0.014


def test_few_frames_know_nothing_of_what_is_usual_but_have_a_covariance(row):
    rng = np.random.default_rng(0)
    error = rng.normal(size=(3, 3))
    found = calibrated(row, held_out_of(error, error, torch.randn(3, row.feature_mean.size)))
    assert found.held_out.familiarity is None
    assert np.linalg.eigvalsh(found.held_out.covariance).min() > 0


def test_a_covariance_that_is_none_is_refused(row):
    wrong = replace(row.held_out, position_products=(0.05, 0.0, 0.0))  # variances are 0.04
    with pytest.raises(ModelError, match="not positive definite"):
        unpack_row(1, pack_row(replace(row, held_out=wrong)), "x")
