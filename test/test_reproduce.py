# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's experiments, whole, on three tiny scenes.

What is run, what is run only once, and what is printed beside the paper's numbers.
"""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from dataset_files import write_walk
from PIL import Image
from safetensors.torch import save_file

from mspn_ros.cli import main
from mspn_ros.datasets.scene_set import load_scene_set
from mspn_ros.evaluation import new_scenes
from mspn_ros.evaluation.paper.published import Cell, published
from mspn_ros.evaluation.paper.runs import Experiment, Run
from mspn_ros.evaluation.paper.settings import AS_PAPER, AS_PRESET, PAPER_SETTINGS
from mspn_ros.evaluation.paper.tables import mean_cell, ratio
from mspn_ros.network.backbone import Backbone
from mspn_ros.paths import config_file
from mspn_ros.training.config import load_config
from mspn_ros.training.methods import method_file

# One bears a name of the paper's, so that its cells stand beside ours.
SCENES = ("fire", "hall", "lab")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """``mspn reproduce`` on three scenes by a tiny network; (arguments, output folder)."""
    root = tmp_path_factory.mktemp("paper")
    scenes = {}
    for seed, name in enumerate(SCENES):
        scenes[name] = str(write_walk(root / name, train=8, test=3, seed=seed))
    (root / "scenes.yaml").write_text(yaml.safe_dump({"scenes": scenes}))
    settings = {
        "architecture": {"backbone": "mobilenet_v3_small", "resize": 72, "crop": 64},
        "weights": "none",
        "cache": str(root / "cache"),
        "batch_size": 6,
        "epochs": 3,
        "optimizer": {"schedule": "cosine"},
        "validation": {"fraction": 0.0},
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--data", str(root / "scenes.yaml"), "--preset", str(root / "tiny.yaml")]
    return [*arguments, "--epochs", "2", "--output", str(root / "out")], root / "out"


@pytest.fixture(scope="module")
def done(command):
    """All of it once; the JSON that the command wrote."""
    arguments, output = command
    wanted = ["table1", "table4", "table5", "table7", "figure2", "figure3"]
    assert main(["reproduce", *wanted, *arguments]) == 0
    return json.loads((output / "reproduce.json").read_text())


def runs(output):
    return sorted(path.parent.name for path in output.glob("*/result.json"))


def test_every_table_has_all_its_cells(done):
    ours = {name: done[name]["ours"] for name in done if name.startswith("table")}
    compared = ["posenet_single", "mapnet_single", "naive_multiple", "mspn_oracle"]
    assert list(ours["table1"]) == compared
    for row in ours["table1"].values():
        assert set(row) == set(SCENES)
        assert all(math.isfinite(c["position"]) and c["rotation_deg"] >= 0 for c in row.values())
    for name in SCENES:
        assert set(ours["table4"][f"without_{name}"]) == set(SCENES) - {name}
    assert ours["table4"]["all_scenes"] == ours["table1"]["mspn_oracle"]
    assert set(ours["table5"]) == {"imagenet_init_1_epoch", "mspn_init_1_epoch"}
    assert ours["table7"]["mspn_oracle"] == ours["table1"]["mspn_oracle"]
    assert all(0 <= c["accuracy"] <= 1 for c in ours["table7"]["mspn_end_to_end"].values())
    assert "2 epochs (preset: 3)" in done["table1"]["note"]


def test_figures_share_the_runs_of_the_tables(done, command):
    _, output = command
    for name in SCENES:
        for start in ("mspn", "imagenet"):
            curve = done["figure2"][name][start]
            assert len(curve) == 2
            first = done["table5"]["ours"][f"{start}_init_1_epoch"][name]
            assert curve[0] == [first["position"], first["rotation_deg"]]
    assert set(done["figure3"]) == {"single scene", "one dataset"}
    for name in ("figure2.png", "figure3.png"):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 300
    names = runs(output)
    # Four joint networks of the comparison and detection, three without a scene ...
    assert sum(name.split("-")[1] == "many" for name in names) == 3
    assert sum(name.startswith("mspn_oracle") and "+" in name for name in names) == 3
    # ... nine of one scene, six transfers.
    assert len(names) == 3 + 3 + 9 + 6


def end_to_end(output):
    """The result of the preset's own run; another test leaves one with another rate beside it."""
    for path in output.glob("mspn-many*/result.json"):
        if json.loads(path.read_text())["config"]["optimizer"]["head_lr"] != 0.01:
            return path
    raise AssertionError(f"no run in {output}")


def test_a_finished_run_is_not_done_again_and_another_setting_is_another_run(done, command, capsys):
    arguments, output = command
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/result.json")}
    assert main(["reproduce", "table7", "figure2", *arguments]) == 0
    assert {p: p.stat().st_mtime_ns for p in output.glob("*/result.json")} == before
    assert "training" not in capsys.readouterr().err
    assert main(["reproduce", "table7", *arguments, "--set", "optimizer.head_lr=0.01"]) == 0
    assert len(runs(output)) == len(before) + 2
    assert "training mspn_oracle-many-seed0" in capsys.readouterr().err


