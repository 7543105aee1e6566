# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's tables as lists of runs, and what is printed beside its own numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mspn_ros.evaluation.paper.published import Cell, Cells, published
from mspn_ros.evaluation.paper.runs import Experiment, Run
from mspn_ros.records import ConfigError
from mspn_ros.training.new_scene import FULL_EPOCHS

TRANSFER_EPOCHS = FULL_EPOCHS
ALL_SCENES = "all_scenes"


@dataclass(frozen=True)
class PaperTable:
    """One table: ``cells`` are ours, means over seeds; ``paper`` are the printed ones.

    ``units`` names each of our scenes' unit of position. ``against`` maps a method to the one it
    is compared with below the table. ``note`` says on what settings it rests.
    """

    name: str
    title: str
    cells: Cells
    paper: Cells
    units: dict[str, str]
    against: dict[str, str]
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain values: ours and the paper's by method and scene, and the ratios."""

        def plain(cells: Cells) -> dict[str, Any]:
            return {m: {s: c.to_json() for s, c in row.items()} for m, row in cells.items()}

        return {
            "table": self.name,
            "title": self.title,
            "note": self.note,
            "units": self.units,
            "ours": plain(self.cells),
            "paper": plain(self.paper),
            "ratios": [
                {"method": method, "against": other, "ours": ours, "paper": theirs}
                for method, other, ours, theirs in self.ratios()
            ],
        }

    def ratios(self) -> list[tuple[str, str, Ratio, Ratio]]:
        """(method, the one it is compared with, our ratio, the paper's) for each comparison."""
        return [
            (method, other, ratio(self.cells, method, other), ratio(self.paper, method, other))
            for method, other in self.against.items()
        ]


# (position, rotation) as geometric means over scenes; None where there is nothing to compare.
Ratio = tuple[float, float] | None


def ratio(cells: Cells, method: str, other: str) -> Ratio:
    """Errors of ``method`` over those of ``other``, over the scenes that both have.

    ``method`` may end in "*": all methods that start so, compared scene by scene.
    """
    base = cells.get(other, {})
    start = method.removesuffix("*")
    pairs = [
        (cell, base[scene])
        for name, row in cells.items()
        if name == method or (start != method and name.startswith(start))
        for scene, cell in row.items()
        if scene in base
    ]
    if not pairs or not all(math.isfinite(c.position) for pair in pairs for c in pair):
        return None
    return (
        _geometric_mean(a.position / b.position for a, b in pairs),
        _geometric_mean(a.rotation_deg / b.rotation_deg for a, b in pairs),
    )


def _geometric_mean(values: Iterable[float]) -> float:
    return math.exp(math.fsum(logs := [math.log(v) for v in values]) / len(logs))


def _number(value: float | None) -> float:
    """JSON has null for a median among frames without an answer."""
    return math.inf if value is None else value


def mean_cell(cells: Sequence[Cell]) -> Cell:
    """Mean over seeds."""
    count = len(cells)
    accuracies = [cell.accuracy for cell in cells if cell.accuracy is not None]
    return Cell(
        sum(cell.position for cell in cells) / count,
        sum(cell.rotation_deg for cell in cells) / count,
        sum(accuracies) / count if accuracies else None,
    )


