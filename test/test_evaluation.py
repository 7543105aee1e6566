# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation and offline replay: one definition of every number, equal on equal bytes."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from models import make_tiny_model
from scipy.spatial.transform import Rotation

from mspn_ros import metrics
from mspn_ros.cli import build_parser, main
from mspn_ros.datasets.bag_writer import write_bag
from mspn_ros.datasets.bags import BagReader
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.evaluation.answers import Answer, make_table, write_trajectories
from mspn_ros.evaluation.baselines import baseline_answers
from mspn_ros.evaluation.evaluate import evaluate, evaluation_frames
from mspn_ros.evaluation.replay import ground_truth, replay_offline
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.backbone import Architecture
from mspn_ros.records import BagError, Pose, PoseEstimate

SCENES = ("hall", "lab")


def write_scene(folder, seed, frames=12):
    """A 7Scenes folder of coloured pictures with poses on a line; every other frame is test."""
    rng = np.random.default_rng(seed)
    for number, (sequence, split) in enumerate((("seq-01", "Train"), ("seq-02", "Test")), 1):
        (folder / sequence).mkdir(parents=True)
        (folder / f"{split}Split.txt").write_text(f"sequence{number}\n")
        for i in range(frames):
            picture = cv2.resize(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), (160, 120))
            stem = folder / sequence / f"frame-{i:06d}"
            cv2.imwrite(f"{stem}.color.jpg", picture)
            pose = np.eye(4)
            pose[:3, :3] = Rotation.from_euler("y", 10 * i + number, degrees=True).as_matrix()
            pose[:3, 3] = (0.1 * i, 0.01 * number, seed)
            np.savetxt(f"{stem}.pose.txt", pose)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    for seed, scene in enumerate(SCENES):
        write_scene(folder / scene, seed)
    make_tiny_model(folder / "model", SCENES)
    return folder


@pytest.fixture(scope="module")
def scenes(place):
    return load_scene_set([f"{scene}={place / scene}" for scene in SCENES])


@pytest.fixture(scope="module")
def localizer(place):
    return Localizer.load(place / "model", "cpu")


def test_evaluate_equals_offline_replay_on_the_same_jpeg_bytes(place, scenes, localizer):
    evaluated, bad = evaluate(localizer, scenes)
    assert not bad
    path = write_bag(place / "walk", evaluation_frames(scenes, "test"))
    with BagReader(path) as bag:
        truth = ground_truth(bag, localizer.rows, None)
        replayed, counts = replay_offline(bag, localizer, truth)
    assert counts == {"rejected": 0}
    assert len(evaluated) == len(replayed) == 24
    for one, other in zip(evaluated, replayed, strict=True):
        assert (one.scene, one.estimate.scene) == (other.scene, other.estimate.scene)
        np.testing.assert_allclose(one.pose.position, other.pose.position, atol=1e-12)
        # Replay goes one by one, evaluation in batches: float32 sums in another order.
        np.testing.assert_allclose(one.estimate.position, other.estimate.position, atol=1e-4)
        np.testing.assert_allclose(one.estimate.quaternion, other.estimate.quaternion, atol=1e-5)


def test_the_oracle_names_every_scene_right(scenes, localizer):
    answers, _ = evaluate(localizer, scenes, oracle=True)
    table = make_table(answers, localizer.rows, "m", oracle=True)
    assert [score.scene_accuracy for score in table.scores] == [1.0, 1.0]


def answer(scene, named, position, true=(0.0, 0.0, 0.0), frame_id=""):
    estimate = PoseEstimate(1, named, 0.9, frame_id or named, np.array(position), UNIT)
    return Answer("f", scene, 0.0, Pose(np.array(true), UNIT), estimate)


UNIT = np.array([0.0, 0.0, 0.0, 1.0])


def test_a_wrong_scene_is_an_infinite_error_unless_raw_numbers_are_asked_for(localizer):
    answers = [answer("hall", "lab", (0.0, 0.0, 1.0)), answer("hall", "lab", (0.0, 0.0, 2.0))]
    strict = make_table(answers, localizer.rows, "m")
    assert strict.scores[0].median_position == float("inf")
    assert strict.to_json()["scenes"]["hall"]["median_position"] is None
    paper = make_table(answers, localizer.rows, "m", paper=True)
    assert paper.scores[0].median_position == pytest.approx(1.5)


