# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training learns what is there to learn, resumes bit for bit, and ends in a usable model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from training_tools import TINY, train

from mspn_ros import metrics
from mspn_ros.datasets.base import SceneData
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.demo import MODEL
from mspn_ros.evaluation.answers import make_table
from mspn_ros.evaluation.evaluate import evaluate
from mspn_ros.geometry import mean_quaternion
from mspn_ros.inference.localizer import Localizer
from mspn_ros.paths import config_file
from mspn_ros.records import ConfigError, Frame, MspnError, Pose
from mspn_ros.store.backbone_file import load_backbone
from mspn_ros.store.files import read_tensors
from mspn_ros.training.checkpoint import CHECKPOINT_FILE, flatten_state, restore_state
from mspn_ros.training.config import (
    TrainConfig,
    ValidationConfig,
    load_config,
)
from mspn_ros.training.finish import write_model
from mspn_ros.training.loop import Trainer
from mspn_ros.training.row_adam import RowAdam
from mspn_ros.training.samples import cut_validation

pytest.importorskip("pyvista", reason="pyvista is not installed (extra 'synthetic')")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Two rooms that the packaged model has not seen; every fifth frame of the walks is test."""
    from mspn_ros.datasets.synthetic import SyntheticConfig, generate

    out = tmp_path_factory.mktemp("rooms") / "rooms"
    generate(
        out,
        SyntheticConfig(rooms=3, train_frames=300, test_frames=2, width=192, height=144, seed=7),
    )
    scenes = load_scene_set([f"{name}={out / name}" for name in ("room_a", "room_c")])

    def split(room):
        frames = enumerate(room.split("train"))
        parts = [replace(f, split="test" if i % 5 == 2 else "train") for i, f in frames]
        return replace(room, frames=tuple(parts))

    return [split(room) for room in scenes]


@pytest.fixture(scope="module")
def learning(tmp_path_factory):
    """Settings that learn two rooms in a minute: from the packaged model's backbone."""
    backbone, _, _ = load_backbone(MODEL)
    weights = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_file(backbone.network.state_dict(), weights)
    return {"architecture": backbone.architecture, "weights": str(weights), "epochs": 10}


def medians(rooms, model):
    """{room: (position, rotation in degrees) over the mean pose's}, accuracy of naming."""
    localizer = Localizer.load(model, "cpu")
    answers, bad = evaluate(localizer, rooms)
    assert not bad
    table = make_table(answers, localizer.rows, "m")
    ratios = {}
    for room, score in zip(rooms, table.scores, strict=True):
        train_poses = [frame.pose for frame in room.split("train")]
        test_poses = [frame.pose for frame in room.split("test")]
        position = np.mean([pose.position for pose in train_poses], axis=0)
        quaternion = mean_quaternion(np.array([pose.quaternion for pose in train_poses]))
        mean_position = np.median(
            metrics.position_error(position, np.array([p.position for p in test_poses]))
        )
        mean_rotation = np.median(
            metrics.rotation_error_deg(quaternion, np.array([p.quaternion for p in test_poses]))
        )
        ratios[room.name] = (
            score.median_position / mean_position,
            score.median_rotation_deg / mean_rotation,
        )
    return ratios, table.mean.scene_accuracy


@pytest.fixture(scope="module")
def learned(rooms, learning, tmp_path_factory):
    trainer = train(rooms, tmp_path_factory.mktemp("run") / "run", **learning)
    return write_model(trainer)


def test_two_rooms_are_learned_twice_as_well_as_the_mean_pose(rooms, learned):
    ratios, accuracy = medians(rooms, learned)
    assert accuracy >= 0.95
    for room, (position, rotation) in ratios.items():
        assert position < 0.5, room
        assert rotation < 0.5, room


def test_shuffled_labels_teach_nothing(rooms, learning, tmp_path):
    # If this run beat the mean pose too, the test above would measure a leak, not learning.
    rng = np.random.default_rng(0)

    def shuffled(room):
        frames = list(room.split("train"))
        poses = [frames[i].pose for i in rng.permutation(len(frames))]
        mixed = [replace(f, pose=p) for f, p in zip(frames, poses, strict=True)]
        return replace(room, frames=(*mixed, *room.split("test")))

    trainer = train([shuffled(room) for room in rooms], tmp_path, **learning)
    ratios, _ = medians(rooms, write_model(trainer))
    assert all(position > 0.5 for position, _ in ratios.values())


def test_an_interrupted_run_ends_with_the_same_weights(rooms, tmp_path):
    few = [replace(room, frames=room.split("train")[:48]) for room in rooms]
    config = replace(TINY, validation=ValidationConfig(fraction=0.0))
    whole = Trainer(replace(config, output=str(tmp_path / "whole")), few)
    whole.run()

    class StopHereError(Exception):
        pass

    first = Trainer(replace(config, output=str(tmp_path / "cut")), few)
    save = first._save

    def save_then_stop():
        save()
        if first.progress.epoch == 2:
            raise StopHereError

    first._save = save_then_stop
    with pytest.raises(StopHereError):
        first.run()
    second = Trainer(replace(config, output=str(tmp_path / "cut")), few)
    assert second.resume()
    assert second.progress.epoch == 2
    second.run()
    assert [e["loss"] for e in whole.history] == [e["loss"] for e in second.history]
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name
    other = Trainer(replace(config, output=str(tmp_path / "cut"), seed=1), few)
    with pytest.raises(ConfigError, match="other settings \\(seed\\)"):
        other.resume()


