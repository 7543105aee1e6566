# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a result: tracks, error curves, training curves. matplotlib is loaded on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.evaluation.answers import Answer, by_scene, scene_errors
from mspn_ros.records import MspnError, SceneRow

# Okabe and Ito's colours: told apart by colour-blind readers.
TRUE_COLOUR, ESTIMATE_COLOUR, ERROR_COLOUR = "#0072B2", "#D55E00", "#999999"


def new_figure(columns: int, rows: int, width: float = 4.2, height: float = 3.8) -> tuple[Any, Any]:
    """A figure and its ``rows`` x ``columns`` axes, each panel ``width`` x ``height`` inches."""
    from matplotlib.figure import Figure

    # Figure and not pyplot: no global state, no display needed.
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: Path) -> Path:
    """Write a PNG.

    Raises:
        MspnError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise MspnError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def plot_tracks(answers: Sequence[Answer], rows: Sequence[SceneRow], path: Path) -> Path:
    """One panel a scene, seen from above: true positions, estimates, a line from each to its truth.

    The two axes of the largest spread of true positions are shown; frames that were named as
    another scene, or not answered, are crosses at their true position.
    """
    groups = by_scene(answers)
    columns = max(1, len(groups)) if len(groups) <= 4 else 3
    figure, axes = new_figure(columns, max(1, -(-len(groups) // columns)))
    units = {row.name: row.unit for row in rows}
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    for axis, (scene, group) in zip(axes.flat, groups.items(), strict=False):
        true = np.array([answer.pose.position for answer in group if answer.pose])
        first, second = np.sort(np.argsort(np.ptp(true, axis=0))[-2:])
        good = np.array([a.estimate.known and a.estimate.scene == scene for a in group])
        estimated = np.array([a.estimate.position for a in group if _good(a, scene)])
        axis.plot(true[:, first], true[:, second], ".", color=TRUE_COLOUR, ms=4, label="true")
        if len(estimated):
            for t, e in zip(true[good], estimated.reshape(-1, 3), strict=True):
                axis.plot([t[first], e[first]], [t[second], e[second]], color=ERROR_COLOUR, lw=0.4)
            axis.plot(
                estimated[:, first],
                estimated[:, second],
                ".",
                color=ESTIMATE_COLOUR,
                ms=4,
                label="estimated",
            )
        if not good.all():
            missed = true[~good]
            axis.plot(missed[:, first], missed[:, second], "kx", ms=5, label="no or wrong scene")
        unit = units.get(scene, "?")
        axis.set(title=scene, xlabel=f"{'xyz'[first]} ({unit})", ylabel=f"{'xyz'[second]} ({unit})")
        axis.set_aspect("equal", adjustable="datalim")
        axis.legend(fontsize=7, loc="best")
    return save_figure(figure, path)


def _good(answer: Answer, scene: str) -> bool:
    return answer.estimate.known and answer.estimate.scene == scene


def plot_errors(answers: Sequence[Answer], rows: Sequence[SceneRow], path: Path) -> Path:
    """Share of frames below an error, per scene: position in % of the scene's extent, rotation."""
    figure, axes = new_figure(2, 1, 5.0)
    known = {row.name: row for row in rows}
    for scene, group in by_scene(answers).items():
        errors = scene_errors(group, known)
        extent = known[scene].extent if scene in known else 1.0
        share = np.arange(1, len(group) + 1) / len(group)
        axes[0, 0].plot(np.sort(100 * errors.position / extent), share, label=scene)
        axes[0, 1].plot(np.sort(errors.rotation_deg), share, label=scene)
    axes[0, 0].set(xlabel="position error (% of extent)", ylabel="share of frames", xscale="log")
    axes[0, 1].set(xlabel="rotation error (deg)", xscale="log")
    for axis in axes.flat:
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
    axes[0, 1].legend(fontsize=8)
    return save_figure(figure, path)


def plot_history(history: Sequence[dict[str, Any]], path: Path) -> Path:
    """Training loss, and each scene's errors on held-out blocks, over epochs."""
    figure, axes = new_figure(3, 1)
    axes[0, 0].plot([e["epoch"] for e in history], [e["loss"] for e in history], color="k")
    axes[0, 0].set(title="training loss", xlabel="epoch")
    judged = [entry for entry in history if entry.get("validation")]
    for axis, key, title in (
        (axes[0, 1], "median_position", "held-out position error"),
        (axes[0, 2], "median_rotation_deg", "held-out rotation error (deg)"),
    ):
        for i, first in enumerate(judged[0]["validation"] if judged else []):
            values = [entry["validation"][i][key] for entry in judged]
            axis.plot([entry["epoch"] for entry in judged], values, label=first["scene"])
        axis.set(title=title, xlabel="epoch", yscale="log")
        axis.grid(alpha=0.3, which="both")
    if judged:
        axes[0, 2].legend(fontsize=7)
    return save_figure(figure, path)
