# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""mspn dataset from-bag: poses from every source, the right frames, one line for bad bags."""

import json
import re

import numpy as np
import pytest
import recordings as rec
from dataset_files import CENTRES, look_at, save_image
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from scipy.spatial.transform import Rotation

from mspn_ros.cli import build_parser, main
from mspn_ros.commands.from_bag import options_of
from mspn_ros.datasets import read_scene
from mspn_ros.datasets.bag_pass import FromBagOptions
from mspn_ros.datasets.bag_writer import write_bag
from mspn_ros.datasets.frame_choice import (
    DEFAULT_TEST_SHARE,
    ChoiceOptions,
    find_jumps,
    held_out_blocks,
    judge,
    measure,
)
from mspn_ros.datasets.from_bag import dataset_from_bags
from mspn_ros.geometry import matrix_to_pose
from mspn_ros.images import read_image
from mspn_ros.mounting import RigidTransform
from mspn_ros.records import ConfigError, Frame, Intrinsics, MspnError

ALL = ("--test-share", "0", "--min-metres", "0")


def make(out, *arguments):
    """What the command does but for table and picture; (scene, reports of the passes)."""
    line = ["dataset", "from-bag", *map(str, arguments), "--out", str(out)]
    parsed = build_parser().parse_args(line)
    said = {"bags": [str(bag) for bag in parsed.bags]}
    reports = dataset_from_bags(out, parsed.bags, parsed.test, options_of(parsed), said)
    return read_scene(out), [report.to_json() for report in reports]


def refused(capsys, out, *arguments):
    assert main(["dataset", "from-bag", *map(str, arguments), "--out", str(out)]) == 1
    message = capsys.readouterr().err.strip().split("mspn: ")[-1]
    assert "\n" not in message
    assert not out.exists()
    assert not list(out.parent.glob(".dataset*"))
    return message


def assert_poses(scene, truth, places=1e-9):
    assert scene.frames
    for frame in scene.frames:
        expected = truth(frame.stamp_s - rec.START / rec.S)
        # Stamps of today are exact to a tenth of a microsecond as float seconds.
        np.testing.assert_allclose(frame.pose.position, expected.translation, atol=places + 1e-6)
        turned = Rotation.from_quat(frame.pose.quaternion).inv() * expected.rotation
        assert np.degrees(turned.magnitude()) < 1e-4


# --- poses ---------------------------------------------------------------------------------


def test_a_bag_of_the_package_comes_back_bit_for_bit(tmp_path):
    frames = []
    lens = Intrinsics(50.0, 51.0, 30.0, 25.0, 64, 48, (-0.2, 0.1, 0.001, 0.002))
    for i, centre in enumerate(CENTRES):
        save_image(tmp_path / f"{i}.jpg")
        pose = matrix_to_pose(look_at(centre))
        frames.append(Frame(tmp_path / f"{i}.jpg", f"{i}", "hall", "test", pose, intrinsics=lens))
    for name in ("a.mcap", "a.bag"):
        write_bag(tmp_path / name, frames)
        out = tmp_path / f"out_{name}"
        scene, _ = make(out, tmp_path / name, "--pose-of", "camera-optical", *ALL)
        assert (scene.metres_per_unit, len(scene.frames), scene.bad) == (1.0, 3, ())
        for frame, true in zip(scene.frames, frames, strict=True):
            assert frame.image_path.read_bytes() == true.image_path.read_bytes()
            assert frame.intrinsics == lens
            np.testing.assert_allclose(frame.pose.position, true.pose.position, atol=1e-12)
            np.testing.assert_allclose(frame.pose.quaternion, true.pose.quaternion, atol=1e-9)


