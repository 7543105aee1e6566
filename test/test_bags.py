# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags written and read back, ground truth over time, and bags that are broken."""

import math
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from recordings import bag_of
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from mspn_ros.datasets.bag_messages import camera_at, ros2_types
from mspn_ros.datasets.bag_writer import frame_stamps_ns, write_bag
from mspn_ros.datasets.bags import BagReader
from mspn_ros.images import read_image
from mspn_ros.records import BagError, Frame, ImageError, Intrinsics, Pose

S = 10**9
TYPES = ros2_types().types
KINDS = ["bag_mcap", "bag_db3", "one.mcap", "one.db3", "ros1.bag"]


def picture(seed, height=48, width=64):
    """A smooth picture, so that JPEG keeps it nearly."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Four frames of a kitchen as JPEG, two of an attic as PNG."""
    folder = tmp_path_factory.mktemp("frames")
    result = []
    for i in range(6):
        path = folder / (f"{i}.jpg" if i < 4 else f"{i}.png")
        Image.fromarray(picture(i)).save(path)
        quaternion = Rotation.from_euler("y", 10 * i, degrees=True).as_quat()
        pose = Pose(np.array([0.1 * i, 1.0, -2.0]), quaternion)
        scene = "kitchen" if i < 4 else "attic"
        result.append(Frame(path, path.name, scene, "test", pose, stamp_s=77.0))
    return result


def write(frames, path, **options):
    storage = "sqlite3" if path.name.endswith("db3") else "mcap"
    return write_bag(path, frames, storage=storage, **options)


def header(stamp_ns, frame_id):
    time = TYPES["builtin_interfaces/msg/Time"](*divmod(stamp_ns, S))
    return TYPES["std_msgs/msg/Header"](time, frame_id)


def mono_image(stamp_ns, value=0, data=None):
    data = np.full(6, value, np.uint8) if data is None else data
    return TYPES["sensor_msgs/msg/Image"](header(stamp_ns, "cam"), 2, 3, "mono8", 0, 3, data)


def ros_pose(position, quaternion):
    return TYPES["geometry_msgs/msg/Pose"](
        TYPES["geometry_msgs/msg/Point"](*map(float, position)),
        TYPES["geometry_msgs/msg/Quaternion"](*map(float, quaternion)),
    )


def pose_stamped(stamp_ns, frame_id, position, quaternion=(0, 0, 0, 1)):
    return TYPES["geometry_msgs/msg/PoseStamped"](
        header(stamp_ns, frame_id), ros_pose(position, quaternion)
    )


def image_bag(path, topics=("/cam",), **options):
    with bag_of(path, dict.fromkeys(topics, "sensor_msgs/msg/Image"), **options) as put:
        for topic in topics:
            put(topic, 5 * S, mono_image(5 * S))
    return path


# --- written and read back ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_images_and_poses_come_back_from(kind, frames, tmp_path):
    path = write(frames, tmp_path / kind, rate_hz=20.0, scene_gap_s=2.0, start_ns=3 * S)
    stamps = [3 * S + ns for ns in (0, 50_000_000, 100_000_000, 150_000_000)]
    stamps += [stamps[-1] + 2 * S, stamps[-1] + 2 * S + 50_000_000]
    with BagReader(path) as bag:
        assert bag.image_topic == "/camera/image_raw/compressed"
        assert bag.pose_topic == "/ground_truth/pose"
        assert bag.image_count == 6
        assert bag.duration_s == pytest.approx(2.2, abs=1e-6)
        images = list(bag.images())
        truth = bag.ground_truth()
    assert [image.stamp_ns for image in images] == stamps
    assert [image.log_time_ns for image in images] == stamps
    assert {image.frame_id for image in images} == {"camera_optical_frame"}
    for image, frame in zip(images, frames, strict=True):
        message = ros2_types().deserialize_cdr(image.cdr, image.msgtype)
        assert message.data.tobytes() == frame.image_path.read_bytes()
        assert message.format == {".jpg": "jpeg", ".png": "png"}[frame.image_path.suffix]
        np.testing.assert_array_equal(image.decode(), read_image(frame.image_path))
    assert {name: len(t.stamps_ns) for name, t in truth.items()} == {"kitchen": 4, "attic": 2}
    for stamp, frame in zip(stamps, frames, strict=True):
        pose = truth[frame.scene].interpolate(stamp)
        np.testing.assert_allclose(pose.position, frame.pose.position, atol=1e-12)
        np.testing.assert_allclose(pose.quaternion, frame.pose.quaternion, atol=1e-12)


