# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `mspn inspect` finds wrong with a dataset before training, and where it says so."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from box_room import write_box_room
from dataset_files import look_at
from PIL import Image, ImageFilter

from mspn_ros.cli import main
from mspn_ros.datasets import read_scene
from mspn_ros.evaluation.convention_check import judge
from mspn_ros.evaluation.findings import list_findings
from mspn_ros.evaluation.image_checks import check_images
from mspn_ros.evaluation.inspection import inspect_scene
from mspn_ros.evaluation.inspection_report import InspectedScene, write_inspection_report
from mspn_ros.evaluation.pose_checks import find_copies, measure_coverage
from mspn_ros.evaluation.scene_checks import check_scene
from mspn_ros.evaluation.two_views import sample_matches
from mspn_ros.geometry import matrix_to_pose, pose_to_matrix
from mspn_ros.records import BadFrame

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OPENGL = np.diag([1.0, -1, -1, 1])
BODY = np.eye(4)
BODY[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]


@contextmanager
def no_bar(text):
    yield lambda done, total: None


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A room that is as it should be: 40 training and 10 test pictures."""
    return read_scene(
        write_box_room(tmp_path_factory.mktemp("box") / "room", test=10, size=(320, 240))
    )


@pytest.fixture(scope="module")
def matches(room):
    return sample_matches(room.split("train"), 20)


@pytest.fixture
def copied(tmp_path):
    """The room with files of its own, to be spoiled."""
    return read_scene(write_box_room(tmp_path / "room", train=24, test=6))


def written_as(scene, change):
    """The scene with camera-to-world matrices put through ``change``."""
    return replace(
        scene,
        frames=tuple(
            replace(frame, pose=matrix_to_pose(change(pose_to_matrix(frame.pose))))
            for frame in scene.frames
        ),
    )


def moved(scene, change):
    """The scene with each frame i put through ``change(i, frame)``."""
    return replace(scene, frames=tuple(change(i, frame) for i, frame in enumerate(scene.frames)))


def shifted(frame, by):
    return replace(frame, pose=replace(frame.pose, position=frame.pose.position + np.array(by)))


def kinds(scene, checks):
    return {finding.kind: finding for finding in list_findings(scene, checks)}


def without_pixels(scene):
    return check_scene(scene, no_bar, headers_only=True)


def transposed(matrix):
    turned = matrix.copy()
    turned[:3, :3] = matrix[:3, :3].T
    return turned


def reordered(places):
    def change(matrix):
        pose = matrix_to_pose(matrix)
        return pose_to_matrix(replace(pose, quaternion=pose.quaternion[places]))

    return change


CONVENTIONS = [
    (np.linalg.inv, "world-to-camera where the format wants camera-to-world"),
    (lambda m: m @ OPENGL, "OpenGL's or Blender's"),
    (lambda m: m @ np.linalg.inv(BODY), "ROS body axes"),
    (reordered([3, 0, 1, 2]), "written as wxyz and read as xyzw"),
    (transposed, "rotations are transposed"),
]


@pytest.mark.parametrize(("change", "name"), CONVENTIONS, ids=[name for _, name in CONVENTIONS])
def test_the_way_in_which_poses_are_written_wrongly_is_named(room, matches, change, name):
    found = judge(matches, written_as(room, change).split("train"), "train", room.format)
    assert found.verdict == "differs", found
    assert name in found.likely
    assert found.remedy
    given, likely = found.fits[:2]
    assert given.cost > 2 * likely.cost
    assert likely.fits


def test_where_cameras_only_turn_positions_are_said_to_be_unchecked(room, matches):
    turned = judge(matches, room.split("train"), "train", room.format)
    assert turned.verdict == "agrees"
    still = replace(turned, moving=2, fits=(replace(turned.fits[0], direction_deg=None),))
    for check, told in ((turned, False), (still, True)):
        checks = replace(without_pixels(room), conventions=(check,))
        assert ("positions_unchecked" in kinds(room, checks)) == told


def test_poses_of_other_images_fit_nothing_and_no_pairs_say_nothing(room, matches):
    rng = np.random.default_rng(0)
    frames = room.split("train")
    order = rng.permutation(len(frames))
    torn = [replace(f, pose=frames[i].pose) for f, i in zip(frames, order, strict=True)]
    assert judge(matches, torn, "train", room.format).verdict == "unexplained"
    none = judge(matches[:3], frames, "train", room.format)
    assert none.verdict == "cannot_tell"
    assert "pairs of images" in none.reason


def test_a_clean_room_is_not_accused_and_the_page_loads_nothing(room, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["inspect", f"lab={room.root}", "--output", str(out)]) == 0
    (found,) = json.loads((out / "inspect.json").read_text())
    # The room's folder has no lens; its reader assumes the right one.
    assert [f["kind"] for f in found["findings"]] == ["assumed_focal"]
    verdicts = {check["split"]: check["verdict"] for check in found["checks"]["conventions"]}
    assert verdicts["train"] == "agrees"
    assert verdicts["test"] in ("agrees", "cannot_tell")
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert 'src="data:image/png' in page
    assert "Poses against images" in page
    assert "mean training pose" in page
    shown = capsys.readouterr()
    assert "assumed" in shown.out
    assert "remedy" in shown.out
    assert "report.html" in shown.err


def test_headers_only_decodes_nothing_and_says_so(copied, tmp_path):
    # What follows the header is lost, and is not missed.
    for frame in copied.frames:
        frame.image_path.write_bytes(frame.image_path.read_bytes()[:200])
    out = tmp_path / "out"
    arguments = ["inspect", str(copied.root), "--headers-only", "--output", str(out)]
    assert main(arguments) == 0
    (found,) = json.loads((out / "inspect.json").read_text())
    assert found["splits"] == {"train": 24, "test": 6}
    assert not found["bad"]
    assert "headers_only" in {f["kind"] for f in found["findings"]}
    assert found["checks"]["conventions"] is found["checks"]["images"] is None
    page = (out / "report.html").read_text()
    assert "--headers-only" in page
    assert "Poses against images" not in page


def test_poses_that_leap_or_stand_are_found(room):
    assert not kinds(room, without_pixels(room)).keys() - {"assumed_focal", "headers_only"}

    def outlier(i, frame):
        return shifted(frame, [1.0, 0, 0]) if i == 20 else frame

    def leap(i, frame):
        return shifted(frame, [9.0, 0, 0]) if 20 <= i < 40 else frame

    def stuck(i, frame):
        return replace(frame, pose=room.frames[10].pose) if 10 <= i < 15 else frame

    def stamped(i, frame):
        return replace(frame, stamp_s=float(i // 2))

    for change, kind, frame in (
        (outlier, "outliers", 20),
        (leap, "jumps", 20),
        (stuck, "stuck_poses", 14),
        (stamped, "equal_stamps", 1),
    ):
        scene = moved(room, change)
        found = kinds(scene, without_pixels(scene))
        assert room.frames[frame].name in found[kind].place, kind
        assert found[kind].remedy
        assert found[kind].severity in ("warning", "note")


def test_test_frames_beyond_training_are_counted_and_expected_errors_told(room):
    def away(i, frame):
        return shifted(frame, [0, 0, 9.0]) if i >= 47 else frame

    scene = moved(room, away)
    found = kinds(scene, without_pixels(scene))["beyond_coverage"]
    assert found.severity == "warning"
    assert found.text.startswith("3 test frames (30 %)")
    line = [
        replace(f, pose=matrix_to_pose(look_at(np.array([i, 0.0, 1]))))
        for i, f in enumerate(room.split("train")[:5])
    ]
    asked = [shifted(line[1], [0, 0.25, 0])]
    coverage = measure_coverage(line, asked)
    # Extent 3.6: the 5-95 % box of 0 ... 4; the mean lies at 2.
    assert coverage.oracle == pytest.approx((0.25, 0))
    assert coverage.nearest.tolist() == [1]
    assert coverage.mean[0] == pytest.approx(np.hypot(1, 0.25))
    assert not coverage.far.any()
    assert coverage.extent == pytest.approx(3.6)


def test_test_frames_between_training_frames_are_told_and_blocks_and_passes_are_not(room):
    def split(every):
        return moved(
            room, lambda i, f: replace(f, split="test" if every(i) else "train", sequence="walk")
        )

    for scene, told in (
        (split(lambda i: i % 8 == 0), True),
        (split(lambda i: i // 5 % 4 == 0), False),
        (room, False),
    ):
        assert ("interleaved_test" in kinds(scene, without_pixels(scene))) == told
    alone = split(lambda i: False)
    assert kinds(alone, without_pixels(alone))["no_test_frames"].severity == "note"


def test_copies_and_bad_images_are_found(copied):
    train, test = copied.split("train"), copied.split("test")
    train[4].image_path.write_bytes(train[0].image_path.read_bytes())
    test[2].image_path.write_bytes(train[9].image_path.read_bytes())
    with Image.open(train[15].image_path) as image:
        blurred = image.filter(ImageFilter.BoxBlur(6))
        dark = image.point(lambda level: level // 100)
    blurred.save(train[15].image_path)
    dark.save(train[20].image_path)
    blank = without_pixels(copied)
    checks = replace(blank, copies=tuple(find_copies(copied)), images=check_images(copied))
    found = kinds(copied, checks)
    assert found["copies_with_other_poses"].severity == "problem"
    assert test[2].name in found["test_copies"].place
    assert found["blurred"].place == train[15].name
    assert found["exposure"].place == train[20].name
    assert list_findings(copied, checks)[0].severity == "problem"


def test_images_without_a_camera_are_said_to_be_unchecked(room):
    blind = moved(room, lambda i, f: replace(f, intrinsics=None))
    checks = replace(without_pixels(blind), conventions=())
    assert kinds(blind, checks)["no_intrinsics"].place == "50 frames"


def test_a_scene_of_broken_images_and_one_of_huge_positions_are_told(copied, tmp_path, capsys):
    root, out = copied.root, tmp_path / "out"
    poses = sorted(root.rglob("*.pose.txt"))[3]
    poses.write_text(poses.read_text().replace(poses.read_text().split()[3], "1e200", 1))
    assert main(["inspect", str(root), "--headers-only", "--output", str(out)]) == 0
    assert json.loads((out / "inspect.json").read_text())
    for frame in copied.frames:
        frame.image_path.write_bytes(frame.image_path.read_bytes()[:200])
    capsys.readouterr()
    assert main(["inspect", str(root), "--output", str(out)]) == 1
    assert "none of 30 images can be decoded" in capsys.readouterr().err


def test_jumps_are_found_whatever_unit_stamps_are_in(room):
    def change(i, frame):
        moved_on = shifted(frame, [9.0, 0, 0]) if i >= 20 else frame
        return replace(moved_on, stamp_s=1.7e18 + i * 1e8, sequence="walk", split="train")

    scene = moved(room, change)
    assert room.frames[20].name in kinds(scene, without_pixels(scene))["jumps"].place


def test_names_from_files_are_escaped_in_the_page(room, tmp_path):
    evil = "<script>alert(1)</script>"
    frame = replace(shifted(room.frames[45], [0, 0, 50.0]), name=f"{evil}.png")
    scene = replace(
        room,
        name=evil,
        frames=(*room.frames[:45], frame),
        bad=(BadFrame(f"{evil}\udcff", "train", f"'{evil}' is no number"),),
        notes=(evil,),
    )
    checks = without_pixels(scene)
    findings = tuple(list_findings(scene, checks))
    page = write_inspection_report(
        tmp_path / "report.html", [InspectedScene(scene, inspect_scene(scene), checks, findings)]
    ).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_a_real_scene_agrees_and_inverted_does_not():
    scene = read_scene(SHARED / "fr1_rpy")
    frames = scene.split("test")
    pairs = sample_matches(frames, 14)
    assert judge(pairs, frames, "test", scene.format).verdict == "agrees"
    wrong = written_as(scene, np.linalg.inv).split("test")
    assert "world-to-camera" in judge(pairs, wrong, "test", scene.format).likely
    coverage = measure_coverage(scene.split("train"), frames)
    # docs/results.md: nearest training frame; the mean pose is 0.064 m and 37 degrees off.
    assert coverage.oracle == pytest.approx((0.027, 7.0), abs=0.05)
    assert coverage.mean == pytest.approx((0.064, 37), abs=0.5)