def test_tf_is_resolved_from_map_to_the_optical_frame_between_its_stamps(tmp_path):
    bag = rec.drive_bag(tmp_path / "drive")
    scene, (report,) = make(tmp_path / "out", bag, *ALL)
    # The last image is behind the last transform: never extrapolated.
    assert len(scene.frames) == 30
    assert report["left_out"] == {"after the last pose of map -> odom": 1}
    assert report["poses"] == "TF: map -> odom -> base_link -> cam_link -> cam_optical"
    assert_poses(scene, rec.map_from_optical)
    camera = scene.frames[0].intrinsics
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (80.0, 81.0, 47.0, 36.0)
    assert camera.distortion == (-0.2, 0.1, 0.001, 0.002)
    # A raw image becomes a JPEG that differs less than a sensor's noise.
    first = read_image(scene.frames[0].image_path).astype(float)
    assert np.abs(first - rec.picture(0.03)).mean() < 2
    scene, _ = make(tmp_path / "odom", bag, "--world-frame", "odom", "--png", *ALL)
    assert_poses(scene, lambda t: rec.odom_from_base(t) @ rec.BASE_FROM_OPTICAL)
    np.testing.assert_array_equal(read_image(scene.frames[0].image_path), rec.picture(0.03))


def pose_bag(path, kind, static=True, frame_id="cam_optical"):
    """Poses of base_link in map, each kind on its topic; TF of the robot's own frames."""
    with rec.recording(path) as put:
        if static:
            put("/tf_static", 0, rec.tf(0, "base_link", "cam_optical", rec.BASE_FROM_OPTICAL))
        for t in rec.TIMES:
            base = rec.map_from_odom(t) @ rec.odom_from_base(t)
            if kind == "/odom":
                put(kind, t, rec.odometry(t, "map", "base_link", base))
            elif kind == "/vicon":
                put(kind, t, rec.transform_stamped(t, "map", "base_link", base))
            elif kind == "/amcl":
                put(kind, t, rec.with_covariance(t, "map", base))
            else:
                put(kind, t, rec.pose_stamped(t, "map", base))
        rec.see(put, rec.TIMES[:-1] + 0.03)
    return path


@pytest.mark.parametrize("kind", ["/odom", "/vicon", "/pose", "/amcl"])
def test_poses_of_the_robot_go_to_the_camera_by_tf_or_by_the_mounting(kind, tmp_path):
    said = () if kind in ("/odom", "/vicon") else ("--pose-of", "base_link")
    bag = pose_bag(tmp_path / "a", kind)
    scene, _ = make(tmp_path / "tf", bag, *ALL, *said)
    assert_poses(scene, rec.map_from_optical)
    bag = pose_bag(tmp_path / "b", kind, static=False)
    scene, _ = make(tmp_path / "numbers", bag, *ALL, "--mounting", rec.MOUNTING)
    assert_poses(scene, rec.map_from_optical)


def test_poses_of_a_camera_body_are_turned(tmp_path):
    bag = pose_bag(tmp_path / "a", "/pose")
    scene, (report,) = make(tmp_path / "out", bag, *ALL, "--pose-of", "camera-body")
    turn = RigidTransform(np.zeros(3), rec.OPTICAL)
    assert_poses(scene, lambda t: rec.map_from_odom(t) @ rec.odom_from_base(t) @ turn)
    # A camera that looks along the robot's x looks along its own z.
    assert report["notes"] == []
    ahead = Rotation.from_quat(scene.frames[0].pose.quaternion).apply([0, 0, 1])
    np.testing.assert_allclose(ahead, [1, 0, 0], atol=0.02)
    # The same poses taken for optical ones make it look at the ceiling, which is said.
    _, (report,) = make(tmp_path / "wrong", bag, *ALL, "--pose-of", "camera-optical")
    (note,) = report["notes"]
    assert "straight up" in note


def test_odometry_is_carried_into_the_map_where_tf_knows_it(capsys, tmp_path):
    with rec.recording(tmp_path / "a") as put:
        rec.drive(put)
        for t in rec.TIMES:
            put("/odom", t, rec.odometry(t, "odom", "base_link", rec.odom_from_base(t)))
    options = ("--pose-topic", "/odom", "--world-frame", "map")
    scene, _ = make(tmp_path / "out", tmp_path / "a", *ALL, *options)
    assert_poses(scene, rec.map_from_optical)
    message = refused(capsys, tmp_path / "no", tmp_path / "a")
    assert "'/odom', 'tf' (TF); pass --pose-topic" in message


# --- which frames --------------------------------------------------------------------------


