# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn bench latency``, ``throughput`` and ``engines``: what they say, not how fast it is.

Speed itself is never asserted: machines are shared.
"""

import json
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from dataset_files import write_walk
from models import make_tiny_model

from mspn_ros import metrics
from mspn_ros.cli import main
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.evaluation.answers import scene_errors
from mspn_ros.evaluation.bench_engines import EngineResult, bench_engines
from mspn_ros.evaluation.bench_latency import LatencyResult
from mspn_ros.evaluation.bench_throughput import BatchResult, ThroughputResult, operations_of
from mspn_ros.evaluation.evaluate import evaluate
from mspn_ros.evaluation.timing import measure_in_turn
from mspn_ros.images import image_size
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.backbone import Backbone


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("bench") / "m", ("hall", "lab"))


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks")
    return [
        f"{name}={write_walk(folder / name, seed=seed, test=8)}"
        for seed, name in enumerate(("hall", "lab"))
    ]


def bench(capfd, kind, *words):
    code = main(["bench", kind, *map(str, words)])
    said = capfd.readouterr()
    return code, said.out, said.err


def test_latency_says_what_was_measured_on_what(model, tmp_path, capfd):
    file = tmp_path / "latency.json"
    words = ("--model", model, "--device", "cpu", "--rounds", 2, "--json", file)
    code, out, err = bench(capfd, "latency", *words, "--plot", tmp_path / "latency.png")
    assert code == 0, err
    assert image_size(tmp_path / "latency.png")[0] > 500
    result = json.loads(file.read_text())
    assert set(result) == {field.name for field in fields(LatencyResult)}
    assert (result["device"], result["engine"]) == ("cpu", "openvino_float32")
    assert (result["scenes"], result["rounds"]) == (2, 2)
    measured = result["times_ms"]
    assert {"network", "raw 640x480", "raw 1920x1080", "JPEG 640x480", "JPEG 1920x1080"} < set(
        measured
    )
    assert {"2 cameras, raw 640x480", "4 cameras, raw 640x480"} < set(measured)
    for name, times in measured.items():
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
        assert name in out
    assert result["network_ms"] == measured["network"]["p50"]
    assert result["frame_to_pose_ms"] == measured["raw 640x480"]["p50"]
    assert result["reference_ms"] == measured["plain raw 640x480"]["p50"]
    for key in ("speedup", "overhead", "network_speedup", "first_ms"):
        assert math.isfinite(result[key])
    assert result["machine"]["torch"] == torch.__version__.partition("+")[0]


def test_latency_makes_a_model_where_none_is_named(tmp_path, capfd):
    file = tmp_path / "latency.json"
    words = ("--device", "cpu", "--engine", "torch_float32", "--rounds", 1, "--json", file)
    code, out, err = bench(capfd, "latency", *words)
    assert code == 0, err
    assert "resnet34, 224 pixels" in out
    assert json.loads(file.read_text())["engine"] == "torch_float32"


def test_throughput_counts_operations_and_images(model, tmp_path, capfd):
    file = tmp_path / "throughput.json"
    words = ("--model", model, "--device", "cpu", "--batches", 3, 1, "--rounds", 1)
    code, _, err = bench(capfd, "throughput", *words, "--json", file)
    assert code == 0, err
    result = json.loads(file.read_text())
    assert set(result) == {field.name for field in fields(ThroughputResult)}
    assert [batch["batch"] for batch in result["batches"]] == [1, 3]
    for batch in result["batches"]:
        assert set(batch) == {field.name for field in fields(BatchResult)}
        share = batch["network_per_s"] * result["operations"] / result["matrix_per_s"]
        assert batch["share"] == pytest.approx(share)


def test_operations_are_those_of_the_layers(tmp_path):
    localizer = Localizer.load(make_tiny_model(tmp_path / "m"), "cpu", engine="torch_float32")
    counted = []

    def count(module, inputs, output):
        counted.append(2 * output.numel() * math.prod(module.weight.shape[1:]))

    network = Backbone(localizer.architecture).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert operations_of(localizer) == sum(counted)


def test_engines_are_compared_scene_by_scene(model, walks, tmp_path, capfd):
    file = tmp_path / "engines.json"
    words = ("--model", model, "--device", "cpu", "--data", *walks, "--json", file)
    code, out, err = bench(capfd, "engines", *words)
    assert code == 0, err
    results = json.loads(file.read_text())
    assert {result["engine"] for result in results} >= {"openvino_float32", "torch_bfloat16"}
    for result in results:
        assert set(result) == {field.name for field in fields(EngineResult)}
        assert result["frames"] == 8
        if result["engine"] == "openvino_float32":
            assert result["farthest_position"] < 1e-4
            assert result["within"] == (result["position_change"] is not None)
    assert "left out: torch_float16: engine 'torch_float16' runs on cuda" in err.replace("\n", " ")
    assert "openvino_float32, lab" in out


def test_what_engines_change_is_what_their_poses_say(model, walks):
    scenes = load_scene_set(walks)
    found, _ = bench_engines(model, "cpu", ["torch_bfloat16"], scenes, "test", lambda *_: None)
    # The random network takes all pictures for one of its scenes.
    [scene] = [result.scene for result in found if result.position_apart is not None]
    ours, plain = (
        [
            answer
            for answer in evaluate(
                Localizer.load(model, "cpu", engine=engine), scenes, min_confidence=0.0
            )[0]
            if answer.scene == scene
        ]
        for engine in ("torch_bfloat16", "torch_float32")
    )
    rows = {row.name: row for row in Localizer.load(model, "cpu").rows}
    same = [a.estimate.scene == b.estimate.scene for a, b in zip(ours, plain, strict=True)]
    apart = [
        np.linalg.norm(a.estimate.position - b.estimate.position)
        for a, b in zip(ours, plain, strict=True)
        if a.estimate.scene == b.estimate.scene
    ]
    expected = np.median(apart) / metrics.median_error(scene_errors(plain, rows).position)
    [result] = [result for result in found if result.scene == scene]
    assert result.position_apart == pytest.approx(expected)
    assert result.same_scene == np.mean(same)


def test_every_task_takes_its_turn():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = measure_in_turn(tasks, 4, lambda *_: None)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys("abc", 4)
    # Each is warmed up three times, then runs twice a round, and each begins a round in its turn.
    rounds = "".join(calls[9:])
    assert [rounds[i : i + 6] for i in range(0, 24, 6)] == ["aabbcc", "bbccaa", "ccaabb", "aabbcc"]


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("latency", ("--rounds", 0), "--rounds: 0 is not at least 1"),
        ("throughput", ("--batches", 0), "--batches are 1 to 1024"),
        ("throughput", ("--rounds", 0), "--rounds is at least 1"),
        ("latency", ("--engine", "torch_float16"), "runs on cuda, not on cpu"),
        ("latency", ("--model", "/nowhere"), "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(model, capfd, kind, words, message):
    code, _, err = bench(capfd, kind, "--model", model, "--device", "cpu", *words)
    assert code == 1
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err
