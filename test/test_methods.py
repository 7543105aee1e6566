# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's methods under one loop, and training on data that is not as it should be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset_files import write_walk
from training_tools import TINY, train

from mspn_ros.cli import main
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.evaluation.evaluate import evaluate
from mspn_ros.images import read_image
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.losses import TupleLoss
from mspn_ros.records import UNKNOWN_SCENE, ConfigError
from mspn_ros.training.config import LossConfig, SamplingConfig, ValidationConfig
from mspn_ros.training.finish import write_model
from mspn_ros.training.loop import Trainer
from mspn_ros.training.row_adam import RowAdam


def few_frames(folder, **changes):
    write_walk(folder, **changes)
    return load_scene_set([f"walk={folder}"])


def test_a_scene_of_three_frames_is_learned_and_judged(tmp_path):
    scenes = few_frames(tmp_path / "walk", train=3, test=2)
    trainer = train(scenes, tmp_path / "run", validation=ValidationConfig())
    assert trainer.scenes_without_held_out == ["walk"]
    answers, bad = evaluate(Localizer.load(write_model(trainer), "cpu"), scenes, oracle=True)
    assert len(answers) == 2
    assert not bad


def test_one_frame_is_too_few_and_says_so(tmp_path):
    scenes = few_frames(tmp_path / "walk", train=1)
    with pytest.raises(ConfigError, match=r"1 training images.*use more frames"):
        train(scenes, tmp_path / "run", validation=ValidationConfig())


def test_broken_frames_are_counted_in_the_run(tmp_path):
    scenes = few_frames(tmp_path / "walk", train=12)
    frames = scenes[0].split("train")
    frames[2].image_path.write_bytes(b"no image")
    frames[6].image_path.write_bytes(frames[9].image_path.read_bytes())
    trainer = train(scenes, tmp_path / "run", validation=ValidationConfig(fraction=0.0))
    write_model(trainer)
    report = json.loads((tmp_path / "run" / "train.json").read_text())
    assert report["bad_frames"] == 2
    assert len(trainer.train_samples) == 10
    assert {frame.name for frame in trainer.bad} == {frames[2].name, frames[9].name}


def test_starting_from_another_models_backbone(tmp_path):
    scenes = few_frames(tmp_path / "walk", train=12)
    first = train(scenes, tmp_path / "first")
    model = write_model(first)
    second = Trainer(replace(TINY, weights=str(model), output=str(tmp_path / "second")), scenes)
    assert second.learner.weights.startswith("backbone ")
    for name, tensor in first.network.backbone.state_dict().items():
        assert torch.equal(tensor, second.network.backbone.state_dict()[name])
    other = replace(TINY.architecture, feature_size=16)
    with pytest.raises(ConfigError, match="not the architecture to be trained"):
        Trainer(replace(TINY, weights=str(model), architecture=other), scenes)


def test_mapnet_and_the_naive_network_learn_and_end_in_usable_models(tmp_path):
    scenes = [
        *few_frames(tmp_path / "walk", train=12),
        *load_scene_set([f"other={write_walk(tmp_path / 'other', train=9, seed=1)}"]),
    ]
    posenet = replace(TINY.architecture, feature_size=32, neck="posenet")
    shared = {"architecture": posenet, "shared_head": True, "loss": LossConfig(scene_weight=0)}
    shared["validation"] = ValidationConfig(fraction=0.0)
    naive = train(scenes, tmp_path / "naive", **shared)
    localizer = Localizer.load(write_model(naive), "cpu")
    rows = localizer.rows
    # Nobody taught it to name scenes: it answers where it is told, and else says so.
    image = read_image(scenes[0].frames[0].image_path)
    assert localizer.localize([image])[0].scene == UNKNOWN_SCENE
    assert localizer.localize([image], scene="walk")[0].known
    np.testing.assert_array_equal(*(row.head_tensors["weight"] for row in rows))
    np.testing.assert_array_equal(*(row.position_offset for row in rows))
    mapnet = train(
        scenes[:1], tmp_path / "mapnet", sampling=SamplingConfig(tuple_frames=3), **shared
    )
    assert isinstance(mapnet.learner.pose_loss, TupleLoss)
    # The weights of motions are learned too.
    assert mapnet.learner.pose_loss.relative.s_t.item() != 0
    assert Localizer.load(write_model(mapnet), "cpu").rows[0].s_t == pytest.approx(
        mapnet.learner.pose_loss.absolute.s_t.item()
    )


def test_a_method_for_one_scene_refuses_several(tmp_path, capsys):
    scenes = [f"{name}={write_walk(tmp_path / name)}" for name in ("hall", "lab")]
    assert main(["train", "paper", "--method", "posenet", "--scenes", *scenes]) == 1
    assert "posenet learns one scene a network, not 2" in capsys.readouterr().err


def test_a_row_whose_bias_gradients_cancel_still_learns():
    # Two images that pull a layer's biases in opposite directions: the layer was there.
    weight, bias = (torch.nn.Parameter(torch.ones(2, *s)) for s in ((6, 3), (6,)))
    adam = RowAdam([weight, bias], lr=0.1)
    for step in range(2):
        weight.grad, bias.grad = torch.zeros(2, 6, 3), torch.zeros(2, 6)
        weight.grad[0] = 1.0
        bias.grad[0] = float(step == 0)
        adam.step()
    plain = torch.nn.Parameter(torch.ones(6))
    reference = torch.optim.Adam([plain], lr=0.1)
    for gradient in (1.0, 0.0):
        plain.grad = torch.full((6,), gradient)
        reference.step()
    torch.testing.assert_close(bias[0], plain)
    assert (bias[1] == 1).all()