@pytest.mark.parametrize("kind", ["one.mcap", "ros1.bag"])
def test_raw_images_come_back_from(kind, frames, tmp_path):
    path = write(frames, tmp_path / kind, raw=True)
    with BagReader(path) as bag:
        assert bag.image_topic == "/camera/image_raw"
        for image, frame in zip(bag.images(), frames, strict=True):
            assert image.msgtype == "sensor_msgs/msg/Image"
            np.testing.assert_array_equal(image.decode(), read_image(frame.image_path))


@pytest.mark.parametrize("kind", KINDS)
def test_same_input_gives_the_same_bytes_in(kind, frames, tmp_path):
    files = []
    for attempt in ("a", "b"):
        path = write(frames, tmp_path / attempt / kind)
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        files.append([(part.name, part.read_bytes()) for part in parts])
    assert files[0] == files[1]
    assert [p.name for p in (tmp_path / "a").iterdir()] == [kind]  # no temporary folder stays


def test_ros2_itself_reads_what_is_written_and_converted(frames, tmp_path):
    serialization = pytest.importorskip("rclpy.serialization", reason="needs the ROS 2 wheels")
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CompressedImage

    for kind in ("one.mcap", "ros1.bag"):
        path = write(frames, tmp_path / kind, start_ns=8 * S)
        with BagReader(path) as bag:
            image = next(bag.images())
            message = serialization.deserialize_message(image.cdr, CompressedImage)
            assert (message.header.stamp.sec, message.header.frame_id) == (
                8,
                "camera_optical_frame",
            )
            assert bytes(message.data) == frames[0].image_path.read_bytes()
            _, _, cdr = next(bag._messages(bag._poses))
            pose = serialization.deserialize_message(cdr, PoseStamped)
            assert pose.header.frame_id == "kitchen"
            assert pose.pose.position.z == -2.0


def test_progress_is_told_per_frame(frames, tmp_path):
    told = []
    write_bag(tmp_path / "a.mcap", frames, progress=lambda *counts: told.append(counts))
    assert told == [(i + 1, 6) for i in range(6)]


