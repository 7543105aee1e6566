# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A scene is added to a model: a row of its own, and nothing of the others changes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from box_room import write_box_room
from dataset_files import write_walk
from models import LANDMARKS, make_landmark_model, make_row, make_tiny_model
from PIL import Image as PilImage

from mspn_ros.cli import main
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.inference import confusion as confusion_module
from mspn_ros.inference.confusion import confusion
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.adapter_head import AdaptedLandmarkHead, AdapterHead
from mspn_ros.network.backbone import Architecture, Features
from mspn_ros.network.heads import make_head
from mspn_ros.network.mspn import MSPN
from mspn_ros.store.row_format import row_bytes
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.classifier_row import fit_classifier_row
from mspn_ros.training.feature_statistics import draw_features, feature_statistics
from mspn_ros.training.new_scene import NewSceneConfig, SceneAdder

QUICK = ("--set", "views=100", "epochs=2", "device=cpu", "cache=none")


def run(capsys, *arguments):
    """Exit code, and all that was said in one line."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, " ".join((captured.out + captured.err).split())


def pictures(count=4):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return [np.asarray(PilImage.fromarray(image).resize((160, 120))) for image in coarse]


def answers(model, scene=None):
    return Localizer.load(model, "cpu").localize(pictures(), scene)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return write_walk(tmp_path_factory.mktemp("walk") / "attic", train=40)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return write_box_room(tmp_path_factory.mktemp("box") / "room", train=48, test=8)


@pytest.fixture
def model(tmp_path):
    return make_tiny_model(tmp_path / "model")


def test_a_scene_is_added_and_the_others_stay_bit_for_bit(model, walk, capsys):
    before = {name: answers(model, name) for name in ("hall", "lab")}
    backbone = (model / "backbone.safetensors").read_bytes()
    undecided = answers(model)
    code, said = run(capsys, "add-scene", "--model", model, "--scene", f"attic={walk}", *QUICK)
    assert code == 0, said
    assert "attic: scene 3 of" in said
    assert "held-out frames" in said
    assert (model / "backbone.safetensors").read_bytes() == backbone
    localizer = Localizer.load(model, "cpu")
    assert [scene.name for scene in localizer.scenes] == ["hall", "lab", "attic"]
    assert localizer.rows[2].held_out.frames == 3
    assert localizer.rows[2].box_low[0] >= -2.0  # of this walk's positions
    for name, expected in before.items():
        for old, new in zip(expected, answers(model, name), strict=True):
            np.testing.assert_array_equal(new.position, old.position)
            np.testing.assert_array_equal(new.quaternion, old.quaternion)
            np.testing.assert_array_equal(new.covariance, old.covariance)
    code, said = run(capsys, "scenes", "remove", "attic", "--model", model)
    assert code == 0, said
    for old, new in zip(undecided, answers(model), strict=True):
        assert (new.scene, new.confidence) == (old.scene, old.confidence)
        np.testing.assert_array_equal(new.position, old.position)


def test_frames_of_an_added_scene_are_named_and_those_of_the_others_stay_theirs(
    model, walk, tmp_path, capsys
):
    cellar = write_walk(tmp_path / "cellar", train=40, seed=5)
    with SceneBank(model, read_only=False) as bank:
        for name in ("hall", "lab"):
            bank.remove(name)
    scenes = [f"attic={walk}", f"cellar={cellar}"]
    code, said = run(capsys, "add-scene", "--model", model, "--scene", *scenes, *QUICK)
    assert code == 0, said
    code, said = run(
        capsys, "evaluate", "--model", model, "--data", *scenes, "--device", "cpu",
        "--output", tmp_path / "out", "--json", tmp_path / "result.json",
    )  # fmt: skip
    assert code == 0, said
    result = json.loads((tmp_path / "result.json").read_text())["scenes"]
    # Noise of two hues, which features of random weights tell apart.
    assert {name: score["scene_accuracy"] for name, score in result.items()} == {
        "attic": 1.0,
        "cellar": 1.0,
    }


def test_an_adapted_landmark_row_is_learned_on_a_backbone_that_describes_places(
    room, tmp_path, capsys
):
    model = make_landmark_model(tmp_path / "m")
    settings = NewSceneConfig(views=200, epochs=3, landmarks=256, device="cpu", cache="none")
    (scene,) = load_scene_set([f"box={room}"])
    adder, losses = SceneAdder(model, scene, settings), []
    before = adder.trainer.network.heads.describe.weight.clone()
    row = adder.learn(epoch=lambda epoch: losses.append(epoch.loss))
    assert row.head == "adapted_landmarks"
    assert 200 < len(row.head_tensors["point"]) <= 256
    assert losses[-1] < losses[0]
    learned = torch.tensor(row.head_tensors["describe.weight"]).float()
    assert (learned - before[0]).abs().max() > 1e-3
    assert adder.add(row).id == 3
    localizer = Localizer.load(model, "cpu")
    assert not localizer.refused
    estimate = localizer.localize(pictures(1), "box")[0]
    # The same settings, the same row.
    again = SceneAdder(model, replace(scene, name="twin"), settings).learn()
    np.testing.assert_array_equal(
        again.head_tensors["describe.weight"], row.head_tensors["describe.weight"]
    )
    assert np.isfinite(estimate.position).all()


def test_a_row_keeps_within_its_bytes_at_512_features():
    architecture = Architecture("resnet18", cells="fine", descriptor_features=32, fit="squeeze")
    most = NewSceneConfig().landmarks
    network = MSPN(architecture, 1, "adapted_landmarks", landmarks=most)
    network.heads.place_landmarks(0, torch.randn(most, 3))
    row = make_row(network, 0, "attic", "f" * 64)
    assert row.classifier_weight.size == 512
    statistics = feature_statistics(torch.randn(600, 512))._asdict()
    assert row_bytes(replace(row, **statistics)) < 65_536


def test_what_cannot_be_added_is_said_in_one_line(model, walk, tmp_path, capsys):
    bank = (model / "scenes.db").read_bytes()
    add = ("add-scene", "--model", model, "--scene")
    wrong = {
        "is there already; remove or rename it first": (f"hall={walk}",),
        "--output goes with --mode full": (f"attic={walk}", "--output", tmp_path / "x"),
        "name its folder by --output": (f"attic={walk}", "--mode", "full"),
        "views 0 is not within 1 to 1000000": (f"attic={walk}", "--set", "views=0"),
        "landmarks 0 is not within": (f"attic={walk}", "--set", "landmarks=0"),
        "vieuws": (f"attic={walk}", "--set", "vieuws=3"),
        "reads cells: set architecture.cells": (f"attic={walk}", "--set", "head=dense"),
        "head": (f"attic={walk}", "--set", "head=oracle"),
        "no-such": ("attic=/no-such",),
    }
    for expected, arguments in wrong.items():
        code, said = run(capsys, *add, *arguments)
        assert code == 1, said
        assert expected in said
    code, said = run(capsys, "add-scene", "--model", tmp_path, "--scene", f"attic={walk}")
    assert code == 1
    assert "no such file" in said
    assert (model / "scenes.db").read_bytes() == bank


def test_full_mode_makes_another_model_and_leaves_this_one(model, walk, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    quick = ("--set", "epochs=1", "device=cpu", "cache=none", "precision=float32")
    code, said = run(
        capsys, "add-scene", "--model", model, "--scene", f"attic={walk}", "--mode", "full",
        "--output", tmp_path / "full", *quick,
    )  # fmt: skip
    assert code == 0, said
    assert "are not in the new model" in said
    tuned = Localizer.load(tmp_path / "full" / "model", "cpu")
    assert [scene.name for scene in tuned.scenes] == ["attic"]
    assert tuned.backbone_id != Localizer.load(model, "cpu").backbone_id
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_an_adapter_starts_as_if_it_were_not_there():
    features = Features(torch.randn(3, 12), rough_BEW=torch.randn(3, 16, 128))
    scene_B = torch.tensor([1, 0, 1])
    head = AdapterHead(2, 12, 6)
    pose_BP = head.pose(features.pooled_BF, scene_B)
    torch.testing.assert_close(head.read(features, scene_B, None, None).pose_BP, pose_BP)
    adapted = make_head("adapted_landmarks", 2, LANDMARKS, 12, landmarks=4)
    assert isinstance(adapted, AdaptedLandmarkHead)
    weight_DW, bias_D = torch.randn(16, 128), torch.randn(16)
    adapted.start_from(weight_DW, bias_D)
    shared = torch.nn.functional.normalize(features.rough_BEW @ weight_DW.T + bias_D, dim=2)
    torch.testing.assert_close(adapted.described(features, scene_B), shared)


# --- the classifier's row ------------------------------------------------------------------


def cloud(seed, count=300, size=24):
    """Features (count, size) of a scene: along two directions, and a little of everything."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(size, generator=generator)
    along = torch.randn(2, size, generator=generator) * 0.6
    weights = torch.randn(count, 2, generator=generator)
    return middle + weights @ along + 0.1 * torch.randn(count, size, generator=generator)


