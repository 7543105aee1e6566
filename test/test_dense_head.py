# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The dense head: exact votes give the exact pose, under any warp; and the path to an answer."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset_files import write_walk
from models import DENSE, make_dense_model, make_row
from scipy.spatial.transform import Rotation
from training_tools import train

from mspn_ros.datasets import read_scene
from mspn_ros.geometry import matrix_to_quaternion, nearest_rotation, quaternion_to_matrix
from mspn_ros.images import read_image
from mspn_ros.inference.cell_rays import CellRays, Shot
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.network.coding import MATRIX_PARAMETERS, PoseCoding
from mspn_ros.network.dense_head import DenseHead
from mspn_ros.network.losses import VoteLoss
from mspn_ros.network.mspn import MSPN
from mspn_ros.network.scene_head import Votes
from mspn_ros.records import ConfigError, Intrinsics
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.config import AugmentConfig
from mspn_ros.training.finish import write_model
from mspn_ros.view import View, camera_vector, cell_centres, pixel_rays


def rotations(count, seed=0):
    return Rotation.random(count, random_state=seed)


# --- geometry ------------------------------------------------------------------------------


def test_matrices_and_quaternions_agree_with_scipy():
    turns = Rotation.concatenate(
        [rotations(200), Rotation.from_rotvec(np.pi * np.eye(3)), Rotation.identity(1)]
    )
    matrix = torch.tensor(turns.as_matrix())
    torch.testing.assert_close(quaternion_to_matrix(torch.tensor(turns.as_quat())), matrix)
    quaternion = matrix_to_quaternion(matrix)
    assert (quaternion[:, 3] >= 0).all()
    torch.testing.assert_close(quaternion_to_matrix(quaternion), matrix)