@pytest.mark.parametrize("mode", [CompressionMode.STORAGE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(mode, tmp_path):
    with BagReader(image_bag(tmp_path / "bag", compression=mode)) as bag:
        assert [image.decode().shape for image in bag.images()] == [(2, 3, 3)]


def test_file_compressed_db3_is_read(tmp_path):
    image_bag(tmp_path / "bag", plugin=StoragePlugin.SQLITE3, compression=CompressionMode.FILE)
    with BagReader(tmp_path / "bag") as bag:
        assert [image.decode().shape for image in bag.images()] == [(2, 3, 3)]


@pytest.mark.parametrize("fmt", list(Ros1Writer.CompressionFormat))
def test_compressed_ros1_bags_are_read(fmt, tmp_path):
    ros1 = get_typestore(Stores.ROS1_NOETIC)
    types = ros1.types
    writer = Ros1Writer(tmp_path / "a.bag")
    writer.set_compression(fmt)
    stamp = types["builtin_interfaces/msg/Time"](1, 2)
    with writer:
        c = writer.add_connection("/cam", "sensor_msgs/msg/Image", typestore=ros1)
        image = types["sensor_msgs/msg/Image"](
            types["std_msgs/msg/Header"](9, stamp, "cam"), 2, 3, "mono8", 0, 3, np.zeros(6, "u1")
        )
        writer.write(c, 7 * S, ros1.serialize_ros1(image, c.msgtype))
        writer.write(c, 8 * S, b"too short")
    with BagReader(tmp_path / "a.bag") as bag:
        good, broken = bag.images()
    assert (good.stamp_ns, good.log_time_ns, good.frame_id) == (S + 2, 7 * S, "cam")
    assert good.decode().shape == (2, 3, 3)
    with pytest.raises(ImageError, match="damaged"):
        broken.decode()


def test_folder_whose_metadata_was_never_written_is_read(frames, tmp_path):
    path = write_bag(tmp_path / "bag", frames)
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert len(list(bag.images())) == 6


def test_large_bag_is_read_in_bounded_memory(tmp_path):
    with bag_of(tmp_path / "bag", {"/cam": "sensor_msgs/msg/Image"}) as put:
        for i in range(64):  # 64 MB in chunks of 1 MB
            big = TYPES["sensor_msgs/msg/Image"](
                header(i + 1, ""), 1000, 1000, "mono8", 0, 1000, np.zeros(1_000_000, np.uint8)
            )
            put("/cam", i + 1, big)
    with BagReader(tmp_path / "bag") as bag:
        tracemalloc.start()
        assert sum(1 for _ in bag.images()) == 64
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16_000_000


# --- stamps ------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_images_come_in_logged_order_with_header_stamps(plugin, tmp_path):
    topics = {"/cam": "sensor_msgs/msg/Image"}
    with bag_of(tmp_path / "bag", topics, plugin=plugin) as put:
        for log_ns, stamp_ns in ((30, 7), (10, 9), (20, 0)):
            put("/cam", log_ns, mono_image(stamp_ns))
    with BagReader(tmp_path / "bag") as bag:
        seen = [(image.log_time_ns, image.stamp_ns) for image in bag.images()]
    # The one without a stamp takes its log time.
    assert seen == [(10, 9), (20, 20), (30, 7)]


def test_damaged_message_is_yielded_and_fails_in_decode(tmp_path):
    good = bytes(ros2_types().serialize_cdr(mono_image(5), "sensor_msgs/msg/Image"))
    with bag_of(tmp_path / "bag", {"/cam": "sensor_msgs/msg/Image"}) as put:
        for i, cdr in enumerate((b"", good[:3], good[:20], good[:-1], good)):
            put("/cam", i + 1, cdr)
        put("/cam", 6, mono_image(8, data=np.zeros(5, np.uint8)))
    with BagReader(tmp_path / "bag") as bag:
        images = list(bag.images())
    assert [image.stamp_ns for image in images] == [1, 2, 3, 4, 5, 8]
    for image in images[:4]:
        with pytest.raises(ImageError, match="damaged"):
            image.decode()
    assert images[4].decode().shape == (2, 3, 3)
    with pytest.raises(ImageError, match="5 bytes of data"):
        images[5].decode()


def test_stamps_have_a_fixed_rate_and_a_gap_between_scenes(frames):
    stamps = frame_stamps_ns(frames, rate_hz=3.0, start_ns=0, scene_gap_s=1.5)
    assert np.diff(stamps).tolist() == [333333333] * 3 + [1500000000, 333333333]


# --- ground truth ------------------------------------------------------------------------


def pose_message(kind, stamp_ns, frame_id, position, quaternion):
    pose = ros_pose(position, quaternion)
    covariance = np.zeros(36)
    head = header(stamp_ns, frame_id)
    with_covariance = TYPES["geometry_msgs/msg/PoseWithCovariance"](pose, covariance)
    vector = TYPES["geometry_msgs/msg/Vector3"]
    if kind == "geometry_msgs/msg/PoseStamped":
        return TYPES[kind](head, pose)
    if kind == "geometry_msgs/msg/PoseWithCovarianceStamped":
        return TYPES[kind](head, with_covariance)
    if kind == "nav_msgs/msg/Odometry":
        still = TYPES["geometry_msgs/msg/Twist"](vector(0.0, 0.0, 0.0), vector(0.0, 0.0, 0.0))
        twist = TYPES["geometry_msgs/msg/TwistWithCovariance"](still, covariance)
        return TYPES[kind](head, "base_link", with_covariance, twist)
    transform = TYPES["geometry_msgs/msg/Transform"](
        vector(*map(float, position)), pose.orientation
    )
    return TYPES[kind](head, "camera", transform)


@pytest.mark.parametrize(
    "kind",
    [
        "geometry_msgs/msg/PoseStamped",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        "nav_msgs/msg/Odometry",
        "geometry_msgs/msg/TransformStamped",
    ],
)
def test_ground_truth_is_read_from(kind, tmp_path):
    quaternion = Rotation.from_euler("xyz", (0.3, -0.2, 0.9)).as_quat()
    with bag_of(tmp_path / "bag", {"/cam": "sensor_msgs/msg/Image", "/truth": kind}) as put:
        put("/cam", 1, mono_image(1))
        # Logged in another order than stamped, one without a stamp, one unset, one NaN.
        for log_ns, stamp_ns, x in ((2, 40, 4.0), (3, 30, 3.0), (50, 0, 5.0), (60, 60, math.nan)):
            put("/truth", log_ns, pose_message(kind, stamp_ns, "hall", (x, 2, 1), quaternion))
        put("/truth", 70, pose_message(kind, 70, "hall", (1, 2, 3), (0, 0, 0, 0)))
        put("/truth", 80, pose_message(kind, 80, "roof", (1, 2, 3), quaternion))
    with BagReader(tmp_path / "bag") as bag:
        assert bag.pose_topic == "/truth"
        truth = bag.ground_truth()
    assert set(truth) == {"hall", "roof"}
    hall = truth["hall"]
    assert (hall.stamps_ns.tolist(), hall.dropped) == ([30, 40, 50], 2)
    np.testing.assert_array_equal(hall.positions, [[3, 2, 1], [4, 2, 1], [5, 2, 1]])
    np.testing.assert_allclose(hall.quaternions, [quaternion] * 3, atol=1e-15)


def test_bag_without_poses_has_no_ground_truth(tmp_path):
    with BagReader(image_bag(tmp_path / "bag")) as bag:
        assert bag.pose_topic is None
        assert bag.ground_truth() == {}


# --- bad input: one line that says value, place and remedy ---------------------------------


def refused(match, path, **topics):
    with pytest.raises(BagError, match=match) as caught:
        BagReader(path, **topics)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_missing_path_is_refused(tmp_path):
    refused("no such file", tmp_path / "none.mcap")


def test_empty_folder_is_refused(tmp_path):
    refused("no metadata.yaml, and 0 .mcap", tmp_path)


def test_folder_of_several_files_without_metadata_is_refused(tmp_path):
    (tmp_path / "a.mcap").touch()
    (tmp_path / "b.mcap").touch()
    refused("and 2 .mcap", tmp_path)


@pytest.mark.parametrize("name", ["video.mp4", "noending"])
def test_other_file_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"x" * 100)
    refused("is no bag", tmp_path / name)


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 1000], ids=["empty", "garbage"])
def test_file_that_is_no_bag_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused("cannot be read as a bag", tmp_path / name)


