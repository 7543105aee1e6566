# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Localizer: deterministic, the same alone as in a batch, and honest about what it knows."""

import cv2
import numpy as np
import pytest
from models import make_tiny_model

from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import ConfigError


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    return Localizer.load(make_tiny_model(tmp_path_factory.mktemp("l") / "m"), "cpu")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 255, (5, 7, 3), dtype=np.uint8) for _ in range(6)]
    sizes = [(160, 120), (320, 240), (120, 160), (640, 480), (97, 83), (160, 120)]
    return [
        cv2.resize(c, s, interpolation=cv2.INTER_CUBIC) for c, s in zip(coarse, sizes, strict=True)
    ]


def test_the_same_image_twice_gives_the_same_bits(localizer, pictures):
    for picture in pictures:
        (one,), (two,) = localizer.localize([picture]), localizer.localize([picture.copy()])
        np.testing.assert_array_equal(one.position, two.position)
        np.testing.assert_array_equal(one.quaternion, two.quaternion)


def test_alone_and_in_a_batch_agree(localizer, pictures):
    # Convolutions of another batch size may sum in another order: float32 rounding, no more.
    together = localizer.localize(pictures)
    for picture, estimate in zip(pictures, together, strict=True):
        (alone,) = localizer.localize([picture])
        assert alone.scene == estimate.scene
        np.testing.assert_allclose(alone.position, estimate.position, atol=1e-4)
        np.testing.assert_allclose(alone.quaternion, estimate.quaternion, atol=1e-5)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (1920, 1080), (100, 75), (72, 72)])
def test_the_least_size_is_three_times_that_of_the_resized_image_or_more(localizer, size):
    resized = localizer.architecture.view.resized_shape(*size)
    least = localizer.least_size(*size)
    assert min(least) > 3 * min(resized)
    for side, needed in zip(least, resized, strict=True):
        assert 3 * needed <= side <= 4 * needed


def test_different_images_give_different_poses(localizer, pictures):
    # Without this, a localizer that answers a constant would pass the two tests above.
    positions = np.array([e.position for e in localizer.localize(pictures)])
    assert np.linalg.norm(positions[:, None] - positions[None], axis=2)[0, 1:].min() > 1e-3


def test_a_forced_scene_answers_whatever_is_likely(localizer, pictures):
    names = {e.scene for e in localizer.localize(pictures)}
    for scene in ("hall", "lab"):
        assert {e.scene for e in localizer.localize(pictures, scene)} == {scene}
    assert names <= {"hall", "lab"}
    with pytest.raises(ConfigError, match="'cellar' is not in the bank; it has hall, lab"):
        localizer.localize(pictures, "cellar")


def test_an_unsure_scene_is_unknown_and_says_why(localizer, pictures):
    (estimate,) = localizer.localize(pictures[:1], min_confidence=1.0)
    assert (estimate.scene_id, estimate.scene, estimate.position) == (-1, "unknown", None)
    assert "below 1.000" in estimate.reason


def test_probabilities_sum_to_one_and_covariance_is_usable(localizer, pictures):
    for estimate in localizer.localize(pictures):
        assert sum(estimate.probabilities.values()) == pytest.approx(1)
        assert estimate.confidence == max(estimate.probabilities.values())
        assert (np.linalg.eigvalsh(estimate.covariance) > 0).all()


def test_quaternions_as_pose_parameters_work_too(tmp_path, pictures):
    seven = Localizer.load(make_tiny_model(tmp_path / "m", pose_parameters=7), "cpu")
    for estimate in seven.localize(pictures):
        assert np.linalg.norm(estimate.quaternion) == pytest.approx(1)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "cpu:x"])
def test_a_device_that_is_not_here_is_refused(localizer, device):
    with pytest.raises(ConfigError, match="use auto"):
        Localizer.load(localizer.model_dir, device)
