# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Dataset readers against tiny files of each format, real label lists and five real scenes."""

import struct
from pathlib import Path

import numpy as np
import pytest
from dataset_files import (
    CENTRES,
    HEIGHT,
    TARGET,
    WIDTH,
    WRITERS,
    look_at,
    numbers,
    save_image,
    write_7scenes,
    write_cambridge,
    write_colmap,
    write_kitti,
    write_tum,
)
from PIL import Image

from mspn_ros.datasets import ReaderOptions, detect_format, read_scene, verify_images
from mspn_ros.datasets.cambridge import read_labels
from mspn_ros.geometry import pose_to_matrix, viewing_direction
from mspn_ros.metrics import rotation_error_deg
from mspn_ros.records import DatasetError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


@pytest.fixture(params=list(WRITERS))
def tiny(request, tmp_path):
    """(format, folder) of three frames in each format."""
    root = tmp_path / "place"
    root.mkdir()
    WRITERS[request.param](root, [look_at(centre) for centre in CENTRES])
    return request.param, root


def test_the_same_cameras_in_every_format_give_the_same_poses(tiny):
    format, root = tiny
    assert detect_format(root) == format
    scene = read_scene(root)
    assert (scene.name, scene.format, scene.bad) == ("place", format, ())
    assert scene.unit == ("u" if format in ("colmap", "nerfstudio") else "m")
    assert len(scene.split("train")) == len(scene.frames) == len(CENTRES)
    for frame, centre in zip(scene.frames, CENTRES, strict=True):
        np.testing.assert_allclose(frame.pose.position, centre, atol=1e-9)
        towards = (TARGET - centre) / np.linalg.norm(TARGET - centre)
        np.testing.assert_allclose(viewing_direction(frame.pose.quaternion), towards, atol=1e-9)
        # Right is level, down is down: not turned about the optical axis either.
        rotation = pose_to_matrix(frame.pose)
        assert abs(rotation[2, 0]) < 1e-9
        assert rotation[2, 1] < 0
        assert frame.image_path.is_file()
        assert frame.sequence


def test_a_point_above_and_right_of_the_target_lands_up_right_in_the_image(tiny):
    _, root = tiny
    frame = read_scene(root).frames[0]
    camera = frame.intrinsics
    right = np.cross(TARGET - CENTRES[0], [0, 0, 1])
    point = TARGET + 0.1 * right / np.linalg.norm(right) + [0, 0, 0.1]
    x, y, z, _ = np.linalg.inv(pose_to_matrix(frame.pose)) @ [*point, 1]
    assert z > 0
    assert camera.fx * x / z + camera.cx > camera.cx + 0.1
    assert camera.fy * y / z + camera.cy < camera.cy - 0.1


def test_intrinsics_are_scaled_from_the_stated_size_and_defaults_are_marked(tiny):
    format, root = tiny
    camera = read_scene(root).frames[0].intrinsics
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    # Both formats state the centre of their image: it stays the centre, here in OpenCV's pixels.
    assert (camera.cx, camera.cy) == pytest.approx(((WIDTH - 1) / 2, (HEIGHT - 1) / 2))
    if format in ("colmap", "nerfstudio"):
        assert (camera.fx, camera.assumed) == (pytest.approx(50), False)
        assert camera.distortion == (0.01, 0, 0, 0)
        scene = read_scene(root, options=ReaderOptions(focal_px=44))
        assert any("focal_px 44 is not used" in note for note in scene.notes)
    else:
        assumed = {
            "7scenes": 52.5,
            "tum": 52.5,
            "cambridge": 1670 / 30,
            "kitti": 718.856 / 1241 * 64,
        }
        assert (camera.fx, camera.assumed) == (pytest.approx(assumed[format]), True)
        given = read_scene(root, options=ReaderOptions(focal_px=44)).frames[0].intrinsics
        assert (given.fx, given.assumed) == (44, False)


