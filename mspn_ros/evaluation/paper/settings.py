# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a preset gains over the paper's recipe, setting by setting: each is turned back alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mspn_ros.evaluation.paper.published import Cells
from mspn_ros.evaluation.paper.runs import Run
from mspn_ros.evaluation.paper.tables import PaperTable, Tables, mean_cell

AS_PRESET = "as the preset"
AS_PAPER = "all turned back"

# The paper's values (section 4.2), by what they are about.
PAPER_SETTINGS: dict[str, tuple[str, ...]] = {
    "positions in raw units": ("coding.normalise_positions=false",),
    "absolute rotations": ("coding.reference_rotation=false",),
    "all rates 1e-4": (
        "optimizer.backbone_lr=1e-4",
        "optimizer.head_lr=1e-4",
        "optimizer.loss_lr=1e-4",
    ),
    "constant rates": ("optimizer.schedule=constant", "optimizer.warmup_epochs=0"),
    "no weight decay": ("optimizer.weight_decay=0",),
    "no colour jitter": ("augment.brightness=0", "augment.contrast=0", "augment.saturation=0"),
    "labels not turned": ("augment.turn_labels=false",),
    "s_q from -3": ("loss.s_q=-3",),
    "batches of 64": ("batch_size=64",),
    "float32": ("precision=float32",),
}


@dataclass(frozen=True)
class SettingsTables:
    """``held_out`` is what settings are chosen by (scene known), ``test`` what came of them."""

    held_out: PaperTable
    test: PaperTable

    def to_json(self) -> dict[str, Any]:
        """Both tables."""
        return {"held_out": self.held_out.to_json(), "test": self.test.to_json()}


def settings_tables(tables: Tables) -> SettingsTables:
    """MSPN end to end: the preset, each setting turned back to the paper's alone, and all of them.

    Raises:
        MspnError: a run fails.
    """
    every = tuple(setting for group in PAPER_SETTINGS.values() for setting in group)
    variants = {AS_PRESET: (), **PAPER_SETTINGS, AS_PAPER: every}
    held_out: Cells = {}
    test: Cells = {}
    for label, settings in variants.items():
        runs = [Run("mspn", tables.names, seed, settings=settings) for seed in tables.seeds]
        scores = [tables.scores(run, "end_to_end") for run in runs]
        test[label] = {s: mean_cell([cells[s] for cells in scores]) for s in tables.names}
        judged = [tables.held_out(run) for run in runs]
        common = [s for s in tables.names if all(s in cells for cells in judged)]
        held_out[label] = {s: mean_cell([cells[s] for cells in judged]) for s in common}
    against = dict.fromkeys([*PAPER_SETTINGS, AS_PAPER], AS_PRESET)
    units = {name: tables.experiment.scenes[name].unit for name in tables.names}

    def table(title: str, cells: Cells) -> PaperTable:
        return PaperTable("settings", title, cells, {}, units, against, tables.note())

    return SettingsTables(
        table("errors on blocks held out of train, scene known", held_out),
        table("errors on the test split, end to end", test),
    )