def test_frames_are_thinned_by_motion_and_bad_images_are_left_out(tmp_path):
    broken = {4: rec.blurred, 5: rec.blurred, 12: lambda image: np.full_like(image, 255)}

    def pixels(number, t):
        return broken.get(number, lambda image: image)(rec.picture(t))

    bag = rec.drive_bag(tmp_path / "drive", images=rec.TIMES[:-1] + 0.03, pixels=pixels)
    scene, (report,) = make(tmp_path / "out", bag, *ALL)
    assert report["left_out"] == {"blurred": 2, "exposure": 1}
    kept = {round(frame.stamp_s - rec.START / rec.S, 2) for frame in scene.frames}
    assert not kept & {0.43, 0.53, 1.23}
    assert len(kept) == 27
    # It moves 6.3 cm and turns 0.6 deg between images; the sharper of two is taken.
    thin = ("--min-metres", "0.1", "--min-degrees", "90", "--test-share", "0")
    scene, (report,) = make(tmp_path / "thin", bag, *thin)
    steps = np.diff([frame.pose.position for frame in scene.frames], axis=0)
    assert np.median(np.linalg.norm(steps, axis=1)) > 0.1
    keep = ("--min-sharpness", "0", "--max-clipped", "1", *ALL)
    assert len(make(tmp_path / "all", bag, *keep)[0].frames) == 30


def test_gaps_and_jumps_are_told_and_leave_images_out(capsys, tmp_path):
    def base(t):
        moved = rec.odom_from_base(t)
        closed = np.array([0, 1.5 if t > 2.01 else 0, 0])
        return RigidTransform(moved.translation + closed, moved.rotation)

    with rec.recording(tmp_path / "a") as put:
        for t in rec.TIMES:
            if not 0.55 < t < 1.35:
                put("/odom", t, rec.odometry(t, "map", "cam_optical", base(t)))
        rec.see(put, rec.TIMES[:-1] + 0.03)
    out, found = tmp_path / "out", tmp_path / "out.json"
    line = ["dataset", "from-bag", str(tmp_path / "a"), "--out", str(out), "--json", str(found)]
    assert main([*line, *ALL]) == 0
    told = capsys.readouterr()
    assert (out / "passes.png").stat().st_size > 10_000
    scene, (report,) = read_scene(out), json.loads(found.read_text())
    (gap,), (jump,) = report["gaps"], report["jumps"]
    assert (gap["at_s"], gap["seconds"]) == (pytest.approx(0.47), pytest.approx(0.9))
    assert (jump["at_s"], jump["distance"]) == (pytest.approx(2.07), pytest.approx(1.5, abs=0.06))
    assert report["left_out"] == {
        "in a gap of more than 0.5 s of map -> cam_optical": 9,
        "within a jump of the poses": 1,
    }
    assert_poses(scene, base)
    assert "1 jumps of the poses: 1.5" in told.err
    assert ["images", "30"] in [line.split() for line in told.out.splitlines()]


def test_a_robot_that_sets_off_turns_and_stops_does_not_jump():
    t = np.arange(0, 20, 0.1)
    speed = np.where((t > 8) & (t < 12), 1.0, 0.0)
    turn = np.where((t > 14) & (t < 16), 1.2, 0.0)
    positions = np.column_stack((np.cumsum(speed) / 10, 0 * t, 0 * t))
    quaternions = Rotation.from_euler("z", np.cumsum(turn)[:, None] / 10).as_quat()
    stamps = (t * 1e9).astype(np.int64)
    assert find_jumps(stamps, positions, quaternions) == []
    positions[100:, 1] += 0.5
    (jump,) = find_jumps(stamps, positions, quaternions)
    assert (jump.start_ns, jump.end_ns) == (int(stamps[99]), int(stamps[100]))
    assert jump.distance == pytest.approx(0.51, abs=0.01)


