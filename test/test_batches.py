# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which images come together in a batch, and what every process takes of it."""

from dataclasses import replace

import pytest
import torch
from dataset_files import write_walk

from mspn_ros.datasets import read_scene
from mspn_ros.network.backbone import Architecture
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.losses import known_loss, scene_loss
from mspn_ros.records import ConfigError
from mspn_ros.training.batches import BatchLoader, epoch_batches
from mspn_ros.training.config import (
    AugmentConfig,
    LossConfig,
    SamplingConfig,
    TrainConfig,
    load_config,
)
from mspn_ros.training.distributed import World
from mspn_ros.training.learner import Learner
from mspn_ros.training.methods import METHODS, method_file
from mspn_ros.training.samples import FrameStore

CONFIG = TrainConfig(
    architecture=Architecture("mobilenet_v3_small", resize=48, crop=40),
    batch_size=8,
    augment=AugmentConfig("random", True, 0.3, 0.3, 0.3),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Scene 0 has 30 frames, scene 1 has 7; a function of the view."""
    root = tmp_path_factory.mktemp("walks")
    scenes = [
        read_scene(write_walk(root / name, train=count, seed=count))
        for name, count in (("long", 30), ("short", 7))
    ]

    def samples_of(view):
        store = FrameStore(scenes, "train", view, str(root / "cache"))
        return store.take([scene.split("train") for scene in scenes])[0]

    return samples_of


@pytest.fixture(scope="module")
def samples(walks):
    return walks(CONFIG.architecture.view)


def batches(samples, epoch=0, **sampling):
    config = replace(CONFIG, sampling=SamplingConfig(**sampling))
    return epoch_batches(samples, config, 2, epoch)


def test_proportional_batches_show_every_frame_once(samples):
    plan = batches(samples)
    assert [len(batch) for batch in plan] == [8, 8, 8, 8, 5]
    assert sorted(torch.cat(plan).tolist()) == list(range(37))
    assert torch.equal(torch.cat(plan), torch.cat(batches(samples)))
    assert not torch.equal(torch.cat(plan), torch.cat(batches(samples, epoch=1)))


def test_balanced_batches_hold_both_scenes_alike_and_cost_no_more_images(samples):
    plan = batches(samples, scenes="balanced")
    assert sum(map(len, plan)) == 37
    for batch in plan[:-1]:
        assert samples.scene_S[batch].bincount().tolist() == [4, 4]
    # The short scene starts over only when all its frames have been seen.
    short = [i for i in torch.cat(plan).tolist() if i >= 30]
    assert sorted(short[:7]) == sorted(short[7:14]) == list(range(30, 37))


def test_a_single_image_left_over_is_no_batch(samples):
    config = replace(CONFIG, batch_size=12)
    assert [len(batch) for batch in epoch_batches(samples, config, 2, 0)] == [12, 12, 12]


def test_a_set_too_small_for_its_processes_is_named(samples):
    config = replace(CONFIG, batch_size=3)
    with pytest.raises(ConfigError, match="not one batch holds the 4 images that 4 process"):
        epoch_batches(samples, config, 2, 0, processes=4)


def test_tuples_stay_in_their_recording_and_cost_no_more_images(samples):
    plan = batches(samples, tuple_frames=3, tuple_spacing=4)
    assert {len(batch) for batch in plan[:-1]} == {6}
    order = torch.cat(plan).view(-1, 3)
    assert len(order) == 13
    for first, middle, last in order.tolist():
        low, high = (0, 29) if middle < 30 else (30, 36)
        assert (first, last) == (max(middle - 4, low), min(middle + 4, high))


def test_shares_of_processes_make_up_the_batch_whole_tuples_at_a_time():
    for size, tuples, frames in ((2, 5, 3), (3, 8, 1), (4, 4, 2)):
        shares = [World(rank, size).share(tuples, frames) for rank in range(size)]
        covered = [i for share in shares for i in range(share.start, share.stop)]
        assert covered == list(range(tuples * frames))
        assert all(share.start % frames == 0 and share.stop > share.start for share in shares)


WARPED = replace(
    CONFIG,
    architecture=replace(CONFIG.architecture, fit="squeeze"),
    augment=replace(CONFIG.augment, zoom=0.3, roll=20.0, shift=0.1),
)


def load(samples, world, first=0, config=CONFIG):
    coding = PoseCoding.fit(
        [samples.position_S3[samples.of_scene(i)].numpy() for i in range(2)],
        [samples.quaternion_S4[samples.of_scene(i)].numpy() for i in range(2)],
        True,
        True,
    )
    loader = BatchLoader(samples, coding, config, world, CPU, 12, 4)
    return list(loader.batches(epoch_batches(samples, config, 2, 0), 0, first))


@pytest.mark.parametrize("config", [CONFIG, WARPED], ids=["cropped", "warped"])
def test_two_processes_see_the_very_images_of_one_and_a_resumed_run_of_an_unbroken_one(
    walks, config
):
    samples = walks(config.architecture.view)
    whole = load(samples, World(), config=config)
    halves = [load(samples, World(rank, 2), config=config) for rank in range(2)]
    for batch, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(batch.image_B3HW, torch.cat((left.image_B3HW, right.image_B3HW)))
        assert torch.equal(batch.target_BP, torch.cat((left.target_BP, right.target_BP)))
        assert torch.equal(batch.ray_BC3, torch.cat((left.ray_BC3, right.ray_BC3)))
        assert torch.equal(left.all_index_B, batch.index_B)
    resumed_run = load(samples, World(), first=3, config=config)
    for batch, resumed in zip(whole[3:], resumed_run, strict=True):
        assert torch.equal(batch.image_B3HW, resumed.image_B3HW)
    # Not the same crop and colours for all: the draws are used.
    first = whole[0].image_B3HW
    assert len({float(image.mean()) for image in first}) == len(first)
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_images_of_nothing_are_asked_for_varied_and_the_same_again(samples):
    assert load(samples, World())[0].nothing_M3HW is None
    config = replace(CONFIG, sampling=SamplingConfig(nothing=0.5))
    once, again = (load(samples, World(), config=config) for _ in range(2))
    for batch, other in zip(once, again, strict=True):
        found = batch.nothing_M3HW
        assert len(found) == max(1, round(0.5 * len(batch.index_B)))
        assert found.shape[1:] == batch.image_B3HW.shape[1:]
        assert (found.min() >= 0) & (found.max() <= 255)
        assert torch.equal(found, other.nothing_M3HW)
    [first, second] = (batch.nothing_M3HW.flatten() for batch in once[:2])
    assert not torch.equal(first[: len(second)], second[: len(first)])


def test_the_classifier_learns_of_images_of_nothing_and_poses_do_not(samples):
    config = replace(
        CONFIG,
        sampling=SamplingConfig(nothing=0.5),
        loss=LossConfig(scene_weight=2.0),
        weights="none",
    )
    torch.manual_seed(0)
    learner = Learner(config, 2).eval()
    batch = load(samples, World(), config=config)[0]
    target_BP = batch.target_BP[:, :6]
    with torch.no_grad():
        plain, plain_BP = learner(batch.image_B3HW, target_BP, batch.scene_B)
        loss, pose_BP = learner(
            batch.image_B3HW, target_BP, batch.scene_B, nothing_M3HW=batch.nothing_M3HW
        )
        said = [learner.network(i).logits_BN for i in (batch.image_B3HW, batch.nothing_M3HW)]
    named = scene_loss(said[0], batch.scene_B)
    told = known_loss(said[0], batch.scene_B, said[1])
    assert torch.allclose(pose_BP, plain_BP, atol=1e-5)
    assert float(loss - plain) == pytest.approx(2 * float(told - named), abs=1e-4)
    assert abs(float(told - named)) > 0.01


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_every_method_lies_over_every_preset(name, preset):
    from mspn_ros.paths import config_file

    plain = load_config(config_file(f"{preset}.yaml"))
    config = load_config(config_file(f"{preset}.yaml"), overlay=method_file(name))
    assert config.optimizer == plain.optimizer
    assert config.coding == plain.coding
    assert config.head == "linear"
    assert config.architecture.cells == "none"
    assert not config.augment.warps
    assert config.shared_head == (name in ("posenet", "mapnet", "naive"))
    assert (config.architecture.neck == "posenet") == config.shared_head
    assert (config.sampling.tuple_frames > 1) == (name == "mapnet")
    assert bool(config.loss.scene_weight) == (name == "mspn")


def test_settings_that_contradict_each_other_are_named():
    from mspn_ros.paths import config_file

    with pytest.raises(ConfigError, match=r"loss\.scene_weight=0"):
        load_config(config_file("paper.yaml"), ["shared_head=true"])
    with pytest.raises(ConfigError, match="tuple_frames 65 is not within 1 to 64"):
        load_config(config_file("paper.yaml"), ["sampling.tuple_frames=65"])
    with pytest.raises(ConfigError, match=r"sampling\.nothing teaches the scene classifier"):
        load_config(config_file("paper.yaml"), ["sampling.nothing=0.1", "loss.scene_weight=0"])
    with pytest.raises(ConfigError, match="method 'posnet' is unknown; known are posenet, mapnet"):
        method_file("posnet")
