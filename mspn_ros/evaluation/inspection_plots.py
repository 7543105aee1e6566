# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of what training frames cover, as PNG bytes; matplotlib is loaded on demand."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.inspection import draw_views
from mspn_ros.evaluation.plots import ESTIMATE_COLOUR, TRUE_COLOUR
from mspn_ros.evaluation.pose_checks import FAR_DEG, Coverage, positions
from mspn_ros.evaluation.scene_checks import SceneChecks

_FAR_COLOUR, _OUTLIER_COLOUR = "#CC3311", "#000000"


def coverage_map(scene: SceneData, checks: SceneChecks) -> bytes:
    """The scene from above and from the side with viewing directions.

    Test frames beyond what training covers are ringed, frames with odd poses crossed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained", dpi=100)
    views = draw_views(figure, scene)
    marks = [
        (_far_places(scene, checks.coverage), "o", _FAR_COLOUR, "beyond coverage"),
        (_odd_places(scene, checks), "x", _OUTLIER_COLOUR, "odd pose"),
    ]
    for axes, plane in views:
        for places, marker, colour, label in marks:
            if len(places):
                face = {"facecolors": "none"} if marker == "o" else {}
                axes.scatter(
                    *places[:, list(plane)].T,
                    s=70,
                    marker=marker,
                    edgecolors=colour if marker == "o" else None,
                    color=None if marker == "o" else colour,
                    lw=1.3,
                    label=label,
                    **face,
                )
    views[0][0].legend(loc="best", fontsize=8, framealpha=0.8)
    return _png(figure)


def coverage_distances(scene: SceneData, coverage: Coverage) -> bytes:
    """How far test frames are from their nearest training frames, in order and as shares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained", dpi=100)
    grid = figure.subplots(2, 2, width_ratios=(2, 1))
    rows = (
        (coverage.distance, coverage.bound, f"position [{scene.unit}]"),
        (coverage.angle_deg, FAR_DEG, "direction [deg]"),
    )
    for (along, share), (values, bound, label) in zip(grid, rows, strict=True):
        numbers = np.arange(len(values))
        along.plot(numbers, values, ".", color=TRUE_COLOUR, ms=4)
        beyond = coverage.far
        along.plot(numbers[beyond], values[beyond], ".", color=_FAR_COLOUR, ms=5)
        share.plot(np.sort(values), 100 * (numbers + 1) / len(values), color=TRUE_COLOUR)
        along.axhline(bound, color=ESTIMATE_COLOUR, lw=1, ls="--", label="bound of coverage")
        share.axvline(bound, color=ESTIMATE_COLOUR, lw=1, ls="--")
        along.set_ylabel(label, fontsize=9)
        share.set_xlabel(label, fontsize=9)
        share.set_ylabel("test frames [%]", fontsize=9)
        for axes in (along, share):
            axes.grid(color="#dddddd", lw=0.6)
            axes.tick_params(labelsize=8)
    grid[0, 0].legend(loc="best", fontsize=8)
    grid[1, 0].set_xlabel("test frame, in recording order", fontsize=9)
    figure.suptitle("from each test frame to its nearest training frame", fontsize=10)
    return _png(figure)


def _far_places(scene: SceneData, coverage: Coverage | None) -> Any:
    if coverage is None:
        return np.zeros((0, 3))
    return positions(scene.split("test"))[coverage.far]


def _odd_places(scene: SceneData, checks: SceneChecks) -> Any:
    names = {step.second for step in (*checks.poses.outliers, *checks.poses.jumps)}
    names |= {name for name, _ in checks.poses.alone}
    return positions([frame for frame in scene.frames if frame.name in names])


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
