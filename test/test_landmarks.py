# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Landmarks: chosen where things are, found where they are seen, and poses made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from box_room import distance_to_walls, write_box_room
from models import DENSE, LANDMARKS, make_landmark_model, make_row, make_tiny_model
from scipy.spatial.transform import Rotation
from training_tools import train

from mspn_ros.cli import main
from mspn_ros.datasets import read_scene
from mspn_ros.geometry import quaternion_to_matrix
from mspn_ros.images import read_image
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.network.landmark_head import LandmarkHead, sighted_rays
from mspn_ros.network.losses import (
    FOUND,
    MISSED,
    OUTSIDE,
    UNKNOWN,
    Sights,
    sight_loss,
)
from mspn_ros.network.mspn import MSPN
from mspn_ros.network.pose_solver import refine_pose
from mspn_ros.network.scene_head import Sightings
from mspn_ros.records import ConfigError, Intrinsics
from mspn_ros.store.row_format import row_bytes
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.augment import draw
from mspn_ros.training.config import AugmentConfig, ValidationConfig
from mspn_ros.training.feature_statistics import feature_statistics
from mspn_ros.training.finish import write_model
from mspn_ros.training.landmarks import cached_landmarks, choose_landmarks
from mspn_ros.training.samples import FrameStore
from mspn_ros.training.sights import find_landmarks
from mspn_ros.view import camera_vector, cell_centres, pixel_rays, project

# --- the pose of sightings -----------------------------------------------------------------


