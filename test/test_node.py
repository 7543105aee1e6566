# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The localizer node in its own process, over DDS."""

import contextlib
import io
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from models import make_tiny_model
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from ros_tools import RosClient, compressed_image, raw_image
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Int32, String
from std_srvs.srv import Trigger

from mspn_ros.geometry import viewing_direction
from mspn_ros.images import RAW_ENCODINGS, decode_compressed
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.scene_filter import SceneFilter
from mspn_ros.node.messages import RawImage, decode_image, read_message, stamp_to_ns
from mspn_ros.node.parameters import PARAMETERS, parameter_table_markdown
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.worker import STAGES
from mspn_ros.records import ImageError

RAW, COMPRESSED, ROBOT = "/mspn", "/squeezed", "/robot1"


def picture(seed, height=48, width=64):
    """A coarse random picture, (H, W, 3) uint8 RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(PilImage.fromarray(coarse).resize((width, height)))


def jpeg(image):
    buffer = io.BytesIO()
    PilImage.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("node") / "a model")


@pytest.fixture(scope="module")
def localizer(model):
    return Localizer.load(model, "cpu")


@pytest.fixture(scope="module")
def context():
    with ros_tools.ros_context() as context:
        yield context


@pytest.fixture(scope="module")
def processes(model):
    """All nodes of this module, started side by side: importing torch takes seconds."""
    common = {"model": str(model), "device": "cpu", "diagnostics_period": 0.2}
    robot = {**common, "pose_axes": "body", "autostart": False, "scene": "lab"}
    with (
        LocalizerProcess(RAW, common) as raw,
        LocalizerProcess(
            COMPRESSED, {**common, "image_topic": "cam/compressed", "no_frames_timeout": 0.5}
        ) as compressed,
        LocalizerProcess(ROBOT, {**robot, "image_topic": "front/image"}) as robot1,
        LocalizerProcess("/lost", {"model": "/no/such model"}) as lost,
    ):
        yield {RAW: raw, COMPRESSED: compressed, ROBOT: robot1, "/lost": lost}


@pytest.fixture(scope="module")
def raw(context, processes):
    client = RosClient(context, RAW, "/camera/image_raw")
    client.wait_until_ready(processes[RAW])
    yield client
    client.close()


@pytest.fixture(scope="module")
def compressed(context, processes):
    client = RosClient(context, COMPRESSED, "/squeezed/cam/compressed", CompressedImage)
    client.wait_until_ready(processes[COMPRESSED])
    yield client
    client.close()


def assert_same_pose(record, estimate):
    assert record.scene_id == estimate.scene_id
    assert record.scene == estimate.scene
    assert record.confidence == pytest.approx(estimate.confidence, abs=1e-6)
    assert record.frame_id == estimate.frame_id
    np.testing.assert_allclose(record.pose.position, estimate.position, atol=1e-5)
    np.testing.assert_allclose(np.abs(record.pose.quaternion @ estimate.quaternion), 1.0, atol=1e-9)


def as_encoding(image, encoding):
    """The picture's pixels as a camera of that encoding would send them."""
    if encoding in ("rgb8", "bgr8"):
        return image if encoding == "rgb8" else image[..., ::-1]
    if encoding in ("rgba8", "bgra8"):
        opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
        return np.concatenate((as_encoding(image, encoding.replace("a", "")), opaque), 2)
    if encoding == "mono16":
        return image[..., 0].astype("<u2") * 257
    return image[..., :2] if encoding.startswith(("yuv", "uyv")) else image[..., 0]


@pytest.mark.parametrize(
    ("encoding", "padding"),
    [("rgb8", 0), ("bgr8", 13), ("mono8", 5), ("bgra8", 0), ("mono16", 2), ("bayer_rggb8", 0)],
)
def test_raw_frames_get_the_pose_of_the_localizer_in_process(raw, localizer, encoding, padding):
    message = raw_image(as_encoding(picture(7), encoding), encoding, padding)
    assert_same_pose(raw.ask(message), localizer.localize([decode_image(message)])[0])


