# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Large banks: opened by their classifier, heads on demand, and never a pose that differs."""

import json
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from models import make_landmark_model, make_tiny_model

from mspn_ros.cli import main
from mspn_ros.evaluation.bench_scenes import random_rows
from mspn_ros.inference.first_look import TOLERANCE, FirstLook
from mspn_ros.inference.loaded_rows import MOST_LOADED
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.read_out import MOST_LIKELY
from mspn_ros.inference.scene_logits import SceneLogits, capacity
from mspn_ros.network.backbone import Architecture, Backbone
from mspn_ros.store.row_format import INDEX_COLUMNS, index_checksum, row_bytes
from mspn_ros.store.scene_bank import SceneBank

NAMES = [f"room_{i:03d}" for i in range(80)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("scale") / "model", NAMES)


@pytest.fixture
def model(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "model")


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(5)
    coarse = random.integers(0, 255, (4, 5, 7, 3), dtype=np.uint8)
    return [cv2.resize(c, (160, 120), interpolation=cv2.INTER_CUBIC) for c in coarse]


def on_demand(model):
    return Localizer.load(model, "cpu", whole_bytes=0)


def assert_same_poses(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert one.scene == other.scene
        np.testing.assert_array_equal(one.position, other.position)
        np.testing.assert_array_equal(one.quaternion, other.quaternion)
        np.testing.assert_array_equal(one.covariance, other.covariance)


def best(localizer, picture):
    return localizer.localize([picture])[0].scene


def test_poses_are_the_same_bits_however_a_bank_is_loaded(pristine, pictures):
    whole, lazy = Localizer.load(pristine, "cpu"), on_demand(pristine)
    # More scenes than stay loaded, so that rows are let go and read again.
    assert len(NAMES) > 2 * MOST_LOADED
    for name in (*NAMES, *NAMES[:3]):
        assert_same_poses(whole.localize(pictures[:1], name), lazy.localize(pictures[:1], name))
    for picture in pictures:
        assert_same_poses(whole.localize([picture]), lazy.localize([picture]))
    assert_same_poses(whole.localize(pictures), lazy.localize(pictures))
    assert whole.scenes == lazy.scenes
    assert lazy.refused == {}


def test_poses_are_the_same_bits_whatever_else_is_in_the_bank(model, pictures):
    def answers(localizer):
        return localizer.localize(pictures[:1], NAMES[7]) + localizer.localize(pictures, NAMES[7])

    before = answers(Localizer.load(model, "cpu"))
    with SceneBank(model, read_only=False) as bank:
        for name in NAMES[:7] + NAMES[8:]:
            bank.remove(name)
    assert_same_poses(before, answers(Localizer.load(model, "cpu")))
    assert_same_poses(before, answers(on_demand(model)))


def test_landmark_poses_are_the_same_bits_beside_a_scene_with_many_more(tmp_path, pictures):
    # Rows are filled up with landmarks that are not there: how far must not depend on others.
    model = make_landmark_model(tmp_path / "m")
    before = Localizer.load(model, "cpu").localize(pictures[:1], "hall")
    with SceneBank(model, read_only=False) as bank:
        lab = bank.row("lab")
        tensors = dict(lab.head_tensors)
        for name in ("point", "key", "nowhere"):
            tensors[name] = np.concatenate([tensors[name]] * 70)
        bank.add(replace(lab, name="many", uuid="many", head_tensors=tensors, id=0))
    for localizer in (Localizer.load(model, "cpu"), on_demand(model)):
        assert localizer.localize(pictures[:1], "many")[0].known
        assert_same_poses(before, localizer.localize(pictures[:1], "hall"))
        assert localizer.reads_cameras


def test_probabilities_are_those_of_all_scenes_however_few_are_told(pristine, pictures):
    localizer = Localizer.load(pristine, "cpu")
    with SceneBank(pristine) as bank:
        rows = bank.rows()
    weight_NF = np.stack([row.classifier_weight for row in rows]).astype(np.float64)
    bias_N = np.array([row.classifier_bias for row in rows])
    for picture in pictures:
        features, _ = localizer._model.backbone.features([picture], None)
        logit_N = weight_NF @ features.pooled_BF[0].numpy().astype(np.float64) + bias_N
        share_N = np.exp(logit_N - logit_N.max())
        share_N /= share_N.sum()
        (estimate,) = localizer.localize([picture])
        likely = np.argsort(-share_N)[:MOST_LIKELY]
        assert list(estimate.probabilities) == [rows[i].name for i in likely]
        assert list(estimate.probabilities.values()) == pytest.approx(share_N[likely], rel=1e-4)
        assert estimate.confidence == max(estimate.probabilities.values())
        (forced,) = localizer.localize([picture], rows[3].name)
        assert forced.confidence == pytest.approx(share_N[3], rel=1e-4)


def test_room_for_more_scenes_never_answers(model, pictures):
    # All logits are far below 0, which rows of zeros in the padding would beat.
    with SceneBank(model, read_only=False) as bank:
        for name in NAMES:
            bank.change(name, classifier_bias=-1000.0)
    estimates = Localizer.load(model, "cpu").localize(pictures)
    assert all(estimate.scene in NAMES for estimate in estimates)
    assert all(estimate.confidence > 1e-3 for estimate in estimates)


def test_a_scene_that_is_added_within_the_capacity_needs_no_new_matrix(model, pictures):
    assert capacity(1) == capacity(64) == 64
    assert [capacity(n) >= n for n in range(1, 5000)].count(False) == 0
    assert capacity(100_000) < 113_000
    localizer = Localizer.load(model, "cpu")
    first = localizer._in_service
    before = localizer.localize(pictures)
    with SceneBank(model, read_only=False) as bank:
        row = bank.row(NAMES[0])
        bank.add(replace(row, name="added", uuid="added", classifier_bias=1000.0, id=0))
    localizer.reload()
    second = localizer._in_service
    assert second.logits.weight_NF.data_ptr() == first.logits.weight_NF.data_ptr()
    assert best(localizer, pictures[0]) == "added"
    # Whoever still answers by the bank before does not see the new row, though it is there.
    features, shots = localizer._model.backbone.features(pictures, None)
    old = first(features, shots, None)
    assert [answer.row.name for answer in old] == [estimate.scene for estimate in before]
    # A bank that another one has grown from cannot be grown from again.
    with SceneBank(model, read_only=False) as bank:
        bank.remove("added")
    localizer.reload()
    assert localizer._in_service.logits.weight_NF.data_ptr() != first.logits.weight_NF.data_ptr()
    assert_same_poses(before, localizer.localize(pictures))


def _flip(model, row_id, column="tensors"):
    """Change one byte in the middle of a blob, as a bad disk does: checksums stay as they were."""
    with sqlite3.connect(model / "scenes.db") as db:
        ((content,),) = db.execute(f"SELECT {column} FROM scenes WHERE id = ?", (row_id,))
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        db.execute(f"UPDATE scenes SET {column} = ? WHERE id = ?", (bytes(changed), row_id))


def test_a_head_that_is_damaged_answers_unknown_and_is_named(model, pictures):
    name = best(Localizer.load(model, "cpu"), pictures[0])
    row_id = NAMES.index(name) + 1
    _flip(model, row_id)
    localizer = on_demand(model)
    (estimate,) = localizer.localize(pictures[:1])
    assert (estimate.scene_id, estimate.scene, estimate.position) == (-1, "unknown", None)
    assert f"row {row_id} is damaged" in estimate.reason
    assert list(localizer.refused) == [f"row {row_id}"]
    # Together with images of other scenes, too, which are answered.
    other = NAMES[row_id % len(NAMES)]
    assert localizer.localize(pictures[:1], other)[0].scene == other
    assert not localizer.localize(pictures[:1], name)[0].known
    assert Localizer.load(model, "cpu").refused.keys() == {f"row {row_id}"}


def test_a_damaged_classifier_row_is_found_when_a_bank_is_opened(model, pictures):
    _flip(model, 5, "classifier")
    for localizer in (Localizer.load(model, "cpu"), on_demand(model)):
        assert [scene.name for scene in localizer.scenes] == NAMES[:4] + NAMES[5:]
        assert "row 5 is damaged" in localizer.refused["row 5"]


@pytest.mark.parametrize(
    "column", ["name", "classifier", "classifier_bias", "acceptance_threshold", "checksum"]
)
def test_every_column_of_the_index_is_guarded(model, column):
    with sqlite3.connect(model / "scenes.db") as db:
        number = column in ("classifier_bias", "acceptance_threshold")
        value = f"{column} + 0.001" if number else "'x'"
        db.execute(f"UPDATE scenes SET {column} = {value} WHERE id = 3")
    assert list(on_demand(model).refused) == ["row 3"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("classifier", np.full(576, np.nan, np.float32).tobytes()),
        ("classifier", b"odd"),
        ("classifier", b""),
        ("name", "two\nlines"),
        ("frame_id", b"5"),
        ("frames", 0),
        ("metres_per_unit", -1.0),
        ("acceptance_threshold", 2.0),
        ("classifier_bias", float("inf")),
        ("head", "unheard of"),
    ],
)
def test_a_forged_index_is_refused_even_with_a_right_checksum(model, column, value):
    # A stranger can compute checksums too; the rows beside it stay in service.
    stored = ", ".join(INDEX_COLUMNS)
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute(f"UPDATE scenes SET {column} = ? WHERE id = 4", (value,))
        query = f"SELECT {stored}, checksum FROM scenes WHERE id = 4"
        (*columns, checksum) = db.execute(query).fetchone()
        own = index_checksum(4, columns, checksum)
        db.execute("UPDATE scenes SET index_checksum = ? WHERE id = 4", (own,))
    localizer = on_demand(model)
    assert [scene.name for scene in localizer.scenes] == NAMES[:3] + NAMES[4:]
    (reason,) = localizer.refused.values()
    assert column in reason or "weights" in reason or "unheard of" in reason