def seen_points(count=60, seed=0):
    """True poses (2), points in front of both cameras, and the unit rays they are seen along."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(size=(2, 3)) * 0.3)
    centre = rng.normal(size=(2, 3)) * 0.3
    camera = np.concatenate((rng.uniform(-1, 1, (2, count, 2)), np.ones((2, count, 1))), 2)
    camera *= rng.uniform(2, 6, (2, count, 1))
    point = np.einsum("bij,bmj->bmi", turn.as_matrix(), camera) + centre[:, None]
    ray = camera / np.linalg.norm(camera, axis=2, keepdims=True)
    return [torch.tensor(x) for x in (turn.as_matrix(), centre, point, ray)]


USUAL = torch.tensor([[0.3, 0.1]] * 2)


def off(turn, centre, seed=1):
    """A start that is some 15 degrees and half a unit from the truth."""
    rng = np.random.default_rng(seed)
    wrong = Rotation.from_rotvec(rng.normal(size=(2, 3)) * 0.15).as_matrix()
    return turn @ torch.tensor(wrong), centre + torch.tensor(rng.normal(size=(2, 3)) * 0.3)


def test_sightings_lead_back_to_the_pose_even_if_a_third_is_wrong():
    turn, centre, point, ray = seen_points()
    rng = np.random.default_rng(2)
    wrong = torch.tensor(rng.normal(size=(2, 20, 3)))
    ray[:, :20] = wrong / wrong.norm(dim=2, keepdim=True)
    found, position, _ = refine_pose(*off(turn, centre), point, ray, torch.ones(2, 60), USUAL)
    # The start is held to weakly, hence not exactly.
    assert (position - centre).norm(dim=1).max() < 0.02
    assert (found - turn).abs().max() < 0.003
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(2, dtype=torch.float64))


def test_without_sightings_the_start_is_the_answer():
    turn, centre, point, ray = seen_points()
    start = off(turn, centre)
    found, position, _ = refine_pose(*start, point, ray, torch.zeros(2, 60), USUAL)
    torch.testing.assert_close(found, start[0])
    torch.testing.assert_close(position, start[1])


def test_few_sightings_mend_what_they_can_and_leave_the_rest():
    # One point: the rotation can be turned so that it is where it should be, no more is known.
    turn, centre, point, ray = seen_points(1)
    rotation, start = off(turn, centre)
    found, position, _ = refine_pose(rotation, start, point, ray, torch.ones(2, 1), USUAL)
    seen = torch.nn.functional.normalize((point - position[:, None]) @ found, dim=2)
    assert (seen - ray).norm(dim=2).max() < 0.05
    assert (position - start).norm(dim=1).max() < 1.0


def test_a_landmark_at_the_cameras_very_centre_does_no_harm():
    turn, centre, point, ray = seen_points()
    point[:, 0] = centre
    found, position, _ = refine_pose(*off(turn, centre), point, ray, torch.ones(2, 60), USUAL)
    assert (position - centre).norm(dim=1).max() < 0.02
    assert found.isfinite().all()


def test_the_covariance_is_that_of_repeated_sightings():
    turn, centre, point, ray = (x[:1] for x in seen_points())
    noise = 0.003
    rng = np.random.default_rng(0)
    many = 400
    seen = torch.nn.functional.normalize(
        ray + noise * torch.tensor(rng.normal(size=(many, 60, 3))), dim=2
    )
    usual = torch.full((many, 2), 10.0)  # a start that is hardly believed
    found, position, covariance = refine_pose(
        turn.expand(many, 3, 3), centre.expand(many, 3), point, seen, torch.ones(many, 60), usual
    )
    turned = Rotation.from_matrix(found.numpy()) * Rotation.from_matrix(turn.numpy()).inv()
    error = np.concatenate((position - centre, turned.as_rotvec()), 1)
    # Stated for sightings that are off by 0.03.
    expected = covariance.mean(0).numpy() * (noise / 0.03) ** 2
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(error.std(0), size, rtol=0.25)
    correlation = expected / np.outer(size, size)
    np.testing.assert_allclose(np.corrcoef(error.T), correlation, atol=0.2)


def test_a_start_without_sightings_is_as_uncertain_as_starts_are():
    turn, centre, point, ray = seen_points()
    usual = torch.tensor([[0.3, 0.1], [0.5, 0.2]])
    covariance = refine_pose(turn, centre, point, ray, torch.zeros(2, 60), usual)[2]
    np.testing.assert_allclose(
        torch.diagonal(covariance, dim1=1, dim2=2).sqrt()[:, ::5],
        [[0.3, 0.3], [0.5, 0.6]],  # of rotations three times as much as they earn
        rtol=1e-6,
    )


# --- the head ------------------------------------------------------------------------------


def exact_head(landmarks=20, side=8):
    """A head whose landmarks' keys are the descriptors of the places where they are."""
    torch.manual_seed(0)
    camera = torch.tensor([camera_vector(Intrinsics(50.0, 60.0, 30.0, 33.0, 64, 64))])
    ray_BE3 = pixel_rays(camera, cell_centres(64, side)[None]).float()
    head = LandmarkHead(1, 8, 64, landmarks).eval()
    place_BED = torch.eye(64)[None]
    where = torch.arange(landmarks) * 3 % 64
    turn = Rotation.from_rotvec([0.1, -0.2, 0.3])
    centre = np.array([0.3, -0.2, 0.1])
    depth = np.random.default_rng(0).uniform(2, 5, (landmarks, 1))
    point = turn.apply(ray_BE3[0, where].numpy() * depth) + centre
    with torch.no_grad():
        head.key.copy_(place_BED[:, where])
        head.nowhere.fill_(-5.0)
        head.sharpness.fill_(3.5)
        for parameter in head.votes.parameters():
            parameter.zero_()
        head.votes.cells.bias[0, :3] = torch.tensor([0.0, 0.0, 1.0])  # all look ahead
    head.place_landmarks(0, torch.tensor(point))
    features = Features(torch.zeros(1, 1), torch.zeros(1, 4, 8), place_BED)
    return head, features, ray_BE3, turn, centre


def test_landmarks_found_at_their_places_give_the_pose_and_the_votes_only_the_start():
    head, features, ray_BE3, turn, centre = exact_head()
    with torch.no_grad():
        pose = head.read(features, torch.tensor([0]), ray_BE3, None).pose_BP[0]
        np.testing.assert_allclose(pose[:3], centre, atol=0.03)
        np.testing.assert_allclose(pose[3:].view(3, 3), turn.as_matrix(), atol=0.01)
        votes = head.votes.read(features, torch.tensor([0]), ray_BE3[:, ::16], None).pose_BP[0]
        assert (pose - votes).abs().max() > 0.1
        # Landmarks that are nowhere have no part in it.
        head.nowhere.fill_(50.0)
        unseen = head.read(features, torch.tensor([0]), ray_BE3, None).pose_BP[0]
        cells = torch.nn.functional.normalize(ray_BE3.view(1, 2, 4, 2, 4, 3).mean((2, 4)), dim=3)
        votes = head.votes.read(features, torch.tensor([0]), cells.view(1, 4, 3), None).pose_BP[0]
        torch.testing.assert_close(unseen.float(), votes, atol=1e-5, rtol=0)


