# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Places that no row is of: confidence by a row's own held-out frames, and what it lets in."""

import json
from dataclasses import replace
from math import inf, nan

import cv2
import numpy as np
import pytest
import torch
from box_room import write_box_room
from models import LANDMARKS, make_landmark_model, make_tiny_model
from test_evaluation import write_scene
from training_tools import train

from mspn_ros.cli import main
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.images import read_image
from mspn_ros.inference.familiarity import (
    LEAST_FRAMES,
    FamiliarityOfRows,
    confidence_of,
    sighting_sign,
    usual_familiarity,
)
from mspn_ros.inference.localizer import Localizer
from mspn_ros.metrics import auroc, false_accepts_at
from mspn_ros.network.scene_head import Reading, Seen
from mspn_ros.records import Familiarity, ModelError
from mspn_ros.store.row_format import pack_row, unpack_row
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.config import ValidationConfig
from mspn_ros.training.finish import write_model

USUAL = Familiarity((1.0, 2.0), (0.5, 0.25))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("unknown") / "model")


def rows_of(model):
    with SceneBank(model) as bank:
        return bank.read().rows


def knowing(row, usual=USUAL):
    return replace(row, held_out=replace(row.held_out, familiarity=usual))


def test_auroc_and_false_accepts_by_hand():
    # Of the six pairs the own frame wins four and ties one.
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])) == pytest.approx(4.5 / 6)
    own = np.arange(1.0, 21.0)  # the 19 best of 20 are those from 2 on
    assert false_accepts_at(own, np.array([1.9, 2.0, 30.0])) == pytest.approx(2 / 3)
    assert np.isnan(auroc(own, np.array([])))
    assert np.isnan(false_accepts_at(np.array([]), own))


def test_signs_by_hand(model):
    row, size = rows_of(model)[0], rows_of(model)[0].classifier_weight.size
    axes = np.zeros((2, size), np.int8)
    axes[0, 0], axes[1, 1] = 127, -64
    row = replace(
        row,
        feature_mean=np.full(size, 0.5, np.float32),
        feature_axes=axes,
        feature_axes_scale=np.ones(2, np.float32),
    )
    feature = torch.full((1, size), 0.5)
    feature[0, 0], feature[0, 1], feature[0, 2] = 9.0, 7.0, 2.5  # two of three lie along the axes
    signs = FamiliarityOfRows([row]).signs(feature, None, torch.tensor([0]))[0]
    logit = float(row.classifier_weight @ feature[0].numpy()) + row.classifier_bias
    assert float(signs[0]) == pytest.approx(logit, rel=1e-5)
    assert float(signs[1]) == pytest.approx(-np.log(4 / float((feature**2).sum())), rel=1e-5)
    assert float(signs[2]) == 0


def test_sightings_count_only_where_the_answer_says_that_they_are():
    point = torch.tensor([[[0.0, 0, 2], [2.0, 0, 0], [0.0, 3, 0]]])
    ray = torch.tensor([[[0.0, 0, 1], [-1.0, 0, 0], [0.0, 1, 0]]])
    pose = torch.cat((torch.zeros(1, 3), torch.eye(3).view(1, 9)), 1)
    reading = Reading(pose, seen=Seen(point, ray, torch.tensor([[0.5, 1.0, 0.25]])))
    assert float(sighting_sign(reading)) == pytest.approx(np.log(0.75 + 0.1), abs=1e-6)
    assert sighting_sign(Reading(pose)) is None


def test_what_is_usual_is_counted_in_spreads():
    sign_NK = np.stack([np.linspace(0, 20, 101), np.linspace(0, 200, 101)], 1)
    usual = usual_familiarity(sign_NK)
    np.testing.assert_allclose(usual.middle, (10, 100))
    np.testing.assert_allclose(usual.spread, (9, 90))
    assert usual_familiarity(sign_NK[: LEAST_FRAMES - 1]) is None
    assert min(usual_familiarity(np.zeros((LEAST_FRAMES, 3))).spread) > 0


def test_confidence_is_half_at_the_limit_and_never_leaves_its_range():
    assert confidence_of(None, 0.7) == 0.7
    assert confidence_of(-2.5, 1.0) == pytest.approx(0.5)
    assert confidence_of(0.0, 1.0) > 0.99
    # Two scenes that look alike: however familiar, neither is more than as likely as it is.
    assert confidence_of(3.0, 0.45) < 0.45 < 0.5
    values = [confidence_of(f, 1.0) for f in (-1e9, -20.0, -3.0, -2.0, 1e9)]
    assert values == sorted(values)
    assert 0 <= values[0] <= values[-1] <= 1


def test_rows_are_asked_apart_whatever_rows_stand_beside_them(model):
    hall, lab = rows_of(model)
    axes = {
        "feature_axes": np.eye(4, hall.feature_mean.size, dtype=np.int8),
        "feature_axes_scale": np.ones(4, np.float32),
    }
    hall, plain = knowing(replace(hall, **axes)), lab
    lab = knowing(lab, Familiarity((0.0, 0.0, 0.0), (1.0, 1.0, 2.0)))
    feature = torch.randn(3, hall.feature_mean.size)
    sighting = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    together = FamiliarityOfRows([lab, plain, hall])(feature, sighting, torch.tensor([2, 0, 1]))
    for i, row in enumerate((hall, lab)):
        one = FamiliarityOfRows([row])(feature[i : i + 1], sighting[i : i + 1], torch.tensor([0]))
        torch.testing.assert_close(one[0], together[i])
    assert together[2].isnan()  # it does not know what is usual


