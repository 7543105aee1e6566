# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""CameraInfo: read as ROS means it, and it reaches the answers of a running node."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImage

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from dataset_files import write_walk
from lifecycle_msgs.msg import Transition
from models import make_dense_model, make_landmark_model
from rclpy.qos import QoSProfile
from ros_tools import RosClient, compressed_image
from sensor_msgs.msg import CameraInfo, CompressedImage, RegionOfInterest

from mspn_ros.datasets import read_scene
from mspn_ros.datasets.bag_writer import write_bag
from mspn_ros.datasets.bags import BagReader
from mspn_ros.datasets.camera_info import camera_info_topic, intrinsics_of
from mspn_ros.evaluation.replay import GroundTruth, replay_offline
from mspn_ros.images import decode_compressed, read_image
from mspn_ros.inference.localizer import Localizer
from mspn_ros.node.live import replay_live
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.records import Intrinsics

K = [500.0, 0.0, 320.5, 0.0, 510.0, 241.0, 0.0, 0.0, 1.0]
P = [450.0, 0.0, 319.5, 0.0, 0.0, 450.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
PLUMB = [-0.3, 0.1, 0.001, -0.002, 0.0]


def info(**fields):
    usual = {"width": 640, "height": 480, "distortion_model": "plumb_bob", "d": PLUMB}
    return CameraInfo(**{**usual, "k": K, "p": P, **fields})


@pytest.mark.parametrize(
    ("setting", "images", "expected"),
    [
        ("auto", "/camera/image_raw", "/camera/camera_info"),
        ("auto", "/camera/image_raw/compressed", "/camera/camera_info"),
        ("auto", "cam/image", "cam/camera_info"),
        ("auto", "image", "camera_info"),
        ("none", "/camera/image_raw", ""),
        ("/left/info", "/camera/image_raw", "/left/info"),
    ],
)
def test_the_topic_beside_the_images(setting, images, expected):
    assert camera_info_topic(setting, images) == expected


def test_raw_images_have_k_and_d_rectified_ones_p():
    plain = intrinsics_of(info(), rectified=False)
    assert plain == Intrinsics(500.0, 510.0, 320.5, 241.0, 640, 480, tuple(PLUMB))
    rectified = intrinsics_of(info(), rectified=True)
    assert rectified == Intrinsics(450.0, 450.0, 319.5, 239.5, 640, 480)


def test_region_and_binning_are_those_of_the_images():
    region = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=300)
    camera = intrinsics_of(info(roi=region, binning_x=2, binning_y=2), rectified=False)
    assert (camera.width, camera.height) == (200, 150)
    assert (camera.fx, camera.fy) == (250.0, 255.0)
    # A point at full resolution, and where it lies in the region's binned image.
    u, v = 320.5 + 500 * 0.2, 241.0 + 510 * 0.1
    expected = ((u - 100 + 0.5) / 2 - 0.5, (v - 40 + 0.5) / 2 - 0.5)
    assert camera.cx + camera.fx * 0.2 == pytest.approx(expected[0])
    assert camera.cy + camera.fy * 0.1 == pytest.approx(expected[1])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"distortion_model": "equidistant", "d": [0.1, 0.0, 0.0, 0.0]}, "'equidistant'"),
        ({"k": [500.0, 0, float("nan"), 0, 500, 0, 0, 0, 1]}, "impossible"),
        ({"width": 0}, "impossible"),
    ],
)
def test_unusable_cameras_are_refused_with_a_reason(fields, reason):
    with pytest.raises(ValueError, match=reason):
        intrinsics_of(info(**fields), rectified=False)


def test_a_fisheye_that_was_rectified_is_a_pinhole():
    message = info(distortion_model="equidistant", d=[0.1, 0.0, 0.0, 0.0])
    assert intrinsics_of(message, rectified=True).distortion == ()


