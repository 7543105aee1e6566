# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The passes of a recording from above: which frames were taken, which were not, jumps and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.datasets.pass_report import PassReport
from mspn_ros.evaluation.plots import new_figure, save_figure

# Okabe and Ito's colours; what is not named here is grey.
_STYLES = {
    "not moved on": ("#bbbbbb", ".", 6),
    "between train and test": ("#777777", ".", 12),
    "train": ("#0072B2", "o", 9),
    "test": ("#D55E00", "^", 14),
    "blurred": ("#CC79A7", "x", 26),
    "exposure": ("#E69F00", "+", 32),
    "broken image": ("#000000", "1", 30),
}


def draw_passes(reports: Sequence[PassReport], path: Path) -> None:
    """A PNG with the passes from above (the two axes along which they are widest), and over time.

    Raises:
        MspnError: ``path`` cannot be written.
    """
    everything = np.array([p for report in reports for p in report.positions])
    wide = sorted(np.argsort(np.ptp(everything, axis=0))[1:].tolist())
    figure, rows = new_figure(2, len(reports), 5.5, 4.6)
    for (above, over_time), report in zip(rows, reports, strict=True):
        _draw_above(above, report, everything, wide)
        _draw_counts(over_time, report)
    save_figure(figure, path)


def _draw_above(axes: Any, report: PassReport, everything: Any, wide: list[int]) -> None:
    points, fates = np.array(report.positions), np.array(report.fates)
    axes.scatter(*everything[:, wide].T, s=1, c="#e5e5e5", zorder=0)
    axes.plot(*points[:, wide].T, color="#cccccc", lw=0.5, zorder=1)
    for fate in [*_STYLES, *sorted(set(fates) - set(_STYLES))]:
        chosen = points[fates == fate][:, wide]
        if len(chosen):
            colour, marker, size = _STYLES.get(fate, ("#555555", "2", 26))
            label = f"{fate}: {len(chosen)}"
            axes.scatter(*chosen.T, s=size, c=colour, marker=marker, label=label, lw=1, zorder=2)
    for lines, name, colour, dashes in (
        (report.jump_lines, "jump", "#e00000", "-"),
        (report.gap_lines, "gap", "#009E73", ":"),
    ):
        for number, ends in enumerate(lines):
            places = np.array(ends)[:, wide].T
            axes.plot(
                *places,
                color=colour,
                lw=2,
                ls=dashes,
                label=name if number == 0 else None,
                zorder=3,
            )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"{'xyz'[wide[0]]} ({report.unit}) in {report.world}")
    axes.set_ylabel(f"{'xyz'[wide[1]]} ({report.unit})")
    axes.set_title(f"{report.name}: {report.source}", fontsize=9, parse_math=False)
    axes.grid(color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, framealpha=0.85)


def _draw_counts(axes: Any, report: PassReport) -> None:
    counts = {k: n for k, n in {**report.frames, **report.left_out}.items() if n}
    names = [name if len(name) < 44 else f"{name[:42]}…" for name in counts]
    colours = [_STYLES.get(name, ("#555555", "", 0))[0] for name in counts]
    bars = axes.barh(names, list(counts.values()), color=colours)
    axes.bar_label(bars, fontsize=8, padding=2)
    axes.invert_yaxis()
    axes.set_title(f"{report.images} images in {report.seconds:.1f} s", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.12)