def test_compressed_frames_get_the_pose_of_the_localizer_in_process(compressed, localizer):
    for seed in range(3):
        encoded = jpeg(picture(seed))
        record = compressed.ask(compressed_image(encoded))
        assert_same_pose(record, localizer.localize([decode_compressed(encoded)])[0])


def test_large_compressed_frames_get_the_pose_of_the_scaled_image(compressed, localizer):
    sent = [jpeg(picture(seed, 512, 640)) for seed in range(3)]
    full = localizer.localize([decode_compressed(encoded) for encoded in sent])
    for i, encoded in enumerate(sent):
        scaled = decode_compressed(encoded, least=localizer.least_size)
        assert scaled.shape == (256, 320, 3)
        record = compressed.ask(compressed_image(encoded))
        assert_same_pose(record, localizer.localize([scaled])[0])
        # How near to the full image's pose is told with trained weights, in test_demo.py.
        apart = [np.linalg.norm(record.pose.position - estimate.position) for estimate in full]
        assert np.argmin(apart) == i


def test_all_topics_of_the_interface_speak_of_the_same_frame(raw, localizer):
    heard = {}
    for message_type, topic in (
        (PoseWithCovarianceStamped, "pose_with_covariance"),
        (Int32, "scene_id"),
        (String, "scene"),
    ):
        raw.node.create_subscription(
            message_type, f"{RAW}/{topic}", lambda m, topic=topic: heard.update({topic: m}), 10
        )
    # New subscriptions are matched once a frame's outputs arrive on all of them.
    end_s = time.monotonic() + 10
    while len(heard) < 3 and time.monotonic() < end_s:
        record = raw.ask(raw_image(picture(1), "rgb8"))
        raw.collector.wait_for(lambda: len(heard) == 3, 0.5)
    estimate = localizer.localize([picture(1)])[0]
    assert heard["scene_id"].data == record.scene_id
    assert heard["scene"].data == record.scene
    message = heard["pose_with_covariance"]
    assert message.header.frame_id == record.frame_id
    assert message.pose.pose.position.x == record.pose.position[0]
    np.testing.assert_allclose(message.pose.covariance, estimate.covariance.ravel())
    assert (np.diag(message.pose.covariance.reshape(6, 6)) > 0).all()


def test_catalogue_is_latched_for_those_who_come_late(raw, localizer):
    scenes = raw.collector.catalogue
    keys = {"id", "uuid", "name", "frame_id", "frames", "bytes", "backbone_id"}
    assert [scene["name"] for scene in scenes] == ["hall", "lab"]
    assert all(set(scene) == keys for scene in scenes)
    assert {scene["backbone_id"] for scene in scenes} == {localizer.backbone_id}


def bad_raw_messages():
    truncated = raw_image(picture(0), "rgb8")
    truncated.data = truncated.data[:-64]
    wrong_step = raw_image(picture(0), "rgb8")
    wrong_step.step = 64
    mislabelled = raw_image(picture(0), "mono8")
    mislabelled.height = 4_000_000
    empty = raw_image(picture(0), "rgb8")
    empty.height = empty.width = empty.step = 0
    empty.data = b""
    unknown = raw_image(picture(0), "rainbow8")
    depth = raw_image(picture(0)[..., 0].astype("<f4"), "32FC1")
    return [
        (truncated, "malformed_raw_image", "truncated"),
        (wrong_step, "malformed_raw_image", "step 64"),
        (mislabelled, "malformed_raw_image", "4000000"),
        (empty, "empty_image", "empty"),
        (unknown, "unsupported_encoding", "rainbow8"),
        (depth, "unsupported_encoding", "32FC1"),
    ]