def known_rows(model, clouds):
    """Rows of scenes whose classifier was learned on their clouds, and what is stored of them."""
    with SceneBank(model) as bank:
        template = bank.rows()[0]
    feature_MF = torch.cat(clouds).double()
    scene_M = torch.arange(len(clouds)).repeat_interleave(len(clouds[0]))
    layer = torch.nn.Linear(feature_MF.shape[1], len(clouds)).double()
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(feature_MF), scene_M).backward()
        optimizer.step()
    return [
        replace(
            template,
            name=f"scene{i}",
            classifier_weight=layer.weight[i].detach().float().numpy(),
            classifier_bias=float(layer.bias[i].detach()),
            **feature_statistics(feature_SF)._asdict(),
        )
        for i, feature_SF in enumerate(clouds)
    ]


def test_a_new_classifier_row_takes_its_scene_and_leaves_the_others_theirs(model):
    clouds = [cloud(seed) for seed in range(4)]
    rows = known_rows(model, clouds)
    own = cloud(99)
    weight_F, bias = fit_classifier_row(own[:200], rows, seed=0)

    def new_wins(feature_SF):
        others_SN = torch.stack(
            [feature_SF @ torch.tensor(r.classifier_weight) + r.classifier_bias for r in rows], 1
        )
        return (feature_SF @ weight_F + bias > others_SN.amax(1)).double().mean()

    assert new_wins(own[200:]) > 0.99
    # Frames of the others that nobody but their training saw: the aim of the whole is 0.5 %.
    for seed in range(4):
        assert new_wins(cloud(seed, 2000)) < 0.005


