# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""mspn dataset from-video: poses agree with the truth; one line for what is unusable."""

import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import video_files as vf
from PIL import Image
from scipy.spatial.transform import Rotation

from mspn_ros.cli import main
from mspn_ros.datasets import read_scene, sfm, sfm_scale
from mspn_ros.datasets.frame_choice import Quality
from mspn_ros.datasets.frame_motion import Measured, MotionMeter, choose_frames
from mspn_ros.datasets.from_video import FromVideoConfig
from mspn_ros.datasets.sfm_agreement import agree, compared
from mspn_ros.datasets.sfm_scale import PlacedFrame
from mspn_ros.datasets.video_frames import open_source
from mspn_ros.evaluation.sfm_accuracy import measure_sfm
from mspn_ros.geometry import Similarity, fit_similarity, matrix_to_pose
from mspn_ros.records import DatasetError, Intrinsics, Pose

QUICK = ("--min-motion", "0", "--features", "300", "--threads", "1")
RATE, VIDEO_FRAMES, PHOTOS = 10, 10, 4
# What --camera-positions are given in: the truth, turned and carried elsewhere.
ELSEWHERE = Rotation.from_rotvec((0.3, -0.5, 1.1)), np.array((40.0, -7.0, 3.0))


def run(out, *arguments):
    return main(["dataset", "from-video", *map(str, arguments), "--out", str(out)])


def refused(capsys, out, *arguments):
    assert run(out, *arguments) == 1
    message = capsys.readouterr().err.strip().split("mspn: ")[-1]
    assert "\n" not in message
    assert not out.exists()
    assert not list(out.parent.glob(".dataset*"))
    return message


def save_turned(path, image):
    """As a camera held on its side does: pixels lie on their side, EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image, 1)).save(path, quality=95, exif=exif)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A video, and photos of another size that lie on their side; their poses by name."""
    pytest.importorskip("pycolmap")
    folder = tmp_path_factory.mktemp("video")
    scene = vf.Scene()
    truth = {}
    walk = vf.walk(VIDEO_FRAMES, step=0.15)
    for i, matrix in enumerate(walk):
        truth[f"images/clip/frame_{i:06d}.jpg"] = matrix
    vf.write_video(folder / "clip.mp4", [scene.draw(matrix) for matrix in walk], RATE)
    photos = folder / "photos"
    photos.mkdir()
    for i, matrix in enumerate(vf.walk(PHOTOS, height=-0.2, step=0.3)):
        truth[f"images/photos/p{i}.jpg"] = matrix
        save_turned(photos / f"p{i}.jpg", cv2.resize(scene.draw(matrix), (400, 300)))
    ends = [matrix[:3, 3] for matrix in (walk[0], walk[-1])]
    metres = np.linalg.norm(ends[1] - ends[0])
    seconds = f"{(VIDEO_FRAMES - 1) / RATE}s"
    arguments = (folder / "clip.mp4", "--test", photos, *QUICK, "--json", folder / "told.json")
    known = ("--known-distance", "frame_000000.jpg", seconds, metres)
    assert run(folder / "out", *arguments, *known) == 0
    return folder, truth, arguments


def test_poses_of_a_video_and_photos_agree_with_the_truth_in_metres(made):
    folder, truth, _ = made
    scene = read_scene(folder / "out")
    assert {frame.name for frame in scene.frames} == set(truth)
    given = np.array([truth[frame.name][:3, 3] for frame in scene.frames])
    found = np.array([frame.pose.position for frame in scene.frames])
    similarity = fit_similarity(found, given)
    # A hundredth of the extent; the known distance made them metres.
    assert similarity.scale == pytest.approx(1, abs=0.02)
    for frame in scene.frames:
        position, quaternion = similarity.apply(frame.pose.position, frame.pose.quaternion)
        np.testing.assert_allclose(position, truth[frame.name][:3, 3], atol=0.02)
        turned = Rotation.from_quat(quaternion).inv() * Rotation.from_matrix(
            truth[frame.name][:3, :3]
        )
        assert np.degrees(turned.magnitude()) < 1