def test_the_papers_numbers_stand_beside_ours(done, command, capsys):
    arguments, output = command
    assert main(["reproduce", "table1", "table7", *arguments]) == 0
    printed = capsys.readouterr().out
    # No cell is cut off, whatever the terminal's width.
    assert "…" not in printed
    text = (output / "reproduce.md").read_text()
    assert "| mspn oracle, paper | 0.29 / 10.5 | - | - |" in text
    # Fire is in our scene set: its cells are in our table too; the whole table follows.
    assert "mspn oracle, paper" in printed
    assert "table1 in the paper" in printed
    assert "84.7 %" in printed
    assert "geometric means over scenes" in printed
    assert done["table1"]["paper"]["mspn_oracle"]["fire"] == {
        "position": 0.29,
        "rotation_deg": 10.5,
        "accuracy": None,
    }


def test_a_damaged_result_is_named(done, command, capsys):
    arguments, output = command
    path = end_to_end(output)
    whole = path.read_text()
    try:
        path.write_text(whole[:100])
        assert main(["reproduce", "table7", *arguments]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert str(path) in error
        assert "delete its folder" in error
    finally:
        path.write_text(whole)


@pytest.mark.parametrize(
    "setting", ["loss.scene_weight=0.5", "sampling.tuple_frames=1", "seed=7", "device=cpu"]
)
def test_settings_that_would_change_a_method_are_refused(command, setting, capsys):
    # Two columns of a table would be the same network, or a seed be ignored, without a word.
    arguments, _ = command
    assert main(["reproduce", "table1", *arguments, "--set", setting]) == 1
    assert f"--set {setting}: every run sets this for itself" in capsys.readouterr().err


def test_a_preset_that_teaches_no_classifier_is_refused(command, tmp_path, capsys):
    # Table 7 would have nothing to name scenes with, and say so only after its runs.
    arguments, _ = command
    preset = yaml.safe_load(Path(arguments[3]).read_text()) | {"loss": {"scene_weight": 0}}
    (tmp_path / "mute.yaml").write_text(yaml.safe_dump(preset))
    asked = [*arguments[:2], "--preset", str(tmp_path / "mute.yaml"), *arguments[4:]]
    assert main(["reproduce", "table7", *asked]) == 1
    assert "loss.scene_weight is 0" in capsys.readouterr().err


def test_a_scene_without_test_frames_is_told_before_anything_is_trained(command, tmp_path, capsys):
    arguments, output = command
    write_walk(tmp_path / "hall", train=8, test=1)
    (tmp_path / "hall" / "TestSplit.txt").unlink()
    before = runs(output)
    asked = ["--data", str(tmp_path / "hall"), *arguments[2:]]
    assert main(["reproduce", "table1", *asked]) == 1
    assert "no frames in split 'test'" in capsys.readouterr().err
    assert runs(output) == before


def test_changed_images_and_changed_weights_make_other_runs(command, done):
    arguments, output = command
    preset = load_config(Path(arguments[3]))
    scenes = {scene.name: scene for scene in load_scene_set([arguments[1]])}
    experiment = Experiment(scenes, output, Path(arguments[3]), epochs=2)
    run = Run("mspn", SCENES)
    first = experiment.digest(run)
    assert (experiment.folder(run) / "result.json").is_file()
    path = scenes["lab"].split("test")[0].image_path
    content = path.read_bytes()
    try:
        Image.new("RGB", (96, 72)).save(path)
        assert experiment.digest(run) != first
    finally:
        path.write_bytes(content)
    assert experiment.digest(run) == first
    weights = output / "weights.safetensors"
    digests = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(Backbone(preset.architecture).network.state_dict(), weights)
        given = replace(experiment, settings=(f"weights={weights}",))
        digests.append(given.digest(run))
    assert len({first, *digests}) == 3


def test_a_run_made_by_other_defaults_is_not_taken_for_this_one(command, done, capsys):
    arguments, output = command
    path = end_to_end(output)
    whole = path.read_text()
    result = json.loads(whole)
    result["config"]["augment"]["crop"] = "center"
    try:
        path.write_text(json.dumps(result))
        assert main(["reproduce", "table7", *arguments]) == 1
        assert "made by other defaults of augment" in capsys.readouterr().err
        # A setting that did not exist then had its default.
        result["config"]["augment"] = {}
        path.write_text(json.dumps(result))
        assert main(["reproduce", "table7", *arguments]) == 0
    finally:
        path.write_text(whole)


def test_too_few_scenes_to_leave_one_out(command, capsys, tmp_path):
    arguments, _ = command
    write_walk(tmp_path / "only", train=8, test=3)
    arguments = ["--data", str(tmp_path / "only"), *arguments[2:]]
    assert main(["reproduce", "table5", *arguments]) == 1
    assert "1 scenes are too few to leave one out" in capsys.readouterr().err


def test_all_settings_turned_back_are_the_papers_recipe():
    default, paper = (config_file(f"{name}.yaml") for name in ("default", "paper"))
    every = [setting for group in PAPER_SETTINGS.values() for setting in group]
    # Not of the recipe: how long, in which precision, and what is held out.
    same = ["epochs=100", "precision=float32", "validation.fraction=0"]
    mspn = method_file("mspn")
    assert load_config(default, [*every, *same], mspn) == load_config(paper, (), mspn)
    # None is there in vain.
    for group in PAPER_SETTINGS.values():
        assert load_config(default, group, mspn) != load_config(default, (), mspn)


def test_the_settings_are_judged_on_held_out_blocks_and_on_test(command, tmp_path):
    arguments, _ = command
    write_walk(tmp_path / "hall", train=20, test=3)
    asked = ["--data", str(tmp_path / "hall"), *arguments[2:4], "--epochs", "1"]
    held = ["--set", "validation.fraction=0.2", "validation.blocks=1", "validation.gap=2"]
    output = ["--output", str(tmp_path / "out")]
    assert main(["reproduce", "settings", *asked, *held, *output]) == 0
    result = json.loads((tmp_path / "out" / "reproduce.json").read_text())["settings"]
    for part in ("held_out", "test"):
        assert list(result[part]["ours"]) == [AS_PRESET, *PAPER_SETTINGS, AS_PAPER]
        assert all("hall" in row for row in result[part]["ours"].values())
    # The tiny preset jitters no colours as it is; its batches are of 6.
    ours = result["held_out"]["ours"]
    assert ours["no colour jitter"] == ours[AS_PRESET] != ours["batches of 64"]


def test_the_papers_tables_are_carried_whole():
    # Means that the literature quotes for MSPN: 0.20 m / 8.41 deg on 7Scenes with the oracle.
    cells = published(1)["mspn_oracle"].values()
    assert sum(c.position for c in cells) / 7 == pytest.approx(0.20, abs=0.005)
    assert sum(c.rotation_deg for c in cells) / 7 == pytest.approx(8.41, abs=0.01)
    assert published(8)["mspn_end_to_end"]["Street"] == Cell(25.04, 53.25, 0.6743)
    assert "Street" not in published(2)["mapnet_single"]
    assert {number: len(published(number)) for number in range(1, 9)} == {
        1: 4, 2: 4, 3: 6, 4: 7, 5: 2, 6: 2, 7: 2, 8: 2
    }  # fmt: skip


def test_ratios_are_geometric_means_over_shared_scenes():
    cells = {
        "a": {"x": Cell(2.0, 10.0), "y": Cell(8.0, 10.0), "z": Cell(1.0, 1.0)},
        "b": {"x": Cell(1.0, 20.0), "y": Cell(1.0, 20.0)},
        "without_x": {"y": Cell(4.0, 5.0)},
        "without_y": {"x": Cell(1.0, 20.0)},
    }
    assert ratio(cells, "a", "b") == pytest.approx((4.0, 0.5))
    assert ratio(cells, "without_*", "a") == pytest.approx((0.5, 1.0))
    assert ratio(cells, "a", "nobody") is None
    assert mean_cell([Cell(1.0, 2.0, 0.5), Cell(3.0, 4.0, 1.0)]) == Cell(2.0, 3.0, 0.75)


def test_each_scene_is_added_to_a_model_of_the_others_and_once_only(
    command, tmp_path, capsys, monkeypatch
):
    arguments, _ = command
    asked = ["reproduce", "new-scenes", *arguments[:-1], str(tmp_path / "out")]
    assert main(asked) == 0
    found = json.loads((tmp_path / "out" / "reproduce.json").read_text())["new-scenes"]
    ways = ("joint", "linear", "adapter", "full")
    assert [(e["scene"], e["way"]) for e in found] == [(s, w) for s in SCENES for w in ways]
    for entry in found:
        assert entry["median_position"] > 0
        if entry["way"] in ("linear", "adapter"):
            # Bit for bit: nothing of the others may change.
            assert entry["others_moved"] == 0
            assert entry["restored"] is True
            assert 0 < entry["bytes"] < 65_536
        if entry["way"] == "full":
            assert entry["others_moved"] > 0
    assert (tmp_path / "out" / "new_scenes_seed0.png").is_file()
    assert "| fire | adapter |" in (tmp_path / "out" / "reproduce.md").read_text()
    capsys.readouterr()
    assert main(asked) == 0
    assert "adding" not in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "reproduce.json").read_text())["new-scenes"] == found
    # Other defaults than those that a result was made by make another result.
    usual = new_scenes.NewSceneConfig
    monkeypatch.setattr(new_scenes, "NewSceneConfig", partial(usual, views=1000))
    assert main(asked) == 0
    assert "adding fire: linear" in capsys.readouterr().err
