# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Flipped bits and cut files: refused by name, left out by name, or harmless; never another pose.

The cases run in a process of their own, watched by the test: one that crashes or hangs is named.
"""

import dataclasses
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import traceback
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import LANDMARKS, make_row

from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.backbone import Architecture
from mspn_ros.network.mspn import MSPN
from mspn_ros.records import Intrinsics, ModelError
from mspn_ros.store.backbone_file import BACKBONE_FILE, load_backbone, save_backbone
from mspn_ros.store.bank_file import BANK_FILE
from mspn_ros.store.scene_bank import SceneBank

# MSPN_DAMAGES=100 tries fewer.
CASES = int(os.environ.get("MSPN_DAMAGES", "1000"))
# Of one case, on a busy machine.
PATIENCE_S = 60
SCENES = ("hall", "lab", "attic", "cellar", "garage", "office", "kitchen")
# Few features, so that a file is made of what holds it together as much as of numbers.
PLAIN = Architecture("shufflenet_v2_x0_5", feature_size=16, resize=72, crop=64)


def make_model(path: Path, landmarks: bool) -> Path:
    """Seven scenes, one of them placed in a map; two that were there have been removed."""
    torch.manual_seed(0)
    if landmarks:
        architecture = replace(LANDMARKS, backbone="shufflenet_v2_x0_5")
        network = MSPN(architecture, len(SCENES), "landmarks", landmarks=9).eval()
        for i in range(len(SCENES)):
            network.heads.place_landmarks(i, torch.randn(4 + i % 3, 3))
    else:
        network = MSPN(PLAIN, len(SCENES)).eval()
    path.mkdir(parents=True)
    identity = save_backbone(path, network.backbone, {"weights": "none"})
    camera = Intrinsics(150.0, 150.0, 79.5, 59.5, 160, 120)
    with SceneBank(path, read_only=False) as bank:
        for i, name in enumerate(SCENES):
            bank.add(replace(make_row(network, i, name, identity), intrinsics=camera))
        places = np.array([1.0, 2.0, 0.0, 0.0, 0.0, 0.6, 0.8, 1.0])
        bank.change("lab", map_frame="building", map_from_scene=places)
        for name in ("gone", "forgotten"):
            bank.add(make_row(network, 0, name, identity))
            bank.remove(name)
    return path


class Remembering:
    """An engine that looks at each image once."""

    name = "remembering"
    shares_cores = False

    def __init__(self, engine):
        self._engine, self._seen = engine, {}

    def __call__(self, image_BHW3):
        key = image_BHW3.numpy().tobytes()
        if key not in self._seen:
            self._seen[key] = self._engine(image_BHW3)
        return self._seen[key]


IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def answers(localizer):
    """Scene -> everything that is published about the image, given the scene."""
    return {
        row.name: [
            np.array(part).tobytes() if not isinstance(part, str | int) else part
            for part in (e.scene_id, e.scene, e.frame_id, e.position, e.quaternion, e.covariance)
        ]
        for row in localizer.rows
        for e in localizer.localize([IMAGE], row.name)
    }


def same(a, b):
    """Whether two rows are bit for bit alike in all fields."""
    try:
        for field in dataclasses.fields(a):
            np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name))
    except AssertionError:
        return False
    return True


def refusal(error, path):
    """One line that names the file."""
    assert str(path) in str(error), f"{path} is not named in: {error}"
    assert "\n" not in str(error)
    return "refused"


class Bench:
    """A model that is damaged again and again, and what it is when it is whole."""

    def __init__(self, model: Path):
        self.model = model
        self.whole = {name: (model / name).read_bytes() for name in (BACKBONE_FILE, BANK_FILE)}
        self.localizer = Localizer(model, "cpu")
        backbone = self.localizer._model.backbone
        backbone.engine = Remembering(backbone.engine)
        self.rows = {row.name: row for row in self.localizer.rows}
        self.answers = answers(self.localizer)
        assert set(self.answers) == set(SCENES)
        self.weights = load_backbone(model)[0].state_dict()

    def try_backbone(self) -> str:
        try:
            backbone, identity, _ = load_backbone(self.model)
        except ModelError as error:
            return refusal(error, self.model / BACKBONE_FILE)
        assert identity == self.localizer.backbone_id
        assert backbone.architecture == self.localizer.architecture
        state = backbone.state_dict()
        assert state.keys() == self.weights.keys()
        assert all(torch.equal(state[name], self.weights[name]) for name in state)
        return "harmless"

    def try_bank(self) -> str:
        try:
            self.localizer.reload()
        except ModelError as error:
            return refusal(error, self.model / BANK_FILE)
        rows, refused = self.localizer.rows, self.localizer.refused
        assert len({row.name for row in rows}) == len(rows)
        for row in rows:
            assert same(row, self.rows[row.name]), f"{row.name} is not as it was"
        for name, answer in answers(self.localizer).items():
            assert answer == self.answers[name], f"the pose in {name} is not as it was"
        if len(rows) < len(SCENES):
            assert refused, f"only {sorted(row.name for row in rows)} are left, none is named"
            if "index" not in refused:
                assert len(rows) + len(refused) >= len(SCENES), refused
            return "left out"
        return "harmless, named" if refused else "harmless"

    def try_to_write(self) -> str:
        """A writer refuses, or changes what it was asked to change and nothing else."""
        try:
            with SceneBank(self.model, read_only=False) as bank:
                before = {row.name: row for row in bank.read().rows}
                new = replace(self.rows["lab"], name="new", uuid=str(uuid.uuid4()))
                given = bank.add(new).id
                bank.remove("hall")
                after = {row.name: row for row in bank.read().rows}
        except ModelError as error:
            return f"writing {refusal(error, self.model / BANK_FILE)}"
        assert given > len(SCENES) + 2, f"id {given} is given twice"
        assert after.keys() - {"new"} == before.keys() - {"hall"}
        assert all(same(after[name], before[name]) for name in after if name != "new")
        return "written"


def places(content: bytes, name: str) -> list[range]:
    """Parts of a file of which one is chosen first: else hardly a case would hit the small ones."""
    if name == BACKBONE_FILE:
        header = 8 + int.from_bytes(content[:8], "little")
        return [range(8), range(8, header), range(header, len(content))]
    pages = [range(i, i + 4096) for i in range(0, len(content), 4096)]
    # Table and index pages begin with their kind, the first one after the file's header.
    trees = [p for p in pages[1:] if content[p.start] in (2, 5, 10, 13)]
    heads = [range(page.start, page.start + 60) for page in trees]
    return [range(100), range(100, 4096), range(len(content)), *heads, *trees]


def damage(content: bytes, name: str, rng: random.Random) -> tuple[bytes, str]:
    """One flipped bit, sometimes a few, or a cut; and what it was."""
    if rng.random() < 0.1:
        keep = rng.choice([rng.randrange(len(content)), rng.randrange(len(content)) // 4096 * 4096])
        return content[:keep], f"cut to {keep} of {len(content)} bytes"
    damaged, flips = bytearray(content), []
    for _ in range(rng.choice([1, 1, 1, 3])):
        place = rng.choice(rng.choice(places(content, name)))
        bit = rng.randrange(8)
        damaged[place] ^= 1 << bit
        flips.append(f"byte {place} bit {bit}")
    return bytes(damaged), ", ".join(flips)


def run(model: Path, seeds: range) -> None:
    """Each seed is a case, told in a line: even ones damage the bank, odd ones the backbone."""
    torch.set_num_threads(1)
    bench = Bench(model)
    for seed in seeds:
        rng = random.Random(seed)
        name = BACKBONE_FILE if seed % 2 else BANK_FILE
        content, what = damage(bench.whole[name], name, rng)
        what = f"seed {seed}: {name} {what}"
        print(json.dumps({"begin": what}), flush=True)
        (model / name).write_bytes(content)
        tries = [bench.try_backbone] if seed % 2 else [bench.try_bank, bench.try_to_write]
        found = []
        for attempt in tries:
            try:
                found.append(attempt())
            except Exception as error:  # Whatever it is, the other cases are tried as well.
                print(json.dumps({"failed": f"{what} {attempt.__name__}: {error!r}"}), flush=True)
                traceback.print_exc()
        (model / name).write_bytes(bench.whole[name])
        print(json.dumps({"found": [f"{name}: {f}" for f in found]}), flush=True)
    assert (bench.try_backbone(), bench.try_bank()) == ("harmless", "harmless")


def watched(model: Path, seeds: range) -> Counter:
    """Run the cases in a process of their own; a case that ends or hangs it is named."""
    command = [sys.executable, __file__, str(model), str(seeds.start), str(seeds.stop)]
    folder = model.parent
    with (folder / "out").open("w") as out, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        said = -1
        while process.poll() is None:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                size = (folder / "out").stat().st_size
                if size == said:
                    process.kill()
                    process.wait()
                said = size
    lines = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
    last = lines[-1].get("begin") if lines else "before the first case"
    errors = (folder / "errors").read_text()[-3000:]
    assert process.returncode == 0, f"ended by {process.returncode} in {last}\n{errors}"
    failed = [line["failed"] for line in lines if "failed" in line]
    assert not failed, "\n".join([f"{len(failed)} cases:", *failed, errors])
    return Counter(f for line in lines for f in line.get("found", []))


@pytest.mark.parametrize(
    ("landmarks", "seeds"),
    [(False, range(CASES * 4 // 5)), (True, range(CASES * 4 // 5, CASES))],
    ids=["linear", "landmarks"],
)
def test_damaged_files_are_refused_or_harmless(tmp_path, landmarks, seeds):
    found = watched(make_model(tmp_path / "model", landmarks), seeds)
    print(f"{len(seeds)} damages: {dict(sorted(found.items()))}")
    # Without all of these outcomes the cases would have tested little.
    for outcome in ("refused", "left out", "harmless", "writing refused", "written"):
        assert found[f"{BANK_FILE}: {outcome}"], f"no case was {outcome}"
    assert found[f"{BACKBONE_FILE}: refused"] > found[f"{BACKBONE_FILE}: harmless"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("damage") / "model", False)


@pytest.fixture
def model(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "model")


def test_a_lowered_counter_of_ids_gives_none_twice(model):
    with sqlite3.connect(model / BANK_FILE) as db:
        assert db.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'scenes'").rowcount == 1
    with SceneBank(model, read_only=False) as bank:
        assert bank.add(replace(bank.row("lab"), name="new", uuid="new")).id == len(SCENES) + 3


def test_an_index_that_leads_to_another_scene_is_not_followed(model):
    # What the index of names says of 'lab' is its name and then its id, 2, in one byte.
    path = model / BANK_FILE
    content = bytearray(path.read_bytes())
    (place,) = [i for i in range(len(content)) if content[i : i + 4] == b"lab\x02"]
    content[place + 3] = 3
    path.write_bytes(content)
    with SceneBank(model, read_only=False) as bank:
        assert bank.row("lab").name == "lab"
        bank.change("lab", frame_id="laboratory")
        rows = bank.rows()
    assert [row.name for row in rows] == list(SCENES)
    assert rows[1].frame_id == "laboratory"


def test_a_scene_with_a_damaged_name_can_be_removed(model):
    path = model / BANK_FILE
    content = path.read_bytes()
    # In the table a name follows its uuid; the index of names has it too, and must agree again.
    with SceneBank(model) as bank:
        before = bank.row("attic").uuid.encode() + b"attic"
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, before[:-5] + b"antic"))
    localizer = Localizer(model, "cpu")
    assert "row 3 is damaged" in localizer.refused["row 3"]
    with SceneBank(model, read_only=False) as bank:
        assert "antic" in bank.names()
        bank.remove("antic")
        assert len(bank.rows()) == len(SCENES) - 1
        with pytest.raises(ModelError, match="no scene 'attic'"):
            bank.row("attic")


if __name__ == "__main__":
    run(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