def test_broken_images_are_listed_and_never_replaced(tiny):
    _, root = tiny
    whole = read_scene(root)
    names = [frame.name for frame in whole.frames]
    whole.frames[0].image_path.unlink()
    whole.frames[1].image_path.write_bytes(b"")
    scene = read_scene(root)
    assert [frame.name for frame in scene.frames] == names[2:]
    reasons = {Path(bad.name).stem.split(".")[0]: bad.reason for bad in scene.bad}
    assert set(reasons) == {Path(name).stem.split(".")[0] for name in names[:2]}
    assert "missing" in reasons[Path(names[0]).stem.split(".")[0]]
    assert str(root) not in scene.bad[1].reason
    whole.frames[2].image_path.unlink()
    with pytest.raises(DatasetError, match="none of 3 frames is usable"):
        read_scene(root)


def test_verify_images_finds_a_truncated_image_that_its_header_hides(tiny):
    _, root = tiny
    scene = read_scene(root)
    path = scene.frames[1].image_path
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert len(read_scene(root).frames) == 3
    calls = []
    verified = verify_images(scene, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [frame.name for frame in verified.frames] == [scene.frames[i].name for i in (0, 2)]
    assert "truncated" in verified.bad[0].reason


def test_a_nan_pose_is_a_bad_frame_in_every_format(tmp_path):
    matrices = [look_at(centre) for centre in CENTRES]
    matrices[1][0, 3] = np.nan
    for format, write in WRITERS.items():
        root = tmp_path / format
        root.mkdir()
        write(root, matrices)
        scene = read_scene(root)
        assert (scene.format, len(scene.frames), len(scene.bad)) == (format, 2, 1)
        assert "NaN" in scene.bad[0].reason


def test_7scenes_splits_and_lost_tracking(tmp_path):
    write_7scenes(tmp_path, [look_at(CENTRES[0])] * 4)
    (tmp_path / "seq-01").rename(tmp_path / "seq-12")
    write_7scenes(tmp_path, [look_at(CENTRES[1])] * 3)
    (tmp_path / "TestSplit.txt").write_text("sequence12\nsequence13\n")
    (tmp_path / "seq-12/frame-000000.pose.txt").write_text("-1.#IND " * 16)
    (tmp_path / "seq-12/frame-000001.pose.txt").write_text(numbers(np.diag([1, 1, -1, 1])))
    (tmp_path / "seq-12/frame-000002.pose.txt").unlink()
    scene = read_scene(tmp_path, "kitchen")
    assert (len(scene.split("train")), len(scene.split("test"))) == (3, 1)
    assert scene.split("test")[0].name == "seq-12/frame-000003.color.png"
    assert {bad.name.split(".")[0]: bad.reason.split(":")[0] for bad in scene.bad} == {
        "seq-12/frame-000000": "malformed",
        "seq-12/frame-000001": "the pose's 3x3 part is no rotation",
        "seq-12/frame-000002": "the pose file is missing",
        "seq-13": "the sequence folder is missing",
    }
    (tmp_path / "TrainSplit.txt").unlink()
    (tmp_path / "TestSplit.txt").unlink()
    with pytest.raises(DatasetError, match=r"neither TrainSplit\.txt nor TestSplit\.txt; write"):
        read_scene(tmp_path, "kitchen")


def test_cambridge_focal_lengths_come_from_the_nvm_file_by_name(tmp_path):
    write_cambridge(tmp_path, [look_at(centre) for centre in CENTRES])
    pose = "1 0 0 0 0 0 0 0.05 0"
    listed = f"seq1/frame00000.jpg\t1600 {pose}\nseq1/frame00002.jpg 1920 {pose}\n"
    (tmp_path / "reconstruction.nvm").write_text(f"NVM_V3 \n\n2\n{listed}\n99\n0 0 0 ...\n")
    # 64x48 is no resized 1920x1080: such a frame is turned or cropped, and left out.
    turned = read_scene(tmp_path, "court")
    assert [bad.reason[-17:] for bad in turned.bad] == ["turned or cropped"] * 2
    for image in (tmp_path / "seq1").iterdir():
        save_image(image, (192, 108))
    cameras = [frame.intrinsics for frame in read_scene(tmp_path, "court").frames]
    assert [camera.assumed for camera in cameras] == [False, True, False]
    assert [camera.fx for camera in cameras] == pytest.approx([160, 167, 192])


@needs_shared
@pytest.mark.parametrize(
    ("folder", "train", "test"), [("KingsCollege", 1220, 343), ("ShopFacade", 231, 103)]
)
def test_real_cambridge_cameras_look_at_their_landmark(folder, train, test):
    # Everyone photographs the same building: the viewing rays nearly meet. With the lists' own
    # world-to-camera rotation (35 and 80 degrees at the median) they do not.
    labels = []
    for split, count in (("train", train), ("test", test)):
        listed, broken = read_labels(SHARED / "labels" / folder / f"dataset_{split}.txt")
        assert (len(listed), broken) == (count, ())
        labels += listed
    centres = np.array([label.pose.position for label in labels])
    rays = viewing_direction(np.array([label.pose.quaternion for label in labels]))
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    landmark = np.linalg.solve(across.sum(0), (across @ centres[:, :, None]).sum(0))[:, 0]
    towards = landmark - centres
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    assert np.median(np.degrees(np.arccos((towards * rays).sum(1)))) < 8


@needs_shared
@pytest.mark.parametrize(
    ("name", "format", "train", "test"),
    [
        ("redkitchen", "7scenes", 681, 199),
        ("fr1_rpy", "tum", 455, 145),
        ("drone_room", "colmap", 254, 167),
        ("roof_cafe", "nerfstudio", 210, 60),
        ("airsim_track", "tum", 814, 566),
    ],
)
def test_real_scenes_have_their_counts(name, format, train, test):
    scene = read_scene(SHARED / name)
    assert (scene.format, scene.bad) == (format, ())
    assert (len(scene.split("train")), len(scene.split("test"))) == (train, test)
    assert len({frame.name for frame in scene.frames}) == train + test
    # A first focal length that is far off would show as a wrong field of view.
    camera = scene.frames[0].intrinsics
    assert 0.4 < camera.fx / camera.width < 1.2


def test_tum_takes_the_nearest_pose_within_20_ms(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "test").mkdir()
    write_tum(tmp_path / "train/a", [look_at(centre) for centre in CENTRES])
    write_tum(tmp_path / "test", [look_at(centre) for centre in CENTRES])
    truth = tmp_path / "test/groundtruth.txt"
    rows = truth.read_text().splitlines()
    # Out of order, one 25 ms late, a nearer one with another position, one broken line.
    rows = [
        rows[2].replace("101.015", "101.025"),
        rows[3],
        rows[1],
        "102.001 9 9 9 0 0 0 1",
        "102 x",
    ]
    truth.write_text("\n".join(rows))
    scene = read_scene(tmp_path, "desk")
    assert [frame.sequence for frame in scene.split("train")] == ["train/a"] * 3
    first, last = scene.split("test")
    assert (first.stamp_s, last.stamp_s) == (100.0, 102.0)
    np.testing.assert_allclose(first.pose.position, CENTRES[0])
    np.testing.assert_allclose(last.pose.position, [9, 9, 9])
    assert {bad.name: bad.reason[:9] for bad in scene.bad} == {
        "test/groundtruth.txt line 5": "malformed",
        "test/rgb/1.png": "no pose w",
    }


def test_kitti_refuses_sequences_without_a_common_origin_and_shifts_to_the_colour_camera(tmp_path):
    write_kitti(tmp_path, [look_at(centre) for centre in CENTRES])
    folder = tmp_path / "sequences/04"
    (folder / "image_0").rename(folder / "image_2")
    # P2 = K [I | t]: the camera's centre lies 0.5 m to the left of camera 0.
    (folder / "calib.txt").write_text(
        "P0: 1 0 0 0 0 1 0 0 0 0 1 0\nP2: 50 0 30 25 0 40 20 0 0 0 1 0"
    )
    (folder / "times.txt").write_text("0\n0.1\n0.2\n")
    (folder / "train.txt").write_text("000000.png\n000001.png\n")
    (folder / "test.txt").write_text("000009.png\n")
    scene = read_scene(folder, "road")
    assert scene.frames[1].stamp_s == 0.1
    right = look_at(CENTRES[1])[:3, 0]
    np.testing.assert_allclose(scene.frames[1].pose.position, CENTRES[1] - 0.5 * right, atol=1e-9)
    camera = scene.frames[0].intrinsics
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50, 40, 30, 20)
    assert [bad.name for bad in scene.bad] == ["000009.png"]
    assert any("1 frames are in no list" in note for note in scene.notes)
    (tmp_path / "sequences/05/image_0").mkdir(parents=True)
    (tmp_path / "poses/05.txt").write_text("")
    with pytest.raises(DatasetError, match="sequences 04, 05 have no common origin"):
        read_scene(tmp_path, "road")


