# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``Answer``: one frame's truth and estimate side by side, and the tables made of many."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mspn_ros import metrics
from mspn_ros.datasets.trajectory import write_tum
from mspn_ros.geometry import Similarity
from mspn_ros.records import Array, MspnError, Pose, PoseEstimate, SceneRow
from mspn_ros.store.files import write_whole


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame, what is true of it, and what was answered.

    ``pose`` is camera-to-scene in the true scene's frame, None where no ground truth covers the
    frame (it then takes no part in any table). ``latency_ms`` is that of this frame.
    """

    name: str
    scene: str
    stamp_s: float
    pose: Pose | None
    estimate: PoseEstimate
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of one scene's frames, (N,) each; infinite without an answer in a shared frame."""

    position: Array
    rotation_deg: Array
    answered: npt.NDArray[np.bool_]
    scene_right: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """The result of an evaluation or a replay; ``to_json`` has the documented keys.

    ``dropped`` counts frames without any answer of the localizer (undecodable, overtaken or
    lost); ``counts`` breaks them down.
    """

    model: str
    oracle: bool
    scores: tuple[metrics.SceneScore, ...]
    latency_ms: dict[str, float] | None = None
    dropped: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def mean(self) -> metrics.SceneScore | None:
        """Mean over scenes, None without scenes."""
        return metrics.mean_score(self.scores) if self.scores else None

    def to_json(self) -> dict[str, Any]:
        """Keys that scripts rely on; null for what is infinite."""
        scenes = {score.scene: _score_json(score) for score in self.scores}
        return {
            "model": self.model,
            "oracle": self.oracle,
            "scenes": scenes,
            "mean": _score_json(self.mean) if self.mean else None,
            "latency_ms": self.latency_ms,
            "dropped": self.dropped,
            "counts": self.counts,
        }


def _score_json(score: metrics.SceneScore) -> dict[str, Any]:
    fields = asdict(score)
    del fields["scene"]
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in fields.items()
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON without NaN or Infinity.

    Raises:
        MspnError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MspnError(f"{path}: cannot be written ({error.strerror})") from error
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def latency_percentiles(latencies_ms: Sequence[float]) -> dict[str, float] | None:
    """``{"p50", "p95", "p99"}`` in milliseconds, None for no measurements."""
    if not latencies_ms:
        return None
    p50, p95, p99 = np.percentile(latencies_ms, (50, 95, 99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def scene_errors(
    answers: Sequence[Answer], rows: dict[str, SceneRow], paper: bool = False
) -> Errors:
    """Errors of answers that have a ground truth.

    A wrong scene is an infinite error unless both scenes publish in one map frame; with
    ``paper`` raw numbers are compared whatever the scene, as tables 7 and 8 presumably do.
    """
    count = len(answers)
    position, rotation = np.full(count, np.inf), np.full(count, np.inf)
    answered, right = np.zeros(count, bool), np.zeros(count, bool)
    for i, answer in enumerate(answers):
        estimate, truth = answer.estimate, answer.pose
        assert truth is not None
        answered[i] = estimate.known
        right[i] = estimate.scene == answer.scene
        if estimate.position is None or estimate.quaternion is None:
            continue
        row = rows.get(answer.scene)
        if row is not None and row.map_frame is not None:
            truth = _in_map(truth, row)
        shared = row is not None and estimate.frame_id == (row.map_frame or row.frame_id)
        if right[i] or shared or paper:
            position[i] = metrics.position_error(estimate.position, truth.position)
            rotation[i] = metrics.rotation_error_deg(estimate.quaternion, truth.quaternion)
    return Errors(position, rotation, answered, right)


def _in_map(pose: Pose, row: SceneRow) -> Pose:
    if row.map_from_scene is None:
        return pose
    similarity = Similarity.from_array(row.map_from_scene)
    return Pose(*similarity.apply(pose.position, pose.quaternion))


def by_scene(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers with a ground truth, grouped by true scene in order of appearance."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.pose is not None:
            groups.setdefault(answer.scene, []).append(answer)
    return groups


def make_table(
    answers: Sequence[Answer],
    rows: Sequence[SceneRow],
    model: str,
    oracle: bool = False,
    paper: bool = False,
    counts: dict[str, int] | None = None,
) -> Table:
    """Score answers scene by scene. ``counts`` are those of dropped frames by cause."""
    known = {row.name: row for row in rows}
    scores = []
    for scene, group in by_scene(answers).items():
        row = known.get(scene)
        errors = scene_errors(group, known, paper)
        scores.append(
            metrics.score_scene(
                scene,
                row.unit if row else "?",
                row.extent if row else float("inf"),
                errors.position,
                errors.rotation_deg,
                errors.answered,
                errors.scene_right,
            )
        )
    latencies = [answer.latency_ms for answer in answers if answer.latency_ms is not None]
    counts = counts or {}
    return Table(
        model, oracle, tuple(scores), latency_percentiles(latencies), sum(counts.values()), counts
    )


def covariance_scores(
    answers: Sequence[Answer], rows: Sequence[SceneRow]
) -> list[metrics.CovarianceScore]:
    """How far covariances can be trusted, of the frames that were answered as their own scene.

    In the frame that poses are published in. Scenes without such frames are left out.
    """
    known = {row.name: row for row in rows}
    scores = []
    for scene, group in by_scene(answers).items():
        errors, turns, covariances = [], [], []
        for answer in group:
            estimate, truth = answer.estimate, answer.pose
            if estimate.scene != scene or estimate.covariance is None or scene not in known:
                continue
            assert truth is not None
            assert estimate.position is not None
            assert estimate.quaternion is not None
            truth = _in_map(truth, known[scene])
            errors.append(estimate.position - truth.position)
            turns.append(metrics.turn_vector(estimate.quaternion, truth.quaternion))
            covariances.append(estimate.covariance)
        if errors:
            arrays = np.array(errors), np.array(turns), np.array(covariances)
            scores.append(metrics.score_covariance(scene, *arrays))
    return scores


def write_trajectories(answers: Sequence[Answer], folder: Path) -> list[Path]:
    """TUM files ``<scene>_estimated.tum`` and ``<scene>_true.tum`` of the answered frames.

    Both have the same stamps, so that evo pairs them; frames named as another scene, or not at
    all, are left out, and the tables count them.

    Raises:
        MspnError: a file cannot be written.
    """
    written = []
    for scene, group in by_scene(answers).items():
        good = [a for a in group if a.estimate.known and a.estimate.scene == scene]
        if not good:
            continue
        stamps = np.array([a.stamp_s for a in good])
        poses: dict[str, list[Any]] = {
            "estimated": [a.estimate for a in good],
            "true": [a.pose for a in good if a.pose],
        }
        for kind, listed in poses.items():
            path = folder / f"{scene}_{kind}.tum"
            positions = np.array([pose.position for pose in listed])
            quaternions = np.array([pose.quaternion for pose in listed])
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_tum(path, stamps, positions, quaternions)
            except OSError as error:
                raise MspnError(f"{path}: cannot be written ({error.strerror})") from error
            written.append(path)
    return written