def test_the_nearest_rotation_is_scipys():
    rng = np.random.default_rng(0)
    a, b, weight = rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), rng.random(20)
    expected, _ = Rotation.align_vectors(a, b, weights=weight)
    moment = torch.tensor(np.einsum("c,ci,cj->ij", weight, a, b))[None]
    np.testing.assert_allclose(nearest_rotation(moment)[0], expected.as_matrix(), atol=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_nearest_rotation_has_the_right_gradient(mirrored):
    rng = np.random.default_rng(1)
    stretch = np.diag([3.0, 2.0, -0.5 if mirrored else 0.5])
    matrix = rotations(3).as_matrix() @ stretch @ rotations(3, seed=1).as_matrix()
    matrix = torch.tensor(matrix + 0.01 * rng.normal(size=matrix.shape), requires_grad=True)
    assert torch.autograd.gradcheck(nearest_rotation, (matrix,))


def test_equal_singular_values_give_a_finite_gradient():
    # Through the decomposition's own derivative this is a division by zero.
    matrix = torch.eye(3)[None].requires_grad_()
    nearest_rotation(matrix)[0, 0, 1].backward()
    torch.testing.assert_close(matrix.grad[0, 0, 1], torch.tensor(0.5))
    flat = torch.zeros(1, 3, 3, requires_grad=True)
    nearest_rotation(flat).sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("normalise", [False, True])
def test_the_coding_says_directions_and_places_in_one_frame(normalise):
    rng = np.random.default_rng(0)
    positions, turns = rng.normal(size=(20, 3)) * 3 + 100, rotations(20)
    coding = PoseCoding.fit([positions], [turns.as_quat()], normalise, normalise)
    scene = torch.zeros(20, dtype=torch.long)
    target = coding.encode(
        torch.tensor(positions), torch.tensor(turns.as_quat()), scene, MATRIX_PARAMETERS
    )
    back_position, back_quaternion = coding.decode(target, scene)
    np.testing.assert_allclose(back_position, positions, atol=1e-4)
    same = np.abs((back_quaternion.numpy() * turns.as_quat()).sum(1))
    np.testing.assert_allclose(same, 1, atol=1e-6)
    # A point ahead of the first camera is, seen from the second, where it is in the scene.
    ahead = turns[0].apply([0, 0, 2.0]) + positions[0]
    seen = turns[1].inv().apply(ahead - positions[1])
    place, turned = target[:, :3].double(), target[:, 3:].view(-1, 3, 3).double()
    scale = float(coding.position_scale[0])
    coded = turned[0] @ torch.tensor([0, 0, 2.0 / scale], dtype=torch.float64) + place[0]
    np.testing.assert_allclose(turned[1].T @ (coded - place[1]) * scale, seen, atol=1e-3)


# --- cells and votes -----------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "across"), [("coarse", 2), ("fine", 4)])
@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_cells_are_squares_of_the_image(backbone, cells, across):
    torch.manual_seed(0)
    network = Backbone(replace(DENSE, backbone=backbone, cells=cells)).eval()
    image = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    assert network.grids["cells"] == across
    assert network(image).cell_BCD.shape == (2, across * across, 32)


def test_cells_come_row_by_row():
    torch.manual_seed(0)
    neck = Backbone(replace(DENSE, crop=128)).eval().neck
    maps = {
        stride: torch.zeros(1, neck.inputs[str(stride)].in_channels, 128 // stride, 128 // stride)
        for stride in (16, 32)
    }
    with torch.no_grad():
        before = neck(maps)
        maps[16][..., -1, :] = 1.0
        change = (neck(maps) - before).abs().sum(1)[0]
    assert (change[-1] > 0).all()
    assert (change[:6] == 0).all()  # each cell looks at its neighbours, no further


@pytest.mark.parametrize(
    ("change", "match"),
    [({"backbone": "swin_t"}, "backbone with feature maps"), ({"crop": 56}, "multiple of 32")],
)
def test_backbones_and_sizes_without_cells_are_refused(change, match):
    with pytest.raises(ConfigError, match=match):
        Backbone(replace(DENSE, **change))


def test_a_dense_head_needs_cells():
    with pytest.raises(ConfigError, match=r"architecture\.cells=fine"):
        MSPN(replace(DENSE, cells="none"), 1, "dense")


def exact_head(rays, turn, centre, wrong):
    """A head and features whose cells vote exactly, but for those that are ``wrong``."""
    said = torch.tensor(turn.apply(rays.numpy()), dtype=torch.float32)
    votes = torch.cat((said, centre.expand(len(rays), 3), torch.zeros(len(rays), 2)), 1)
    votes[wrong] = torch.randn(int(wrong.sum()), 8)
    head = DenseHead(1, 8)
    with torch.no_grad():
        head.cells.weight.copy_(torch.eye(8)[None])
        head.cells.bias.zero_()
    return head, Features(torch.zeros(1, 1), votes[None])


def test_exact_votes_give_the_exact_pose_whatever_the_unseen_say():
    torch.manual_seed(0)
    camera = torch.tensor([camera_vector(Intrinsics(50.0, 60.0, 30.0, 33.0, 64, 64))])
    rays = pixel_rays(camera, cell_centres(64, 4)[None]).float()
    turn, centre = rotations(1)[0], torch.tensor([1.0, -2.0, 3.0])
    unseen = torch.zeros(16, dtype=torch.bool)
    unseen[[0, 5, 11]] = True
    head, features = exact_head(rays[0], turn, centre, unseen)
    pose = head.read(features, torch.tensor([0]), rays, ~unseen[None]).pose_BP[0].detach()
    torch.testing.assert_close(pose[:3], centre)
    np.testing.assert_allclose(pose[3:].view(3, 3), turn.as_matrix(), atol=1e-5)
    misled = head.read(features, torch.tensor([0]), rays, None).pose_BP[0].detach()
    assert (misled - pose).abs().max() > 0.05


def test_the_vote_loss_by_hand():
    turn = rotations(1)
    ray = torch.tensor([[[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]])
    target = torch.cat((torch.zeros(1, 3), torch.tensor(turn.as_matrix()).float().view(1, 9)), 1)
    voted = ray @ torch.tensor(turn.as_matrix()).float().mT
    voted[0, 0] += torch.tensor([0.0, 0.3, 0.4])
    centre = torch.tensor([[[3.0, 0, 4], [0, 0, 1], [99, 99, 99]]])
    votes = Votes(voted, centre, ray, torch.tensor([[True, True, False]]))
    loss = VoteLoss(1, s_ray=-1.0, s_centre=0.5)
    value = loss(votes, target, torch.tensor([0]))
    expected = 0.25 * np.e - 1 + 3 * np.exp(-0.5) + 0.5
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)


# --- the path to an answer -----------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_dense_model(tmp_path_factory.mktemp("dense") / "model")


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def test_the_camera_decides_the_rotation_and_the_scenes_own_stands_in(model):
    localizer = Localizer.load(model, "cpu")
    image = image_of(120, 160)
    own = Intrinsics(150.0, 150.0, 79.5, 59.5, 160, 120)
    wide = Intrinsics(80.0, 80.0, 79.5, 59.5, 160, 120)

    def ask(camera, scene="hall", picture=image):
        return localizer.localize([picture], scene, cameras=[camera])[0]

    np.testing.assert_array_equal(ask(None).quaternion, ask(own).quaternion)
    # The same camera at twice the size is the same camera.
    doubled = ask(Intrinsics(300.0, 300.0, 159.5, 119.5, 320, 240))
    np.testing.assert_allclose(ask(own).quaternion, doubled.quaternion, atol=1e-6)
    assert np.abs(ask(own).quaternion - ask(wide).quaternion).max() > 1e-3
    # Nothing is known of the second scene's camera, nor of one that stands upright.
    assert ask(None, "lab").known
    assert ask(None, picture=image_of(160, 120)).known
    with pytest.raises(ConfigError, match="160x120 pixels cannot have taken an image of 120x160"):
        ask(own, picture=image_of(160, 120))


def test_a_scaled_image_is_seen_along_the_rays_of_the_full_one(model):
    camera = Intrinsics(500.0, 510.0, 322.5, 236.0, 640, 480, (-0.3, 0.1, 0.001, -0.002))
    for view in (View(64, 72, "squeeze"), View(64, 72)):
        rays = CellRays([], view, 4, torch.device("cpu"))
        full = rays.of(Shot(480, 640, camera), None)
        for part in (2, 4, 8):
            scaled = rays.of(Shot(480 // part, 640 // part, camera), None)
            np.testing.assert_allclose(scaled, full, atol=1e-6)


def test_a_batch_of_mixed_cameras_answers_as_one_by_one(model):
    localizer = Localizer.load(model, "cpu")
    images = [image_of(120, 160), image_of(240, 320, 1), image_of(100, 100, 2)]
    cameras = [None, Intrinsics(200.0, 200.0, 160.0, 120.0, 320, 240), None]
    together = localizer.localize(images, cameras=cameras)
    for image, camera, estimate in zip(images, cameras, together, strict=True):
        (alone,) = localizer.localize([image], cameras=[camera])
        assert alone.scene == estimate.scene
        np.testing.assert_allclose(alone.position, estimate.position, atol=1e-4)
        np.testing.assert_allclose(alone.quaternion, estimate.quaternion, atol=1e-5)


def test_heads_of_two_kinds_are_served_together(model, tmp_path):
    shutil.copytree(model, tmp_path / "m")
    before = Localizer.load(model, "cpu")
    with SceneBank(tmp_path / "m", read_only=False) as bank:
        bank.add(make_row(MSPN(DENSE, 1), 0, "linear", before.backbone_id))
    both = Localizer.load(tmp_path / "m", "cpu")
    images = [image_of(120, 160, seed) for seed in range(4)]
    assert {row.head for row in both.rows} == {"dense", "linear"}
    for scene in ("hall", "lab"):
        for old, new in zip(
            before.localize(images, scene), both.localize(images, scene), strict=True
        ):
            np.testing.assert_array_equal(old.position, new.position)
            np.testing.assert_array_equal(old.quaternion, new.quaternion)
    for image, estimate in zip(images, both.localize(images, min_confidence=0.0), strict=True):
        (alone,) = both.localize([image], estimate.scene)
        np.testing.assert_allclose(alone.position, estimate.position, atol=1e-4)


def test_a_dense_head_is_trained_stored_and_answers_alike(tmp_path):
    scene = read_scene(write_walk(tmp_path / "walk", train=60, size=(160, 120)))
    trainer = train(
        [scene],
        tmp_path / "run",
        architecture=DENSE,
        head="dense",
        epochs=6,
        augment=AugmentConfig("center", zoom=0.2, roll=10.0, shift=0.05),
    )
    history = trainer.history
    assert history[-1]["loss"] < history[0]["loss"] - 1
    localizer = Localizer.load(write_model(trainer), "cpu")
    (row,) = localizer.rows
    assert row.head == "dense"
    assert row.head_tensors["cells.weight"].shape == (8, 32)
    samples = trainer.train_samples
    index = torch.arange(5)
    with torch.no_grad():
        prediction = trainer.network.eval()(
            samples.center_crops(index, 64).permute(0, 3, 1, 2),
            torch.zeros(5, dtype=torch.long),
            samples.central_rays(index, 64, 4),
        )
    position, quaternion = trainer.coding.decode(prediction.pose_BP, samples.scene_S[index])
    for i in range(5):
        frame = samples.frames[i]
        (answer,) = localizer.localize(
            [read_image(frame.image_path)], "walk", cameras=[frame.intrinsics]
        )
        np.testing.assert_allclose(answer.position, position[i], atol=1e-4)
        np.testing.assert_allclose(np.abs(answer.quaternion @ quaternion[i].numpy()), 1, atol=1e-6)
