# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scene sets, nerfstudio's variants, and folders from strangers: one clear line for each."""

import json
import os

import numpy as np
import pytest
from dataset_files import (
    CENTRES,
    look_at,
    save_image,
    write_7scenes,
    write_colmap,
    write_nerfstudio,
    write_tum,
)

from mspn_ros.datasets import detect_format, read_scene
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.records import DatasetError

MATRICES = [look_at(centre) for centre in CENTRES]


def edit_transforms(root, **changes):
    path = root / "transforms.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return content


def test_nerfstudio_single_file_is_split_by_its_lists(tmp_path):
    write_nerfstudio(tmp_path, MATRICES)
    edit_transforms(
        tmp_path,
        train_filenames=["./images/1"],
        test_filenames=["images/0", "images/9"],
        val_filenames=["images/0"],
    )
    scene = read_scene(tmp_path, "roof")
    assert [(f.name, f.split) for f in scene.frames] == [
        ("images/0.png", "test"),
        ("images/1.png", "train"),
    ]
    assert [bad.name for bad in scene.bad] == ["images/9"]
    assert any("1 frames of transforms.json are in no list" in note for note in scene.notes)


def test_nerfstudio_split_files_keep_the_recordings_order_and_share_no_frame(tmp_path):
    write_nerfstudio(tmp_path, MATRICES)
    content = edit_transforms(tmp_path)
    for split, chosen in (("train", [2, 0]), ("test", [1]), ("val", [1])):
        frames = [content["frames"][i] for i in chosen]
        text = json.dumps({**content, "frames": frames})
        (tmp_path / f"transforms_{split}.json").write_text(text)
    scene = read_scene(tmp_path, "roof")
    assert [frame.split for frame in scene.frames] == ["train", "test", "train"]
    assert [(bad.split, bad.reason) for bad in scene.bad] == [("val", "listed already, in test")]
    assert any("transforms.json was not read" in note for note in scene.notes)


def test_nerfstudio_focal_length_from_the_angle_and_from_the_frame_itself(tmp_path):
    write_nerfstudio(tmp_path, MATRICES)
    content = edit_transforms(tmp_path, fl_x=None, k1=None, w=None, h=None, cx=None, cy=None)
    content["frames"][1] |= {"fl_x": 80, "fl_y": 70, "w": 128, "h": 96}
    content["frames"][2] |= {"camera_model": "OPENCV_FISHEYE"}
    # 90 degrees across 64 pixels: the focal length is half the width.
    edit_transforms(tmp_path, camera_angle_x=np.pi / 2, frames=content["frames"])
    angle, own, fish_eye = (frame.intrinsics for frame in read_scene(tmp_path, "roof").frames)
    assert (angle.fx, angle.fy, angle.cx) == pytest.approx((32, 32, 31.5))
    assert (own.fx, own.fy, own.distortion) == (40, 35, ())
    assert fish_eye is None


def test_paths_that_leave_the_folder_and_pipes_are_not_opened(tmp_path):
    root = tmp_path / "roof"
    root.mkdir()
    write_nerfstudio(root, MATRICES)
    save_image(tmp_path / "outside.png")
    os.mkfifo(root / "pipe.png")
    content = edit_transforms(root)
    listed = [
        "../outside.png",
        str(tmp_path / "outside.png"),
        "images/../../outside.png",
        "pipe.png",
        "a\0b",
        "x" * 5000,
        7,
        "images/0.png",
    ]
    frames = [{**content["frames"][0], "file_path": name} for name in listed]
    edit_transforms(root, frames=frames)
    scene = read_scene(root)
    assert [frame.name for frame in scene.frames] == ["images/0.png"]
    reasons = [bad.reason for bad in scene.bad]
    assert len(reasons) == 7
    assert sum("leaves the dataset's folder" in reason for reason in reasons) == 3


@pytest.mark.parametrize(
    "frame",
    [
        {"transform_matrix": "no"},
        {"transform_matrix": [[1, 2], [3]]},
        {"transform_matrix": [[10**400] * 4] * 4},
        {"transform_matrix": (2 * np.eye(4)).tolist()},
        {"fl_x": "wide"},
        {"fl_x": -3},
        {"w": 1e400},
        {"fl_x": [1]},
    ],
)
def test_nerfstudio_frames_with_broken_values_are_bad(tmp_path, frame):
    write_nerfstudio(tmp_path, MATRICES)
    content = edit_transforms(tmp_path)
    content["frames"][1] |= frame
    edit_transforms(tmp_path, frames=content["frames"])
    scene = read_scene(tmp_path, "roof")
    assert (len(scene.frames), [bad.name for bad in scene.bad]) == (2, ["images/1.png"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("[]", "no list 'frames'"),
        ('{"frames": []}', "name no frame"),
    ],
)
def test_raises_on_broken_json(tmp_path, text, message):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_scene(tmp_path, "roof")


