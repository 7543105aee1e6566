# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Localizer: deterministic, the same alone as in a batch, and honest about what it knows."""

import uuid
from dataclasses import replace

import cv2
import numpy as np
import pytest
from models import make_tiny_model

from mspn_ros.inference.first_look import FirstLook
from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import ConfigError, Familiarity
from mspn_ros.store.scene_bank import SceneBank


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


def test_only_allowed_scenes_answer_and_an_image_of_another_is_no_surer(localizer, pictures):
    everywhere = localizer.localize(pictures)
    for scene in ("hall", "lab"):
        estimates = localizer.localize(pictures, allowed=[scene, "cellar"])
        forced = localizer.localize(pictures, scene)
        for estimate, its, own in zip(estimates, forced, everywhere, strict=True):
            assert estimate.scene == scene
            assert estimate.probabilities == {scene: 1.0}
            np.testing.assert_array_equal(estimate.position, its.position)
            # These rows do not know what is usual: nothing but the other scene tells that an
            # image may be of neither. A share among one scene would be 1 of any image.
            assert estimate.confidence == pytest.approx(own.probabilities[scene], abs=1e-6)
    assert {estimate.scene for estimate in everywhere} == {"hall", "lab"}
    both = localizer.localize(pictures, allowed={"lab", "hall"})
    assert [e.scene for e in both] == [e.scene for e in everywhere]
    [none] = localizer.localize(pictures[:1], allowed=["cellar"])
    assert (none.scene, none.position) == ("unknown", None)
    assert "cellar" in none.reason
    with pytest.raises(ConfigError, match="'hall' is not allowed; allowed are lab"):
        localizer.localize(pictures, "hall", allowed=["lab"])


def test_of_two_look_alike_scenes_the_allowed_one_is_as_sure_as_if_it_were_alone(
    tmp_path, pictures
):
    """The twin halves the other's share; ruled out, it must not go on to do so."""
    model = make_tiny_model(tmp_path / "m")
    with SceneBank(model, read_only=False) as bank:
        rows = {row.name: row for row in bank.rows()}
        usual = Familiarity((0.0, 0.0), (1e6, 1e6))
        for name in ("hall", "lab"):
            held_out = replace(rows[name].held_out, familiarity=usual)
            bank.remove(name)
            bank.add(replace(rows[name], id=None, held_out=held_out))
        twin = replace(rows["hall"], id=None, name="twin", uuid=str(uuid.uuid4()))
        bank.add(replace(twin, held_out=replace(twin.held_out, familiarity=usual)))
    localizer = Localizer.load(model, "cpu")
    of_hall = [e.scene in ("hall", "twin") for e in localizer.localize(pictures)]
    of_hall = [p for p, hall in zip(pictures, of_hall, strict=True) if hall]
    assert of_hall
    torn = localizer.localize(of_hall, min_margin=0.01)
    assert {estimate.scene for estimate in torn} == {"unknown"}
    sure = localizer.localize(of_hall, min_margin=0.01, allowed=["twin", "lab"])
    assert {estimate.scene for estimate in sure} == {"twin"}
    for estimate, before in zip(sure, torn, strict=True):
        assert estimate.confidence > 1.4 * before.confidence


def test_the_allowed_scenes_of_a_large_bank_are_ranked_as_if_there_were_no_others(tmp_path):
    model = make_tiny_model(tmp_path / "m", [f"room_{i}" for i in range(100)])
    localizer = Localizer.load(model, "cpu")
    rng = np.random.default_rng(5)
    image = rng.integers(0, 255, (72, 72, 3), dtype=np.uint8)
    allowed = [f"room_{i}" for i in range(1, 100, 3)]
    [estimate] = localizer.localize([image], allowed=allowed)
    logits = localizer.classifier
    features, _ = localizer.backbone.features([image], [None])
    own = logits(features.pooled_BF)[0, 1:100:3].double().softmax(0)
    best = own.topk(10)
    expected = {allowed[i]: float(p) for p, i in zip(best.values, best.indices, strict=True)}
    assert list(estimate.probabilities) == list(expected)
    assert estimate.probabilities == pytest.approx(expected, abs=1e-6)
    # As a processor that is quick in bfloat16 has it.
    logits.first_look = FirstLook(*logits.weight_NF.shape)
    logits.first_look.take(slice(0, 100), logits.weight_NF[:100])
    [looked] = localizer.localize([image], allowed=allowed)
    assert list(looked.probabilities) == list(expected)
    assert looked.probabilities == pytest.approx(expected, abs=1e-3)


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
