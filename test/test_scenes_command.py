# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""mspn scenes: a bank is looked into, changed and sent on; what does not fit is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from models import make_landmark_model, make_row, make_tiny_model

from mspn_ros.cli import main
from mspn_ros.inference.confusion import confusion
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.mspn import MSPN
from mspn_ros.store.backbone_file import load_backbone
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.store.scene_file import read_scene_file, write_scene_file


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("scenes") / "model")


@pytest.fixture
def model(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "model")


def run(capsys, *arguments) -> tuple[int, str]:
    code = main(["scenes", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def names(model) -> list[str]:
    with SceneBank(model) as bank:
        return [row.name for row in bank.rows()]


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)


def new_row(model, name: str):
    backbone, identity, _ = load_backbone(model)
    return make_row(MSPN(backbone.architecture, 1), 0, name, identity)


def test_remove_leaves_the_others_as_they_were(model, capsys):
    before = Localizer.load(model, "cpu").localize([image(0)], "lab")[0]
    code, said = run(capsys, "remove", "hall", "--model", model)
    assert code == 0, said
    assert names(model) == ["lab"]
    after = Localizer.load(model, "cpu").localize([image(0)], "lab")[0]
    np.testing.assert_array_equal(after.position, before.position)
    code, said = run(capsys, "remove", "hall", "--model", model)
    assert code == 1
    assert "no scene 'hall'; it has lab" in said


def test_a_damaged_row_can_be_removed_and_is_listed(model, capsys):
    import sqlite3

    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("UPDATE scenes SET frames = 7 WHERE name = 'hall'")
    code, said = run(capsys, "list", "--model", model)
    assert code == 0
    assert "row 1 is damaged" in said
    assert run(capsys, "rename", "hall", "foyer", "--model", model)[0] == 1
    assert run(capsys, "remove", "hall", "--model", model)[0] == 0
    assert names(model) == ["lab"]


def test_rename_takes_the_frame_along(model, capsys):
    code, said = run(capsys, "rename", "hall", "foyer", "--model", model)
    assert code == 0, said
    answer = Localizer.load(model, "cpu").localize([image(1)], "foyer")[0]
    assert (answer.scene, answer.frame_id, answer.scene_id) == ("foyer", "foyer", 1)
    code, said = run(capsys, "rename", "foyer", "lab", "--model", model)
    assert code == 1
    assert "'lab'" in said
    assert "is there already" in said
    code, said = run(capsys, "rename", "foyer", "two\nlines", "--model", model)
    assert code == 1
    assert "printable characters" in said
    assert names(model) == ["foyer", "lab"]


def test_an_exported_scene_answers_alike_where_it_is_imported(model, tmp_path, capsys):
    file = tmp_path / "lab.safetensors"
    assert run(capsys, "export", "lab", "--model", model, "--out", file)[0] == 0
    other = shutil.copytree(model, tmp_path / "other")
    assert run(capsys, "remove", "lab", "--model", other)[0] == 0
    code, said = run(capsys, "import", file, "--model", other, "--name", "cellar")
    assert code == 0, said
    assert "cellar: scene 3 of" in said  # ids are never used again
    here = Localizer.load(model, "cpu").localize([image(2)], "lab")[0]
    there = Localizer.load(other, "cpu").localize([image(2)], "cellar")[0]
    np.testing.assert_array_equal(there.position, here.position)
    np.testing.assert_array_equal(there.covariance, here.covariance)
    assert there.frame_id == "cellar"
    code, said = run(capsys, "import", file, "--model", other)
    assert code == 1
    assert "is there already" in said


def test_import_tells_of_scenes_that_look_alike(model, tmp_path, capsys):
    with SceneBank(model) as bank:
        twin = replace(bank.rows()[0], name="twin", uuid="twin", id=0)
    write_scene_file(tmp_path / "twin.safetensors", twin)
    code, said = run(capsys, "import", tmp_path / "twin.safetensors", "--model", model)
    assert code == 0
    assert "of its frames are expected to be named hall" in said


def test_confusion_is_the_share_of_normal_features_on_the_wrong_side(model):
    with SceneBank(model) as bank:
        row, other = bank.rows()
    random = np.random.default_rng(0)
    size = row.classifier_weight.size
    row = replace(
        row,
        feature_mean=random.normal(size=size).astype(np.float32),
        feature_std=random.uniform(0, 1, size).astype(np.float32),
    )
    other = replace(
        other,
        classifier_weight=row.classifier_weight + random.normal(0, 0.1, size).astype(np.float32),
    )
    feature_SF = random.normal(row.feature_mean, row.feature_std, (20000, size))
    own = feature_SF @ row.classifier_weight + row.classifier_bias
    others = feature_SF @ other.classifier_weight + other.classifier_bias
    share = confusion(row, other).share
    assert 0.02 < share < 0.98
    assert share == pytest.approx((others > own).mean(), abs=0.015)


def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(model, tmp_path, capsys):
    row = new_row(model, "attic")
    wide = np.zeros(row.classifier_weight.size + 1, np.float32)
    bad = {
        "foreign": (replace(row, backbone_id="f" * 64), "trained on backbone ffffffffffff"),
        "wide": (
            replace(row, classifier_weight=wide, feature_mean=wide, feature_std=wide),
            "577 weights a row",
        ),
        "head": (replace(row, head="oracle"), "'oracle' is unknown"),
        "shape": (
            replace(row, head_tensors={**row.head_tensors, "bias": np.zeros(7, np.float32)}),
            "bias has shape (7,), not (6,)",
        ),
        "scale": (replace(row, position_scale=0.0), "position_scale is 0.0, not above 0"),
        "nan": (replace(row, position_offset=np.full(3, np.nan)), "NaN"),
        "box": (replace(row, box_low=np.full(3, 9.0)), "box_high is below box_low"),
        "threshold": (replace(row, acceptance_threshold=1.5), "acceptance_threshold is 1.5"),
        "map": (replace(row, map_frame="map"), "must be there together"),
        "huge": (
            replace(row, head_tensors={"weight": np.zeros((6, 700_000), np.float32)}),
            "over the limit of 16000000",
        ),
    }
    before = (model / "scenes.db").read_bytes()
    for name, (wrong, reason) in bad.items():
        file = tmp_path / f"{name}.safetensors"
        write_scene_file(file, wrong)
        code, said = run(capsys, "import", file, "--model", model)
        assert code == 1, name
        assert reason in said, (name, said)
    assert (model / "scenes.db").read_bytes() == before


def test_a_changed_byte_or_a_cut_of_a_scene_file_is_noticed(model, tmp_path, capsys):
    file = tmp_path / "lab.safetensors"
    run(capsys, "export", "lab", "--model", model, "--out", file)
    content, random = file.read_bytes(), np.random.default_rng(0)
    for trial in range(200):
        broken = bytearray(content)
        if trial % 2:
            place = int(random.integers(8 * len(content)))
            broken[place // 8] ^= 1 << (place % 8)
        else:
            broken = broken[: int(random.integers(len(content)))]
        file.write_bytes(bytes(broken))
        code, said = run(capsys, "import", file, "--model", model, "--name", "attic")
        assert code == 1, (trial, said)
        assert str(file) in said
        assert "Traceback" not in said
    for stranger in (b"", b"garbage" * 100, safetensors.numpy.save({"x": np.zeros(3)})):
        file.write_bytes(stranger)
        code, said = run(capsys, "import", file, "--model", model)
        assert code == 1
        assert "not written by 'mspn scenes export'" in said
    assert run(capsys, "import", tmp_path / "none", "--model", model)[0] == 1
    assert names(model) == ["hall", "lab"]


def test_merge_takes_all_or_none_and_passes_over_what_is_here(model, tmp_path, capsys):
    other = shutil.copytree(model, tmp_path / "other")
    with SceneBank(other, read_only=False) as bank:
        bank.add(new_row(other, "attic"))
        bank.add(new_row(other, "cellar"))
    with SceneBank(model, read_only=False) as bank:
        bank.add(new_row(model, "cellar"))
    code, said = run(capsys, "merge", other, "--model", model)
    assert code == 1
    assert "'cellar'" in said
    assert "is there already" in said
    assert names(model) == ["hall", "lab", "cellar"]
    run(capsys, "rename", "cellar", "vault", "--model", model)
    code, said = run(capsys, "merge", other, "--model", model)
    assert code == 0, said
    assert "hall: is here already, as hall" in said
    assert names(model) == ["hall", "lab", "vault", "attic", "cellar"]
    assert "nothing new" in run(capsys, "merge", other, "--model", model)[1]


def test_a_placed_scene_publishes_in_the_map(model, capsys):
    before = Localizer.load(model, "cpu").localize([image(3)], "lab")[0]
    half = ("--rotation", 0, 0, 1, 0)
    code, said = run(
        capsys, "place", "lab", "--model", model, "--map-frame", "building", *half,
        "--translation", 10, 20, 30, "--scale", 2,
    )  # fmt: skip
    assert code == 0, said
    after = Localizer.load(model, "cpu").localize([image(3)], "lab")[0]
    assert after.frame_id == "building"
    x, y, z = before.position
    np.testing.assert_allclose(after.position, [10 - 2 * x, 20 - 2 * y, 30 + 2 * z])
    code, said = run(capsys, "place", "lab", "--model", model)
    assert code == 1
    assert run(capsys, "place", "lab", "--model", model, "--clear")[0] == 0
    again = Localizer.load(model, "cpu").localize([image(3)], "lab")[0]
    np.testing.assert_array_equal(again.position, before.position)
    scale = ("--map-frame", "b", "--scale", "-1")
    code, said = run(capsys, "place", "lab", "--model", model, *scale)
    assert code == 1
    assert "scales by -1.0, not above 0" in said
    rotation = ("--map-frame", "b", "--rotation", 0, 0, 0, 3)
    assert run(capsys, "place", "lab", "--model", model, *rotation)[0] == 1


def test_show_tells_all_but_the_weights(model, tmp_path, capsys):
    code, said = run(capsys, "show", "hall", "--model", model, "--json", tmp_path / "hall.json")
    assert code == 0, said
    shown = json.loads((tmp_path / "hall.json").read_text())
    assert shown["name"] == "hall"
    assert shown["head_tensors"] == {"bias": "float32 [6]", "weight": "float32 [6, 576]"}
    assert shown["held_out"]["median_position"] == 0.2
    assert "median_position 0.2" in " ".join(said.split())


def test_a_mistyped_model_gets_no_bank(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, said = run(capsys, "remove", "hall", "--model", tmp_path / "empty")
    assert code == 1
    assert "no scene bank" in said
    assert not list((tmp_path / "empty").iterdir())


def test_landmark_rows_travel_and_do_not_change_each_others_poses(tmp_path, capsys):
    import torch

    model = make_landmark_model(tmp_path / "m")
    before = [Localizer.load(model, "cpu").localize([image(i)], "lab")[0] for i in range(3)]
    backbone, identity, _ = load_backbone(model)
    network = MSPN(backbone.architecture, 1, "landmarks", landmarks=700).eval()
    network.heads.place_landmarks(0, torch.randn(700, 3))
    write_scene_file(tmp_path / "big.safetensors", make_row(network, 0, "big", identity))
    assert read_scene_file(tmp_path / "big.safetensors").head == "landmarks"
    assert run(capsys, "import", tmp_path / "big.safetensors", "--model", model)[0] == 0
    localizer = Localizer.load(model, "cpu")
    assert len(localizer.scenes) == 3
    for i, old in enumerate(before):
        new = localizer.localize([image(i)], "lab")[0]
        np.testing.assert_array_equal(new.position, old.position)
        np.testing.assert_array_equal(new.quaternion, old.quaternion)
        np.testing.assert_array_equal(new.covariance, old.covariance)