def test_a_row_that_was_changed_since_is_not_taken_for_the_old_one(model, pictures):
    localizer = on_demand(model)
    pose = localizer.localize(pictures[:1], NAMES[1])
    with SceneBank(model, read_only=False) as bank:
        bank.remove(NAMES[2])
        bank.change(NAMES[3], position_scale=50.0)
        bank.change(NAMES[1], position_scale=50.0)
    for name in NAMES[2:4]:
        (estimate,) = localizer.localize(pictures[:1], name)
        assert not estimate.known
        assert "has changed since the bank was opened; reload it" in estimate.reason
    # What is loaded, or was left as it was, is answered as before.
    assert_same_poses(pose, localizer.localize(pictures[:1], NAMES[1]))
    assert localizer.localize(pictures[:1], NAMES[4])[0].known
    localizer.reload()
    assert localizer.refused == {}
    assert localizer.localize(pictures[:1], NAMES[3])[0].known
    assert [scene.name for scene in localizer.scenes] == NAMES[:2] + NAMES[3:]


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_bank_whose_file_goes_away_is_read_as_it_was(model, pictures, tmp_path, how):
    expected = Localizer.load(model, "cpu").localize(pictures[:1], NAMES[9])
    localizer = on_demand(model)
    if how == "removed":
        (model / "scenes.db").unlink()
    else:
        other = make_tiny_model(tmp_path / "other", ["elsewhere"], seed=1)
        (other / "scenes.db").replace(model / "scenes.db")
    assert_same_poses(expected, localizer.localize(pictures[:1], NAMES[9]))
    assert localizer.refused == {}


