# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `mspn inspect` measures and draws."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import CENTRES, look_at, write_7scenes, write_colmap, write_walk
from PIL import Image

from mspn_ros.datasets import SceneData, read_scene, verify_images
from mspn_ros.evaluation.inspection import draw_top_view, inspect_scene, up_direction
from mspn_ros.geometry import matrix_to_pose, pose_to_matrix
from mspn_ros.records import BadFrame, ConfigError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def walk(tmp_path):
    """Five training cameras 0.5 m apart on a line, two test cameras 0.3 m beside it."""
    root = tmp_path / "walk"
    root.mkdir()
    target = np.array([50.0, 1.0, 1.0])
    line = [look_at(np.array([0.5 * i, 0.0, 1.0]), target) for i in range(5)]
    beside = [look_at(np.array([0.5 * i, 0.3, 1.0]), target) for i in range(2)]
    write_7scenes(root, beside)
    (root / "seq-01").rename(root / "seq-02")
    write_7scenes(root, line)
    (root / "TestSplit.txt").write_text("sequence2\n")
    return read_scene(root)


def turned(scene: SceneData, turn) -> SceneData:
    """The scene with every camera-to-world matrix replaced by ``turn`` of it."""
    frames = tuple(
        replace(frame, pose=matrix_to_pose(turn(pose_to_matrix(frame.pose))))
        for frame in scene.frames
    )
    return replace(scene, frames=frames)


def test_lengths_of_a_known_walk(walk):
    found = inspect_scene(walk)
    assert found.splits == {"train": 5, "test": 2}
    assert found.sequences == {"seq-01": 5, "seq-02": 2}
    assert found.box_low == pytest.approx((0, 0, 1))
    assert found.box_high == pytest.approx((2, 0.3, 1))
    # 5 steps of 0.5 m: no step leads from one sequence into the other.
    assert (found.path_length, found.median_step) == pytest.approx((2.5, 0.5))
    assert found.nearest_train == pytest.approx(0.3)
    # The 5-95 % box of 0 ... 2 m.
    assert found.extent == pytest.approx(1.8)
    assert (found.up.axis, found.up.clear, found.unit) == ("+z", True, "m")
    assert found.intrinsics.focal_px == pytest.approx((52.5, 52.5, 52.5))
    assert (found.intrinsics.assumed, found.intrinsics.sizes) == (7, {"64x48": 7})


def test_up_follows_the_world_and_a_flipped_camera_shows(walk):
    swap = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert up_direction(turned(walk, lambda m: swap @ m).frames).axis == "-y"
    opengl = np.diag([1.0, -1, -1, 1])
    assert up_direction(turned(walk, lambda m: m @ opengl).frames).axis == "-z"
    # Cameras rolled by all angles cancel out; the walk has no height, and says it is a guess.
    rolls = iter(np.linspace(0, 2 * np.pi, 8)[:-1])

    def roll(matrix):
        angle = next(rolls)
        c, s = np.cos(angle), np.sin(angle)
        return matrix @ np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

    guess = up_direction(turned(walk, roll).frames)
    assert (guess.axis[1], guess.clear) == ("z", False)


def test_bad_frames_are_grouped_by_kind_with_every_name(walk):
    bad = (
        BadFrame("a", "train", "the image file is missing"),
        BadFrame("b", "train", "the quaternion's norm is 0.5, not 1"),
        BadFrame("c", "test", "the quaternion's norm is 2.75, not 1"),
    )
    groups = inspect_scene(replace(walk, bad=bad)).bad
    assert [(group.reason, group.names) for group in groups] == [
        ("the quaternion's norm is 0.5, not 1", ("b", "c")),
        ("the image file is missing", ("a",)),
    ]


def test_json_has_null_where_nothing_can_be_measured(walk):
    alone = replace(walk, frames=walk.split("test")[:1], metres_per_unit=None)
    found = inspect_scene(alone).to_json()
    text = json.dumps(found, allow_nan=False)
    assert (found["extent"], found["median_step"], found["nearest_train"]) == (None, None, None)
    assert json.loads(text)["unit"] == "u"


def test_picture_has_both_splits_colours_and_one_panel_per_scene(walk, tmp_path):
    root = tmp_path / "roof"
    write_colmap(root, [look_at(centre) for centre in CENTRES])
    sizes = []
    for scenes in ([walk], [walk, read_scene(root)]):
        path = tmp_path / f"{len(scenes)}.png"
        draw_top_view(scenes, path)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        sizes.append(pixels.shape[1])
        # Arrows let 15 % of the white paper through, which moves a colour by up to 80 in sum.
        seen = {
            split: (np.abs(pixels - colour).sum(-1) < 90).sum()
            for split, colour in {
                "train": (0x00, 0x72, 0xB2),
                "test": (0xD5, 0x5E, 0x00),
                "val": (0x00, 0x9E, 0x73),
            }.items()
        }
        assert min(seen["train"], seen["test"]) > 100 > 20 > seen["val"]
    assert sizes[1] == 2 * sizes[0]
    with pytest.raises(ConfigError, match="name another picture file"):
        draw_top_view([walk], tmp_path / "no" / "folder.png")
    with pytest.raises(ConfigError, match="no scene to draw"):
        draw_top_view([], tmp_path / "a.png")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "extent", "ahead"),
    [
        ("redkitchen", 2.04, None),
        ("fr1_rpy", 0.23, None),
        ("drone_room", 10.1, True),
        ("roof_cafe", 12.1, None),
        ("airsim_track", 273, True),
    ],
)
def test_real_scenes_have_their_extent_and_vehicles_look_ahead(name, extent, ahead):
    scene = read_scene(SHARED / name)
    found = inspect_scene(scene)
    assert found.extent == pytest.approx(extent, rel=0.03)
    json.dumps(found.to_json(), allow_nan=False)
    if ahead is None:
        return
    # A drone or car films along its way: where it moves, it moves to what lies ahead.
    matrices = np.array([pose_to_matrix(frame.pose) for frame in scene.split("train")])
    steps = np.diff(matrices[:, :3, 3], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    moving = lengths > np.median(lengths)
    along = (steps * matrices[:-1, :3, 2]).sum(1)[moving] / lengths[moving]
    assert np.median(along) > 0.7


def test_test_images_that_are_copies_of_training_images_are_noted(tmp_path):
    scene = read_scene(write_walk(tmp_path / "walk"))
    assert verify_images(scene).notes == scene.notes
    train, test = scene.split("train"), scene.split("test")
    test[1].image_path.write_bytes(train[3].image_path.read_bytes())
    assert verify_images(scene).notes[-1] == (
        f"1 test images are copies of train images (first: {test[1].name}); "
        "errors on them say nothing"
    )