def test_without_others_there_is_nothing_to_tell_a_scene_from():
    weight_F, bias = fit_classifier_row(cloud(0), [], seed=0)
    assert not weight_F.any()
    assert bias == 0


def test_drawn_features_vary_together_as_the_stored_ones_did(model):
    feature_SF = cloud(3, 2000)
    (row,) = known_rows(model, [feature_SF])
    drawn = draw_features(row, 20_000, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), feature_SF.mean(0).double(), atol=0.03, rtol=0)
    expected = torch.cov(feature_SF.double().T)
    assert (torch.cov(drawn.T) - expected).norm() < 0.05 * expected.norm()
    # Without the axes they would not: the others of the row's fields tell of each feature alone.
    bare = replace(row, feature_axes=None, feature_axes_scale=None)
    apart = draw_features(bare, 20_000, 1.0, torch.Generator().manual_seed(0))
    assert (torch.cov(apart.T) - expected).norm() > 0.3 * expected.norm()


def test_estimated_confusion_is_what_correlated_features_show(model):
    clouds = [cloud(seed, 5000) for seed in (1, 2)]
    row, other = known_rows(model, clouds)
    own, theirs = (
        clouds[0] @ torch.tensor(r.classifier_weight) + r.classifier_bias for r in (row, other)
    )
    # So much likelier that a fifth are taken for the other.
    lift = float((own - theirs).quantile(0.2))
    other = replace(other, classifier_bias=other.classifier_bias + lift)
    share = float((theirs + lift > own).double().mean())
    assert confusion(row, other).share == pytest.approx(share, abs=0.03)


def test_a_new_scene_learns_to_be_told_from_its_likeliest_rivals_only(model, walk, monkeypatch):
    monkeypatch.setattr(confusion_module, "MOST_RIVALS", 1)
    (scene,) = load_scene_set([f"attic={walk}"])
    settings = NewSceneConfig(views=100, epochs=1, device="cpu", cache="none")
    adder = SceneAdder(model, scene, settings)
    adder.learn()
    network = adder.trainer.network.backbone
    seen = adder.trainer.train_samples
    crops = seen.center_crops(torch.arange(len(seen)), 64).permute(0, 3, 1, 2)
    with SceneBank(model) as bank, torch.no_grad():
        mean_F = network(crops).pooled_BF.mean(0)
        logits = {
            row.name: float(mean_F @ torch.tensor(row.classifier_weight)) + row.classifier_bias
            for row in bank.rows()
        }
    assert [row.name for row in adder.rivals] == [max(logits, key=logits.get)]


def test_a_copied_model_takes_a_scene_of_its_own(model, walk, tmp_path, capsys):
    copy = shutil.copytree(model, tmp_path / "copy")
    add = ("--scene", f"attic={walk}", *QUICK)
    assert run(capsys, "add-scene", "--model", copy, *add)[0] == 0
    assert len(Localizer.load(model, "cpu").scenes) == 2
    file = tmp_path / "attic.safetensors"
    assert run(capsys, "scenes", "export", "attic", "--model", copy, "--out", file)[0] == 0
    code, said = run(capsys, "scenes", "import", file, "--model", model)
    assert code == 0, said
    for here, there in zip(answers(model, "attic"), answers(copy, "attic"), strict=True):
        np.testing.assert_array_equal(here.position, there.position)