def test_the_table_by_hand(localizer):
    answers = [answer("hall", "hall", (0.1 * i, 0.0, 0.0)) for i in range(1, 4)]
    nothing = PoseEstimate(-1, "unknown", 0.0)
    answers.append(Answer("f", "hall", 0.0, Pose(np.zeros(3), UNIT), nothing))
    (score,) = make_table(answers, localizer.rows, "m").scores
    assert (score.frames, score.answered, score.scene_accuracy) == (4, 3, 0.75)
    assert score.median_position == pytest.approx(0.25)
    # Extent of the tiny model's rows: the diagonal of a cube of side 2.
    assert score.percent_of_extent == pytest.approx(25 / np.sqrt(12))
    assert score.recall["0.25/2"] == 0.5


def test_trajectories_hold_equal_stamps_for_evo(tmp_path, scenes, localizer):
    answers, _ = evaluate(localizer, scenes, oracle=True)
    write_trajectories(answers, tmp_path)
    for scene in SCENES:
        estimated = np.loadtxt(tmp_path / f"{scene}_estimated.tum")
        true = np.loadtxt(tmp_path / f"{scene}_true.tum")
        assert estimated.shape == true.shape == (12, 8)
        np.testing.assert_array_equal(estimated[:, 0], true[:, 0])
        assert (np.diff(true[:, 0]) > 0).all()


def test_baselines_are_what_they_say(scenes):
    found = baseline_answers(
        scenes, "test", Architecture("mobilenet_v3_small", resize=72, crop=64), "none"
    )
    hall = [a for a in found["mean"] if a.scene == "hall"]
    train = np.array([f.pose.position for f in scenes[0].split("train")])
    np.testing.assert_allclose(hall[0].estimate.position, train.mean(0))
    for a in found["nearest"]:
        # The test line runs beside the training line, 1 cm and 1 degree away.
        assert metrics.position_error(a.estimate.position, a.pose.position) == pytest.approx(0.01)
        assert metrics.rotation_error_deg(
            a.estimate.quaternion, a.pose.quaternion
        ) == pytest.approx(1.0, abs=1e-6)
    same = baseline_answers(
        scenes, "train", Architecture("mobilenet_v3_small", resize=72, crop=64), "none"
    )
    for a in same["retrieval"]:
        # Asked for its own training frames, retrieval must find each itself.
        np.testing.assert_allclose(a.estimate.position, a.pose.position)


def test_baselines_stand_beside_the_model(place, tmp_path, capsys):
    data = [f"{scene}={place / scene}" for scene in SCENES]
    arguments = ["--model", str(place / "model"), "--device", "cpu", "--output", str(tmp_path)]
    weights = "mobilenet_v3_small=none"
    assert main(["evaluate", "--data", *data, *arguments, "--oracle", "--baselines", weights]) == 0
    printed = capsys.readouterr().out
    for title in ("this model", "mean training pose", "perfect retrieval", "retrieval", "ridge"):
        assert title in printed
    result = json.loads((tmp_path / "result.json").read_text())
    hall = result["baselines"]["nearest"]["scenes"]["hall"]
    assert f"{hall['median_position']:.3f} / {hall['median_rotation_deg']:.1f}" in printed
    ratios = [
        result["scenes"][s]["median_position"]
        / result["baselines"]["mean"]["scenes"][s]["median_position"]
        for s in SCENES
    ]
    mean = float(np.exp(np.log(ratios).mean()))
    row = next(line for line in printed.splitlines() if "mean training pose" in line)
    assert f"{mean:.2f} /" in row


def test_baselines_need_training_frames(place, tmp_path, capsys):
    shutil.copytree(place / "hall", tmp_path / "hall")
    (tmp_path / "hall/TrainSplit.txt").write_text("")
    arguments = ["--model", str(place / "model"), "--data", f"hall={tmp_path / 'hall'}"]
    out = ["--output", str(tmp_path / "out"), "--baselines"]
    assert main(["evaluate", *arguments, *out]) == 1
    assert "no training frames in" in capsys.readouterr().err


def test_ground_truth_in_a_foreign_frame_asks_for_the_scene(place, scenes, localizer):
    frames = load_scene_set([f"cellar={place / 'hall'}"])[0].split("test")
    path = write_bag(place / "foreign.mcap", frames)
    with BagReader(path) as bag:
        with pytest.raises(BagError, match=r"'cellar', which is no scene's.*Pass --scene"):
            ground_truth(bag, localizer.rows, None)
        truth = ground_truth(bag, localizer.rows, "hall")
    assert list(truth.trajectories) == ["hall"]