def test_bad_raw_images_are_answered_with_a_reason_and_counted(raw, processes, localizer):
    before = raw.diagnostics(lambda status: status["in_progress"] == "0")
    for message, cause, words in bad_raw_messages():
        record = raw.ask(message)
        assert (record.rejected, record.scene_id, record.scene) == (cause, -1, "unknown")
        assert words in record.reason
        assert "\n" not in record.reason
    good = raw_image(picture(3), "rgb8")
    assert_same_pose(raw.ask(good), localizer.localize([picture(3)])[0])
    after = raw.diagnostics(lambda status: status["in_progress"] == "0")
    grown = {
        key: int(after.get(key, 0)) - int(before.get(key, 0)) for key in after if "rejected" in key
    }
    assert {key: n for key, n in grown.items() if n} == {
        "rejected": 6,
        "rejected.malformed_raw_image": 3,
        "rejected.empty_image": 1,
        "rejected.unsupported_encoding": 2,
    }
    assert "Traceback" not in processes[RAW].output()


def test_bytes_that_are_no_message_do_not_end_the_node(raw, localizer):
    """A frame that DDS cannot deserialize made rclpy's executor raise, which ended the node."""
    header = b"\0\1\0\0" + bytes(8) + b"\1\0\0\0\0\0\0\0"
    forged_length = header + bytes(8) + b"\1\0\0\0\0\0\0\0" + bytes(8) + b"\xff" * 4
    rejected = int(raw.diagnostics(lambda status: status["in_progress"] == "0")["rejected"])
    for n, cdr in enumerate((b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 64, forged_length), 1):
        raw.publish_bytes(cdr)
        raw.diagnostics(lambda status, n=n: int(status["rejected"]) == rejected + n)
    record = raw.ask(raw_image(picture(4), "rgb8"))
    assert_same_pose(record, localizer.localize([picture(4)])[0])


def test_bad_compressed_images_are_answered_with_a_reason_and_counted(compressed, localizer):
    encoded = jpeg(picture(5))
    half = encoded[: len(encoded) // 2]
    for data in (half, b"\xff\xd8\xff" + bytes(200), b"no picture at all", b""):
        record = compressed.ask(compressed_image(data))
        assert record.rejected == "corrupt_compressed_image"
        assert record.reason
        assert "\n" not in record.reason
    record = compressed.ask(compressed_image(encoded))
    assert_same_pose(record, localizer.localize([decode_compressed(encoded)])[0])
    status = compressed.diagnostics(lambda status: status["in_progress"] == "0")
    assert int(status["rejected.corrupt_compressed_image"]) == 4


def test_overtaken_frames_are_counted_and_none_is_answered_twice(raw):
    before = raw.diagnostics(lambda status: status["in_progress"] == "0")
    # Quicker than the network and slower than DDS, which keeps the newest frame only: a node that
    # keeps up, or gets one frame of all, overtakes nothing.
    sent = raw.burst(raw_image(picture(6), "rgb8"), 400)
    after = raw.diagnostics(lambda s: s["in_progress"] == "0" and float(s["idle_s"]) > 0.3)
    grown = {
        key: int(after[key]) - int(before[key])
        for key in ("received", "answered", "overtaken", "rejected")
    }
    answered = sum(record.processed for record in raw.collector.records(sent))
    assert grown["answered"] == answered > 0
    assert grown["overtaken"] > 0
    assert grown["received"] == grown["answered"] + grown["overtaken"] + grown["rejected"]
    stamps = list(raw.collector._answers)
    assert all(len(raw.collector._answers[stamp]) == 1 for stamp in stamps if stamp > 0)


def test_diagnostics_report_what_the_interface_promises(raw):
    raw.ask(raw_image(picture(8), "rgb8"))
    status = raw.diagnostics()
    promised = {"rate_hz", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "overtaken"}
    promised |= {"scene", "device", "engine", "engine_reason", "bank_version", "received"}
    promised |= {f"{stage}_{p}_ms" for stage in (*STAGES, "ros_adds") for p in ("p50", "p95")}
    assert promised <= set(status)
    assert (status["state"], status["device"]) == ("active", "cpu")
    assert 0 < float(status["latency_p50_ms"]) <= float(status["latency_p99_ms"])


def test_a_model_without_use_for_camera_info_does_not_listen_to_it(raw):
    # Linear heads whose training camera nobody knows would only warn of cameras.
    raw.ask(raw_image(picture(9), "rgb8"))
    topics = [n for n, _ in raw.node.get_subscriber_names_and_types_by_node("localizer", RAW)]
    assert "/camera/image_raw" in topics
    assert "/camera/camera_info" not in topics
    said = raw.diagnostics()["camera_info"]
    assert said.startswith("field of view cannot be checked: the training frames' intrinsics are")


def test_diagnostics_warn_and_name_the_remedy_when_no_frames_come(context, compressed):
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    said = []
    compressed.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: said.extend(m.status), 10
    )

    def warned():
        return any(
            s.name == f"{COMPRESSED}/localizer"
            and s.level == DiagnosticStatus.WARN
            and "no frames for" in s.message
            and "FASTRTPS_DEFAULT_PROFILES_FILE" in s.message
            for s in said
        )

    assert compressed.collector.wait_for(warned, 5), said[-1:]


