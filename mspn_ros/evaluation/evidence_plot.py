# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A picture of one answer: what was seen where in the image, and where that puts the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.evaluation.plots import (
    ERROR_COLOUR,
    ESTIMATE_COLOUR,
    new_figure,
    save_figure,
)
from mspn_ros.inference.evidence import Evidence
from mspn_ros.records import ImageHW3, SceneRow

# Opacity of the line to a sighting that has no part in the answer.
_FAINTEST = 0.25


def plot_evidence(image: ImageHW3, evidence: Evidence, row: SceneRow, path: Path) -> Path:
    """Left, the image with its sightings; right, the scene seen along its least axis.

    Raises:
        MspnError: the picture cannot be written.
    """
    figure, axes = new_figure(2, 1, 6.0, 4.6)
    _draw_image(figure, axes[0, 0], image, evidence)
    _draw_scene(axes[0, 1], evidence, row)
    return save_figure(figure, path)


def _draw_image(figure: Any, axis: Any, image: ImageHW3, evidence: Evidence) -> None:
    axis.imshow(image)
    height, width = image.shape[:2]
    seen, expected = evidence.seen_M2, evidence.expected_M2
    for a, b, weight in zip(seen, expected, evidence.weight_M, strict=True):
        # Sightings left out are off by much: drawn strongly, they would hide the rest.
        axis.plot([a[0], b[0]], [a[1], b[1]], color="w", lw=0.6, alpha=_FAINTEST + 0.75 * weight)
    if len(seen):
        dots = axis.scatter(*seen.T, c=evidence.weight_M, s=14, cmap="viridis", vmin=0, vmax=1)
        figure.colorbar(dots, ax=axis, shrink=0.7, label="weight")
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axis.set_title(f"{len(seen)} landmarks seen; lines end where the pose expects them", fontsize=9)


def _draw_scene(axis: Any, evidence: Evidence, row: SceneRow) -> None:
    known = evidence.point_M3
    centres = evidence.centre_C3
    all_points = np.concatenate((known, row.box_low[None], row.box_high[None]))
    # Seen along the axis in which what is shown is flattest.
    first, second = np.sort(np.argsort(np.ptp(all_points, axis=0))[-2:])
    if len(known):
        axis.scatter(
            known[:, first], known[:, second], c=evidence.weight_M, s=10, cmap="viridis", vmin=0
        )
        for point in known:
            axis.plot(
                [evidence.position[first], point[first]],
                [evidence.position[second], point[second]],
                color=ERROR_COLOUR,
                lw=0.15,
            )
    axis.plot(centres[:, first], centres[:, second], ".", color="k", ms=2, label="votes of cells")
    reach = 0.08 * float(np.ptp(all_points, axis=0).max())
    ahead = evidence.position + reach * evidence.rotation[:, 2]
    axis.plot(
        [evidence.position[first], ahead[first]],
        [evidence.position[second], ahead[second]],
        color=ESTIMATE_COLOUR,
        lw=2,
    )
    place = evidence.position[first], evidence.position[second]
    axis.plot(*place, "o", color=ESTIMATE_COLOUR, label="the answer")
    axis.set(
        title=row.name,
        xlabel=f"{'xyz'[first]} ({row.unit})",
        ylabel=f"{'xyz'[second]} ({row.unit})",
    )
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(fontsize=8, loc="best")
