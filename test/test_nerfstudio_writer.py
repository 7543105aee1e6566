# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A written dataset comes back as it was: poses, cameras, scale, stamps; all of it or nothing."""

import json

import numpy as np
import pytest
from dataset_files import CENTRES, look_at, save_image

from mspn_ros.datasets import read_scene
from mspn_ros.datasets.nerfstudio_writer import WrittenFrame, new_dataset, write_nerfstudio
from mspn_ros.geometry import matrix_to_pose
from mspn_ros.records import DatasetError, Intrinsics

PLAIN = Intrinsics(50.0, 51.0, 30.0, 25.0, 64, 48)


def write(out, cameras, common=None, metres_per_unit=1.0):
    with new_dataset(out) as folder:
        frames = []
        for i, (centre, camera) in enumerate(zip(CENTRES, cameras, strict=False)):
            save_image(folder / f"images/walk/{i}.jpg")
            pose = matrix_to_pose(look_at(centre))
            frames.append(WrittenFrame(f"images/walk/{i}.jpg", pose, 1.7e9 + i / 10, camera))
        for split, part in (("train", frames[:2]), ("test", frames[2:])):
            write_nerfstudio(folder, split, part, common, metres_per_unit=metres_per_unit)
    return read_scene(out)


@pytest.mark.parametrize("scale", [1.0, 0.25, None])
def test_poses_splits_stamps_and_scale_come_back(scale, tmp_path):
    scene = write(tmp_path / "hall", [None] * 3, PLAIN, scale)
    assert (scene.format, scene.metres_per_unit, scene.bad) == ("nerfstudio", scale, ())
    assert [frame.split for frame in scene.frames] == ["train", "train", "test"]
    assert {frame.sequence for frame in scene.frames} == {"images/walk"}
    for i, frame in enumerate(scene.frames):
        expected = matrix_to_pose(look_at(CENTRES[i]))
        np.testing.assert_allclose(frame.pose.position, expected.position, atol=1e-12)
        np.testing.assert_allclose(frame.pose.quaternion, expected.quaternion, atol=1e-12)
        assert frame.stamp_s == 1.7e9 + i / 10
        assert frame.intrinsics == PLAIN
    assert not list(tmp_path.glob(".dataset*"))


@pytest.mark.parametrize(
    "terms",
    [
        (),
        (-0.2, 0.1, 0.001, 0.002),
        (-0.2, 0.1, 0.001, 0.002, 0.03),
        (-0.2, 0.1, 0.001, 0.002, 0.03, 0.1, 0.02, 0.004),
    ],
)
def test_every_lens_comes_back_beside_one_of_another_model(terms, tmp_path):
    lens = Intrinsics(50.0, 51.0, 30.0, 25.0, 64, 48, terms)
    other = Intrinsics(70.0, 70.0, 31.5, 23.5, 64, 48, assumed=True)
    scene = write(tmp_path / "hall", [None, other, None], lens)
    assert [frame.intrinsics for frame in scene.frames] == [lens, other, lens]


def test_scales_that_do_not_agree_are_not_used(tmp_path):
    write(tmp_path / "hall", [None] * 3, PLAIN)
    path = tmp_path / "hall/transforms_test.json"
    for value in (2.0, "1", [1], 10**400, True):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"metres_per_unit": value}))
        scene = read_scene(tmp_path / "hall")
        assert scene.metres_per_unit is None
        assert any("metres_per_unit" in note for note in scene.notes)


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "hall").mkdir()
    (tmp_path / "hall/mine").touch()
    (tmp_path / "file").touch()
    for name in ("hall", "file"):
        with pytest.raises(DatasetError, match="exists already"), new_dataset(tmp_path / name):
            pass
    with pytest.raises(DatasetError, match="cannot be written"), new_dataset(tmp_path / "file/x"):
        pass


def break_off(out):
    with new_dataset(out) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt


def test_a_break_leaves_nothing_and_an_empty_folder_is_taken(tmp_path):
    out = tmp_path / "hall"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        break_off(out)
    assert [list(tmp_path.iterdir()), list(out.iterdir())] == [[out], []]
    with new_dataset(out) as folder:
        (folder / "whole").touch()
    assert [path.name for path in out.iterdir()] == ["whole"]