def test_parameters_have_descriptions_and_ranges_and_refuse_what_is_outside(raw, localizer):
    name = f"{RAW}/localizer"
    rows = {row.name: row for row in PARAMETERS}
    listed = raw.call(ListParameters, f"{name}/list_parameters", ListParameters.Request())
    assert set(rows) <= set(listed.result.names)
    request = DescribeParameters.Request(names=list(rows))
    described = raw.call(DescribeParameters, f"{name}/describe_parameters", request)
    for descriptor in described.descriptors:
        row = rows[descriptor.name]
        assert descriptor.description == row.description
        assert f"at run time: {row.at_run_time}" in descriptor.additional_constraints
        ranges = (descriptor.floating_point_range, descriptor.integer_range)
        whole = row.type_name == "integer"
        assert [len(one) for one in ranges] == [row.bounds is not None and not whole, whole]

    def set_parameter(key, value):
        request = SetParameters.Request(parameters=[Parameter(key, value=value).to_parameter_msg()])
        return raw.call(SetParameters, f"{name}/set_parameters", request).results[0]

    for key, value in (
        ("min_margin", -0.1),
        ("min_confidence", 1.5),
        ("min_confidence", float("nan")),
        ("scene", "attic"),
        ("allowed_scenes", ["hall", "attic"]),
        ("allowed_scenes", "hall"),
        ("use_sim_time", "yes"),
        ("max_rate", 30),
    ):
        assert not set_parameter(key, value).successful
    for key, value in (("scene", "attic"), ("allowed_scenes", ["attic"])):
        reason = set_parameter(key, value).reason
        assert reason == f"parameter {key}: 'attic' is not in the bank; it has hall, lab"
    fixed = [row for row in PARAMETERS if not row.changeable]
    request = SetParameters.Request(
        parameters=[Parameter(row.name, value=row.default).to_parameter_msg() for row in fixed]
    )
    results = raw.call(SetParameters, f"{name}/set_parameters", request).results
    for row, result in zip(fixed, results, strict=True):
        assert not result.successful
        assert f"parameter {row.name} cannot be changed while the node is active" in result.reason
        assert f"restart it with -p {row.name}:=" in result.reason
    assert set_parameter("min_confidence", 1.0).successful
    record = raw.ask(raw_image(picture(9), "rgb8"))
    assert (record.scene_id, record.rejected, record.pose) == (-1, None, None)
    assert "below 1.000" in record.reason
    assert set_parameter("min_confidence", -1.0).successful
    for scene in ("hall", "lab"):
        assert set_parameter("scene", scene).successful
        assert raw.ask(raw_image(picture(9), "rgb8")).scene == scene
    assert (
        "'lab' is none of allowed_scenes (hall)" in set_parameter("allowed_scenes", ["hall"]).reason
    )
    assert set_parameter("scene", "").successful
    for scene in ("hall", "lab"):
        assert set_parameter("allowed_scenes", [scene]).successful
        record = raw.ask(raw_image(picture(9), "rgb8"))
        assert_same_pose(record, localizer.localize([picture(9)], allowed=[scene])[0])
        assert record.scene == scene
    assert set_parameter("allowed_scenes", []).successful
    assert set_parameter("min_margin", 1.0).successful
    assert "look alike" in raw.ask(raw_image(picture(9), "rgb8")).reason
    assert set_parameter("min_margin", 0.0).successful
    scenes = SceneFilter(30.0)
    assert set_parameter("scene_filter", scenes.stay_s).successful
    for seed in (9, 9, 1, 9):
        record = raw.ask(raw_image(picture(seed), "rgb8"))
        prior = scenes.prior(record.stamp_ns / 1e9, 2)
        [estimate] = localizer.localize([picture(seed)], prior=prior)
        scenes.take(record.stamp_ns / 1e9, estimate.probabilities)
        assert_same_pose(record, estimate)
    assert set_parameter("scene_filter", 0.0).successful