def test_commands_write_what_scripts_rely_on(place, tmp_path):
    data = [f"{scene}={place / scene}" for scene in SCENES]
    model, out = str(place / "model"), tmp_path / "out"
    arguments = ["--model", model, "--device", "cpu", "--output", str(out)]
    asked = tmp_path / "elsewhere" / "e.json"
    assert main(["evaluate", "--data", *data, *arguments, "--json", str(asked)]) == 0
    bag = str(tmp_path / "walk.mcap")
    assert main(["dataset", "to-bag", "--data", *data, "--out", bag]) == 0
    assert main(["replay", bag, *arguments, "--json", str(tmp_path / "r.json")]) == 0
    evaluated = json.loads(asked.read_text())
    replayed = json.loads((tmp_path / "r.json").read_text())
    for result in (evaluated, replayed):
        assert {"model", "oracle", "scenes", "mean", "latency_ms", "dropped"} <= result.keys()
        assert set(result["scenes"]) == set(SCENES)
        keys = {"frames", "answered", "unit", "median_position", "percent_of_extent"}
        keys |= {"median_rotation_deg", "scene_accuracy", "recall"}
        assert set(result["scenes"]["hall"]) == keys
    for scene in SCENES:
        one, other = evaluated["scenes"][scene], replayed["scenes"][scene]
        assert one["scene_accuracy"] == other["scene_accuracy"]
        assert one["median_position"] == pytest.approx(other["median_position"], abs=1e-4)
    assert {"p50", "p95", "p99"} == replayed["latency_ms"].keys()
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 2
    assert "http:" not in report
    assert "https:" not in report
    listing = tmp_path / "l.json"
    assert main(["scenes", "list", "--model", model, "--json", str(listing)]) == 0
    keys = {"id", "uuid", "name", "frame_id", "frames", "bytes", "backbone_id"}
    assert all(keys <= scene.keys() for scene in json.loads(listing.read_text()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--model", "nowhere", "--data", "x"], "nowhere: no such model directory"),
        (["evaluate", "--model", "MODEL", "--data", "hall=nowhere"], "nowhere"),
        (["evaluate", "--model", "MODEL", "--data", "EMPTY"], "empty"),
        (["evaluate", "--model", "MODEL", "--data", "cellar=HALL"], "'cellar' is not in the mod"),
        (["evaluate", "--model", "MODEL", "--data", "hall=HALL", "--split", "dev"], "'dev'"),
        (["replay", "nowhere.mcap", "--model", "MODEL"], "nowhere.mcap"),
        (["replay", "BAG", "--model", "MODEL", "--image-topic", "/cam"], "'/cam'"),
        (["replay", "EMPTY", "--model", "MODEL"], "empty"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such configuration"),
        (["train", "default"], "names no scenes"),
        (["train", "default", "--scenes", "hall=HALL", "--set", "epochs"], "key=value"),
        (["train", "default", "--scenes", "hall=nowhere"], "nowhere"),
        (["inspect", "EMPTY"], "empty"),
        (["inspect", "HALL", "--format", "vr"], "'vr'"),
        (["dataset", "to-bag", "--data", "hall=HALL", "--out", "x", "--rate", "0"], "--rate"),
        (["scenes", "list", "--model", "EMPTY"], "no scene bank"),
        (["inspect", "HALL", "--output", "/proc/nope"], "/proc/nope: cannot be made"),
        (["fly"], "invalid choice: 'fly'"),
        (["evaluate"], "required: --model, --data"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(place, tmp_path, capfd, arguments, message):
    (tmp_path / "empty").mkdir()
    bag = place / "bad_input.mcap"
    if not bag.exists():
        write_bag(bag, load_scene_set([f"hall={place / 'hall'}"])[0].split("test"))
    places = {"MODEL": place / "model", "HALL": place / "hall", "BAG": bag}
    places["EMPTY"] = tmp_path / "empty"
    words = [
        word.replace(key, str(path)) if key in word else word
        for word in arguments
        for key, path in [next(((k, p) for k, p in places.items() if k in word), ("\0", ""))]
    ]
    assert main(words) == 1
    error = capfd.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("mspn: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in error


def test_the_command_ends_with_exit_code_1_in_its_own_process():
    command = [sys.executable, "-m", "mspn_ros", "scenes", "list", "--model", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "mspn: nowhere/scenes.db: no scene bank; make one with 'mspn train'\n"


def test_settings_given_apart_count_together():
    # The second --set once took the place of the first, without a word.
    given = ["train", "default", "--set", "seed=3", "epochs=2", "--set", "batch_size=8"]
    assert build_parser().parse_args(given).set == ["seed=3", "epochs=2", "batch_size=8"]
    assert build_parser().parse_args(["train", "default"]).set == []