def test_a_sighting_between_places_is_seen_between_them():
    ray_BE3 = pixel_rays(
        torch.tensor([camera_vector(Intrinsics(80.0, 80.0, 31.5, 31.5, 64, 64))]),
        cell_centres(64, 8)[None],
    )
    logit = torch.full((1, 1, 64), -20.0, dtype=torch.float64)
    logit[0, 0, [27, 28]] = torch.tensor([3.0, 3.0 + np.log(3.0)], dtype=torch.float64)
    ray, weight = sighted_rays(Sightings(logit, torch.full((1, 1), 3.0).double()), ray_BE3)
    expected = 0.25 * ray_BE3[0, 27] + 0.75 * ray_BE3[0, 28]
    torch.testing.assert_close(ray[0, 0], expected / expected.norm())
    assert float(weight) == pytest.approx(4 / 5, abs=1e-6)


def test_the_sight_loss_by_hand():
    # Found a quarter of the way from place 0 to place 1; outside; missed at place 3; unknown.
    place = torch.log(torch.tensor([[[0.4, 0.2, 0.1, 0.1]] + [[0.1, 0.05, 0.05, 0.2]] * 3]))
    nowhere = torch.log(torch.tensor([[0.2, 0.6, 0.6, 0.6]]))
    where = torch.tensor([[[0.25, 0.0], [9.0, 9.0], [1.0, 1.0], [0.0, 0.0]]])
    sights = Sights(where, torch.tensor([[FOUND, OUTSIDE, MISSED, UNKNOWN]]))
    expected = -0.75 * np.log(0.4) - 0.25 * np.log(0.2) - np.log(0.6)
    # In a grid of two by two, all four places are about the missed one.
    expected -= np.log(0.6 + 0.4)
    assert float(sight_loss(Sightings(place, nowhere), sights)) == pytest.approx(expected, rel=1e-5)


def test_each_image_counts_alike_in_the_sight_loss_however_many_landmarks_it_has():
    place = torch.zeros(3, 4, 16)
    place[0, :, 5] = 2.0
    nowhere = torch.zeros(3, 4)
    where = torch.ones(3, 4, 2)
    state = torch.tensor([[FOUND] * 4, [FOUND] + [UNKNOWN] * 3, [UNKNOWN] * 4])
    easy, hard = np.log(16 + np.exp(2.0)) - 2.0, np.log(17)
    value = float(sight_loss(Sightings(place, nowhere), Sights(where, state)))
    assert value == pytest.approx((easy + hard) / 2, rel=1e-5)


def test_a_missed_landmark_may_be_where_it_should_or_nowhere_but_not_elsewhere():
    sights = Sights(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[MISSED]]))

    def loss(place, nowhere=-9.0):
        logit = torch.full((1, 1, 16), -9.0)
        logit[0, 0, place] = 9.0
        return float(sight_loss(Sightings(logit, torch.tensor([[nowhere]])), sights))

    assert loss(5) < 0.01
    assert loss(15, nowhere=30.0) < 0.01
    assert loss(15) > 10


def test_descriptors_are_unit_vectors_of_places_row_by_row():
    torch.manual_seed(0)
    network = Backbone(LANDMARKS).eval()
    assert network.grids == {"none": 0, "cells": 4, "places": 8}
    features = network(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8))
    assert features.place_BED.shape == (2, 64, 16)
    torch.testing.assert_close(features.place_BED.norm(dim=2), torch.ones(2, 64))
    neck = network.place_neck
    with torch.no_grad():
        maps = {8: torch.zeros(1, neck.early.in_channels, 8, 8)}
        cells = torch.zeros(1, 32, 4, 4)
        before, _ = neck(maps, cells)
        maps[8][..., 0, :] = 1.0
        change = (neck(maps, cells)[0] - before).abs().sum(1)[0]
    assert (change[0] > 0).all()
    assert (change[2:] == 0).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"cells": "none", "descriptor_features": 0}, r"architecture\.cells=fine"),
        ({"descriptor_features": 0}, r"architecture\.descriptor_features=32"),
    ],
)
def test_a_landmark_head_needs_cells_and_descriptors(change, match):
    with pytest.raises(ConfigError, match=match):
        MSPN(replace(LANDMARKS, **change), 1, "landmarks", landmarks=10)


