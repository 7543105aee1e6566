# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic rooms: poses fit the pictures, walks see much, colours do not tell look-alikes."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mspn_ros.datasets import read_scene
from mspn_ros.datasets.room_builder import Builder
from mspn_ros.datasets.room_light import box_distances, wall_distances
from mspn_ros.datasets.rooms import build_room
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.datasets.synthetic import SyntheticConfig, generate, sequence_poses
from mspn_ros.datasets.textures import PALETTES
from mspn_ros.datasets.walks import walk
from mspn_ros.geometry import pose_to_matrix
from mspn_ros.images import read_image
from mspn_ros.records import DatasetError

pytest.importorskip("pyvista", reason="pyvista is not installed (extra 'synthetic')")

REPO = Path(__file__).resolve().parent.parent
MARKS = ((255, 0, 255), (0, 255, 0), (0, 255, 255))
TINY = SyntheticConfig(rooms=2, train_frames=6, test_frames=4, seed=3)
LOOK_ALIKES = SyntheticConfig(rooms=2, train_frames=240, test_frames=120, width=160, height=120)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two rooms with a few frames each, and how often progress was told."""
    out = tmp_path_factory.mktemp("tiny")
    told = []
    generate(out, TINY, lambda done, total: told.append((done, total)))
    return out, told


def test_the_7scenes_reader_takes_every_frame_with_the_focal_length_it_was_drawn_with(tiny):
    out, told = tiny
    scenes = load_scene_set([str(out / "scenes.yaml")])
    assert [scene.name for scene in scenes] == ["room_a", "room_b"]
    for scene in scenes:
        assert not scene.bad
        assert len(scene.split("train")) == 6
        assert len(scene.split("test")) == 4
        assert scene.frames[0].intrinsics.fx == TINY.focal_px == 262.5
    assert told[-1] == (20, 20)
    assert [done for done, _ in told] == list(range(1, 21))


def test_the_same_seed_gives_the_same_bytes(tiny, tmp_path):
    out, _ = tiny
    generate(tmp_path / "again", TINY)
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert len(files) == 2 * (2 * 10 + 2) + 1
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def draw_with_marks(request: Path) -> None:
    """Draw the rooms of a request (.npz) with coloured cubes at known points; runs in a child."""
    from mspn_ros.datasets.room_renderer import Renderer

    asked = np.load(request)
    pictures = []
    for index, pose, points in zip(asked["rooms"], asked["poses"], asked["points"], strict=True):
        room = build_room(TINY.seed, int(index))
        rng = np.random.default_rng(0)
        builder = Builder(room, PALETTES[0], rng, rng)
        for point, colour in zip(points, MARKS, strict=True):
            builder.box(tuple(point - 0.012), tuple(point + 0.012), tint=colour, solid=False)
        count = 6 * len(MARKS)
        room.patches[-count:] = [replace(p, glows=True) for p in room.patches[-count:]]
        with Renderer(room, TINY) as renderer:
            pictures.append(renderer.render(pose))
    np.save(request.with_suffix(".npy"), np.stack(pictures))


def test_known_points_are_seen_where_the_written_poses_project_them(tiny, tmp_path):
    # Were a pose inverted, an axis flipped or the focal length another, the marks would be
    # elsewhere or out of sight; no symmetry maps the three of them onto one another.
    in_camera = np.array([(0.17, 0.09, 0.5), (-0.2, 0.12, 0.5), (0.1, -0.13, 0.4)])
    frames = [read_scene(tiny[0] / f"room_{name}").frames[k] for name, k in (("a", 7), ("b", 0))]
    poses = np.stack([pose_to_matrix(frame.pose) for frame in frames])
    points = np.stack([in_camera @ pose[:3, :3].T + pose[:3, 3] for pose in poses])
    request = tmp_path / "request.npz"
    np.savez(request, rooms=[0, 1], poses=poses, points=points)
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run([sys.executable, __file__, str(request)], check=True, env=environment)
    for frame, picture in zip(frames, np.load(request.with_suffix(".npy")), strict=True):
        camera = frame.intrinsics
        marked = np.zeros(picture.shape[:2], bool)
        for (x, y, z), colour in zip(in_camera, MARKS, strict=True):
            here = np.abs(picture.astype(int) - colour).max(-1) < 110
            v, u = np.nonzero(here)
            assert len(u) > 20, "the mark is out of sight"
            expected = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
            assert np.abs(np.array((u.mean(), v.mean())) - expected).max() < 0.7
            u0, v0 = (round(e) for e in expected)
            marked[v0 - 14 : v0 + 15, u0 - 14 : u0 + 15] = True
        # And the written image is that view, but for the marks.
        apart = np.abs(picture.astype(int) - read_image(frame.image_path))
        assert apart[~marked].mean() < 4


@pytest.mark.parametrize("index", range(4))
def test_walks_are_smooth_keep_clear_of_furniture_and_look_everywhere(index):
    room = build_room(0, index)
    poses = walk(room, np.random.default_rng(index), 600, 0.1, survey=index % 2 == 0)
    eyes, forward = poses[:, :3, 3], poses[:, :3, 2]
    boxes = np.array(room.boxes)
    assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1)
    # Image rows point down: the camera is carried upright.
    assert (poses[:, 2, 1] < -0.9).all()
    assert (eyes[:, 2] > 1.2).all()
    assert (eyes[:, 2] < 1.75).all()
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=-1)
    turns = [np.degrees(np.arccos(np.clip(a @ b, -1, 1))) for a, b in pairwise(forward)]
    assert steps.max() < 0.13
    assert max(turns) < 8
    # At the height of a table: tops, seats and legs below the eyes count as obstacles too.
    around = [(np.cos(a), np.sin(a), 0.0) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)]
    for height in (0.4, 0.73, 1.4):
        feet = eyes * (1, 1, 0) + (0, 0, height)
        for direction in around:
            assert box_distances(feet, np.tile(direction, (len(feet), 1)), boxes).min() > 0.3
    seen = np.minimum(box_distances(eyes, forward, boxes), wall_distances(eyes, forward, room.size))
    assert seen.min() > 0.6
    assert np.median(seen) > 1.8


@pytest.mark.parametrize("index", range(4))
def test_training_walks_cover_the_room_and_all_directions_and_the_test_walk_is_another(index):
    *train, test = sequence_poses(SyntheticConfig(), index)
    assert [len(poses) for poses in train] == [400, 400, 400]
    seen = np.concatenate(train)
    octants = np.floor(np.arctan2(seen[:, 1, 2], seen[:, 0, 2]) / (np.pi / 4)).astype(int)
    assert np.bincount(octants + 4, minlength=8)[:8].min() > 0.04 * len(seen)
    # A person's radius from every free spot of the test walk, somebody has stood in training.
    gaps = np.linalg.norm(test[:, None, :3, 3] - seen[None, :, :3, 3], axis=-1)
    assert gaps.min(1).max() < 0.6
    # The nearest training view, a metre counting as a radian, is never the same one.
    turns = np.arccos(np.clip(test[:, :3, 2] @ seen[:, :3, 2].T, -1, 1))
    assert (gaps + turns).min() > 0.02


def histogram_accuracies(train, train_labels, test, test_labels):
    """Accuracies of two scene classifiers that see colours only: nearest neighbours, logistic.

    Images (N, H, W, 3) uint8 become 8x8x8 RGB histograms, square-rooted (Hellinger).
    """

    def histograms(images):
        code = (images >> 5).astype(int) @ (64, 8, 1)
        counts = np.stack([np.bincount(row.ravel(), minlength=512) for row in code])
        return np.sqrt(counts / counts.sum(1, keepdims=True))

    known, asked = histograms(train), histograms(test)
    nearest = np.argsort(-asked @ known.T, axis=1)[:, :5]
    voted = np.array([np.bincount(row).argmax() for row in train_labels[nearest]])
    mean, std = known.mean(0), known.std(0) + 1e-2
    x, y = torch.tensor((known - mean) / std).float(), torch.tensor(train_labels)
    layer = torch.nn.Linear(512, int(train_labels.max()) + 1)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.Adam(layer.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), y).backward()
        optimizer.step()
    guessed = layer(torch.tensor((asked - mean) / std).float()).argmax(1).numpy()
    return (voted == test_labels).mean(), (guessed == test_labels).mean()


def test_colours_do_not_tell_look_alike_rooms(tmp_path):
    generate(tmp_path, LOOK_ALIKES)
    images, labels = {"train": [], "test": []}, {"train": [], "test": []}
    for label, scene in enumerate(load_scene_set([str(tmp_path / "scenes.yaml")])):
        for frame in scene.frames:
            images[frame.split].append(read_image(frame.image_path))
            labels[frame.split].append(label)
    accuracies = histogram_accuracies(
        np.array(images["train"]),
        np.array(labels["train"]),
        np.array(images["test"]),
        np.array(labels["test"]),
    )
    assert max(accuracies) < 0.8, accuracies


@pytest.mark.parametrize(
    ("name", "value"),
    [("rooms", 0), ("rooms", 27), ("train_frames", 3), ("width", 0), ("seed", -1)],
)
def test_an_impossible_setting_is_named_with_its_range(name, value):
    with pytest.raises(DatasetError, match=rf"^{name} is {value}; give \d+ to \d+$"):
        SyntheticConfig(**{name: value})


def test_an_existing_room_is_never_mixed_with_new_frames(tiny):
    with pytest.raises(DatasetError, match=r"room_a exists already; remove it or choose another"):
        generate(tiny[0], TINY)


def test_a_machine_that_cannot_draw_gets_one_line_and_no_crash(tmp_path):
    # VTK itself ends with a segmentation fault there, which no except clause can catch.
    code = (
        "import sys; from pathlib import Path; from mspn_ros.records import MspnError\n"
        "from mspn_ros.datasets.synthetic import SyntheticConfig, generate\n"
        "config = SyntheticConfig(rooms=1, train_frames=6, test_frames=2)\n"
        "try: generate(Path(sys.argv[1]), config)\n"
        "except MspnError as error: print(error)"
    )
    environment = {
        **{key: value for key, value in os.environ.items() if key != "DISPLAY"},
        "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path / "none"),
        "PYTHONPATH": str(REPO),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    if (tmp_path / "out" / "scenes.yaml").exists():
        pytest.skip("this machine draws without EGL")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VTK cannot draw without a screen")
    assert "apt-get install" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "out").exists()


if __name__ == "__main__":
    draw_with_marks(Path(sys.argv[1]))