class Tables:
    """All tables of one experiment; a run is trained when the first table asks for it."""

    def __init__(self, experiment: Experiment, names: Sequence[str], seeds: Sequence[int]) -> None:
        self.experiment, self.names, self.seeds = experiment, tuple(names), tuple(seeds)

    def scores(self, run: Run, key: str = "oracle") -> dict[str, Cell]:
        """A run's test errors by scene; ``key`` is "oracle" or "end_to_end"."""
        scenes = self.experiment.result(run)[key]["scenes"]
        return {
            name: Cell(
                _number(score["median_position"]),
                _number(score["median_rotation_deg"]),
                score["scene_accuracy"] if key == "end_to_end" else None,
            )
            for name, score in scenes.items()
        }

    def held_out(self, run: Run) -> dict[str, Cell]:
        """A run's last errors on blocks cut from train, by scene that has some; scene known."""
        last = self.experiment.result(run)["history"][-1].get("validation", [])
        return {
            score["scene"]: Cell(score["median_position"], score["median_rotation_deg"])
            for score in last
        }

    def single(self, method: str) -> dict[str, Cell]:
        """One network a scene."""
        cells = {}
        for name in self.names:
            runs = [Run(method, (name,), seed) for seed in self.seeds]
            cells[name] = mean_cell([self.scores(run)[name] for run in runs])
        return cells

    def joint(self, method: str, names: Sequence[str], key: str = "oracle") -> dict[str, Cell]:
        """One network for all scenes of ``names``."""
        found = [self.scores(Run(method, tuple(names), seed), key) for seed in self.seeds]
        return {name: mean_cell([cells[name] for cells in found]) for name in names}

    def without(self, scene: str) -> tuple[str, ...]:
        """The scenes of a leave-one-out network."""
        return tuple(name for name in self.names if name != scene)

    def transfer(self, scene: str, from_mspn: bool, epochs: int) -> list[Cell]:
        """Test errors on ``scene`` after each epoch, from MSPN without it or from the weights."""
        curves = []
        for seed in self.seeds:
            start = Run("mspn_oracle", self.without(scene), seed) if from_mspn else None
            run = Run("mspn_oracle", (scene,), seed, start, epochs)
            history = self.experiment.result(run)["history"]
            scores = [entry["test"][0] for entry in history[:epochs]]
            curves.append([Cell(s["median_position"], s["median_rotation_deg"]) for s in scores])
        return [mean_cell(cells) for cells in zip(*curves, strict=True)]

    def table(self, number: int) -> PaperTable:
        """Table 1 to 8 of the paper; 1, 4, 5, 7 are 7Scenes, 2, 3, 6, 8 are Cambridge."""
        make = {
            1: self._comparison,
            2: self._comparison,
            3: self._leave_one_out,
            4: self._leave_one_out,
            5: self._one_epoch,
            6: self._one_epoch,
            7: self._detection,
            8: self._detection,
        }[number]
        title, cells, against = make()
        paper = dict(published(number))
        if number in (3, 4):
            # What all scenes together gave stands in the paper's tables 2 and 1.
            paper[ALL_SCENES] = published(2 if number == 3 else 1)["mspn_oracle"]
        units = {name: self.experiment.scenes[name].unit for name in self.names}
        return PaperTable(f"table{number}", title, cells, paper, units, against, self.note())

    def note(self) -> str:
        """Settings that every table of this experiment rests on."""
        config = self.experiment.config(Run("mspn", self.names))
        full = replace(self.experiment, epochs=None).config(Run("mspn", self.names)).epochs
        epochs = f"{config.epochs} epochs" + (f" (preset: {full})" if config.epochs != full else "")
        seeds = ", ".join(map(str, self.seeds))
        weights = config.weights.rsplit("/", 1)[-1]
        return (
            f"preset {self.experiment.preset.stem}, {config.architecture.backbone} "
            f"({weights}), {config.architecture.crop} px, {epochs}, seed {seeds}"
        )

    def _comparison(self) -> tuple[str, Cells, dict[str, str]]:
        cells = {
            "posenet_single": self.single("posenet"),
            "mapnet_single": self.single("mapnet"),
            "naive_multiple": self.joint("naive", self.names),
            "mspn_oracle": self.joint("mspn_oracle", self.names),
        }
        against = dict.fromkeys(list(cells)[1:], "posenet_single")
        return "median position / rotation in degrees, scene known", cells, against

    def _leave_one_out(self) -> tuple[str, Cells, dict[str, str]]:
        _need(self.names, 3)
        cells = {ALL_SCENES: self.joint("mspn_oracle", self.names)}
        for name in self.names:
            cells[f"without_{name}"] = self.joint("mspn_oracle", self.without(name))
        title = "MSPN trained without one scene, scene known"
        return title, cells, {"without_*": ALL_SCENES}

    def _one_epoch(self) -> tuple[str, Cells, dict[str, str]]:
        _need(self.names, 2)
        cells = {
            f"{start}_init_1_epoch": {
                name: self.transfer(name, start == "mspn", 1)[0] for name in self.names
            }
            for start in ("imagenet", "mspn")
        }
        against = {"mspn_init_1_epoch": "imagenet_init_1_epoch"}
        return "a new scene after one epoch, by initialisation", cells, against

    def _detection(self) -> tuple[str, Cells, dict[str, str]]:
        cells = {
            "mspn_oracle": self.joint("mspn_oracle", self.names),
            "mspn_end_to_end": self.joint("mspn", self.names, "end_to_end"),
        }
        against = {"mspn_end_to_end": "mspn_oracle"}
        return "scene known (trained without classifier) and end to end", cells, against


def _need(names: Sequence[str], count: int) -> None:
    if len(names) < count:
        raise ConfigError(
            f"{len(names)} scenes are too few to leave one out; give {count} or more by --data"
        )