def test_reading_a_bank_that_was_replaced_leaves_the_journal_of_the_new_one_alone(model, pictures):
    localizer = on_demand(model)
    expected = Localizer.load(model, "cpu").localize(pictures[:1], NAMES[30])
    shutil.copy(model / "scenes.db", model / "new.db")
    (model / "new.db").replace(model / "scenes.db")
    before = (model / "scenes.db").read_bytes()
    db = sqlite3.connect(model / "scenes.db", isolation_level=None)
    # Too little memory for the change: half of it is in the file, the journal is needed.
    db.execute("PRAGMA cache_size=2")
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE scenes SET s_t = 1.0")
    assert (model / "scenes.db-journal").stat().st_size
    (estimate,) = localizer.localize(pictures[:1], NAMES[30])
    assert (model / "scenes.db-journal").stat().st_size
    assert not estimate.known
    db.execute("ROLLBACK")
    db.close()
    assert (model / "scenes.db").read_bytes() == before
    assert_same_poses(expected, localizer.localize(pictures[:1], NAMES[30]))


def test_a_file_that_is_overwritten_with_rubbish_gives_no_pose_and_no_crash(model, pictures):
    localizer = on_demand(model)
    with (model / "scenes.db").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\xa5" * size)
    (estimate,) = localizer.localize(pictures[:1], NAMES[11])
    assert not estimate.known
    assert "row 12" in estimate.reason