def test_initialpose_is_sent_once_answers_agree_and_not_when_they_differ(raw, localizer):
    service, sent = f"{RAW}/localizer/publish_initialpose", []
    subscription = raw.node.create_subscription(
        PoseWithCovarianceStamped, "/initialpose", sent.append, 10
    )
    client = raw.node.create_client(Trigger, service)
    assert client.wait_for_service(10)

    def asked(seeds):
        """The response when these pictures come one after the other, and their stamps."""
        future, stamps_ns = client.call_async(Trigger.Request()), []
        # Answers count from the request on; nothing but time tells that it has arrived.
        time.sleep(0.3)
        for seed in seeds:
            stamps_ns.append(raw.ask(raw_image(picture(seed), "rgb8")).stamp_ns)
        assert raw.collector.wait_for(future.done, 10)
        return future.result(), stamps_ns

    def set_parameter(key, value):
        request = SetParameters.Request(parameters=[Parameter(key, value=value).to_parameter_msg()])
        name = f"{RAW}/localizer/set_parameters"
        assert raw.call(SetParameters, name, request).results[0].successful

    assert raw.collector.wait_for(lambda: raw.node.count_publishers("/initialpose") > 0, 10)
    response, stamps_ns = asked([3, 3, 3, 3, 3])
    assert response.success, response.message
    assert raw.collector.wait_for(lambda: sent, 10)
    [message] = sent
    estimate = localizer.localize([picture(3)])[0]
    assert message.header.frame_id == estimate.frame_id
    assert stamp_to_ns(message.header.stamp) == stamps_ns[2]
    position, turn = message.pose.pose.position, message.pose.pose.orientation
    np.testing.assert_allclose([position.x, position.y, position.z], estimate.position, atol=1e-5)
    body = ros_tools.rotation_matrix([turn.x, turn.y, turn.z, turn.w])
    # Of body axes, though the topic pose is of optical ones: AMCL reads a yaw.
    np.testing.assert_allclose(body[:, 0], viewing_direction(estimate.quaternion), atol=1e-6)
    np.testing.assert_allclose(message.pose.covariance, estimate.covariance.ravel(), atol=1e-9)
    for words in ("camera /camera/image_raw", "no mounting", "base_link", "5 answers agree"):
        assert words in response.message
    set_parameter("initialpose_timeout", 1.0)
    set_parameter("initialpose_max_distance", 0.01)
    try:
        response, _ = asked([1, 2, 3, 3])
    finally:
        set_parameter("initialpose_timeout", 10.0)
        set_parameter("initialpose_max_distance", 1.0)
    assert not response.success
    assert response.message.startswith("2 of 5 answers agreed; the last 4 ")
    assert len(sent) == 1
    raw.node.destroy_client(client)
    raw.node.destroy_subscription(subscription)


def test_reload_reads_the_bank_anew_and_keeps_the_old_one_when_it_is_broken(raw, model):
    reload = f"{RAW}/localizer/reload"
    response = raw.call(Trigger, reload, Trigger.Request())
    assert response.success
    assert "bank version 2" in response.message
    bank = model / "scenes.db"
    stored = bank.read_bytes()
    try:
        bank.write_bytes(b"no database")
        response = raw.call(Trigger, reload, Trigger.Request())
        assert not response.success
        assert "scenes.db" in response.message
    finally:
        bank.write_bytes(stored)
    sqlite3.connect(bank).close()
    assert raw.ask(raw_image(picture(2), "rgb8")).pose is not None