def test_sharpness_is_of_the_image_and_not_of_what_it_shows():
    sharp = rec.picture(1.0)
    assert measure(rec.blurred(sharp)).sharpness < 0.5 * measure(sharp).sharpness
    # Half the contrast is no blur.
    faint = (sharp // 2 + 60).astype(np.uint8)
    assert measure(faint).sharpness == pytest.approx(measure(sharp).sharpness, rel=0.05)
    soft = [measure(rec.blurred(rec.picture(t / 10))) for t in range(20)]
    assert judge(soft, ChoiceOptions()) == [""] * 20  # a soft lens is as it is


@pytest.mark.parametrize(
    ("count", "share", "least"),
    [(200, 0.2, 5), (37, 0.2, 4), (9, 0.2, 2), (3, 0.2, 1), (40, 0, 9)],
)
def test_held_out_blocks_are_apart_from_train(count, share, least):
    splits = held_out_blocks(count, share)
    assert len(splits) == count
    test = [i for i, split in enumerate(splits) if split == "test"]
    assert abs(len(test) - share * count) <= 4
    apart = min((abs(i - j) for i in test for j in range(count) if splits[j] == "train"), default=9)
    assert apart == least
    assert splits.count("train") > 0
    with pytest.raises(ConfigError, match="--test-share"):
        held_out_blocks(10, 0.9)


def test_several_bags_are_passes_and_one_gives_blocks(tmp_path):
    for name in ("a", "b", "c"):
        rec.drive_bag(tmp_path / name / "drive", static=True)
    bags = [tmp_path / name / "drive" for name in "abc"]
    scene, reports = make(tmp_path / "out", *bags[:2], "--test", bags[2])
    assert [report["name"] for report in reports] == ["drive", "drive_2", "drive_3"]
    by_split = {split: {f.sequence for f in scene.split(split)} for split in ("train", "test")}
    assert by_split == {
        "train": {"images/drive", "images/drive_2"},
        "test": {"images/drive_3"},
    }
    scene, (report,) = make(tmp_path / "one", bags[0])
    assert report["frames"] == {"train": 18, "test": 6}
    assert report["left_out"]["between train and test"] == 6
    record = json.loads((tmp_path / "one/provenance.json").read_text())
    assert record["options"]["bags"] == [str(bags[0])]
    assert record["passes"] == [report]


# --- bad input -----------------------------------------------------------------------------


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("compression", [None, CompressionMode.STORAGE])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_cut_off_mcap_gives_what_is_readable(compression, share, tmp_path):
    bag = rec.drive_bag(tmp_path / "drive", compression=compression)
    cut(bag / "drive.mcap", share)
    scene, (report,) = make(tmp_path / "out", bag, *ALL)
    (note,) = [note for note in report["notes"] if note.startswith("damaged")]
    assert " of 106 messages and 3.0 s recorded. drive.mcap: " in note
    # Compressed messages come in the order of the bag: the share of bytes is that of images.
    assert len(scene.frames) >= 30 * share - 7
    assert_poses(scene, rec.map_from_optical)
    # Without metadata.yaml, as a killed recorder leaves it.
    (bag / "metadata.yaml").unlink()
    assert len(make(tmp_path / "two", bag, *ALL)[0].frames) == len(scene.frames)


def test_a_damaged_chunk_costs_that_chunk_alone(tmp_path):
    with rec.recording(tmp_path / "a", compression=CompressionMode.STORAGE) as put:
        rec.drive(put, images=[])
        rng = np.random.default_rng(1)
        for t in rec.TIMES[:-1] + 0.03:  # 1 MB of other things closes a chunk
            put("/cam/camera_info", t, rec.camera_info(t))
            put("/cam/image_raw", t, rec.image(t))
            for _ in range(2):
                junk = rng.integers(0, 256, (rec.HEIGHT, rec.WIDTH, 3), np.uint8)
                put("/cam/image_raw", t, rec.image(0, junk))
    data = bytearray((tmp_path / "a/a.mcap").read_bytes())
    # rosbags writes no checksums: the second chunk is made to be none of zstd's.
    first = data.index(b"\x28\xb5\x2f\xfd")
    second = data.index(b"\x28\xb5\x2f\xfd", first + 1)
    data[second : second + 4] = bytes(4)
    (tmp_path / "a/a.mcap").write_bytes(data)
    scene, (report,) = make(tmp_path / "out", tmp_path / "a", *ALL)
    assert any("damaged chunk" in note for note in report["notes"])
    assert 5 <= len(scene.frames) < 30


def test_a_cut_off_database_gives_what_is_readable(tmp_path):
    bag = rec.drive_bag(tmp_path / "drive", plugin=StoragePlugin.SQLITE3)
    cut(bag / "drive.db3", 0.6)
    scene, (report,) = make(tmp_path / "out", bag, *ALL)
    (note,) = [note for note in report["notes"] if note.startswith("damaged")]
    assert "cut off; the messages at its end are missing" in note
    assert 5 <= len(scene.frames) < 30
    assert_poses(scene, rec.map_from_optical)


@pytest.mark.parametrize("name", ["a.mcap", "a.db3"])
def test_what_has_nothing_to_salvage_is_refused(name, capsys, tmp_path):
    for content in (b"", b"garbage" * 1000, b"\x89MCAP0\r\n" + bytes(range(1, 200))):
        (tmp_path / name).write_bytes(content)
        assert "no message can be salvaged" in refused(capsys, tmp_path / "out", tmp_path / name)


def test_random_damage_gives_a_dataset_or_one_line(tmp_path):
    rng = np.random.default_rng(2)
    for plugin, name in ((StoragePlugin.MCAP, "a.mcap"), (StoragePlugin.SQLITE3, "a.db3")):
        images = rec.TIMES[:4] + 0.03
        whole = next(rec.drive_bag(tmp_path / name / "b", plugin=plugin, images=images).glob("b.*"))
        data = whole.read_bytes()
        for attempt in range(6):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 30):
                broken[at] = rng.integers(0, 256)
            path = tmp_path / f"{attempt}{name}"
            path.write_bytes(broken)
            out = tmp_path / f"out{attempt}{name}"
            try:
                make(out, path, *ALL)
            except MspnError as error:
                assert "\n" not in str(error)  # noqa: PT017
                assert not out.exists()


