# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes judged over frames, and two scenes that are about as likely as each other."""

import numpy as np
import pytest
from models import make_tiny_model
from PIL import Image

from mspn_ros.commands.run import replay_offline
from mspn_ros.datasets.bags import BagReader
from mspn_ros.demo import BAG, MODEL
from mspn_ros.evaluation.replay import ground_truth
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.scene_filter import SceneFilter

NAMES = [f"scene {i}" for i in range(8)]


def filtered(scenes, stamp_s, logits, named):
    """One frame by way of the filter: probabilities of which the ``named`` largest are kept."""
    boosts = scenes.prior(stamp_s, len(NAMES))
    raised = np.exp(logits + [boosts.get(name, 0.0) for name in NAMES])
    raised /= raised.sum()
    likeliest = np.argsort(-raised)[:named]
    scenes.take(stamp_s, {NAMES[i]: raised[i] for i in likeliest})
    return raised


def forward(before, passed_s, stay_s, logits):
    """The forward algorithm with the whole matrix of transitions."""
    stayed = np.exp(-passed_s / stay_s)
    moves = stayed * np.eye(len(NAMES)) + (1 - stayed) / len(NAMES)
    raised = (before @ moves) * np.exp(logits)
    return raised / raised.sum()


def test_all_scenes_named_is_the_forward_algorithm():
    draw = np.random.default_rng(0)
    scenes, stamp_s, expected = SceneFilter(5.0), 100.0, None
    for passed_s in (0.03, 0.1, 2.0, 0.03, 4.9, 0.5):
        logits = draw.normal(0, 2, len(NAMES))
        stamp_s += passed_s
        found = filtered(scenes, stamp_s, logits, named=len(NAMES))
        if expected is None:
            expected = np.exp(logits) / np.exp(logits).sum()
        else:
            expected = forward(expected, passed_s, 5.0, logits)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_scenes_that_are_not_named_share_what_is_left():
    logits = np.array([3.0, 2.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0])
    some, all_named = SceneFilter(5.0), SceneFilter(5.0)
    for stamp_s in (1.0, 1.1, 1.3):
        np.testing.assert_allclose(
            filtered(some, stamp_s, logits, named=3),
            filtered(all_named, stamp_s, logits, named=8),
            rtol=1e-9,
        )


@pytest.mark.parametrize("next_s", [9.9, 10.0, 15.1])
def test_a_stamp_that_does_not_follow_begins_anew(next_s):
    scenes = SceneFilter(5.0)
    scenes.take(10.0, {"scene 1": 0.9, "scene 2": 0.1})
    assert scenes.prior(10.1, 8)
    assert scenes.prior(next_s, 8) == {}


def test_without_a_stay_each_frame_is_judged_alone():
    scenes = SceneFilter(0.0)
    scenes.take(10.0, {"scene 1": 0.9, "scene 2": 0.1})
    assert scenes.prior(10.03, 8) == {}


def test_a_camera_that_is_carried_elsewhere_is_believed_after_some_frames():
    scenes, away = SceneFilter(30.0), np.array([0.0, 3.0, 0, 0, 0, 0, 0, 0])
    for i in range(100):
        filtered(scenes, i / 30, np.roll(away, -1), named=8)
    after = [np.argmax(filtered(scenes, (100 + i) / 30, away, named=8)) for i in range(10)]
    assert after[0] == 0
    assert after[-1] == 1


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    return Localizer.load(make_tiny_model(tmp_path_factory.mktemp("filter") / "m"), "cpu")


@pytest.fixture(scope="module")
def picture():
    coarse = np.random.default_rng(9).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 48)))


def test_a_prior_decides_which_head_is_asked(localizer, picture):
    [alone] = localizer.localize([picture])
    for scene in ("hall", "lab"):
        prior = {scene: 50.0, "gone": 99.0}
        [estimate] = localizer.localize([picture], prior=prior)
        [forced] = localizer.localize([picture], scene)
        assert (estimate.scene, estimate.probabilities[scene]) == (scene, pytest.approx(1))
        # What frames before have said makes nobody surer that the place is known at all.
        assert estimate.confidence == alone.confidence
        np.testing.assert_array_equal(estimate.position, forced.position)


def test_two_scenes_that_are_about_as_likely_are_unknown_and_both_named(localizer, picture):
    [estimate] = localizer.localize([picture])
    lead = abs(np.subtract(*estimate.probabilities.values()))
    assert localizer.localize([picture], min_margin=0.99 * lead)[0].known
    [close] = localizer.localize([picture], min_margin=min(1.0, 1.01 * lead))
    assert (close.known, close.position) == (False, None)
    assert "hall" in close.reason
    assert "lab" in close.reason
    assert close.probabilities == estimate.probabilities
    assert localizer.localize([picture], "hall", min_margin=1.0)[0].known


def test_look_alike_rooms_are_told_apart_over_frames():
    model = Localizer.load(MODEL, "cpu")
    with BagReader(BAG) as bag:
        done = replay_offline(bag, model, ground_truth(bag, model.rows, None), scene_filter=10.0)
    assert len(done.answers) == 240
    known = [answer for answer in done.answers if answer.estimate.known]
    # Without it three name the wrong room.
    assert all(answer.estimate.scene == answer.scene for answer in known)
    assert len(known) >= 235
