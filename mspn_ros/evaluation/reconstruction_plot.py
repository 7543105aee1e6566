# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A reconstruction as a picture: its points from above and from the side, and the cameras in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.datasets.from_video import View
from mspn_ros.geometry import viewing_direction
from mspn_ros.records import Array, ConfigError

# Okabe and Ito's colours, as in inspection.py.
_COLOURS = {"train": "#0072B2", "test": "#D55E00", "left out": "#999999"}
_MOST_POINTS, _ARROWS = 30_000, 60
# Points far outside would shrink everything else to a dot.
_SHOWN = (2.0, 98.0)
# How far around the cameras is drawn, by the diagonal of their box.
_REACH = 1.5


def draw_reconstruction(view: View, path: Path) -> None:
    """Draw points in their colours and cameras with viewing directions into a PNG; z is up.

    Raises:
        ConfigError: ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    top, side = figure.subplots(2, 1, height_ratios=(2.2, 1))
    centres = np.array([p.position for poses in view.poses.values() for p in poses])
    wide = int(np.ptp(centres[:, :2], axis=0).argmax())
    for axes, plane in ((top, [0, 1]), (side, [wide, 2])):
        _draw(axes, view, plane, centres)
    counts = ", ".join(f"{len(poses)} {split}" for split, poses in view.poses.items())
    figure.suptitle(f"{view.title}: {len(view.points_N3)} points, {counts}", parse_math=False)
    top.set_title("from above", fontsize=9)
    side.set_title("from the side", fontsize=9)
    top.legend(loc="best", fontsize=8, framealpha=0.8, markerscale=2)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); check the folder and the disk"
        ) from error


def _draw(axes: Any, view: View, plane: list[int], centres: Array) -> None:
    low, high = _shown_box(view.points_N3, centres)
    inside = ((view.points_N3 >= low) & (view.points_N3 <= high)).all(1)
    shown = np.flatnonzero(inside)[:: max(1, int(inside.sum()) // _MOST_POINTS)]
    axes.scatter(
        *view.points_N3[shown][:, plane].T, s=1.5, c=view.colours_N3[shown] / 255, lw=0, alpha=0.7
    )
    length = 0.05 * float(np.linalg.norm(high - low))
    for split, poses in view.poses.items():
        colour = _COLOURS[split]
        points = np.array([pose.position for pose in poses])
        quaternions = np.array([pose.quaternion for pose in poses])
        axes.scatter(*points[:, plane].T, s=9, c=colour, lw=0, label=split, zorder=3)
        chosen = np.unique(np.linspace(0, len(poses) - 1, _ARROWS).round().astype(int))
        arrows = length * viewing_direction(quaternions)[chosen]
        axes.quiver(
            *points[chosen][:, plane].T,
            *arrows[:, plane].T,
            color=colour,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.003,
            zorder=3,
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{'xyz'[plane[0]]} [{view.unit}]", fontsize=9)
    axes.set_ylabel(f"{'xyz'[plane[1]]} [{view.unit}]", fontsize=9)


def _shown_box(points: Array, centres: Array) -> tuple[Array, Array]:
    """What the middle of the points and all cameras span, with a margin."""
    if len(points):
        spans = np.percentile(points, _SHOWN, axis=0)
        low, high = np.minimum(spans[0], centres.min(0)), np.maximum(spans[1], centres.max(0))
    else:
        low, high = centres.min(0), centres.max(0)
    # Outdoors the horizon would shrink the cameras to a dot.
    reach = _REACH * float(np.linalg.norm(np.ptp(centres, axis=0)))
    low, high = np.maximum(low, centres.min(0) - reach), np.minimum(high, centres.max(0) + reach)
    margin = 0.05 * (high - low)
    return low - margin, high + margin