# --- rows ----------------------------------------------------------------------------------


def test_a_full_row_stays_below_64_kb_and_comes_back_as_it_was():
    torch.manual_seed(0)
    architecture = replace(DENSE, feature_size=512, cell_features=512, descriptor_features=32)
    network = MSPN(architecture, 1, "landmarks", landmarks=1000)
    network.heads.place_landmarks(0, torch.randn(1000, 3))
    row = make_row(network, 0, "hall", "0" * 64)
    row = replace(row, **feature_statistics(torch.randn(600, 512))._asdict())
    assert row_bytes(row) < 65_536
    again = MSPN(architecture, 1, "landmarks", landmarks=1000).heads
    again.set_row(0, {k: torch.tensor(v) for k, v in row.head_tensors.items()})
    key = torch.nn.functional.normalize(network.heads.key, dim=2)
    turned = (torch.nn.functional.normalize(again.key, dim=2) * key).sum(2)
    assert turned.min() > 0.999  # 8 bits a number
    torch.testing.assert_close(again.point, network.heads.point, rtol=1e-3, atol=1e-3)
    for name, tensor in again.row(0).items():
        np.testing.assert_array_equal(tensor, row.head_tensors[name])


def test_landmarks_beyond_half_precision_are_not_stored():
    head = MSPN(LANDMARKS, 1, "landmarks", landmarks=3).heads
    head.place_landmarks(0, torch.tensor([[1.0, 2.0, 3.0], [0.0, 1e6, 0.0], [4.0, 5.0, 6.0]]))
    row = head.row(0)
    np.testing.assert_array_equal(row["point"], [[1, 2, 3], [4, 5, 6]])
    assert len(row["key"]) == len(row["nowhere"]) == 2


def test_scenes_of_different_numbers_of_landmarks_are_served_together(tmp_path):
    localizer = Localizer.load(make_landmark_model(tmp_path / "m"), "cpu")
    assert [len(row.head_tensors["point"]) for row in localizer.rows] == [5, 9]
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    assert all(localizer.localize([image], scene)[0].known for scene in ("hall", "lab"))


def test_evidence_is_what_the_answer_was_made_of(tmp_path):
    localizer = Localizer.load(make_landmark_model(tmp_path / "m"), "cpu")
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    camera = Intrinsics(150.0, 160.0, 79.5, 59.5, 160, 120)
    (answer,) = localizer.localize([image], "lab", cameras=[camera])
    evidence = localizer.evidence(image, "lab", camera)
    assert evidence.scene == "lab"
    np.testing.assert_allclose(evidence.position, answer.position)
    assert len(evidence.point_M3) == len(evidence.weight_M) == len(evidence.seen_M2) > 0
    assert evidence.centre_C3.shape == (16, 3)
    # Landmarks are where the bank has them, here in units of two about (2, 4, 6).
    stored = localizer.rows[1].head_tensors["point"].astype(float) * 2 + [2, 4, 6]
    apart = np.linalg.norm(evidence.point_M3[:, None] - stored, axis=2).min(1)
    np.testing.assert_allclose(apart, 0, atol=1e-5)
    assert (evidence.seen_M2 > -0.5).all()
    assert (evidence.seen_M2 < [159.5, 119.5]).all()
    # By hand, through the stated pose and camera, of those that lie ahead.
    seen = (evidence.point_M3 - evidence.position) @ evidence.rotation
    ahead = seen[:, 2] > np.abs(seen[:, :2]).max(1) / 3
    assert ahead.any()
    by_hand = seen[ahead, :2] / seen[ahead, 2:] * [150, 160] + [79.5, 59.5]
    np.testing.assert_allclose(evidence.expected_M2[ahead], by_hand)


