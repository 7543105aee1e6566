# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the paper printed, as numbers; cells that are missing or unreadable there are absent."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache

from mspn_ros.paths import package_file


@dataclass(frozen=True)
class Cell:
    """Median errors of one scene; ``accuracy`` of naming it where the table has it."""

    position: float
    rotation_deg: float
    accuracy: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Plain values, null for what is infinite."""
        return {k: v if v is None or math.isfinite(v) else None for k, v in vars(self).items()}


# method -> scene -> cell
Cells = dict[str, dict[str, Cell]]


@cache
def published(table: int) -> Cells:
    """Table ``table`` (1 to 8) of the paper; metres and degrees."""
    accuracy = {
        (row["table"], row["scene"]): float(row["accuracy"]) for row in _rows("scene_accuracy.csv")
    }
    cells: Cells = {}
    for row in _rows("results.csv"):
        if int(row["table"]) != table:
            continue
        named = accuracy.get((row["table"], row["scene"])) if "end" in row["method"] else None
        cells.setdefault(row["method"], {})[row["scene"]] = Cell(
            float(row["median_translation_m"]), float(row["median_rotation_deg"]), named
        )
    return cells


def _rows(name: str) -> list[dict[str, str]]:
    with package_file("evaluation", "paper", name).open(newline="") as file:
        return list(csv.DictReader(file))
