# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Live replay: a real bag over DDS into a real node, started or found running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from models import make_tiny_model

from mspn_ros.datasets.bag_messages import BagImage
from mspn_ros.datasets.bag_writer import write_bag
from mspn_ros.datasets.bags import BagReader
from mspn_ros.inference.localizer import Localizer
from mspn_ros.node import live
from mspn_ros.node.live import replay_live
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.transport import PROFILE_VARIABLES, loopback_environment
from mspn_ros.paths import PACKAGE
from mspn_ros.records import Frame, ModelError, Pose, RosError

FRAMES = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("live") / "model")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """A bag of JPEGs at 10 Hz, one of them cut off."""
    folder = tmp_path_factory.mktemp("bag")
    generator = np.random.default_rng(3)
    frames = []
    for i in range(FRAMES):
        path = folder / f"{i:03d}.jpg"
        coarse = generator.integers(0, 256, (6, 8, 3), np.uint8)
        PilImage.fromarray(coarse).resize((160, 120)).save(path)
        if i == 5:
            path.write_bytes(path.read_bytes()[:600])
        pose = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
        frames.append(Frame(path, path.name, "hall", "test", pose))
    return write_bag(folder / "walk", frames)


def assert_complete(result, bag, model):
    """Every frame accounted for, and every pose the one that the same bytes give offline."""
    assert result.published == FRAMES
    assert result.received + result.lost == result.published
    assert result.received == result.answered + result.overtaken + sum(result.rejected.values())
    assert result.lost == 0
    assert result.answered == FRAMES - 1
    assert result.rejected == {"corrupt_compressed_image": 1}
    localizer = Localizer.load(model, "cpu")
    with BagReader(bag) as reader:
        images = list(reader.images())
    assert [record.stamp_ns for record in result.records] == [i.stamp_ns for i in images]
    for i, (record, image) in enumerate(zip(result.records, images, strict=True)):
        assert record.processed
        assert 0 < record.latency_s < 5
        if i == 5:
            assert (record.rejected, record.pose) == ("corrupt_compressed_image", None)
            continue
        estimate = localizer.localize([image.decode()])[0]
        assert (record.scene, record.frame_id) == (estimate.scene, estimate.frame_id)
        np.testing.assert_allclose(record.pose.position, estimate.position, atol=1e-5)
        np.testing.assert_allclose(record.pose.quaternion, estimate.quaternion, atol=1e-6)
        assert record.latency_s <= record.pose_latency_s + 0.1
    times = [record.published_s for record in result.records]
    np.testing.assert_allclose(np.diff(times), 0.1, atol=0.08)


def test_replay_starts_a_localizer_and_ends_it(bag, model):
    done = []
    result = replay_live(
        bag, model, namespace="own", device="cpu", progress=lambda *step: done.append(step)
    )
    assert result.started
    assert done == [(i + 1, FRAMES) for i in range(FRAMES)]
    assert result.image_topic == "/camera/image_raw/compressed"
    assert_complete(result, bag, model)


def test_replay_uses_the_localizer_that_runs_and_checks_its_backbone(bag, model, tmp_path):
    options = {"model": str(model), "device": "cpu", "image_topic": "/elsewhere/compressed"}
    with LocalizerProcess("/shared", options) as process, ros_tools.ros_context() as context:
        client = ros_tools.RosClient(context, "/unused", "/unused/image")
        up = lambda: ("localizer", "/shared") in client.node.get_node_names_and_namespaces()  # noqa: E731
        assert client.collector.wait_for(up, 60)
        client.close()
        result = replay_live(bag, model, namespace="/shared")
        assert not result.started
        assert result.image_topic == "/elsewhere/compressed"
        assert_complete(result, bag, model)
        other = make_tiny_model(tmp_path / "other", seed=1)
        with pytest.raises(RosError, match="serves backbone"):
            replay_live(bag, other, namespace="/shared")
        assert process.process.poll() is None
        assert process.stop(signal.SIGINT) == 0


def test_replay_with_a_wrong_model_path_says_so_in_one_line(bag, tmp_path):
    with pytest.raises(ModelError, match="no such model directory") as caught:
        replay_live(bag, tmp_path / "nothing", namespace="/nothing")
    assert "\n" not in str(caught.value)


def test_loopback_environment_leaves_alone_what_the_user_has_set(monkeypatch):
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_BUILTIN_TRANSPORTS", *PROFILE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    assert set(loopback_environment()) == {
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        *PROFILE_VARIABLES,
    }
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/my/profile.xml")
    assert loopback_environment() == {}


@pytest.mark.parametrize(("flag", "order"), [(1, "little"), (0, "big")])
def test_an_image_without_a_stamp_gets_one_and_others_keep_theirs(flag, order):
    """Answers are told apart by stamps: with zeros all frames but one would count as lost."""
    empty = bytes([0, flag, 0, 0]) + bytes(8) + b"rest"
    stamped = live._with_stamp(BagImage(7_000_000_009, 0, live.COMPRESSED_IMAGE, empty, ""))
    assert (
        stamped
        == bytes([0, flag, 0, 0]) + (7).to_bytes(4, order) + (9).to_bytes(4, order) + b"rest"
    )
    assert live._with_stamp(BagImage(5, 0, live.COMPRESSED_IMAGE, stamped, "")) == stamped


def test_without_ros_the_remedy_is_one_line():
    blocked = (
        "import sys; sys.modules['rclpy'] = None\n"
        "from mspn_ros.node import require_ros\n"
        "from mspn_ros.records import RosError\n"
        "try:\n    require_ros()\n"
        "except RosError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run(
        [sys.executable, "-c", blocked], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.count("\n") == 1
    assert 'pip install "mspn_ros[ros]"' in run.stdout


def test_sigterm_during_a_live_replay_ends_its_node_too(model, tmp_path):
    """Python ends on SIGTERM without any "finally": the node would go on alone for ever."""
    picture = tmp_path / "p.jpg"
    PilImage.new("RGB", (160, 120), (200, 40, 90)).save(picture)
    pose = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    frames = [Frame(picture, f"{i}", "hall", "test", pose) for i in range(600)]
    path = write_bag(tmp_path / "long", frames)
    command = [sys.executable, "-m", "mspn_ros", "replay", str(path), "--model", str(model)]
    command += ["--live", "--namespace", "ended", "--output", str(tmp_path / "out")]
    replay = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{replay.pid}/task/{replay.pid}/children")
    deadline = time.monotonic() + 60
    while not (started := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert started
    time.sleep(3)
    replay.send_signal(signal.SIGTERM)
    assert replay.wait(30) == 128 + signal.SIGTERM
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def test_replay_refuses_a_running_node_with_other_axes(model, bag):
    options = {"model": str(model), "image_topic": "turned", "transport": "compressed"}
    with (
        LocalizerProcess("/turned", {**options, "pose_axes": "body", "device": "cpu"}) as process,
        ros_tools.ros_context() as context,
    ):
        client = ros_tools.RosClient(context, "/unused", "/unused/image")
        up = lambda: ("localizer", "/turned") in client.node.get_node_names_and_namespaces()  # noqa: E731
        assert client.collector.wait_for(up, 60)
        client.close()
        with pytest.raises(RosError, match="restart it with pose_axes:=optical"):
            replay_live(bag, model, namespace="/turned")
        assert process.process.poll() is None