def test_answers_are_explained_in_pictures_where_there_is_anything_to_show(tmp_path, capsys):
    from PIL import Image

    model, picture = make_landmark_model(tmp_path / "m"), tmp_path / "view.png"
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    Image.fromarray(noise).save(picture)
    arguments = [str(picture), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["explain", *arguments, "--model", str(model)]) == 0
    with Image.open(tmp_path / "out" / "000_view.png") as drawn:
        assert drawn.width > 800
    linear = make_tiny_model(tmp_path / "linear")
    assert main(["explain", *arguments, "--model", str(linear)]) == 1
    assert "has a head of kind linear: no votes" in capsys.readouterr().err
    assert main(["explain", *arguments, "--model", str(model), "--scene", "x"]) == 1
    assert "scene 'x' is not in the bank; it has hall, lab" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["key", "point", "nowhere", "votes.cells.weight"])
def test_a_row_whose_tensors_do_not_fit_each_other_is_refused(tmp_path, name):
    model = make_landmark_model(tmp_path / "m")
    with SceneBank(model, read_only=False) as bank:
        row = bank.rows()[1]
        cut = {**row.head_tensors, name: row.head_tensors[name][:4]}
        bank.add(replace(row, name="bad", uuid="bad", head_tensors=cut))
    localizer = Localizer.load(model, "cpu")
    assert [scene.name for scene in localizer.scenes] == ["hall", "lab"]
    assert "scene 'bad'" in localizer.refused["bad"]


# --- where they are ------------------------------------------------------------------------


def test_what_is_projected_lies_on_the_ray_of_its_pixel():
    camera = Intrinsics(150.0, 160.0, 79.0, 61.0, 160, 120, (0.1, -0.05, 0.002, -0.001, 0.01))
    vector = torch.tensor([camera_vector(camera)])
    pixel = torch.tensor([[[0.0, 0.0], [80.0, 60.0], [159.0, 119.0]]]).double()
    ray = pixel_rays(vector, pixel)
    found, ahead = project(vector, ray * torch.tensor([[[2.0], [5.0], [0.1]]]))
    torch.testing.assert_close(found, pixel, atol=1e-3, rtol=0)
    assert ahead.all()
    assert not project(vector, -ray)[1].any()
    assert not project(vector, torch.tensor([[[4.0, 0.0, 1.0]]]).double())[1].any()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return read_scene(write_box_room(tmp_path_factory.mktemp("box") / "room"))


@pytest.fixture(scope="module")
def chosen(room):
    return choose_landmarks(room.split("train"), 300)


def test_landmarks_lie_on_the_walls(room, chosen):
    away = distance_to_walls(chosen.point_K3)
    assert len(away) == 300
    assert np.median(away) < 0.02
    assert np.percentile(away, 90) < 0.15
    assert (chosen.found_SK.sum(0) >= 3).all()
    assert chosen.found_SK.sum(1).min() > 30


def test_wrong_poses_give_few_landmarks(room, chosen):
    frames = room.split("train")
    swapped = [replace(f, pose=frames[(7 * i + 3) % 40].pose) for i, f in enumerate(frames)]
    assert choose_landmarks(swapped, 300).found_SK.sum() < 0.3 * chosen.found_SK.sum()


def test_landmarks_are_kept_and_chosen_anew_where_a_pose_changes(room, tmp_path, chosen):
    frames = room.split("train")
    told = []
    first = cached_landmarks(frames, 300, tmp_path, lambda *place: told.append(place))
    assert told[-1] == (40, 40)
    np.testing.assert_array_equal(first.point_K3, chosen.point_K3)
    again = cached_landmarks(frames, 300, tmp_path, lambda *place: pytest.fail("not kept"))
    np.testing.assert_array_equal(again.point_K3, first.point_K3)
    np.testing.assert_array_equal(again.found_SK, first.found_SK)
    told.clear()
    cached_landmarks(frames[:-1], 300, tmp_path, lambda *place: told.append(place))
    assert told[-1] == (39, 39)