def test_passes_sizes_stamps_and_cameras_are_those_of_the_sources(made):
    folder, _, _ = made
    scene = read_scene(folder / "out")
    assert scene.metres_per_unit == 1
    for frame in scene.frames:
        photo = frame.name.startswith("images/photos")
        assert frame.split == ("test" if photo else "train")
        size = (400, 300) if photo else vf.SIZE
        assert Image.open(frame.image_path).size == size
        assert (frame.intrinsics.width, frame.intrinsics.height) == size
        assert frame.intrinsics.fx == pytest.approx(vf.FOCAL * size[0] / vf.WIDTH, rel=0.06)
        index = int(frame.image_path.stem.removeprefix("frame_").removeprefix("p"))
        stamp = None if photo else pytest.approx(index / RATE)
        assert frame.stamp_s == stamp


def test_the_summary_tells_what_was_found(made):
    folder, truth, _ = made
    told = json.loads((folder / "told.json").read_text())
    assert (told["frames"], told["posed"]) == (len(truth), len(truth))
    assert (told["train"], told["test"]) == (VIDEO_FRAMES, PHOTOS)
    assert 0 < told["reprojection_error_px"] < 1
    assert told["cameras"] == 2
    with Image.open(folder / "out" / "reconstruction.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def through_lens(image, k):
    """What a lens with radial distortion ``k`` makes of an image, without the empty borders."""
    camera = np.array(
        [[vf.FOCAL, 0, (vf.WIDTH - 1) / 2], [0, vf.FOCAL, (vf.HEIGHT - 1) / 2], [0, 0, 1]]
    )
    u, v = np.meshgrid(np.arange(vf.WIDTH), np.arange(vf.HEIGHT))
    points = np.stack((u, v), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    straight = cv2.undistortPoints(points, camera, np.array((k, 0, 0, 0)), P=camera)
    seen = straight.reshape(vf.HEIGHT, vf.WIDTH, 2).astype(np.float32)
    return cv2.remap(image, seen, None, cv2.INTER_LINEAR)[12:-12, 16:-16]


def test_a_lens_that_distorts_bends_nothing(tmp_path):
    pytest.importorskip("pycolmap")
    scene, k = vf.Scene(), -0.15
    walk = vf.walk(14, step=0.15, turning=1.5)
    images = [through_lens(scene.draw(matrix), k) for matrix in walk]
    video = vf.write_video(tmp_path / "wide.mp4", images)
    assert run(tmp_path / "out", video, *QUICK, "--test-share", "0") == 0
    found = read_scene(tmp_path / "out")
    assert len(found.frames) == len(walk)
    for frame in found.frames:
        assert frame.intrinsics.distortion[0] == pytest.approx(k, abs=0.03)
        assert frame.intrinsics.fx == pytest.approx(vf.FOCAL, rel=0.06)
    given = np.array([matrix[:3, 3] for matrix in walk])
    positions = np.array([frame.pose.position for frame in found.frames])
    similarity = fit_similarity(positions, given)
    moved = similarity.scale * similarity.rotation.apply(positions) + similarity.translation
    np.testing.assert_allclose(moved, given, atol=0.03)


def test_known_positions_give_frame_and_scale_without_another_reconstruction(made, capsys):
    folder, truth, arguments = made
    turn, offset = ELSEWHERE
    lines = []
    for i in range(VIDEO_FRAMES):
        position = turn.apply(truth[f"images/clip/frame_{i:06d}.jpg"][:3, 3]) + offset
        # One in ten was written down wrongly.
        position += (50.0, 0, 0) if i == 4 else 0
        # A trajectory of another clock.
        lines.append(" ".join(map(str, (7 + i / RATE, *position, 0, 0, 0, 1))))
    positions = folder / "positions.txt"
    positions.write_text("\n".join(lines))
    log = folder / "out.sfm" / "colmap.log"
    before = log.stat().st_mtime_ns
    more = ("--camera-positions", positions, "--first-stamp", "7", "--work", folder / "out.sfm")
    assert run(folder / "placed", *arguments, *more) == 0
    assert log.stat().st_mtime_ns == before
    for frame in read_scene(folder / "placed").frames:
        matrix = truth[frame.name]
        expected = turn.apply(matrix[:3, 3]) + offset
        np.testing.assert_allclose(frame.pose.position, expected, atol=0.05)
        turned = Rotation.from_quat(frame.pose.quaternion).inv() * (
            turn * Rotation.from_matrix(matrix[:3, :3])
        )
        assert np.degrees(turned.magnitude()) < 3
    positions.write_text("\n".join(lines[:2]))
    capsys.readouterr()
    message = refused(capsys, folder / "few", *arguments, *more)
    assert "it has positions of 2 of 14 frames and three are needed" in message


def test_a_camera_that_only_turned_is_refused(tmp_path, capsys):
    pytest.importorskip("pycolmap")
    scene = vf.Scene()
    walk = vf.walk(8, step=0.0, turning=2.5)
    for matrix in walk:
        matrix[:3, 3] = 0
    video = vf.write_video(tmp_path / "turn.mp4", [scene.draw(matrix) for matrix in walk])
    message = refused(capsys, tmp_path / "out", video, *QUICK, "--focal-px", vf.FOCAL)
    assert "differ by a turn alone" in message
    assert "Walk while recording" in message


def test_photos_that_share_nothing_are_refused(tmp_path, capsys):
    pytest.importorskip("pycolmap")
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        spots = rng.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(cv2.resize(spots, (160, 120))).save(photos / f"{i}.png")
    message = refused(capsys, tmp_path / "out", photos, *QUICK)
    assert "no two of 8 frames show the same points" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notes.mp4", "no video that can be read"),
        ("missing.mp4", "no such file or folder"),
        ("one.jpg", "one photo makes no dataset"),
        ("empty", "no file; name a video, or a folder of"),
        ("few", "only 3 frames differ enough and 8 are needed"),
    ],
)
def test_what_is_no_recording_is_refused(name, expected, tmp_path, capsys):
    (tmp_path / "notes.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "few").mkdir()
    image = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    image.save(tmp_path / "one.jpg")
    for i in range(3):
        image.save(tmp_path / "few" / f"{i}.jpg")
    assert expected in refused(capsys, tmp_path / "out", tmp_path / name, "--min-motion", "0")


def test_a_folder_of_others_is_never_emptied(tmp_path, capsys):
    photos, work = tmp_path / "photos", tmp_path / "project"
    photos.mkdir()
    (work / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(photos / "a.jpg")
    mine = work / "images/mine.jpg", work / "database.db", work / "frames.json"
    for path in mine:
        path.write_text("[1]")
    message = refused(capsys, tmp_path / "out", photos, "--work", work)
    assert "no work folder of this command" in message
    assert all(path.read_text() == "[1]" for path in mine)


@pytest.mark.parametrize(
    ("out", "more", "expected"),
    [
        ("hall", ("--work", "hall/work"), "lies in --out"),
        ("hall", ("--test", "walk.mp4"), "given twice"),
        ("hall", ("--test", "again.mp4"), "given twice"),
        ("hall", ("photos", "--test", "photos"), "given twice"),
        ("hall", ("~nobody_at_all/walk.mp4",), "no such user"),
        ("hall", (b"w\xe9.mp4".decode("utf-8", "surrogateescape"),), "its name is no UTF-8"),
        (b"h\xe9".decode("utf-8", "surrogateescape"), (), "its name is no UTF-8"),
    ],
)
def test_paths_that_cannot_be_are_refused_before_any_work(
    out, more, expected, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("pycolmap")
    monkeypatch.chdir(tmp_path)
    vf.write_video(tmp_path / "walk.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    (tmp_path / "again.mp4").symlink_to("walk.mp4")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "photos/a.jpg")
    assert expected in refused(capsys, tmp_path / out, "walk.mp4", *more)


def test_names_that_look_like_markup_are_shown_as_they_are(made, tmp_path, capsys):
    folder, _, arguments = made
    out = tmp_path / "hall[old]$a$"
    assert run(out, *arguments, "--work", folder / "out.sfm") == 0
    assert f"dataset: {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--known-distance", "a", "b", "-1"), "'-1' is no distance"),
        (("--camera-model", "FISHEYE"), "known are SIMPLE_RADIAL"),
        (("--max-frames", "2"), "--max-frames 2: give 8 to 5000"),
        (("--known-distance", "a", "b", "1", "--camera-positions", "x"), "both set the scale"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, expected, tmp_path, capsys):
    assert expected in refused(capsys, tmp_path / "out", tmp_path, *arguments)


def test_without_pycolmap_one_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sfm, "find_spec", lambda name: None)
    message = refused(capsys, tmp_path / "out", tmp_path)
    assert message == "pycolmap is missing, which finds the poses; run: pip install mspn_ros[sfm]"


def test_videos_are_turned_upright_and_keep_their_own_times(tmp_path):
    images = [np.zeros((96, 128, 3), np.uint8) for _ in range(6)]
    for image in images:
        image[:30, :40] = 255
    plain = open_source(vf.write_video(tmp_path / "plain.mp4", images))
    upright = next(plain.frames()).image
    assert upright.shape == (96, 128, 3)
    turned = vf.turn_video(vf.write_video(tmp_path / "turned.mp4", images), 90)
    image = next(open_source(turned).frames()).image
    assert image.shape == (128, 96, 3)
    # A quarter clockwise carries the bright corner to the right.
    assert np.abs(image.astype(int) - np.rot90(upright, -1)).max() < 40
    uneven = vf.write_video(tmp_path / "uneven.mp4", images)
    shares = vf.retime_video(uneven, [1, 1, 5, 1, 1, 3])
    stamps = [frame.stamp_s for frame in open_source(uneven).frames()]
    np.testing.assert_allclose(stamps, shares * 0.6, atol=0.002)


def test_exif_turns_photos_upright_and_tells_the_focal_length(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :20] = 255
    save_turned(tmp_path / "a.jpg", image)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    source = open_source(tmp_path)
    (frame,) = source.frames()
    assert np.abs(frame.image.astype(int) - image).max() < 60
    assert [bad.name for bad in source.bad] == ["b.jpg"]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.fromarray(image).save(tmp_path / "b.jpg", exif=exif)
    *_, frame = source.frames()
    # A film's diagonal is 43.3 mm, these photos' 80 pixels.
    assert frame.focal_px == pytest.approx(26 / 43.267 * 80)


def test_a_camera_that_stands_still_gives_no_more_frames():
    scene = vf.Scene()
    walk = vf.walk(8, step=0.1)
    still = [walk[3]] * 8
    meter = MotionMeter()
    path = [*walk[:4], *still, *walk[4:]]
    measured = [meter.measure(i, scene.draw(matrix)) for i, matrix in enumerate(path)]
    chosen = [frame.index for frame in choose_frames(measured, 100, 0.02)]
    assert sum(3 <= index < 12 for index in chosen) <= 2
    assert len(chosen) >= 6
    assert len(choose_frames(measured, 3, 0.02)) == 3
    assert len(choose_frames(measured, 100, 0)) == len(path)


def test_steps_straight_ahead_are_seen_as_motion():
    """Most corners lie at a corridor's end and hardly move: the nearer ones tell."""
    meter = MotionMeter()
    measured = [meter.measure(i, vf.corridor(0.1 * i)) for i in range(90)]
    for most in (100, 30):
        chosen = [frame.index for frame in choose_frames(measured, most, 0.04)]
        assert 25 <= len(chosen) <= most
        gaps = np.diff([0, *chosen, 89])
        assert gaps.max() <= 3 * np.median(gaps)


def test_swings_do_not_use_up_the_frames_of_a_steady_walk():
    sharp = Quality(0.5, 0.0)
    motion = np.concatenate((np.arange(50) * 0.01, 20 + np.arange(50) * 0.01))
    measured = [Measured(i, sharp, float(moved)) for i, moved in enumerate(motion)]
    assert len(choose_frames(measured, 50, 0.01)) >= 45
    assert len(choose_frames(measured, 50, 0.1)) == 10


def _placed(positions):
    quaternion = np.array((0.0, 0, 0, 1))
    return [
        PlacedFrame(f"p/{i}.jpg", (f"{i}.jpg",), None, Pose(np.array(p), quaternion))
        for i, p in enumerate(positions)
    ]


def test_a_time_that_no_frame_is_near_to_is_refused_and_the_frames_taken_are_told():
    frames = [
        replace(frame, stamp_s=2.0 * i)
        for i, frame in enumerate(_placed([(float(i), 0, 0) for i in range(5)]))
    ]
    found = sfm_scale.by_distances(frames, [sfm_scale.KnownDistance("0.1s", "8.3s", 12.0)])
    assert found.similarity.scale == pytest.approx(3)
    assert "0.00s to 8.00s" in found.source
    for text in ("9999s", "3.1s"):
        with pytest.raises(DatasetError, match=r"no frame with a pose is within 0\.5 s of"):
            sfm_scale.by_distances(frames, [sfm_scale.KnownDistance("0s", text, 12.0)])
    with pytest.raises(DatasetError, match="no distance"):
        sfm_scale.KnownDistance.parse("a", "b", "1e308")


def test_positions_on_one_line_or_of_other_frames_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    positions = tmp_path / "positions.csv"
    on_line = [(float(i), 2.0 * i, 0.0) for i in range(6)]
    rows = [f"{i}.jpg, {x}, {y}, {z}" for i, (x, y, z) in enumerate(on_line)]
    positions.write_text("name, x, y, z\n" + "\n".join(rows))
    with pytest.raises(DatasetError, match="leave a rotation open"):
        sfm_scale.by_positions(_placed(on_line), positions)
    others = enumerate(rng.normal(size=(9, 3)))
    positions.write_text("\n".join(f"{i}.jpg {x} {y} {z}" for i, (x, y, z) in others))
    own = _placed(rng.normal(size=(9, 3)))
    with pytest.raises(DatasetError, match="they are not of these frames"):
        sfm_scale.by_positions(own, positions)
    positions.write_text("0.jpg 1 2 nan\n1.jpg 1 2")
    with pytest.raises(DatasetError, match=r"line 1: no position, '0\.jpg 1 2 nan'"):
        sfm_scale.by_positions(_placed(on_line), positions)


def _model(count, error_px=0.5, angle=10.0, step=0.5):
    poses = {}
    for i in range(count):
        matrix = np.eye(4)
        matrix[0, 3] = i * step
        poses[f"{i}"] = matrix_to_pose(matrix)
    points = np.random.default_rng(0).normal(size=(50, 3)) + np.array((0, 0, 5))
    ones = np.ones(50)
    return sfm.Reconstruction(
        poses,
        {name: Intrinsics(300.0, 300.0, 160.0, 120.0, 320, 240) for name in poses},
        points,
        np.zeros((50, 3), np.uint8),
        ones * error_px,
        ones * 3,
        ones * angle,
    )


@pytest.mark.parametrize(
    ("model", "images", "expected"),
    [
        (_model(9), 30, "only 9 of 30 frames found their place"),
        (_model(7), 7, "only 7 of 7 frames"),
        (_model(9, error_px=2.5), 9, r"reprojection error is 2\.50 px"),
        (_model(9, angle=1.0), 9, "the camera almost only turned"),
        (_model(9, step=0.001), 9, "practically one place"),
    ],
)
def test_reconstructions_that_would_teach_wrong_poses_are_refused(model, images, expected):
    with pytest.raises(DatasetError, match=expected):
        sfm.check_usable(model, images, 0.5)
    sfm.check_usable(_model(9), 9, 0.5)


def test_found_poses_are_held_against_given_ones_after_one_similarity(made, tmp_path):
    folder, truth, _ = made
    turn, offset = ELSEWHERE
    found = read_scene(folder / "out")
    shutil.copytree(folder / "out", tmp_path / "room")

    def given(frame, off=0.0):
        position = 0.5 * turn.apply(frame.pose.position) + offset + (off, 0, 0)
        turned = (turn * Rotation.from_quat(frame.pose.quaternion)).as_quat()
        origin = json.loads((folder / "out" / "provenance.json").read_text())["origins"]
        path = frame.image_path.with_name(origin[frame.name])
        return replace(frame, pose=Pose(position, turned), image_path=path)

    def measured(**changes):
        return measure_sfm(replace(scene, **changes), tmp_path, FromVideoConfig())

    scene = replace(found, name="room", frames=tuple(map(given, found.frames)))
    result = measured()
    assert (result.posed, result.frames) == (len(truth), len(truth))
    assert result.position_largest_percent < 1e-6
    assert result.rotation_deg < 1e-5
    assert result.focal_ratio == pytest.approx(1)
    stray = measured(frames=(given(found.frames[0], off=0.2), *scene.frames[1:]))
    assert stray.position_largest_percent > 5
    few = measured(name="few", frames=scene.frames[:3])
    assert few.refused
    assert few.cells()[1:4] == ("0 of 3", "-", "-")


def test_the_help_names_the_defaults_that_hold(capsys):
    with pytest.raises(SystemExit):
        main(["dataset", "from-video", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    config = FromVideoConfig()
    for name in (
        "test_share",
        "first_stamp_s",
        "max_frames",
        "min_motion",
        "max_side",
        "features",
        "min_registered",
    ):
        option = "--" + name.removesuffix("_s").replace("_", "-")
        up_to_the_next = r"(?:(?! --[a-z-]+ [A-Z]).)*?"
        told = re.search(rf"{option} [A-Z][A-Z_]* {up_to_the_next}\(default ([0-9.]+)", text)
        assert told, option
        assert float(told[1]) == getattr(config, name)
    assert f"{config.camera_model} (default)" in text


def _carried(model, similarity, names=None):
    """The model with the poses of ``names`` (all) carried elsewhere."""
    poses = dict(model.poses)
    for name in model.poses if names is None else names:
        poses[name] = Pose(*similarity.apply(poses[name].position, poses[name].quaternion))
    return replace(model, poses=poses)


def test_two_reconstructions_agree_in_any_frame_and_unit_also_on_a_line():
    line = _model(20)
    again = _carried(line, Similarity(ELSEWHERE[1], ELSEWHERE[0], 0.3))
    found = compared(2, [line], [again])
    assert found.agreed == tuple(line.poses)
    assert found.percent < 1e-9
    assert found.degrees < 1e-5
    found.check(20, 0.5)
    assert set(found.trusted.poses) == set(line.poses)


def test_what_two_reconstructions_place_otherwise_is_left_out_and_too_much_of_it_refused():
    model = _model(20)
    names = list(model.poses)
    part = Similarity(np.array((1.0, 0, 0)), Rotation.identity(), 1.2)
    found = compared(2, [model], [_carried(model, part, names[16:])])
    assert set(names[:16]) <= set(found.agreed)
    assert {"18", "19"} <= set(found.disagreeing)
    assert set(found.trusted.poses) == set(found.trusted.cameras) == set(found.agreed)
    found.check(20, 0.5)
    turned = Similarity(np.zeros(3), Rotation.from_rotvec((0, 0.2, 0)), 1.0)
    found = compared(2, [model], [_carried(model, turned, names[11:])])
    assert found.agreed == tuple(names[:11])
    with pytest.raises(DatasetError, match="only 11 of 20 frames into the same places") as refusal:
        found.check(20, 0.5)
    assert "--min-registered" not in str(refusal.value)
    found = compared(2, [model], [model])
    with pytest.raises(DatasetError, match=r"20 of 80 .* or lower --min-registered"):
        found.check(80, 0.5)


def test_seven_tenths_are_taken_only_once_nine_were_looked_for():
    model, names = _model(20), list(_model(20).poses)
    away = Similarity(np.array((0, 50.0, 0)), Rotation.identity(), 1.0)
    strays = [[_carried(model, away, names[3 * k : 3 * k + 3])] for k in range(5)]
    found = agree(lambda run: strays[run])
    assert (found.runs, len(found.agreed)) == (5, 14)
    found.check(20, 0.5)
    runs = [strays[0], [model], [model.without("7")]]
    found = agree(lambda run: runs[run])
    assert (found.runs, len(found.agreed)) == (3, 19)


def test_a_third_reconstruction_decides_and_the_two_that_agree_are_taken():
    model = _model(20)
    wrong = _carried(
        model, Similarity(np.zeros(3), Rotation.identity(), 2.0), list(model.poses)[9:]
    )
    runs = [[wrong], [model], [model.without("7")]]
    begun = []

    def reconstruct(run):
        begun.append(run)
        return runs[run]

    found = agree(reconstruct)
    assert begun == [0, 1, 2]
    assert found.models[0] is model
    assert found.disagreeing == ("7",)
    begun.clear()
    runs = [[model], [model]]
    assert agree(reconstruct).agreed == tuple(model.poses)
    assert begun == [0, 1]
    # Nothing to begin with is told at once; too few frames are refused without another try.
    begun.clear()
    runs = [[]]
    assert agree(reconstruct) is None
    runs = [[_model(7)]]
    assert not agree(reconstruct).agreed
    assert begun == [0, 0]


def test_matches_vote_for_the_focal_length():
    process = runpy.run_path(str(Path(sfm.__file__).with_name("sfm_process.py")))
    rng = np.random.default_rng(0)
    pairs = []
    for matrix in vf.walk(9, step=0.3, turning=2.0)[:8]:
        seen = []
        points = rng.uniform((-2, -1.5, 3), (2, 1.5, 9), (150, 3))
        for pose in (np.eye(4), matrix):
            local = (points - pose[:3, 3]) @ pose[:3, :3]
            seen.append(vf.FOCAL * local[:, :2] / local[:, 2:] + rng.normal(0, 0.2, (150, 2)))
        pairs.append(tuple(seen))
    voted = process["_vote"](pairs, vf.WIDTH)
    assert voted == pytest.approx(vf.FOCAL / vf.WIDTH, rel=0.08)
    assert process["_vote"](pairs[:4], vf.WIDTH) == 0
