# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A picture of what ``mspn bench latency`` measured."""

from __future__ import annotations

from pathlib import Path

from mspn_ros.evaluation.bench_latency import LatencyResult
from mspn_ros.evaluation.plots import (
    ERROR_COLOUR,
    ESTIMATE_COLOUR,
    TRUE_COLOUR,
    new_figure,
    save_figure,
)


def plot_latency(result: LatencyResult, path: Path) -> Path:
    """A bar of the median for everything measured, a line up to p95; the plain path in grey.

    Raises:
        MspnError: the file cannot be written.
    """
    figure, axes = new_figure(1, 1, width=8.0, height=0.6 + 0.33 * len(result.times_ms))
    axis = axes[0, 0]
    names = list(result.times_ms)[::-1]
    for place, name in enumerate(names):
        times = result.times_ms[name]
        colour = TRUE_COLOUR if name == "network" else ESTIMATE_COLOUR
        if name.startswith("plain"):
            colour = ERROR_COLOUR
        axis.barh(place, times["p50"], color=colour, height=0.7)
        axis.plot([times["p50"], times["p95"]], [place, place], color="black", lw=1)
        axis.text(times["p95"], place, f"  {times['p50']:.1f}", va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("milliseconds: median, line to p95")
    axis.set_title(f"{result.model}: {result.engine} on {result.device}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)
