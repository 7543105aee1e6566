# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What other engines answer than the plain path does, on frames of the model's scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mspn_ros import metrics
from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.answers import Answer, by_scene, scene_errors
from mspn_ros.evaluation.evaluate import evaluate
from mspn_ros.inference.engine_names import ENGINES, PLAIN
from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import ConfigError, SceneRow

# An engine is as good as the plain path if poses are apart by at most this share of the scene's
# median error at the median, medians get worse by at most so much, and so many frames have the
# same scene.
MOST_APART, MOST_WORSE, LEAST_SAME = 0.05, 0.01, 0.999

# engine, done, total
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Of one engine and scene; the keys of ``mspn bench engines --json``.

    ``position_apart``, ``rotation_apart``: medians of the distances between its poses and the plain
    path's, over the plain path's median error; ``farthest_position`` in the scene's unit, as a
    share of its extent. ``position_change``, ``rotation_change``: its median error over the plain
    path's; all four None where the plain path's median is infinite: most frames were taken for
    another scene. ``same_scene``: share of frames for which both name the same scene. ``within``:
    whether all of that is within the bounds.
    """

    engine: str
    scene: str
    frames: int
    position_apart: float | None
    rotation_apart: float | None
    farthest_position: float
    position_change: float | None
    rotation_change: float | None
    same_scene: float
    within: bool


def bench_engines(
    model: Path,
    device: str,
    names: Sequence[str],
    scenes: Sequence[SceneData],
    split: str,
    progress: Progress,
) -> tuple[list[EngineResult], dict[str, str]]:
    """Compare engines with the plain path; those that cannot run here come with the reason.

    Without ``names``, all engines are tried.

    Raises:
        ModelError, ConfigError, DatasetError: the model or the data cannot be read, or an engine
            that was named cannot run.
    """
    plain, rows = _answers(model, device, PLAIN, scenes, split, progress)
    results, left_out = [], {}
    for name in names or [name for name in ENGINES if name != PLAIN]:
        try:
            found, _ = _answers(model, device, name, scenes, split, progress)
        except ConfigError as error:
            if names:
                raise
            left_out[name] = str(error)
            continue
        for scene, ours in by_scene(found).items():
            results.append(_compared(name, scene, ours, by_scene(plain)[scene], rows))
    return results, left_out


def _answers(
    model: Path,
    device: str,
    engine: str,
    scenes: Sequence[SceneData],
    split: str,
    progress: Progress,
) -> tuple[list[Answer], dict[str, SceneRow]]:
    """Answers without a threshold, and the rows beside them, by name.

    What is compared is poses and scenes, not how sure they are.
    """
    localizer = Localizer.load(model, device, engine=engine)
    answers, _ = evaluate(
        localizer,
        scenes,
        split,
        progress=lambda done, total: progress(engine, done, total),
        min_confidence=0.0,
    )
    return answers, {row.name: row for row in localizer.rows}


def _compared(
    engine: str,
    scene: str,
    ours: Sequence[Answer],
    plain: Sequence[Answer],
    rows: dict[str, SceneRow],
) -> EngineResult:
    pairs = zip(ours, plain, strict=True)
    share_same = float(np.mean([a.estimate.scene == b.estimate.scene for a, b in pairs]))
    position, rotation, farthest = _apart(ours, plain)
    error, own_error = scene_errors(plain, rows), scene_errors(ours, rows)
    medians = [
        metrics.median_error(part)
        for part in (error.position, error.rotation_deg, own_error.position, own_error.rotation_deg)
    ]
    known = all(np.isfinite(medians))
    apart = (position / medians[0], rotation / medians[1]) if known else (None, None)
    change = (medians[2] / medians[0], medians[3] / medians[1]) if known else (None, None)
    bounds = (MOST_APART, MOST_APART, 1 + MOST_WORSE, 1 + MOST_WORSE)
    return EngineResult(
        engine,
        scene,
        len(ours),
        apart[0],
        apart[1],
        farthest / rows[scene].extent,
        change[0],
        change[1],
        share_same,
        share_same >= LEAST_SAME
        and all(
            ratio is not None and ratio <= bound
            for ratio, bound in zip((*apart, *change), bounds, strict=True)
        ),
    )


def _apart(ours: Sequence[Answer], plain: Sequence[Answer]) -> tuple[float, float, float]:
    """Median distance of poses in position and rotation (degrees), and the farthest position.

    Of frames that both know as the same scene.
    """
    estimates = [
        (a.estimate, b.estimate)
        for a, b in zip(ours, plain, strict=True)
        if a.estimate.known and a.estimate.scene == b.estimate.scene
    ]
    positions = np.array([[estimate.position for estimate in pair] for pair in estimates])
    quaternions = np.array([[estimate.quaternion for estimate in pair] for pair in estimates])
    position = metrics.position_error(positions[:, 0], positions[:, 1])
    rotation = metrics.rotation_error_deg(quaternions[:, 0], quaternions[:, 1])
    return metrics.median_error(position), metrics.median_error(rotation), float(position.max())
