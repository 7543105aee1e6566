# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Each scene in turn added to a model of the others: how good, how quick, and what it does to them.

``mspn reproduce new-scenes``. The models and the joint one are runs of an ``Experiment``, trained
once; so is each added row kept once it is judged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.answers import Answer, make_table, write_json
from mspn_ros.evaluation.evaluate import evaluate
from mspn_ros.evaluation.paper.runs import PRESET, Experiment, Run
from mspn_ros.evaluation.plots import new_figure, save_figure
from mspn_ros.inference.localizer import Localizer
from mspn_ros.metrics import SceneScore
from mspn_ros.network.backbone import Architecture
from mspn_ros.network.heads import HeadKind
from mspn_ros.records import ConfigError, MspnError
from mspn_ros.store.backbone_file import BACKBONE_FILE, load_backbone
from mspn_ros.store.bank_file import BANK_FILE
from mspn_ros.store.row_format import row_bytes
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.checkpoint import data_digest
from mspn_ros.training.new_scene import FULL_EPOCHS, NewSceneConfig, SceneAdder

# The paper fine-tunes everything, and joint training is what all is held to.
FULL = "full"
JOINT = "joint"
# Poses of the other scenes are compared on every so manieth of their test frames.
_EVERY = 5


@dataclass(frozen=True)
class NewScene:
    """What came of one scene and one way to add it.

    Errors are medians on the test split with the scene told; ``seconds``, ``cpu_seconds`` (of all
    threads: other work on the machine hardly counts) and ``bytes`` are what adding it took.
    ``others_moved``: the largest change of another scene's pose, in its unit, the scene told;
    ``others_error``: their median errors over what they were before (geometric mean).
    ``others_changed``: the share of their frames that are named otherwise, or become unknown.
    ``restored``: whether all decisions are as before once the scene is removed. None where it
    does not apply.
    """

    scene: str
    way: str
    median_position: float | None
    median_rotation_deg: float | None
    unit: str
    named: float | None = None
    answered: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    bytes: int | None = None
    others_moved: float | None = None
    others_error: float | None = None
    others_changed: float | None = None
    restored: bool | None = None


def head_kinds(architecture: Architecture) -> tuple[HeadKind, ...]:
    """What a row can be behind such a backbone."""
    if architecture.descriptor_features:
        return ("linear", "landmarks", "adapted_landmarks")
    return ("linear", "adapter") if architecture.cells == "none" else ("linear", "dense")


