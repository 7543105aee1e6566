# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's figures 2 and 3 on any scene set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mspn_ros.evaluation.paper.published import Cell
from mspn_ros.evaluation.paper.tables import TRANSFER_EPOCHS, Tables
from mspn_ros.evaluation.plots import new_figure, save_figure

# Okabe and Ito's colours: told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#999999")


def figure2(tables: Tables, path: Path) -> dict[str, Any]:
    """Test errors of each left-out scene while it is learned, from MSPN and from the weights.

    The paper shows its Fire scene. Returns ``{scene: {"mspn" | "imagenet": [[position, deg]]}}``.
    """
    count = min(TRANSFER_EPOCHS, tables.experiment.epochs or TRANSFER_EPOCHS)
    values = {
        name: {
            start: tables.transfer(name, start == "mspn", count) for start in ("mspn", "imagenet")
        }
        for name in tables.names
    }
    figure, axes = new_figure(len(values), 2, 3.2, 2.8)
    epochs = range(1, count + 1)
    for column, (name, curves) in enumerate(values.items()):
        unit = tables.experiment.scenes[name].unit
        for colour, (start, cells) in zip(_COLOURS, curves.items(), strict=False):
            axes[0, column].plot(epochs, [c.position for c in cells], ".-", color=colour)
            axes[1, column].plot(
                epochs, [c.rotation_deg for c in cells], ".-", color=colour, label=f"from {start}"
            )
        axes[0, column].set(title=name, ylabel=f"position ({unit})")
        axes[1, column].set(xlabel="epoch", ylabel="rotation (deg)")
        axes[1, column].legend(fontsize=7)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_ylim(0, 1.05 * axis.dataLim.y1)
    figure.suptitle(f"Median test errors of a new scene; {tables.note()}", fontsize=9)
    save_figure(figure, path)
    return {
        name: {start: [[c.position, c.rotation_deg] for c in cells] for start, cells in row.items()}
        for name, row in values.items()
    }


def figure3(tables: Tables, more: Sequence[str], path: Path) -> dict[str, Any]:
    """Errors by what is learned together: one scene, the dataset, and ``more`` scenes with it.

    All with our network without PoseNet's hidden layer, scene known. Returns
    ``{training: {scene: [position, deg]}}``.
    """
    groups: dict[str, dict[str, Cell]] = {
        "single scene": tables.single("mspn_oracle"),
        "one dataset": tables.joint("mspn_oracle", tables.names),
    }
    if more:
        together = tables.joint("mspn_oracle", [*tables.names, *more])
        groups["several datasets"] = {name: together[name] for name in tables.names}
    figure, axes = new_figure(2, 1, 5.5, 3.6)
    width = 0.8 / len(groups)
    for axis, key, label in (
        (axes[0, 0], "position", "position error / single scene's"),
        (axes[0, 1], "rotation_deg", "rotation error (deg)"),
    ):
        for i, (name, cells) in enumerate(groups.items()):
            # A room and a street share no axis; ratios to the single scene do.
            scale = {
                s: getattr(groups["single scene"][s], key) if key == "position" else 1.0
                for s in tables.names
            }
            heights = [getattr(cells[s], key) / scale[s] for s in tables.names]
            places = [j + (i - (len(groups) - 1) / 2) * width for j in range(len(tables.names))]
            axis.bar(places, heights, width * 0.95, color=_COLOURS[i], label=name)
        axis.set_xticks(range(len(tables.names)), tables.names, rotation=20, fontsize=8)
        axis.set(ylabel=label)
        axis.grid(alpha=0.3, axis="y")
    axes[0, 1].legend(fontsize=8)
    figure.suptitle(tables.note(), fontsize=9)
    save_figure(figure, path)
    return {
        name: {scene: [c.position, c.rotation_deg] for scene, c in cells.items()}
        for name, cells in groups.items()
    }