def test_a_bag_without_camera_info_names_the_remedies(capsys, tmp_path):
    bag = rec.drive_bag(tmp_path / "a", info=False)
    message = refused(capsys, tmp_path / "out", bag)
    assert "no camera_info on '/cam/camera_info'" in message
    assert "--focal-px" in message
    scene, _ = make(tmp_path / "out", bag, "--focal-px", "77", *ALL)
    assert scene.frames[0].intrinsics == Intrinsics(77, 77, 47.5, 35.5, rec.WIDTH, rec.HEIGHT)


def test_a_camera_info_that_cannot_be_used_says_why(capsys, tmp_path):
    for name, info, reason in (
        ("a", rec.camera_info(0, model="equidistant"), "'equidistant' is not supported"),
        ("b", rec.camera_info(0, focal=0.0), "not calibrated"),
        ("c", rec.camera_info(0, width=144), "but camera_info is for 144x72"),
    ):
        with rec.recording(tmp_path / name) as put:
            rec.drive(put, info=False)
            put("/cam/camera_info", 0, info)
        message = refused(capsys, tmp_path / "out", tmp_path / name)
        assert reason in message
        assert "--focal-px" in message


def test_two_cameras_are_named(capsys, tmp_path):
    topics = rec.TOPICS | {"/rear/image_raw": "sensor_msgs/msg/Image"}
    with rec.recording(tmp_path / "a", topics) as put:
        rec.drive(put)
        put("/rear/image_raw", 1, rec.image(1))
    message = refused(capsys, tmp_path / "out", tmp_path / "a")
    assert "'/cam/image_raw'" in message
    assert "'/rear/image_raw'" in message
    assert "--image-topic" in message
    chosen = ("--image-topic", "/cam/image_raw", *ALL)
    assert len(make(tmp_path / "out", tmp_path / "a", *chosen)[0].frames) == 30


def test_stamps_out_of_order_are_sorted_and_damaged_messages_counted(tmp_path):
    with rec.recording(tmp_path / "a") as put:
        rec.drive(put, images=[])
        for number, t in enumerate((0.53, 0.33, 0.93, 0.73, 0.73)):
            put("/cam/camera_info", number, rec.camera_info(t))
            put("/cam/image_raw", number, rec.image(t))
        put("/cam/image_raw", 2.5, b"\0\1\0\0short")
        put("/tf", 2.6, b"\0\1\0\0short")
    scene, (report,) = make(tmp_path / "out", tmp_path / "a", *ALL)
    stamps = [frame.stamp_s - rec.START / rec.S for frame in scene.frames]
    np.testing.assert_allclose(stamps, [0.33, 0.53, 0.73, 0.93], atol=1e-6)
    assert_poses(scene, rec.map_from_optical)
    notes = " ".join(report["notes"])
    assert "2 images were stamped before the one in front of them: sorted" in notes
    assert "1 messages on '/tf' are damaged" in notes
    assert report["left_out"] == {"damaged, or of a stamp that was there already": 2}


