# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node does when the machine fails it: no disk, no memory, no network."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from models import make_tiny_model
from ros_tools import RosClient, compressed_image
from sensor_msgs.msg import CompressedImage

from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.transport import process_environment

NODE = "/faulty"
_MIB = 2**20


def png(height, width):
    buffer = io.BytesIO()
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[::2] = 200
    PilImage.fromarray(pixels).save(buffer, "PNG")
    return compressed_image(buffer.getvalue(), "png")


SMALL = png(48, 64)
# A few kB as it comes, 48 MB decoded: malloc maps such a block anew each time.
LARGE = png(4000, 4000)


# See loopback_down.py.
BY_NETWORK = {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}


def can_unshare():
    """Whether a network namespace can be made here, with a working ip."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    words = ["unshare", "-rn", "ip", "link", "set", "lo", "up"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


needs_prlimit = pytest.mark.skipif(
    shutil.which("prlimit") is None, reason="prlimit (util-linux) is not installed"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("faults") / "model")


@pytest.fixture(scope="module", autouse=True)
def cut_off(model):
    """Of loopback_down.py, which starts now, beside the other node; None where it cannot run."""
    if not can_unshare():
        yield None
        return
    script = Path(__file__).with_name("loopback_down.py")
    with subprocess.Popen(
        ["unshare", "-rn", sys.executable, str(script), str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**process_environment(profile=False), **BY_NETWORK},
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def node(model, tmp_path_factory):
    """A localizer whose limits are changed; its log is a file's."""
    parameters = {"model": str(model), "device": "cpu", "engine": "torch_float32"}
    parameters |= {"transport": "compressed", "image_topic": f"{NODE}/camera/compressed"}
    parameters |= {"diagnostics_period": 0.2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("log")))
        process = LocalizerProcess(NODE, parameters)
    with process:
        yield process


@pytest.fixture(scope="module")
def client(node):
    with ros_tools.ros_context() as context:
        client = RosClient(context, NODE, f"{NODE}/camera/compressed", CompressedImage)
        client.wait_until_ready(node)
        yield client
        client.close()


def limit(node, what, soft):
    """The hard limit stays, so that it can be taken back."""
    words = ["prlimit", "--pid", str(node.process.pid), f"--{what}={soft}:"]
    subprocess.run(words, check=True)


@needs_prlimit
def test_a_node_that_cannot_write_its_log_goes_on_and_writes_again(client, node):
    expected = client.ask(SMALL)
    written = len(node.output())
    # As on a full disk, each write into a file fails, the console's log among them.
    limit(node, "fsize", 0)
    junk = client.ask(compressed_image(b"junk"))
    assert junk.rejected == "corrupt_compressed_image"
    found = client.ask(SMALL)
    assert (found.scene, found.confidence) == (expected.scene, expected.confidence)
    assert len(node.output()) == written
    limit(node, "fsize", "unlimited")
    client.publish_bytes(b"\x00\x01\x00\x00")
    assert client.collector.wait_for(lambda: "malformed_message" in node.output(), 10)
    assert client.ask(SMALL).scene == expected.scene


@needs_prlimit
def test_an_image_that_there_is_no_memory_for_is_rejected_and_answered_when_there_is(client, node):
    expected = client.ask(LARGE)
    assert expected.rejected is None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    [size_kb] = [line.split()[1] for line in status.splitlines() if line.startswith("VmSize")]
    # Some room for what is small.
    limit(node, "as", int(size_kb) * 1024 + 16 * _MIB)
    for _ in range(3):
        record = client.ask(LARGE)
        assert (record.rejected, record.pose) == ("out_of_memory", None)
        assert "no memory is left to decode it" in record.reason
        assert client.ask(SMALL).rejected is None
    limit(node, "as", "unlimited")
    found = client.ask(LARGE)
    assert (found.rejected, found.scene) == (None, expected.scene)
    assert not node.ended


def test_a_network_that_goes_down_costs_the_frames_sent_meanwhile_and_no_more(cut_off):
    if cut_off is None:
        pytest.skip("no network namespace can be made here (unshare -rn, ip)")
    out, err = cut_off.communicate(timeout=120)
    assert cut_off.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["before"]
    assert found["after"]
    # Best-effort images are not kept: none comes late.
    assert found["down"] == [False] * 10
    assert "no frames for" in found["said"]
