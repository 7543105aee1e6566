# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The whole way as one step on fixed buffers answers as the plain way, whatever the rows become.

Here the step runs uncaptured on the CPU; where there is a CUDA device, captured as a graph, too.
"""

import uuid
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import LANDMARKS, make_landmark_model, make_row, make_tiny_model

from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.model_reader import captured_trip
from mspn_ros.inference.one_trip import MOST_TOGETHER, OneTrip, as_it_is
from mspn_ros.network.mspn import MSPN
from mspn_ros.records import Intrinsics
from mspn_ros.store.backbone_file import load_backbone
from mspn_ros.store.scene_bank import SceneBank

SIZES = ((120, 160), (240, 320), (90, 200), (120, 160), (64, 64), (120, 160))
CAMERA = Intrinsics(140.0, 140.0, 79.5, 59.5, 160, 120)


@pytest.fixture
def pictures():
    random = np.random.default_rng(3)
    coarse = [random.integers(0, 255, (5, 7, 3), dtype=np.uint8) for _ in SIZES]
    return [
        np.ascontiguousarray(np.kron(image, np.ones((60, 60, 1), np.uint8))[:height, :width])
        for image, (height, width) in zip(coarse, SIZES, strict=True)
    ]


def make_mixed_model(path):
    """Landmark rows hall and lab, and linear ones office and store, behind one backbone."""
    make_landmark_model(path)
    identity = load_backbone(path)[1]
    torch.manual_seed(5)
    linear = MSPN(LANDMARKS, 2, "linear").eval()
    with SceneBank(path, read_only=False) as bank:
        for i, name in enumerate(("office", "store")):
            bank.add(make_row(linear, i, name, identity))
    return path


MODELS = {"linear": make_tiny_model, "landmarks": make_landmark_model, "mixed": make_mixed_model}


def trip_of(localizer):
    model = localizer._model
    size = model.backbone.architecture.crop
    return OneTrip(model.backbone.engine, model.read_out, size, as_it_is)


def both(localizer, trip, pictures, cameras=None, forced=None, prior=None, names=None):
    """What the plain way answers, and the trip."""
    model = localizer._model
    prepared, shots = model.backbone.prepare(pictures, cameras)
    features = model.backbone.engine(torch.stack(prepared))
    only = None if names is None else model.read_out.only(frozenset(names))
    plain = model.read_out(features, shots, forced, prior or {}, only)
    return plain, trip(model.read_out, prepared, shots, forced, prior or {}, only)


def assert_alike(plain, found):
    assert len(plain) == len(found)
    for expected, answer in zip(plain, found, strict=True):
        assert answer.row is expected.row
        assert answer.likely.scene == expected.likely.scene
        # What is known before is added to logits before or after the product, in float32.
        assert answer.likely.probability == pytest.approx(expected.likely.probability, abs=1e-4)
        assert answer.likely.among_all == pytest.approx(expected.likely.among_all, abs=1e-4)
        assert [scene for scene, _ in answer.likely.scenes] == [
            scene for scene, _ in expected.likely.scenes
        ]
        np.testing.assert_allclose(answer.position, expected.position, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(answer.quaternion, expected.quaternion, rtol=1e-6, atol=1e-6)
        if expected.covariance is None:
            assert answer.covariance is None or np.isnan(answer.covariance).all()
        else:
            np.testing.assert_allclose(answer.covariance, expected.covariance, rtol=1e-5, atol=1e-9)
        if expected.familiarity is None:
            assert answer.familiarity is None
        else:
            assert answer.familiarity == pytest.approx(expected.familiarity, abs=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_it_answers_as_the_plain_way_for_any_number_and_size_of_images(tmp_path, pictures, kind):
    localizer = Localizer.load(MODELS[kind](tmp_path / "m"), "cpu")
    trip = trip_of(localizer)
    assert len(pictures) > MOST_TOGETHER
    for count in (1, 2, 3, len(pictures)):
        assert_alike(*both(localizer, trip, pictures[:count]))


@pytest.mark.parametrize("kind", MODELS)
def test_a_known_scene_and_what_is_known_before_count(tmp_path, pictures, kind):
    localizer = Localizer.load(MODELS[kind](tmp_path / "m"), "cpu")
    trip = trip_of(localizer)
    for scene in range(len(localizer.rows)):
        plain, found = both(localizer, trip, pictures, forced=scene)
        assert {answer.row.name for answer in found} == {localizer.rows[scene].name}
        assert_alike(plain, found)
        plain, found = both(localizer, trip, pictures, prior={scene: 1e3})
        assert {answer.row.name for answer in found} == {localizer.rows[scene].name}
        assert_alike(plain, found)
        name = localizer.rows[scene].name
        plain, found = both(localizer, trip, pictures, prior={0: 2.0}, names=[name, "cellar"])
        assert {answer.row.name for answer in found} == {name}
        assert_alike(plain, found)
    # Nothing of it is left for the next image.
    assert_alike(*both(localizer, trip, pictures))


def test_rays_are_those_of_each_image(tmp_path, pictures):
    localizer = Localizer.load(make_landmark_model(tmp_path / "m"), "cpu")
    trip = trip_of(localizer)
    without, _ = both(localizer, trip, pictures[:1])
    plain, found = both(localizer, trip, pictures[:2], [CAMERA, None])
    assert_alike(plain, found)
    assert np.abs(plain[0].position - without[0].position).max() > 1e-6
    plain, found = both(localizer, trip, pictures[:2], [None, None])
    assert_alike(plain, found)


@pytest.mark.parametrize("kind", MODELS)
def test_rows_that_are_added_and_removed_need_no_other_step(tmp_path, pictures, kind):
    localizer = Localizer.load(MODELS[kind](tmp_path / "m"), "cpu")
    trip, before = trip_of(localizer), localizer._model
    with SceneBank(localizer.model_dir, read_only=False) as bank:
        row = replace(bank.rows()[0], name="annexe", uuid=str(uuid.uuid4()), id=None)
        bias = row.classifier_bias + 0.1
        bank.add(replace(row, classifier_bias=bias, position_offset=np.array([7.0, 8.0, 9.0])))
    localizer.reload()
    # Rows that were not taken in yet do not answer, nor do those of before once they were.
    prepared, shots = before.backbone.prepare(pictures, None)
    assert trip(localizer._model.read_out, prepared, shots, None, {}) is None
    assert trip.take(localizer._model.read_out)
    assert trip(before.read_out, prepared, shots, None, {}) is None
    added = [row.name for row in localizer.rows].index("annexe")
    for forced in (None, added):
        assert_alike(*both(localizer, trip, pictures, forced=forced))
    with SceneBank(localizer.model_dir, read_only=False) as bank:
        bank.remove("hall")
    localizer.reload()
    assert trip.take(localizer._model.read_out)
    plain, found = both(localizer, trip, pictures)
    assert "hall" not in {answer.row.name for answer in found}
    assert_alike(plain, found)


def test_rows_without_room_are_refused(tmp_path):
    localizer = Localizer.load(make_tiny_model(tmp_path / "m"), "cpu")
    trip, before = trip_of(localizer), localizer._model.read_out
    with SceneBank(localizer.model_dir, read_only=False) as bank:
        first = bank.rows()[0]
        bank.add_all(
            [
                replace(first, name=f"room_{i}", uuid=str(uuid.uuid4()), id=None)
                for i in range(trip._rows.groups[0].rows)
            ]
        )
    localizer.reload()
    assert not trip.take(localizer._model.read_out)
    other = Localizer.load(make_landmark_model(tmp_path / "other"), "cpu")
    assert not trip.take(other._model.read_out)
    assert trip._rows.serves is before


def once(step):
    """Captures what the step gives now, as a graph of the wrong buffers would."""
    result = step()
    return lambda: result


def refused(step):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (as_it_is, "one CUDA graph"),
        (once, "no CUDA graph: its answers are not those of the same steps one by one"),
        (refused, "no CUDA graph: operation not permitted when stream is capturing"),
    ],
)
def test_a_graph_that_answers_something_else_never_serves(tmp_path, capture, reason):
    model = Localizer.load(make_tiny_model(tmp_path / "m"), "cpu")._model
    trip, said = captured_trip(model.backbone, model.read_out, capture)
    assert said == reason
    assert (trip is None) == (capture is not as_it_is)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", MODELS)
def test_the_captured_graph_answers_as_the_plain_path(tmp_path, pictures, kind):
    model = MODELS[kind](tmp_path / "m")
    plain = Localizer.load(model, "cuda", engine="torch_float32")
    captured = Localizer.load(model, "cuda", engine="torch_float16")
    assert "one CUDA graph" in captured.engine_reason
    for forced in [row.name for row in plain.rows]:
        for a, b in zip(
            plain.localize(pictures, forced), captured.localize(pictures, forced), strict=True
        ):
            np.testing.assert_allclose(a.position, b.position, atol=0.05 * plain.rows[0].extent)