def test_an_answer_far_from_usual_is_unknown_and_a_forced_one_says_so(model, tmp_path):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), (160, 120))
    before = Localizer.load(model, "cpu").localize([image])[0]
    for far, usual in ((True, Familiarity((1e6, 0.0), (1.0, 1.0))), (False, None)):
        target = tmp_path / str(far)
        make_tiny_model(target)
        with SceneBank(target, read_only=False) as bank:
            for row in rows_of(target):
                bank.remove(row.name)
                bank.add(replace(knowing(row, usual), acceptance_threshold=0.5, id=0))
        localizer = Localizer.load(target, "cpu")
        (estimate,) = localizer.localize([image])
        (forced,) = localizer.localize([image], before.scene)
        assert forced.known
        np.testing.assert_array_equal(forced.position, before.position)
        if far:
            assert not estimate.known
            assert "below 0.500" in estimate.reason
            assert forced.confidence < 1e-6
            assert np.linalg.det(forced.covariance) > 1e6 * np.linalg.det(before.covariance)
        else:
            assert forced.confidence == pytest.approx(before.confidence, rel=1e-5)


@pytest.mark.parametrize(
    ("usual", "match"),
    [
        (Familiarity((1.0,), (1.0,)), "two or three signs"),
        (Familiarity((1.0, 1.0), (1.0, 0.0)), "without spread"),
        (Familiarity((1.0, nan), (1.0, 1.0)), "not finite"),
        (Familiarity((1.0, 1.0), (1.0, inf)), "not finite"),
    ],
)
def test_a_familiarity_that_would_judge_wrongly_is_refused(model, usual, match):
    row = rows_of(model)[0]
    assert unpack_row(1, pack_row(knowing(row)), "x").held_out.familiarity == USUAL
    with pytest.raises(ModelError, match=match):
        unpack_row(1, pack_row(knowing(row, usual)), "x")


def test_held_out_frames_are_as_usual_live_as_in_training(tmp_path):
    write_box_room(tmp_path / "room")
    (room,) = load_scene_set([f"room={tmp_path / 'room'}"])
    trainer = train(
        [room],
        tmp_path / "run",
        architecture=LANDMARKS,
        head="landmarks",
        landmarks=50,
        epochs=8,
        batch_size=10,
        validation=ValidationConfig(0.3, blocks=2, gap=0, every=1000),
    )
    localizer = Localizer.load(write_model(trainer), "cpu")
    (row,) = localizer.rows
    assert len(row.held_out.familiarity.middle) == 3
    assert row.acceptance_threshold == 0.5
    held = [read_image(frame.image_path) for frame in trainer.val_samples.frames]
    cameras = [frame.intrinsics for frame in trainer.val_samples.frames]
    confidence = [e.confidence for e in localizer.localize(held, cameras=cameras)]
    # One room: its probability is 1, confidence tells familiarity. Of signs counted from their
    # medians, half of the frames' mean is about 0; all signs at the 5th percentile would be -1.
    assert 0.97 < np.median(confidence) < 1
    assert np.mean(np.array(confidence) < confidence_of(-1.0, 1.0)) <= 0.1


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    for seed, scene in enumerate(("hall", "lab", "yard")):
        write_scene(folder / scene, seed, frames=4)
    make_landmark_model(folder / "model")
    return folder


def test_evaluate_tells_strangers_from_scenes_and_covariances_from_errors(places, tmp_path, capsys):
    data = ["--data", *(f"{name}={places / name}" for name in ("hall", "lab"))]
    asked = ["evaluate", "--model", str(places / "model"), *data, "--output", str(tmp_path / "out")]
    assert main([*asked, "--strangers", f"yard={places / 'yard'}"]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    yard = result["strangers"]["scenes"]["yard"]
    assert yard["frames"] == 4
    assert yard == {**result["strangers"]["mean"], "frames": 4}
    assert 0 <= yard["auroc"] <= 1
    assert yard["false_accepts"] == 1  # rows of random weights have no threshold
    named = {name: s["answered"] for name, s in result["scenes"].items() if s["scene_accuracy"]}
    assert named.keys() == result["covariance"].keys()
    assert (tmp_path / "out" / "strangers.png").stat().st_size > 5000
    assert "false accepts" in (tmp_path / "out" / "tables.md").read_text()
    capsys.readouterr()
    for arguments, words in (
        (["--strangers", f"lab={places / 'lab'}"], "'lab' is a scene of the model"),
        (["--strangers", f"yard={places / 'yard'}", "--oracle"], "leave --oracle out"),
    ):
        assert main([*asked, *arguments]) == 1
        assert words in capsys.readouterr().err
