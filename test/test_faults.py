# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node does when the machine fails it: no disk, no memory, no network.

A bank that is replaced is in test_reload.py, a disk that is full while a model is written in
test_crash_safety.py, a camera that is killed in test_soak.py.
"""

import io
import json
import os
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
from ros_tools import RosClient, Statuses, compressed_image
from sensor_msgs.msg import CompressedImage

from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.transport import process_environment
from mspn_ros.paths import PACKAGE

HERE = Path(__file__).parent
NODE = "/faulty"
ENGINE = "torch_bfloat16"
# It refuses to make folders, whoever asks.
NOWHERE = "/proc/none"
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
    with subprocess.Popen(
        ["unshare", "-rn", sys.executable, str(HERE / "loopback_down.py"), str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**process_environment(profile=False), **BY_NETWORK},
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def no_memory(tmp_path_factory):
    """As long as this file exists, the engine's memory is short, see failing_node.py."""
    return tmp_path_factory.mktemp("engine") / "no memory"


@pytest.fixture(scope="module")
def node(model, no_memory, tmp_path_factory):
    """A localizer whose limits are changed, and whose engine may fail; its log is a file's."""
    parameters = {"model": str(model), "device": "cpu", "engine": ENGINE}
    parameters |= {"transport": "compressed", "image_topic": f"{NODE}/camera/compressed"}
    parameters |= {"diagnostics_period": 0.2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("log")))
        patch.setenv("FAILING_WHILE", str(no_memory))
        patch.setenv("FAILING_ENGINE", ENGINE)
        patch.setenv("PYTHONPATH", os.pathsep.join((str(PACKAGE.parent), str(HERE))))
        process = LocalizerProcess(NODE, parameters, module="failing_node")
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


def test_an_engine_without_memory_is_reported_replaced_and_brought_back(client, no_memory):
    statuses = Statuses(client)
    assert client.ask(SMALL).rejected is None
    no_memory.touch()
    # Three in a row make it suspect.
    for _ in range(3):
        record = client.ask(SMALL)
        assert record.rejected == "inference_error"
        assert "can't allocate memory" in record.reason
    said = statuses.wait_for(f"{NODE}/localizer", "stands in")
    assert f"{ENGINE} on cpu failed (RuntimeError" in said
    assert "torch_float32 on cpu stands in" in said
    assert client.ask(SMALL).rejected is None
    assert client.diagnostics()["engine"] == "torch_float32"
    no_memory.unlink()
    client.diagnostics(lambda status: status["engine"] == ENGINE, 60)
    assert client.ask(SMALL).rejected is None


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


def test_a_log_directory_that_cannot_be_written_to_is_said_and_done_without():
    code = (
        "import rclpy\n"
        "from mspn_ros.node.main import _init_ros\n"
        "_init_ros(['--ros-args', '-r', '__ns:=/quiet'])\n"
        "print(rclpy.create_node('node').get_fully_qualified_name())\n"
        "rclpy.shutdown()\n"
    )
    environment = {**os.environ, "ROS_LOG_DIR": NOWHERE, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["/quiet/node"], done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip() and "RTPS_" not in line]
    assert len(lines) == 1, lines
    assert f"no log file, since {NOWHERE} cannot be written to" in lines[0]
    assert "set ROS_LOG_DIR" in lines[0]