def test_shutdown_of_an_active_node_takes_its_topics_away(raw):
    """The last test of this node."""
    assert raw.change_state(f"{RAW}/localizer", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert raw.diagnostics()["state"] == "finalized"
    there = dict(raw.node.get_publisher_names_and_types_by_node("localizer", RAW))
    assert "/diagnostics" in there
    assert f"{RAW}/pose" not in there
    assert not raw._publisher.get_subscription_count()


def test_namespace_body_axes_and_forced_scene_then_sigterm_while_inactive(
    context, processes, localizer
):
    """autostart false: nothing is published until a manager configures and activates."""
    client = RosClient(context, ROBOT, "/robot1/front/image")
    try:
        assert client.diagnostics(timeout_s=60)["state"] == "unconfigured"
        for transition in ("configure", "activate"):
            assert client.change_state(f"{ROBOT}/localizer", transition)
        client.wait_until_ready(processes[ROBOT])
        record = client.ask(raw_image(picture(3), "rgb8"))
        estimate = localizer.localize([picture(3)], scene="lab")[0]
        assert record.scene == record.frame_id == "lab"
        np.testing.assert_allclose(record.pose.position, estimate.position, atol=1e-5)
        body = ros_tools.rotation_matrix(record.pose.quaternion)
        optical = ros_tools.rotation_matrix(estimate.quaternion)
        # x of the body is where the camera looks (z), y is its left (-x), z its up (-y).
        expected = np.column_stack((optical[:, 2], -optical[:, 0], -optical[:, 1]))
        np.testing.assert_allclose(body, expected, atol=1e-6)
        np.testing.assert_allclose(viewing_direction(estimate.quaternion), body[:, 0], atol=1e-6)
        # Of one frame alone the stages' medians add up to the latency's; all are rounded to 0.01.
        status = client.diagnostics(lambda status: status["answered"] == "1")
        ms = {stage: float(status[f"{stage}_p50_ms"]) for stage in STAGES}
        assert sum(ms.values()) == pytest.approx(float(status["latency_p50_ms"]), abs=0.03)
        rest = float(status["latency_p50_ms"]) - ms["localize"]
        assert float(status["ros_adds_p50_ms"]) == pytest.approx(rest, abs=0.02)
        assert client.change_state(f"{ROBOT}/localizer", "deactivate")
        assert client.diagnostics()["state"] == "inactive"
        end_by(processes[ROBOT], signal.SIGTERM)
    finally:
        client.close()


def mapped_segments(maps):
    """Names of the Fast DDS segments in the text of a /proc/PID/maps."""
    return set(re.findall(r"/dev/shm/(fast(?:rtps|dds)_[0-9a-f]{16})\b", maps))


def abandoned(segments):
    """Those of the segments that exist but that no process maps any more."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            segments = segments - mapped_segments(maps.read_text())
    return [name for name in segments if Path("/dev/shm", name).exists()]


def end_by(process, number):
    """End a node in under 2 s, without traceback, and with its shared memory given back."""
    assert process.process.poll() is None
    segments = mapped_segments(Path(f"/proc/{process.process.pid}/maps").read_text())
    tracebacks = process.output().count("Traceback")
    start_s = time.monotonic()
    assert process.stop(number) == 0, process.output()
    assert time.monotonic() - start_s < 2.0
    assert process.output().count("Traceback") == tracebacks
    assert not abandoned(segments)


def test_wrong_model_path_ends_the_process_with_one_line(processes):
    assert processes["/lost"].process.wait(60) == 1
    lines = [line for line in processes["/lost"].output().splitlines() if line.strip()]
    # Fast DDS itself complains where /dev/shm is as small as Docker makes it.
    lines = [line for line in lines if "RTPS_" not in line]
    assert len(lines) == 1, lines
    assert "/no/such model" in lines[0]


def test_sigint_while_frames_stream_ends_the_process_in_two_seconds(compressed, processes):
    """The last test of this node: an answer in progress must not turn into a traceback."""
    message = compressed_image(jpeg(picture(1, 480, 640)))
    stop = threading.Event()

    def stream():
        while not stop.wait(0.01):
            compressed.publish(message)

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        time.sleep(0.5)
        end_by(processes[COMPRESSED], signal.SIGINT)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("encoding", "bridge_encoding"),
    [
        (encoding, encoding)
        for encoding in RAW_ENCODINGS
        if encoding
        in (
            "rgb8",
            "bgr8",
            "rgba8",
            "bgra8",
            "mono8",
            "bayer_rggb8",
            "bayer_bggr8",
            "bayer_gbrg8",
        )
    ],
)
def test_decode_raw_agrees_with_cv_bridge(encoding, bridge_encoding):
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    message = raw_image(as_encoding(picture(1), encoding), encoding)
    expected = bridge.imgmsg_to_cv2(message, "rgb8")
    np.testing.assert_array_equal(decode_image(message), expected)


def same_reading(serialized):
    """Whether read_message and rclpy make the same of bytes; what read_message made, or None."""

    def outcome(read):
        try:
            message = read(serialized, Image)
        except Exception as error:
            return None, type(error)
        try:
            return message, decode_image(message)
        except ImageError as error:
            return message, str(error)

    (message, image), (plain, expected) = outcome(read_message), outcome(deserialize_message)
    assert isinstance(image, np.ndarray) == isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(image, expected)
    if message is not None:
        assert message.header == plain.header
    return message, isinstance(image, np.ndarray)


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
@pytest.mark.parametrize("padding", [0, 6])
def test_raw_messages_are_read_as_rclpy_reads_them_without_copying_pixels(encoding, padding):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 24), np.uint8)
    message = raw_image(pixels, encoding, padding)
    message.width, message.height = (2, 10) if "16" in encoding else (4, 10)
    message.header.frame_id = "ein Präfix/camera"
    message.header.stamp.sec, message.header.stamp.nanosec = -3, 999_999_999
    serialized = serialize_message(message)
    read, decoded = same_reading(serialized)
    assert decoded
    assert isinstance(read, RawImage)
    assert np.shares_memory(read.data, np.frombuffer(serialized, np.uint8))


def test_messages_that_are_not_read_in_place_are_rclpys():
    for message in (raw_image(picture(1)[..., 0], "8SC1"), compressed_image(b"x"), Image()):
        read = read_message(serialize_message(message), type(message))
        assert read == message


@pytest.mark.parametrize("encoding", ["rgb8", "mono16"])
def test_damaged_raw_messages_are_read_or_refused_as_rclpy_does(encoding):
    message = raw_image(picture(2, 6, 8), encoding)
    message.header.frame_id = "ein Präfix/camera"
    whole = serialize_message(message)
    rng = np.random.default_rng(0)
    outcomes = Counter()
    for i in range(1500):
        broken = bytearray(whole)
        for position in rng.integers(0, 60 if i % 3 else len(broken), rng.integers(0, 4)):
            broken[position] = rng.choice([0, 1, 255, rng.integers(0, 256)])
        length = len(broken) if i % 2 else rng.integers(0, len(broken))
        outcomes[same_reading(bytes(broken[:length]))[1]] += 1
    assert min(outcomes[True], outcomes[False]) > 10


def test_encodings_that_cv_bridge_does_not_convert_are_refused_with_a_remedy():
    message = raw_image(picture(1)[..., 0].astype("<f4"), "32FC1", padding=4)
    with pytest.raises(ImageError, match=r"32FC1.*publish one of rgb8"):
        decode_image(message)


@pytest.mark.parametrize("topic", ["bad topic", "/1cam", "", "/cam//raw", "cam/"])
def test_an_impossible_topic_is_refused_before_ros_sees_it(topic):
    row = next(row for row in PARAMETERS if row.name == "image_topic")
    assert re.fullmatch(row.pattern, topic) is None
    for good in ("/camera/image_raw", "image", "~/image", "a/b_c/d1"):
        assert re.fullmatch(row.pattern, good)


def test_parameter_table_lists_every_parameter_once():
    table = parameter_table_markdown()
    for row in PARAMETERS:
        assert table.count(f"| `{row.name}` |") == 1
        assert row.description in table
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
