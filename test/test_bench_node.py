# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn bench node``: a real node and a real camera process under real loads."""

import json
import os
import tempfile
from dataclasses import fields
from itertools import product

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools  # noqa: F401  first: a DDS domain of the tests' own
from models import make_tiny_model
from rclpy.serialization import deserialize_message

from mspn_ros.cli import main
from mspn_ros.evaluation.bench_frames import camera_frames, write_random_model
from mspn_ros.evaluation.node_loads import OVERLOAD, NodeResult
from mspn_ros.inference.localizer import Localizer
from mspn_ros.node.bench_camera import MESSAGE_TYPES, CameraProcess
from mspn_ros.node.bench_node import serialized
from mspn_ros.node.messages import decode_image
from mspn_ros.node.transport import PROFILE_VARIABLES, process_environment
from mspn_ros.records import RosError


def run_bench(capfd, *words):
    code = main(["bench", "node", "--device", "cpu", *map(str, words)])
    said = capfd.readouterr()
    return code, said.out, said.err


def test_every_frame_of_every_load_is_accounted_for(tmp_path, capfd, monkeypatch):
    model = make_tiny_model(tmp_path / "model")
    folder, file = tmp_path / "temporary", tmp_path / "result.json"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    words = ("--rates", "max", 20, "--sizes", "160x120", "--seconds", 0.8, "--json", file)
    words += ("--cameras", 2)
    words += ("--profiles", "camera")
    words += ("--engine", "torch_float32")  # not what a node on its own would take everywhere
    code, out, err = run_bench(capfd, "--model", model, *words)
    assert code == 0, err
    results = json.loads(file.read_text())
    # max comes last, whatever its place: it is made from what the others find.
    loads = list(product(("raw", "compressed"), ("camera",), ("20", "max")))
    assert [tuple(map(one.get, ("transport", "profile", "rate"))) for one in results] == loads
    for result in results:
        assert set(result) == {field.name for field in fields(NodeResult)}
        assert_sound(result)
        name = f"2 x {result['transport']} 160x120, {result['rate']}, profile: camera"
        assert name in " ".join(out.split())
    for steady, most in (results[:2], results[2:]):
        assert steady["asked_hz"] == 2 * 20
        assert most["asked_hz"] >= OVERLOAD * steady["answered_hz"]
    assert not list(folder.iterdir())


def assert_sound(result):
    assert result["published"] == result["received"] + result["lost"]
    handled = result["answered"] + result["overtaken"] + result["rejected"]
    assert result["received"] == handled
    assert result["rejected"] == 0
    assert list(result["by_camera"]) == ["camera0", "camera1"]
    for fate in ("published", "received", "answered", "overtaken", "rejected", "lost"):
        assert result[fate] == sum(fates[fate] for fates in result["by_camera"].values())
    assert all(fates["answered"] for fates in result["by_camera"].values())
    # The node is told to answer each frame with a pose.
    assert 0 < result["poses"] <= result["answered"]
    # A late camera does not make up for frames, so it can only publish fewer; one is rounding.
    assert result["published"] <= result["asked_hz"] * result["seconds"] + 4
    assert 0 < result["answered_hz"] <= result["offered_hz"]
    assert (result["device"], result["engine"], result["cameras"]) == ("cpu", "torch_float32", 2)
    latency, age = result["latency_ms"], result["age_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert age["p50"] <= age["p95"] <= age["p99"]
    # No frame spends more on a stage than on all, nor is its pose here before it was localized;
    # then nor do percentiles. They are rounded to 0.01.
    for stage in ("waiting", "decode", "localize", "publish", "ros_adds"):
        times = result[f"{stage}_ms"]
        assert 0 <= times["p50"] <= times["p95"]
        assert all(times[p] <= latency[p] + 0.02 for p in times)
    for p in ("p50", "p95"):
        assert age[p] >= result["localize_ms"][p] - 0.02
        for name, times in (("age_ratio", age), ("latency_ratio", latency)):
            ratio = times[p] / result["localize_ms"]["p50"]
            assert result[name][p] == pytest.approx(ratio)
    assert min(result["memory_start_mb"], result["memory_end_mb"]) > 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rates", "0"), "--rates: '0' is not 1 to 1000, nor max"),
        (("--rates", "30", "nan"), "--rates: 'nan'"),
        (("--rates", "quick"), "--rates: 'quick'"),
        (("--sizes", "640"), "--sizes: '640' is not a width and a height, as in 640x480"),
        (("--sizes", "640x480", "9000x9"), "--sizes: a side of 9000x9 is not 16 to 4096"),
        (("--cameras", "17"), "--cameras: 17 is not 1 to 16"),
        (("--profiles", "me"), "--profiles: 'me' is not one of none, camera, node, both"),
        (("--transports", "avi"), "--transports: 'avi' is not one of raw, compressed"),
        (("--seconds", "0"), "--seconds: 0 is not 0.5 to 3600"),
        (("--seconds", "nan"), "--seconds: nan"),
        (("--engine", "steam"), "--engine: invalid choice: 'steam'"),
        (("--model", "/no/such/model", "--transports", "raw"), "/no/such/model"),
    ],
)
def test_bad_arguments_are_one_line(capfd, words, message):
    code, out, err = run_bench(capfd, *words)
    assert (code, out) == (1, "")
    lines = [line for line in err.splitlines() if line.strip() and "RTPS_" not in line]
    assert len(lines) == 1, lines
    assert message in lines[0]


@pytest.mark.parametrize(("transport", "off"), [("raw", 0.0), ("compressed", 6.0)])
def test_messages_hold_different_images_as_a_camera_gives_them(transport, off):
    frames = camera_frames(320, 200)
    assert len(frames) == 8
    sizes = []
    for frame in frames:
        assert frame.shape == (200, 320, 3)
        assert frame.std() > 10
        cdr = serialized(frame, transport)
        sizes.append(len(cdr))
        decoded = decode_image(deserialize_message(cdr, MESSAGE_TYPES[transport]))
        assert np.abs(decoded.astype(float) - frame).mean() <= off
    assert len({frame.tobytes() for frame in frames}) == 8
    if transport == "compressed":
        # About a quarter of a byte a pixel is what a camera's JPEGs need.
        assert 0.1 < np.mean(sizes) / (320 * 200) < 0.8


def test_a_process_without_the_profile_takes_no_transports_from_this_one(monkeypatch):
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    with_it, without = process_environment(True), process_environment(False)
    assert with_it == dict(os.environ)
    assert any("fastdds.xml" in value for value in with_it.values())
    left_out = with_it.keys() - without.keys()
    assert left_out == {*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"}


def test_the_model_made_for_the_bench_answers_with_a_pose(tmp_path):
    localizer = Localizer.load(write_random_model(tmp_path, "mobilenet_v3_small"), "cpu")
    estimates = localizer.localize(camera_frames(64, 48, 3), min_confidence=0.0)
    assert [estimate.scene for estimate in estimates] == ["scene_000001"] * 3
    assert all(estimate.known for estimate in estimates)


def test_a_camera_that_nobody_can_hear_says_so_in_one_line(tmp_path):
    (tmp_path / "0.cdr").write_bytes(serialized(camera_frames(16, 16, 1)[0], "raw"))
    said = "nobody subscribed to /nobody/listens within 0.5 s"
    with CameraProcess("/nobody/listens", "raw", tmp_path) as camera:
        camera.begin(10, 1, match_s=0.5)
        with pytest.raises(RosError, match=said) as caught:
            camera.played()
    assert "\n" not in str(caught.value)