class NewScenes:
    """The experiment; ``tell`` hears what is being done."""

    def __init__(
        self,
        experiment: Experiment,
        names: Sequence[str],
        seed: int,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Raises ConfigError for fewer than three scenes: others are two at least."""
        if len(names) < 3:
            raise ConfigError(f"{len(names)} scenes are too few to leave one out; give 3 or more")
        self.experiment, self.names, self.seed, self.tell = experiment, tuple(names), seed, tell

    def run(self) -> list[NewScene]:
        """All scenes by all ways; those of earlier calls are read back.

        Raises:
            MspnError: a run fails.
        """
        architecture = self.experiment.config(Run(PRESET, self.names, self.seed)).architecture
        ways = (JOINT, *head_kinds(architecture), FULL)
        return [self._judged(scene, way) for scene in self.names for way in ways]

    def base(self, scene: str) -> Run:
        """The model of all other scenes."""
        return Run(PRESET, tuple(name for name in self.names if name != scene), self.seed)

    def _judged(self, scene: str, way: str) -> NewScene:
        base = self.base(scene)
        self.experiment.result(base)
        path = self.experiment.folder(base) / f"add-{scene}-{way}-{self._digest(scene)}.json"
        if path.is_file():
            try:
                return NewScene(**json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise MspnError(f"{path}: damaged ({error}); delete it") from error
        self.tell(f"{scene}: {way}")
        model = self.experiment.folder(base) / "model"
        if way == JOINT:
            found = self._joint(scene)
        elif way == FULL:
            found = self._full(scene, model)
        else:
            found = self._row(scene, cast(HeadKind, way), model)
        write_json(path, asdict(found))
        return found

    def _digest(self, scene: str) -> str:
        """Eight digits of what decides a result besides the base model: settings and the scene."""
        settings = asdict(NewSceneConfig(seed=self.seed))
        text = json.dumps([settings, data_digest([self.experiment.scenes[scene]])], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _joint(self, scene: str) -> NewScene:
        result = self.experiment.result(Run(PRESET, self.names, self.seed))
        return _from_result(scene, JOINT, result["oracle"]["scenes"][scene])

    def _full(self, scene: str, model: Path) -> NewScene:
        settings = (f"epochs={FULL_EPOCHS}",)
        run = Run(PRESET, (scene,), self.seed, self.base(scene), settings=settings)
        result = self.experiment.result(run)
        tuned = self.experiment.folder(run) / "model"
        found = _from_result(scene, FULL, result["oracle"]["scenes"][scene])
        mixed = tuned.with_name("others")
        _with_rows_of(tuned, model, mixed)
        others = self._others(scene)
        before, after = (_told(m, others, self.experiment.device) for m in (model, mixed))
        shutil.rmtree(mixed)
        return replace(
            found,
            seconds=result["seconds"],
            bytes=(tuned / BACKBONE_FILE).stat().st_size,
            others_moved=_moved(before, after),
            others_error=_worse(before, after, model),
        )

    def _row(self, scene: str, way: HeadKind, model: Path) -> NewScene:
        data, device = self.experiment.scenes[scene], self.experiment.device
        settings = NewSceneConfig(head=way, seed=self.seed, device=device)
        work = model.with_name(f"add-{scene}-{way}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(model, work)
        others = self._others(scene)
        told_before, named_before = _told(model, others, device), _named(model, others, device)
        started_s, cpu_s = time.monotonic(), time.process_time()
        adder = SceneAdder(work, data, settings)
        row = adder.add(adder.learn())
        seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
        told, named = _told(work, others, device), _named(work, [*others, data], device)
        score = _score(evaluate(Localizer(work, device), [data], "test", True)[0], work)
        of_others = [a for a in named if a.scene != scene]
        own = [a for a in named if a.scene == scene]
        with SceneBank(work, read_only=False) as bank:
            bank.remove(scene)
        restored = _decisions(_named(work, others, device)) == _decisions(named_before)
        shutil.rmtree(work)
        changed = np.array(_decisions(of_others)) != np.array(_decisions(named_before))
        return NewScene(
            scene,
            way,
            score.median_position,
            score.median_rotation_deg,
            score.unit,
            named=float(np.mean([a.estimate.scene == scene for a in own])),
            answered=float(np.mean([a.estimate.known for a in own])),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            bytes=row_bytes(row),
            others_moved=_moved(told_before, told),
            others_changed=float(changed.mean()),
            restored=restored,
        )

    def _others(self, scene: str) -> list[SceneData]:
        return [self.experiment.scenes[name] for name in self.names if name != scene]


def _from_result(scene: str, way: str, score: dict[str, Any]) -> NewScene:
    errors = score["median_position"], score["median_rotation_deg"]
    return NewScene(scene, way, *errors, score["unit"])


def _with_rows_of(tuned: Path, model: Path, place: Path) -> None:
    """``tuned``'s backbone with ``model``'s rows: what fine-tuning leaves of the other scenes."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    shutil.copy(tuned / BACKBONE_FILE, place / BACKBONE_FILE)
    shutil.copy(model / BANK_FILE, place / BANK_FILE)
    identity = load_backbone(tuned)[1]
    with SceneBank(place, read_only=False) as bank:
        for name in bank.names():
            bank.change(name, backbone_id=identity)


def _told(model: Path, scenes: Sequence[SceneData], device: str) -> list[Answer]:
    """Answers to some of the test frames with the scene told."""
    few = [replace(s, frames=tuple(s.split("test")[::_EVERY])) for s in scenes]
    return evaluate(Localizer(model, device), few, "test", True)[0]


def _named(model: Path, scenes: Sequence[SceneData], device: str) -> list[Answer]:
    """Answers to all test frames, end to end; those of scenes that are not in the model, too."""
    return evaluate(Localizer(model, device), scenes, "test")[0]


def _decisions(answers: Sequence[Answer]) -> list[str]:
    return [answer.estimate.scene for answer in answers]


def _moved(before: Sequence[Answer], after: Sequence[Answer]) -> float:
    moved = 0.0
    for a, b in zip(before, after, strict=True):
        if a.estimate.position is not None and b.estimate.position is not None:
            moved = max(moved, float(np.abs(a.estimate.position - b.estimate.position).max()))
    return moved


def _score(answers: Sequence[Answer], model: Path) -> SceneScore:
    with SceneBank(model) as bank:
        table = make_table(answers, bank.rows(), str(model), oracle=True)
    return table.scores[0]


def _worse(before: Sequence[Answer], after: Sequence[Answer], model: Path) -> float:
    with SceneBank(model) as bank:
        rows = bank.rows()
    tables = [make_table(answers, rows, "", oracle=True) for answers in (before, after)]
    ratios = [
        getattr(b, key) / max(getattr(a, key), 1e-12)
        for a, b in zip(*(table.scores for table in tables), strict=True)
        for key in ("median_position", "median_rotation_deg")
    ]
    return float(np.exp(np.mean(np.log(ratios))))


HEADER = (
    "scene",
    "way",
    "position",
    "rotation",
    "to joint",
    "named right",
    "seconds",
    "CPU s",
    "bytes",
    "others moved",
    "others changed",
    "as before",
)


def table_cells(found: Sequence[NewScene]) -> list[tuple[str, ...]]:
    """The rows of the table under HEADER; "to joint" is position and rotation over joint's."""
    joint = {entry.scene: entry for entry in found if entry.way == JOINT}
    return [_cells(entry, joint.get(entry.scene)) for entry in found]


def _cells(entry: NewScene, joint: NewScene | None) -> tuple[str, ...]:
    def text(value: float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    to_joint = "-"
    if joint is not None:
        pairs = zip(_errors(entry), _errors(joint), strict=True)
        ratios = [text(a / b if a is not None and b else None, "x{:.2f}") for a, b in pairs]
        to_joint = " / ".join(ratios)
    return (
        entry.scene,
        entry.way,
        text(entry.median_position, "{:.3f} " + entry.unit),
        text(entry.median_rotation_deg, "{:.2f}°"),
        to_joint,
        text(entry.named, "{:.1%}"),
        text(entry.seconds, "{:.0f}"),
        text(entry.cpu_seconds, "{:.0f}"),
        text(entry.bytes, "{:d}"),
        text(entry.others_moved, "{:.3g}"),
        text(entry.others_changed, "{:.2%}"),
        "-" if entry.restored is None else ("yes" if entry.restored else "NO"),
    )


def _errors(entry: NewScene) -> tuple[float | None, float | None]:
    return entry.median_position, entry.median_rotation_deg


def plot_new_scenes(found: Sequence[NewScene], path: Path) -> Path:
    """Errors of each way over those of joint training, scene by scene; position, then rotation."""
    joint = {entry.scene: entry for entry in found if entry.way == JOINT}
    scenes = list(joint)
    figure, axes = new_figure(2, 1, 5.5, 3.6)
    for axis, key in zip(axes[0], ("median_position", "median_rotation_deg"), strict=True):
        for way in dict.fromkeys(entry.way for entry in found if entry.way != JOINT):
            errors = {entry.scene: getattr(entry, key) for entry in found if entry.way == way}
            there = [s for s in scenes if errors.get(s) is not None and getattr(joint[s], key)]
            ratios = [errors[scene] / getattr(joint[scene], key) for scene in there]
            axis.plot([scenes.index(s) for s in there], ratios, "o", ms=7, label=way, alpha=0.85)
        axis.axhline(1, color="k", lw=0.8)
        axis.set(yscale="log", ylabel=f"{key.split('_')[1]} error / joint training's")
        axis.set_xticks(range(len(scenes)), scenes, rotation=20)
        axis.grid(alpha=0.3, which="both")
    axes[0, 0].legend(fontsize=8)
    return save_figure(figure, path)