def test_raises_on_unknown_format_empty_missing_and_ambiguous_folders(tmp_path):
    with pytest.raises(DatasetError, match="unknown; known are 7scenes, cambridge, tum, kitti"):
        read_scene(tmp_path, "x", "eurocc")
    with pytest.raises(DatasetError, match="is empty"):
        read_scene(tmp_path, "x")
    with pytest.raises(DatasetError, match="no such folder"):
        read_scene(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_scene(tmp_path / ("n" * 5000), "x")
    save_image(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"no known format .*TrainSplit\.txt.*--format"):
        read_scene(tmp_path, "x")
    write_tum(tmp_path, MATRICES)
    write_7scenes(tmp_path, MATRICES)
    with pytest.raises(DatasetError, match="may be 7scenes or tum; say which with --format"):
        detect_format(tmp_path)
    assert read_scene(tmp_path, "x", "tum").format == "tum"


@pytest.mark.parametrize("format", ["7scenes", "cambridge", "tum", "kitti", "colmap", "nerfstudio"])
def test_raises_one_line_when_a_folder_is_not_of_the_named_format(tmp_path, format):
    save_image(tmp_path / "a.png")
    with pytest.raises(DatasetError) as error:
        read_scene(tmp_path, "x", format)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a b", "", "../up", "-x", "unknown", "é", "a" * 101, "a/b"])
def test_raises_on_names_that_cannot_be_frame_ids(tmp_path, name):
    write_tum(tmp_path, MATRICES)
    with pytest.raises(DatasetError, match="cannot be a scene's name"):
        read_scene(tmp_path, name)


def test_scene_sets_from_folders_names_and_yaml(tmp_path):
    write_tum(tmp_path / "desk", MATRICES)
    write_colmap(tmp_path / "roof", MATRICES)
    write_7scenes(tmp_path / "odd=name", MATRICES)
    (tmp_path / "set.yaml").write_text(
        "scenes:\n"
        "  office: {path: desk, format: tum, focal_px: 30}\n"
        "  garden: {path: roof, metres_per_unit: 0.5}\n"
        "  attic: roof\n"
    )
    scenes = load_scene_set([f"kitchen={tmp_path / 'odd=name'}", str(tmp_path / "set.yaml")])
    assert [scene.name for scene in scenes] == ["kitchen", "office", "garden", "attic"]
    assert scenes[1].frames[0].intrinsics.fx == 30
    assert [(scene.metres_per_unit, scene.unit) for scene in scenes] == [
        (1, "m"),
        (1, "m"),
        (0.5, "u"),
        (None, "u"),
    ]
    assert load_scene_set([str(tmp_path / "desk")])[0].name == "desk"
    with pytest.raises(DatasetError, match=r"a scene 'desk' is there already, from .*NAME="):
        load_scene_set([str(tmp_path / "desk"), f"desk={tmp_path / 'roof'}"])
    with pytest.raises(DatasetError, match="no scene is named"):
        load_scene_set([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenes: {a: [", "no valid YAML"),
        ("!!bool x", "no valid YAML"),
        ("- a", "no mapping 'scenes'"),
        ("scenes: {}", "is empty"),
        ("scenes: {a: b}\nseed: 3", "unknown key 'seed'"),
        ("scenes: {a: b, a: c}", "'a' is there twice"),
        ("scenes: {a: {path: b, fov: 3}}", "'a': unknown key 'fov'; known are path, format"),
        ("scenes: {a: {format: tum}}", "'a': no 'path'"),
        ("scenes: {a: {path: b, focal_px: wide}}", "focal_px is no number"),
        ("scenes: {a: {path: 3}}", "path is no text"),
        ("scenes: {a: {path: b, metres_per_unit: .nan}}", "must be above zero"),
        ("scenes: {a: {path: b, focal_px: -4}}", "no focal length"),
        ("scenes: {3: b}", "scene 3: write 'name: folder'"),
        ("scenes: {a: nowhere}", "no such folder"),
        ("scenes: !!python/object/apply:os.system ['true']", "no valid YAML"),
    ],
)
def test_raises_on_malformed_scene_sets(tmp_path, text, message):
    path = tmp_path / "set.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as error:
        load_scene_set([str(path)])
    assert "\n" not in str(error.value)


def test_raises_on_a_missing_scene_set(tmp_path):
    with pytest.raises(DatasetError, match=r"set\.yaml: no such file"):
        load_scene_set([str(tmp_path / "set.yaml")])