def test_resuming_on_other_poses_is_refused(rooms, tmp_path):
    # Heads are learned for a coding of the poses: taking up a run on moved poses would end in a
    # model that is wrong everywhere.
    few = [replace(room, frames=room.split("train")[:24]) for room in rooms]
    config = replace(TINY, epochs=1, output=str(tmp_path), validation=ValidationConfig(0.0))
    Trainer(config, few).run()

    def moved(frame):
        return replace(frame, pose=replace(frame.pose, position=frame.pose.position * 100))

    others = [replace(room, frames=tuple(moved(f) for f in room.frames)) for room in few]
    with pytest.raises(ConfigError, match=r"other settings \(data\)"):
        Trainer(config, others).resume()
    with pytest.raises(ConfigError, match="holds a run already; pass --resume"):
        Trainer(config, few).run()


def test_a_scene_too_short_to_hold_frames_out_is_named_and_the_others_still_are_judged(
    rooms, tmp_path
):
    few = [rooms[0], replace(rooms[1], frames=rooms[1].split("train")[:30])]
    trainer = Trainer(replace(TINY, output=str(tmp_path)), few)
    assert trainer.scenes_without_held_out == [rooms[1].name]
    assert [entry.scene for entry in trainer.validate()] == [rooms[0].name]
    assert len(trainer.train_samples.of_scene(1)) == 30


def test_row_adam_resumes_on_the_device_of_its_rows():
    # Optimizer.load_state_dict keeps a state called "step" on the CPU; on CUDA that would crash.
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    adam = RowAdam([parameter], lr=0.1)
    parameter.grad = torch.ones(2, 3)
    adam.step()
    elsewhere = RowAdam([torch.nn.Parameter(torch.empty(2, 3, device="meta"))], lr=0.1)
    restore_state(elsewhere, {k[2:]: v for k, v in flatten_state("x", adam).items()})
    assert {v.device.type for v in next(iter(elsewhere.state.values())).values()} == {"meta"}


def test_a_nan_loss_names_the_files_and_keeps_the_checkpoint(rooms, tmp_path):
    few = [replace(room, frames=room.split("train")[:24]) for room in rooms]
    config = replace(TINY, epochs=1, output=str(tmp_path), validation=ValidationConfig(0.0))
    trainer = Trainer(config, few)
    trainer.run()
    before = read_tensors(tmp_path / CHECKPOINT_FILE)[1]["progress"]["epoch"]
    trainer.config = replace(config, epochs=2)
    with torch.no_grad():
        trainer.network.heads.weight[0] = float("nan")
    with pytest.raises(MspnError, match=r"not finite in epoch 2.*nan_batch\.txt"):
        trainer.run()
    assert read_tensors(tmp_path / CHECKPOINT_FILE)[1]["progress"]["epoch"] == before
    assert ".color.jpg" in (tmp_path / "nan_batch.txt").read_text()


def test_weights_spoiled_by_the_last_step_are_never_saved(rooms, tmp_path):
    # Its loss was finite and its gradients were not: no later loss would show it.
    few = [replace(room, frames=room.split("train")[:8]) for room in rooms]
    config = replace(TINY, epochs=1, output=str(tmp_path), validation=ValidationConfig(0.0))
    trainer = Trainer(replace(config, batch_size=64), few)
    trainer.network.heads.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(MspnError, match="weights are not finite after 0 epochs and 1 steps"):
        trainer.run()
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_the_model_tells_where_it_comes_from(rooms, learned):
    localizer = Localizer.load(learned, "cpu")
    assert localizer.provenance["config"]["seed"] == 0
    row = localizer.rows[0]
    assert row.held_out.frames > 0
    assert 0 < row.acceptance_threshold <= 0.5
    assert row.frames + row.held_out.frames < len(rooms[0].split("train"))
    report = json.loads((learned.parent / "train.json").read_text())
    assert len(report["history"]) == 10


def _scene(frames, size=100):
    listed = [
        Frame("x", f"{i}", "s", "train", Pose(np.zeros(3), np.array([0, 0, 0, 1.0])))
        for i in range(size)
    ]
    return SceneData("s", "7scenes", None, tuple(listed[:frames]), (), 1.0)


def test_validation_blocks_keep_their_distance():
    train_frames, held = cut_validation(_scene(100), ValidationConfig(0.2, blocks=4, gap=3))
    kept, out = ({int(f.name) for f in part} for part in (train_frames, held))
    assert len(out) == 20
    assert min(abs(a - b) for a in kept for b in out) == 4
    assert len(kept) + len(out) == 100 - 4 * 2 * 3
    assert {f.split for f in held} == {"val"}


def test_a_scene_without_training_frames_is_named():
    with pytest.raises(MspnError, match="scene s: no training frames"):
        cut_validation(replace(_scene(5), frames=()), ValidationConfig())


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_presets_load(preset):
    config = load_config(config_file(f"{preset}.yaml"))
    assert config.architecture.backbone == "resnet34"
    if preset == "paper":
        assert config == TrainConfig(validation=ValidationConfig(fraction=0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: many\n", "epochs"),
        ("epocs: 3\n", "epocs"),
        ("epochs: 0\n", "epochs 0 is not within"),
        ("loss: {kind: huber}\n", "kind"),
        ("architecture: {pose_parameters: 5}\n", "pose_parameters 5"),
        ("[1, 2\n", "config"),
    ],
)
def test_a_bad_configuration_is_one_line(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert "\n" not in str(error.value)