def test_clocks_that_differ_are_found_and_receipt_times_help(capsys, tmp_path):
    with rec.recording(tmp_path / "a") as put:
        rec.drive(put, images=[])
        for t in rec.TIMES[:-1]:
            put("/cam/camera_info", t, rec.camera_info(t))
            put("/cam/image_raw", t, rec.image(t - 1000))
    message = refused(capsys, tmp_path / "out", tmp_path / "a")
    assert "none of 30 images has a pose; 30 are before the first pose of" in message
    assert "--stamps receive" in message
    scene, _ = make(tmp_path / "out", tmp_path / "a", "--stamps", "receive", *ALL)
    assert_poses(scene, rec.map_from_optical)


def test_frames_that_tf_does_not_connect_are_told_with_their_trees(capsys, tmp_path):
    bag = rec.drive_bag(tmp_path / "a", static=False)
    assert "TF has no frame 'cam_optical'" in refused(capsys, tmp_path / "out", bag)
    with rec.recording(tmp_path / "b") as put:
        put("/tf_static", 0, rec.tf(0, "cam_link", "cam_optical", rec.BASE_FROM_LINK))
        rec.drive(put, static=False)
    message = refused(capsys, tmp_path / "out", tmp_path / "b", "--world-frame", "map")
    assert "['base_link', 'map', 'odom'] and ['cam_link', 'cam_optical']" in message
    assert "nothing moves between" in refused(capsys, tmp_path / "out", tmp_path / "b")
    options = ("--pose-of", "base_link", "--mounting", rec.MOUNTING, *ALL)
    assert_poses(make(tmp_path / "out", tmp_path / "b", *options)[0], rec.map_from_optical)


def test_poses_that_do_not_say_what_they_are_of_are_asked_for(capsys, tmp_path):
    bag = pose_bag(tmp_path / "a", "/pose", static=False)
    message = refused(capsys, tmp_path / "out", bag)
    assert "--pose-of camera-optical" in message
    message = refused(capsys, tmp_path / "out", bag, "--pose-of", "base_link")
    assert "TF does not connect these" in message
    assert "--mounting" in message
    message = refused(capsys, tmp_path / "out", bag, "--mounting", "1 2 3")
    assert message.startswith("--mounting: '1 2 3': 3 numbers, not 6 or 7")


def test_bags_without_poses_or_of_different_worlds_are_refused(capsys, tmp_path):
    with rec.recording(tmp_path / "a") as put:
        rec.see(put)
    assert "no poses: neither a topic" in refused(capsys, tmp_path / "out", tmp_path / "a")
    rec.drive_bag(tmp_path / "b")
    with rec.recording(tmp_path / "c") as put:
        for t in rec.TIMES:
            put("/vicon", t, rec.transform_stamped(t, "lab", "cam_optical", rec.odom_from_base(t)))
        rec.see(put)
    message = refused(capsys, tmp_path / "out", tmp_path / "b", tmp_path / "c", *ALL)
    assert "different frames, 'lab', 'map'" in message


def test_the_help_names_the_defaults_that_hold(capsys):
    with pytest.raises(SystemExit):
        main(["dataset", "from-bag", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    options, choice = FromBagOptions(), ChoiceOptions()
    held = {
        "--min-metres": choice.min_metres,
        "--min-degrees": choice.min_degrees,
        "--min-sharpness": choice.min_sharpness,
        "--max-clipped": choice.max_clipped,
        "--max-gap": options.max_gap_s,
        "--metres-per-unit": options.metres_per_unit,
        "--test-share": DEFAULT_TEST_SHARE,
    }
    for option, value in held.items():
        told = re.search(rf"{option} [A-Z] [^-]*?\(default ([0-9.]+)", text)
        assert told, option
        assert float(told[1]) == value