def test_kitti_empty_line_moves_no_pose_to_another_image(tmp_path):
    write_kitti(tmp_path, [look_at(centre) for centre in CENTRES])
    poses = tmp_path / "poses/04.txt"
    lines = poses.read_text().splitlines()
    poses.write_text("\n".join([lines[0], "", lines[2]]))
    scene = read_scene(tmp_path, "road")
    np.testing.assert_allclose(scene.frames[1].pose.position, CENTRES[2])
    assert [bad.name for bad in scene.bad] == ["image_0/000001.png"]


def test_colmap_binary_written_by_pycolmap_equals_text(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    write_colmap(tmp_path, [look_at(centre) for centre in CENTRES])
    folder = tmp_path / "sparse/0"
    (folder / "points3D.txt").write_text("17 1 2 3 0 0 0 0.5 2 1\n")
    text = read_scene(tmp_path, "room")
    pycolmap.Reconstruction(str(folder)).write_binary(str(folder))
    for file in folder.glob("*.txt"):
        file.unlink()
    binary = read_scene(tmp_path, "room")
    assert [f.name for f in binary.frames] == [f.name for f in text.frames]
    for a, b in zip(text.frames, binary.frames, strict=True):
        np.testing.assert_allclose(a.pose.position, b.pose.position, atol=1e-9)
        assert rotation_error_deg(a.pose.quaternion, b.pose.quaternion) < 1e-7
        assert a.intrinsics == b.intrinsics
    images = folder / "images.bin"
    whole = images.read_bytes()
    for broken in (whole[:40], whole[:-3], struct.pack("<Q", 1 << 60) + whole[8:], b""):
        images.write_bytes(broken)
        with pytest.raises(DatasetError, match=r"images\.bin: truncated"):
            read_scene(tmp_path, "room")


def test_colmap_lists_name_splits_and_order_is_that_of_the_recording(tmp_path):
    write_colmap(tmp_path, [look_at(CENTRES[0] + [0, 0.1 * i, 0]) for i in range(12)])
    (tmp_path / "train.txt").write_text("a/10.png\na/9.png\na/2.png\n")
    (tmp_path / "test.txt").write_text("a/0.png\na/77.png\n")
    scene = read_scene(tmp_path, "room")
    assert [frame.name for frame in scene.frames] == ["a/0.png", "a/2.png", "a/9.png", "a/10.png"]
    assert [frame.split for frame in scene.frames] == ["test", "train", "train", "train"]
    assert [bad.name for bad in scene.bad] == ["a/77.png"]
    assert any("8 images of the model are in no list" in note for note in scene.notes)
    (tmp_path / "test.txt").write_text("a/2.png\n")
    with pytest.raises(DatasetError, match=r"test\.txt: line 1: 'a/2\.png' is in train\.txt too"):
        read_scene(tmp_path, "room")


def test_colmap_text_without_the_lines_of_points_is_refused_not_halved(tmp_path):
    write_colmap(tmp_path, [look_at(centre) for centre in CENTRES])
    images = tmp_path / "sparse/0/images.txt"
    images.write_text("\n".join(line for line in images.read_text().splitlines() if "png" in line))
    with pytest.raises(DatasetError, match=r"images\.txt: line 2: a list of points"):
        read_scene(tmp_path, "room")


def test_a_fish_eye_has_no_pinhole_intrinsics(tmp_path):
    write_colmap(tmp_path, [look_at(centre) for centre in CENTRES])
    cameras = tmp_path / "sparse/0/cameras.txt"
    cameras.write_text("7 OPENCV_FISHEYE 128 96 100 100 64 48 0.1 0 0 0\n")
    scene = read_scene(tmp_path, "room")
    assert [frame.intrinsics for frame in scene.frames] == [None] * 3
    assert "OPENCV_FISHEYE" in scene.notes[0]
    cameras.write_text("7 FULL_OPENCV 128 96 100 99 64 48 1 2 3 4 5 6 7 8\n")
    intrinsics = read_scene(tmp_path, "room").frames[0].intrinsics
    assert intrinsics.distortion == (1, 2, 3, 4, 5, 6, 7, 8)