@pytest.mark.parametrize("yaml", ["", "a: [", "x: 1\n", "rosbag2_bagfile_information: 5\n"])
def test_broken_metadata_is_refused(yaml, tmp_path):
    (tmp_path / "metadata.yaml").write_text(yaml)
    refused("cannot be read as a bag", tmp_path)


@pytest.mark.parametrize("kind", ["one.mcap", "one.db3", "ros1.bag"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_truncated_bag_is_refused(kind, share, frames, tmp_path):
    path = write(frames, tmp_path / kind, raw=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    def read():
        with BagReader(path) as bag:
            count = sum(1 for _ in bag.images())
            bag.ground_truth()
        return count

    # The index stands at the end of mcap and .bag; of a database, pages are missed when read.
    with pytest.raises(BagError, match=re.escape(str(path))) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["one.mcap", "one.db3", "ros1.bag"])
def test_overwritten_bytes_never_give_anything_but_bag_errors(kind, frames, tmp_path):
    path = write(frames[:2], tmp_path / kind)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    failed = 0
    for _ in range(60):
        broken = bytearray(whole)
        for position in rng.integers(0, len(broken), 40):
            broken[position] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            with BagReader(path) as bag:
                for image in bag.images():
                    try:
                        image.decode()
                    except ImageError:
                        failed += 1
                bag.ground_truth()
        except BagError as error:
            failed += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert failed > 0


def test_bag_without_images_lists_its_topics(tmp_path):
    kind = "geometry_msgs/msg/PoseStamped"
    topics = {"/truth": kind, "/cam": "sensor_msgs/msg/Image"}
    with bag_of(tmp_path / "bag", topics) as put:
        put("/truth", 1, pose_stamped(1, "map", (0, 0, 0)))
    message = refused("no images", tmp_path / "bag")
    assert f"['/truth' ({kind})]" in message
    message = refused("no images", tmp_path / "bag", image_topic="/cam")


def test_bag_without_any_message_is_refused(tmp_path):
    with bag_of(tmp_path / "bag", {"/cam": "sensor_msgs/msg/Image"}):
        pass
    refused("no images", tmp_path / "bag")


def test_unknown_image_topic_lists_the_image_topics(tmp_path):
    path = image_bag(tmp_path / "bag", ("/front/image_raw",))
    message = refused("no topic '/cam'", path, image_topic="/cam")
    assert message == (
        f"{path}: no topic '/cam'; images are on ['/front/image_raw' (sensor_msgs/msg/Image)]. "
        "Pass --image-topic."
    )


def test_two_image_topics_have_to_be_told_apart(tmp_path):
    path = image_bag(tmp_path / "bag", ("/right", "/left"))
    message = refused("several topics", path)
    assert message.index("'/left'") < message.index("'/right'")
    assert "--image-topic" in message
    with BagReader(path, image_topic="/left") as bag:
        assert (bag.image_topic, bag.image_count) == ("/left", 1)
        assert len(list(bag.images())) == 1


def test_topic_of_a_wrong_type_is_named_with_its_type(frames, tmp_path):
    path = write_bag(tmp_path / "a.mcap", frames)
    message = refused("is geometry_msgs/msg/PoseStamped", path, image_topic="/ground_truth/pose")
    assert "'/camera/image_raw/compressed'" in message
    message = refused(
        "is sensor_msgs/msg/CompressedImage", path, pose_topic="/camera/image_raw/compressed"
    )
    assert "--pose-topic" in message
    refused("no topic '/gps'", path, pose_topic="/gps")


def test_two_pose_topics_have_to_be_told_apart(tmp_path):
    topics = {"/cam": "sensor_msgs/msg/Image"}
    topics |= dict.fromkeys(("/odom", "/truth"), "geometry_msgs/msg/PoseStamped")
    with bag_of(tmp_path / "bag", topics) as put:
        put("/cam", 1, mono_image(1))
        put("/odom", 1, pose_stamped(1, "odom", (0, 0, 0)))
        put("/truth", 1, pose_stamped(1, "map", (0, 0, 0)))
    message = refused("several topics", tmp_path / "bag")
    assert "--pose-topic" in message
    with BagReader(tmp_path / "bag", pose_topic="/truth") as bag:
        assert set(bag.ground_truth()) == {"map"}
    with BagReader(tmp_path / "bag", pose_topic="none") as bag:
        assert bag.pose_topic is None
        assert bag.ground_truth() == {}


def test_damaged_pose_message_is_one_bag_error(tmp_path):
    topics = {"/cam": "sensor_msgs/msg/Image", "/truth": "geometry_msgs/msg/PoseStamped"}
    with bag_of(tmp_path / "bag", topics) as put:
        put("/cam", 1, mono_image(1))
        put("/truth", 1, b"\0\1\0\0short")
    with BagReader(tmp_path / "bag") as bag, pytest.raises(BagError, match="PoseStamped"):
        bag.ground_truth()


def test_storage_file_missing_from_its_folder_is_refused(frames, tmp_path):
    path = write_bag(tmp_path / "bag", frames)
    (path / "bag.mcap").unlink()
    refused("missing", path)


def test_existing_path_is_not_overwritten(frames, tmp_path):
    for kind in ("there.mcap", "there.bag", "there"):
        path = tmp_path / kind
        path.write_text("keep")
        with pytest.raises(BagError, match="exists already"):
            write_bag(path, frames)
        assert path.read_text() == "keep"


def test_failed_write_leaves_nothing_behind(frames, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    broken = Frame(bad, "bad.jpg", "kitchen", "test", frames[0].pose)
    missing = Frame(tmp_path / "gone.jpg", "gone.jpg", "kitchen", "test", frames[0].pose)
    out = tmp_path / "out"
    for frame, match in ((broken, "neither JPEG nor PNG"), (missing, "cannot be read")):
        for kind in KINDS:
            with pytest.raises(BagError, match=match):
                write([frames[0], frame], out / kind)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        write_bag(out / "raw.mcap", [broken], raw=True)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("options", [{"rate_hz": 0}, {"rate_hz": math.nan}, {"scene_gap_s": -1}])
def test_impossible_timing_is_refused(options, frames, tmp_path):
    with pytest.raises(BagError, match="must be above 0"):
        write_bag(tmp_path / "a.mcap", frames, **options)


def test_nothing_to_write_is_refused(frames, tmp_path):
    with pytest.raises(BagError, match="no frames"):
        write_bag(tmp_path / "a.mcap", [])
    with pytest.raises(BagError, match="two topics"):
        write_bag(tmp_path / "a.mcap", frames, image_topic="/a", pose_topic="/a")


def test_unwritable_place_is_one_bag_error(frames, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BagError, match="cannot be written"):
        write_bag(tmp_path / "file" / "a.mcap", frames)


def test_the_camera_goes_into_the_bag_and_comes_back(frames, tmp_path):
    plain = Intrinsics(40.0, 41.0, 15.0, 11.0, 32, 24)
    lens = replace(plain, distortion=(-0.2, 0.1, 0.001, 0.002))
    guessed = replace(plain, fx=99.0, assumed=True)
    cameras = [None, plain, plain, lens, lens, guessed]
    named = [replace(f, intrinsics=c) for f, c in zip(frames, cameras, strict=True)]
    for name in ("a.mcap", "a.bag"):
        write_bag(tmp_path / name, named)
        with BagReader(tmp_path / name) as bag:
            times = [image.log_time_ns for image in bag.images()]
            found = bag.cameras()
        # Once for each change; an assumed focal length is not handed on.
        assert [camera.log_time_ns for camera in found] == [times[1], times[3]]
        assert found[0].intrinsics == plain
        assert found[1].intrinsics.distortion[:4] == lens.distortion
        assert not any(found[1].intrinsics.distortion[4:])
        seen = [camera_at(found, time_ns).intrinsics for time_ns in times]
        assert seen[:3] == [plain] * 3  # before the first message, the first
        assert seen[3:] == [found[1].intrinsics] * 3


def test_a_bag_without_cameras_has_none(frames, tmp_path):
    with BagReader(write_bag(tmp_path / "a.mcap", frames)) as bag:
        assert bag.cameras() == []
    assert camera_at([], 5) is None


def test_a_damaged_camera_is_left_out(tmp_path):
    with bag_of(
        tmp_path / "bag",
        {"/cam/image": "sensor_msgs/msg/Image", "/cam/camera_info": "sensor_msgs/msg/CameraInfo"},
    ) as put:
        put("/cam/image", 2, mono_image(2))
        put("/cam/camera_info", 1, b"\0\1\0\0too short")
    with BagReader(tmp_path / "bag") as bag:
        assert bag.cameras() == []