def test_a_scene_that_a_writer_keeps_from_being_read_is_unknown_until_it_is_done(model, pictures):
    localizer = on_demand(model)
    with sqlite3.connect(model / "scenes.db", isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        (estimate,) = localizer.localize(pictures[:1], NAMES[20])
        assert not estimate.known
        assert "row 21 cannot be read" in estimate.reason
        db.execute("ROLLBACK")
    db.close()
    assert localizer.localize(pictures[:1], NAMES[20])[0].known
    assert localizer.refused == {}


def test_opening_reads_no_heads(model):
    # Every head is unreadable, and nobody notices before it is asked for.
    with sqlite3.connect(model / "scenes.db") as db:
        db.execute("UPDATE scenes SET tensors = x'00'")
    localizer = Localizer(model, "cpu", whole_bytes=0)
    assert len(localizer.scenes) == len(NAMES)
    assert len(localizer._in_service.logits.bias_N) == 128


def test_many_threads_get_the_poses_of_the_bank_while_it_is_changed_and_reloaded(model, pictures):
    lasting = NAMES[:60]
    whole = Localizer.load(model, "cpu")
    expected = {name: whole.localize(pictures[:1], name)[0] for name in lasting}
    localizer, done = on_demand(model), threading.Event()
    wrong, answered = [], Counter()

    def ask(seed):
        random = np.random.default_rng(seed)
        while not done.is_set():
            name = lasting[random.integers(len(lasting))]
            (estimate,) = localizer.localize(pictures[:1], name)
            answered[estimate.known] += 1
            if not np.array_equal(estimate.position, expected[name].position):
                wrong.append((name, estimate))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for name in NAMES[60:70]:
            with SceneBank(model, read_only=False) as bank:
                row = bank.row(name)
                bank.remove(name)
                bank.add(replace(row, name=f"new {name}", uuid=f"new {name}", id=0))
            localizer.reload()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    # A commit takes longer than an answer waits on a slow disk: that is unknown, never wrong.
    assert all(not estimate.known and "cannot be read" in estimate.reason for _, estimate in wrong)
    assert answered[True] > 0
    assert localizer.bank_version == 11
    assert len(localizer.scenes) == len(NAMES)


def brute_force(weight_NF, bias_N, feature_F, count):
    """Places of the likeliest scenes, and the best one's probability, in float64."""
    logit_N = weight_NF.double() @ feature_F.double() + bias_N.double()
    return logit_N.topk(count).indices.tolist(), float(logit_N.softmax(0).max())


def features_of_all_kinds(weight_NF):
    """Of frames that one scene is sure of, that several share, and that none knows."""
    generator = torch.Generator().manual_seed(1)
    for step in range(60):
        noise = torch.randn(weight_NF.shape[1], generator=generator)
        yield noise + (step % 6) * 2 * weight_NF[step * 37] / weight_NF[step * 37].norm()


def test_a_first_look_in_bfloat16_finds_what_brute_force_finds_or_says_that_it_cannot():
    torch.manual_seed(0)
    weight_NF, bias_N = 0.5 * torch.randn(5000, 128), torch.randn(5000)
    # Twins, and scenes that are told apart by less than bfloat16 can tell.
    weight_NF[1::2] = weight_NF[::2] * (1 + 1e-4 * torch.randn(2500, 1))
    look = FirstLook(5120, 128)
    look.take(slice(0, 5000), weight_NF)
    padded = torch.cat((weight_NF, torch.zeros(120, 128)))
    told, rough_alone = 0, 0
    for feature_F in features_of_all_kinds(weight_NF):
        found = look.best(feature_F[None], padded, bias_N, 10)
        scenes, probability = brute_force(weight_NF, bias_N, feature_F, 10)
        rough_N = look.rough(feature_F[None])
        exact_N = padded.double() @ feature_F.double()
        assert ((rough_N - exact_N).abs() <= look.margin(feature_F[None])).all()
        rough_alone += int((rough_N[:5000] + bias_N).topk(10).indices.tolist() != scenes)
        if found is not None:
            told += 1
            assert found.scene_BK[0].tolist() == scenes
            own = (found.logit_BK[0, 0].double() - found.total_B1[0, 0]).exp()
            assert float(own) == pytest.approx(probability, abs=TOLERANCE)
    # Neither of the two is true by luck: there is something to tell, and rounding does matter.
    assert told >= 20
    assert rough_alone >= 20


@pytest.mark.parametrize("alike", [False, True])
def test_what_a_first_look_cannot_tell_is_computed_in_float32(pristine, alike):
    with SceneBank(pristine) as bank:
        index = bank.index()
    if alike:
        random = np.random.default_rng(0)
        first = np.frombuffer(index.classifier[0], np.float32)
        rows = first + random.normal(0, 1e-3, (len(NAMES), 576)).astype(np.float32)
        index = replace(index, classifier=[row.tobytes() for row in rows])
    logits = SceneLogits(index, torch.device("cpu"))
    assert logits.arithmetic == "float32"  # so few rows are quicker without
    weight_NF, bias_N = logits.weight_NF[: len(NAMES)], logits.bias_N[: len(NAMES)]
    # As a processor that is quick in bfloat16 has it for more rows, whatever this one is.
    logits.first_look = FirstLook(*logits.weight_NF.shape)
    logits.first_look.take(slice(0, len(NAMES)), weight_NF)
    told = 0
    for feature_F in features_of_all_kinds(weight_NF[torch.arange(2400) % len(NAMES)]):
        own = logits.first_look.best(feature_F[None], logits.weight_NF, bias_N, 10)
        told += own is not None
        found = logits.best(feature_F[None], 10)
        scenes, probability = brute_force(weight_NF, bias_N, feature_F, 10)
        assert found.scene_BK[0].tolist() == scenes
        share = (found.logit_BK[0, 0].double() - found.total_B1[0, 0]).exp()
        assert float(share) == pytest.approx(probability, abs=TOLERANCE)
        # What is known of scenes beforehand counts as if it were in their bias.
        prior_N = bias_N.clone()
        prior_N[scenes[3]] += 5.0
        expected, _ = brute_force(weight_NF, prior_N, feature_F, 10)
        found = logits.best(feature_F[None], 10, {scenes[3]: 5.0})
        assert found.scene_BK[0].tolist() == expected
    assert told == (0 if alike else 60)


def run_bench(capfd, *words):
    code = main(["bench", "scenes", "--device", "cpu", *map(str, words)])
    said = capfd.readouterr()
    return code, said.out + said.err


def test_bench_scenes_measures_each_size_and_cleans_up(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = tmp_path / "result.json"
    words = ("--scenes", 3, 1, "--backbone", "mobilenet_v3_small", "--rounds", 2, "--json", file)
    code, said = run_bench(capfd, *words)
    assert code == 0, said
    results = json.loads(file.read_text())
    assert [result["scenes"] for result in results] == [1, 3]
    for result in results:
        assert result["bytes"] > result["scenes"] * 576 * 4 * 7
        assert min(result[key] for key in ("answer_ms", "load_s", "classifier_ms")) > 0
        assert (result["engine"], result["device"]) == ("openvino_float32", "cpu")
    assert results[0]["ratio"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scenes", 0), "--scenes and --rounds are at least 1"),
        (("--scenes", 1, "--rounds", 0), "--scenes and --rounds are at least 1"),
        (("--scenes", 1, "--backbone", "resnet_none"), "resnet_none"),
        (("--scenes", 10**10, "--backbone", "mobilenet_v3_small"), "choose fewer --scenes"),
    ],
)
def test_bench_scenes_refuses_what_it_cannot_do(capfd, words, message):
    code, said = run_bench(capfd, *words)
    assert code == 1
    assert message in said
    assert "Traceback" not in said


def test_rows_of_the_bench_are_as_large_as_rows_of_a_trained_linear_head(tmp_path):
    # 6 x 512 and 512 weights, mean and spread, 16 axes in 8 bits: 26 KB.
    network = Backbone(Architecture("resnet18"))
    row, other = islice(random_rows(network, "0" * 64), 2)
    assert 24_000 < row_bytes(row) < 28_000
    assert row.uuid != other.uuid
    assert not np.array_equal(row.classifier_weight, other.classifier_weight)