def test_pictures_without_texture_have_no_landmarks(room, tmp_path):
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.new("RGB", (160, 120), (90, 90, 90)).save(path)
    frames = [replace(frame, image_path=path) for frame in room.split("train")[:5]]
    none = choose_landmarks(frames, 300)
    assert none.point_K3.shape == (0, 3)
    assert none.found_SK.shape == (5, 0)


def test_sights_follow_every_warp(room):
    samples, _ = FrameStore([room], "train", LANDMARKS.view, "none").take([room.split("train")])
    landmarks = find_landmarks(samples, 1, 200, None)
    index = torch.arange(8)
    config = AugmentConfig("center", zoom=0.3, roll=20.0, shift=0.1)
    drawn = draw(samples, index, 64, config, torch.Generator().manual_seed(0))
    sights = landmarks.sights(samples, index, drawn, 64)
    # Back through the warp and along the pixel's ray, each landmark must lie on the way.
    pixel = (sights.place_BK2.double() + 0.5) * 8 - 0.5
    warp = drawn.warp_B23
    source = pixel @ warp[:, :, :2].mT + warp[:, None, :, 2]
    ray = pixel_rays(samples.camera_SK[index], source)
    turn = quaternion_to_matrix(samples.quaternion_S4[index])
    point = landmarks.point_NK3[torch.zeros(8, dtype=torch.long)]
    expected = torch.nn.functional.normalize(point - samples.position_S3[index, None], dim=2)
    found = sights.state_BK == FOUND
    assert found.sum() > 100
    torch.testing.assert_close((ray @ turn.mT)[found], expected[found], atol=1e-4, rtol=0)
    assert ((sights.place_BK2[found] > -0.5) & (sights.place_BK2[found] < 7.5)).all()
    for state in (OUTSIDE, MISSED):
        assert (sights.state_BK == state).sum() > 50
    # What was found in the whole image is found or, by the warp, outside; never missed.
    assert not (landmarks.found_SK[index] & (sights.state_BK == MISSED)).any()


# --- the path to an answer -----------------------------------------------------------------


def test_a_landmark_head_is_trained_stored_and_answers_alike(room, tmp_path):
    trainer = train(
        [room],
        tmp_path / "run",
        architecture=LANDMARKS,
        head="landmarks",
        landmarks=100,
        epochs=25,
        batch_size=10,
        validation=ValidationConfig(0.2, blocks=2, gap=0, every=1000),
        augment=AugmentConfig("center", zoom=0.1, shift=0.03),
    )
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"] - 2
    localizer = Localizer.load(write_model(trainer), "cpu")
    samples, index = trainer.train_samples, torch.arange(5)
    image = samples.center_crops(index, 64).permute(0, 3, 1, 2)
    rays = samples.central_rays(index, 64, 8)
    with torch.no_grad():
        prediction = trainer.network.eval()(image, samples.scene_S[index], rays)
    position, quaternion = trainer.coding.decode(prediction.pose_BP, samples.scene_S[index])
    (row,) = localizer.rows
    assert row.head == "landmarks"
    assert row.head_tensors["key"].dtype == np.int8
    # Measured on the held-out blocks, not the value that stands in for it.
    assert not np.allclose(row.head_tensors["vote_error"], [0.3, 0.1], atol=1e-3)
    assert min(row.held_out.own_factors) > 0
    covariances = []
    for i in range(5):
        frame = samples.frames[i]
        (answer,) = localizer.localize(
            [read_image(frame.image_path)], room.name, cameras=[frame.intrinsics]
        )
        np.testing.assert_allclose(answer.position, position[i], atol=1e-3)
        assert np.abs(answer.quaternion @ quaternion[i].numpy()) > 1 - 1e-6
        covariances.append(np.diag(answer.covariance))
    # Each image has its own, as large as held-out errors are; all are symmetric and positive.
    assert len({tuple(c) for c in covariances}) == 5
    assert np.linalg.eigvalsh(answer.covariance).min() > 0
    own = trainer.coding.decode_covariance(
        prediction.reading.covariance_B66[4:], torch.tensor([0])
    )[0]
    scale = np.sqrt(np.repeat(row.held_out.own_factors, 3))
    np.testing.assert_allclose(answer.covariance, own.numpy() * np.outer(scale, scale), rtol=0.01)
