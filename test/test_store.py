# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The model directory: what is written comes back, and damage is refused by name."""

import re
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import make_row, make_tiny_model

from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.mspn import MSPN
from mspn_ros.records import Intrinsics, ModelError
from mspn_ros.store.backbone_file import load_backbone
from mspn_ros.store.files import read_tensors, write_tensors
from mspn_ros.store.row_format import COLUMNS, pack_row, unpack_row
from mspn_ros.store.scene_bank import SceneBank


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("store") / "model")


@pytest.fixture
def model(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "model")


def test_a_row_comes_back_whole(model):
    with SceneBank(model, read_only=False) as bank:
        first = bank.rows()[0]
        full = replace(
            first,
            id=0,
            name="attic",
            uuid="another",
            metres_per_unit=None,
            map_frame="building",
            map_from_scene=np.array([1.0, 2, 3, 0, 0.6, 0, 0.8, 0.5]),
            intrinsics=Intrinsics(1.0, 2.0, 3.0, 4.0, 5, 6, (0.1, 0.2), True),
            held_out=None,
        )
        stored = bank.add(full)
    assert stored.id == 3
    with SceneBank(model) as bank:
        back = bank.rows()[2]
    for field in stored.__dataclass_fields__:
        np.testing.assert_equal(getattr(back, field), getattr(stored, field))


def test_ids_are_never_used_again(model):
    with SceneBank(model, read_only=False) as bank:
        row = bank.rows()[1]
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("DELETE FROM scenes WHERE id = 2")
    with SceneBank(model, read_only=False) as bank:
        assert bank.add(replace(row, id=0)).id == 3


def test_a_name_can_be_there_once(model):
    with SceneBank(model, read_only=False) as bank:
        row = bank.rows()[0]
        with pytest.raises(ModelError, match=r"'hall'.*is there already"):
            bank.add(replace(row, uuid="another"))
        assert len(bank.rows()) == 2


def test_a_changed_number_in_a_row_is_noticed(model):
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("UPDATE scenes SET position_scale = position_scale * 1.0001 WHERE id = 2")
    with SceneBank(model) as bank, pytest.raises(ModelError, match="row 2 is damaged"):
        bank.rows()
    localizer = Localizer.load(model)
    assert [scene.name for scene in localizer.scenes] == ["hall"]
    assert "row 2 is damaged" in localizer.refused["row 2"]


def test_a_foreign_row_names_both_backbones(model):
    network = MSPN(load_backbone(model)[0].architecture, 1)
    with SceneBank(model, read_only=False) as bank:
        bank.add(make_row(network, 0, "stranger", "f" * 64))
    localizer = Localizer.load(model)
    assert [scene.name for scene in localizer.scenes] == ["hall", "lab"]
    assert re.search(r"ffffffffffff, this model's is \w{12}", localizer.refused["stranger"])


def test_a_bank_with_a_trigger_is_not_ours(model):
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("CREATE TRIGGER t AFTER INSERT ON scenes BEGIN DELETE FROM scenes; END")
    with pytest.raises(ModelError, match="schema"):
        SceneBank(model)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("position_scale", "abc"),
        ("position_scale", float("inf")),
        ("position_scale", -1.0),
        ("metres_per_unit", "abc"),
        ("acceptance_threshold", None),
        ("held_out", '{"frames": 1, "position_variance": [0, 0, 0]}'),
        ("provenance", "[]"),
        ("frames", 1.5),
        ("tensors", "text"),
    ],
)
def test_a_forged_column_is_refused_even_with_a_right_checksum(model, column, value):
    # A stranger can compute checksums too: types and ranges must be held against the schema.
    with SceneBank(model) as bank:
        values = dict(zip(COLUMNS, pack_row(bank.rows()[0]), strict=True)) | {column: value}
    with pytest.raises(ModelError, match="here: not a scene of this version"):
        unpack_row(1, list(values.values()), "here")


def test_a_trigger_with_an_inconspicuous_name_is_noticed(model):
    # In LIKE patterns _ stands for any character: 'sqlite_%' would hide this one.
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("CREATE TRIGGER sqlitezevil AFTER INSERT ON scenes BEGIN SELECT 1; END")
    with pytest.raises(ModelError, match="schema"):
        SceneBank(model)


def test_rows_of_another_feature_size_are_refused(model):
    with SceneBank(model, read_only=False) as bank:
        row = bank.rows()[0]
    wide = np.zeros(row.classifier_weight.size + 1, np.float32)
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("DELETE FROM scenes")
    changes = dict.fromkeys(("classifier_weight", "feature_mean", "feature_std"), wide)
    with SceneBank(model, read_only=False) as bank:
        bank.add(replace(row, **changes))
    with pytest.raises(ModelError, match=r"577 weights a row, the backbone gives 576"):
        Localizer.load(model)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_file_that_is_no_bank_is_refused(model, content):
    (model / "scenes.db").write_bytes(content)
    with pytest.raises(ModelError, match=r"scenes\.db"):
        Localizer.load(model)


@pytest.mark.parametrize("keep", [0, 10, 5000, -1])
def test_a_truncated_backbone_is_refused(model, keep):
    path = model / "backbone.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"backbone\.safetensors"):
        load_backbone(model)


def test_a_flipped_bit_in_the_backbone_is_noticed(model):
    path = model / "backbone.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="backbone_id"):
        load_backbone(model)


def test_missing_places_are_named(tmp_path, model):
    with pytest.raises(ModelError, match="nowhere: no such model directory"):
        Localizer.load(tmp_path / "nowhere")
    (model / "scenes.db").unlink()
    with pytest.raises(ModelError, match="no scene bank"):
        Localizer.load(model)


def test_a_read_only_folder_opens(model):
    before = Localizer.load(model).scenes
    (model / "scenes.db").chmod(0o444)
    model.chmod(0o555)
    try:
        assert Localizer.load(model).scenes == before
    finally:
        model.chmod(0o755)


def test_tensors_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.arange(4)}, {"x": [1, None]})
    tensors, fields = read_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(4))
    assert fields == {"x": [1, None]}
    with pytest.raises(ModelError, match="cannot be written"):
        write_tensors(tmp_path / "no" / "t.safetensors", {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]