def test_a_running_node_answers_by_the_camera_that_the_driver_names(tmp_path):
    model = make_dense_model(tmp_path / "model")
    localizer = Localizer.load(model, "cpu")
    # A JPEG so large that it is decoded to a half; the camera is that of the image as sent.
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    buffer = io.BytesIO()
    PilImage.fromarray(picture).save(buffer, "JPEG")
    encoded = buffer.getvalue()
    image = decode_compressed(encoded, least=localizer.least_size)
    assert image.shape == (240, 320, 3)
    topic = "/camera/image_raw/compressed"
    parameters = {"model": str(model), "device": "cpu", "diagnostics_period": 0.2}
    parameters["image_topic"] = topic
    near = info(k=[580.0, 0, 319.5, 0, 580, 239.5, 0, 0, 1])
    # Only the middle of a wide camera's image is seen, as the training camera would have seen it;
    # for that, all pixels are needed.
    wide = info(k=[320.0, 0, 319.5, 0, 320, 239.5, 0, 0, 1], d=[])
    middle = decode_compressed(encoded)[112:368, 150:491]
    taken_by = Intrinsics(320.0, 320.0, 169.5, 127.5, 341, 256)
    with (
        ros_tools.ros_context() as context,
        LocalizerProcess("/dense", {**parameters, "scene": "hall"}) as process,
    ):
        client = RosClient(context, "/dense", topic, CompressedImage)
        cameras = client.node.create_publisher(
            CameraInfo, "/camera/camera_info", QoSProfile(depth=1)
        )
        client.wait_until_ready(process)

        def answers_like(camera, image=image):
            record = client.ask(compressed_image(encoded))
            (expected,) = localizer.localize([image], "hall", cameras=[camera])
            turned = abs(record.pose.quaternion @ expected.quaternion)
            return turned == pytest.approx(1, abs=1e-9)

        assert answers_like(None)
        assert "the camera's intrinsics are not known" in client.diagnostics()["camera_info"]
        cameras.publish(near)
        named = intrinsics_of(near, rectified=False)
        client.collector.wait_for(lambda: answers_like(named), 10)
        assert answers_like(named)
        assert not answers_like(None)
        assert "focal length 580.0 px" in client.diagnostics()["camera_info"]
        # Another camera in its place: with the next frame.
        cameras.publish(wide)
        client.collector.wait_for(lambda: answers_like(taken_by, middle), 10)
        assert answers_like(taken_by, middle)
        said = client.diagnostics()["camera_info"]
        assert "90 deg wide, trained with 56 deg: cropped by 1.88" in said
        assert "90 deg wide, trained with 56 deg: cropped by 1.88" in process.output()
        # A camera that cannot be this one is not used, and the node says so.
        cameras.publish(info(width=480, height=640))
        client.collector.wait_for(lambda: answers_like(None), 10)
        assert answers_like(None)
        assert "the images are of 320x240 as decoded" in _warning(client)
        assert client.change_state("/dense/localizer", "deactivate")
        # From inactive; from the other states in test_node.py and test_lifecycle.py.
        shutdown = Transition.TRANSITION_INACTIVE_SHUTDOWN
        assert client.change_state("/dense/localizer", shutdown)
        assert client.diagnostics()["state"] == "finalized"
        client.close()


@pytest.mark.parametrize("make_model", [make_dense_model, make_landmark_model])
def test_replay_reads_the_camera_from_the_bag_offline_and_live(tmp_path, make_model):
    model = make_model(tmp_path / "model")
    localizer = Localizer.load(model, "cpu")
    scene = read_scene(write_walk(tmp_path / "walk", train=2, test=6, size=(160, 120)), "hall")
    camera = Intrinsics(90.0, 90.0, 79.5, 59.5, 160, 120)
    frames = [replace(frame, intrinsics=camera) for frame in scene.split("test")]
    path = write_bag(tmp_path / "walk.mcap", frames)
    with BagReader(path) as bag:
        offline, _ = replay_offline(bag, localizer, GroundTruth({}))
    for frame, answer in zip(frames, offline, strict=True):
        image = read_image(frame.image_path)
        (named,) = localizer.localize([image], cameras=[camera])
        (unnamed,) = localizer.localize([image])
        np.testing.assert_array_equal(answer.estimate.quaternion, named.quaternion)
        assert np.abs(named.quaternion - unnamed.quaternion).max() > 1e-4
    live = replay_live(path, model, device="cpu", namespace="/replayed")
    assert live.answered == 6
    for record, answer in zip(live.records, offline, strict=True):
        turned = abs(record.pose.quaternion @ answer.estimate.quaternion)
        assert turned == pytest.approx(1, abs=1e-9)


def _warning(client):
    said = []
    from diagnostic_msgs.msg import DiagnosticArray

    client.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: said.extend(s.message for s in m.status), 10
    )
    client.collector.wait_for(lambda: any("camera_info" in text for text in said), 10)
    return said[-1]
