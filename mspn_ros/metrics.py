# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pose errors and what is made of them: the only place where the project's numbers are defined.

Everything is float64 NumPy. A frame without an answer, or with a wrong scene, has an infinite
error; it takes part in every median and recall. Trajectories are never aligned: a pose is absolute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mspn_ros.records import Array

# (position bound, rotation bound in degrees); the community's usual pairs.
RECALL_BOUNDS = ((0.05, 5.0), (0.25, 2.0), (0.5, 5.0), (5.0, 10.0))

# A covariance's region holds this share of errors; of the chi-squared distribution with three
# degrees of freedom, the quantile at that share.
REGION = 0.95
CHI2_REGION = 7.814728


def position_error(estimated: Array, true: Array) -> Array:
    """Euclidean distance, (..., 3), (..., 3) -> (...), in the unit of the positions."""
    return np.asarray(np.linalg.norm(np.asarray(estimated) - np.asarray(true), axis=-1))


def rotation_error_deg(estimated: Array, true: Array) -> Array:
    """Angle between two orientations, (..., 4), (..., 4) xyzw -> (...) degrees in [0, 180].

    2 atan2(|v|, |w|) of the relative quaternion: exact for tiny angles, where
    2 arccos(|q1 . q2|) loses half of the digits.
    """
    a = np.asarray(estimated, np.float64)
    b = np.asarray(true, np.float64)
    v = a[..., 3:] * b[..., :3] - b[..., 3:] * a[..., :3] - np.cross(a[..., :3], b[..., :3])
    w = (a * b).sum(-1)
    return np.asarray(np.degrees(2 * np.arctan2(np.linalg.norm(v, axis=-1), np.abs(w))))


def median_error(errors: Array) -> float:
    """Median with infinite errors counted; infinite for no errors at all.

    Raises:
        ValueError: an error is NaN, which nan-medians would hide.
    """
    if np.isnan(errors).any():
        raise ValueError("an error is NaN")
    return float(np.median(errors)) if len(errors) else float("inf")


def position_extent(positions_N3: Array) -> float:
    """Diagonal of the box between the 5th and 95th percentile of positions, (N, 3) -> scalar."""
    low, high = np.percentile(positions_N3, (5, 95), axis=0)
    return float(np.linalg.norm(high - low))


def recall(position_errors: Array, rotation_errors_deg: Array) -> dict[str, float]:
    """Share of frames within each of RECALL_BOUNDS, keyed like ``"0.25/2"``."""
    return {
        f"{bound:g}/{degrees:g}": _mean(
            (position_errors <= bound) & (rotation_errors_deg <= degrees)
        )
        for bound, degrees in RECALL_BOUNDS
    }


def _mean(flags: npt.NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


@dataclass(frozen=True, slots=True)
class SceneScore:
    """How one scene's frames fared; the row of every table. Errors are medians over all frames."""

    scene: str
    frames: int
    answered: int
    unit: str
    median_position: float
    median_rotation_deg: float
    percent_of_extent: float
    scene_accuracy: float
    recall: dict[str, float]


def score_scene(
    scene: str,
    unit: str,
    extent: float,
    position_errors: Array,
    rotation_errors_deg: Array,
    answered: npt.NDArray[np.bool_],
    scene_right: npt.NDArray[np.bool_],
) -> SceneScore:
    """Summarise one scene from per-frame arrays of equal length N.

    ``answered`` marks frames with a pose, ``scene_right`` those whose named scene is the true
    one; errors of all others must be infinite already. ``extent`` comes from
    :func:`position_extent` of the training positions.
    """
    median = median_error(position_errors)
    return SceneScore(
        scene=scene,
        frames=len(position_errors),
        answered=int(answered.sum()),
        unit=unit,
        median_position=median,
        median_rotation_deg=median_error(rotation_errors_deg),
        percent_of_extent=100 * median / extent if extent > 0 else float("inf"),
        scene_accuracy=_mean(scene_right),
        # The bounds are metres: they say nothing of a scene in another unit.
        recall=recall(position_errors, rotation_errors_deg) if unit == "m" else {},
    )


def mean_score(scores: Sequence[SceneScore]) -> SceneScore:
    """Mean over scenes of each scene's medians; the field's usual last column."""
    units = {score.unit for score in scores}
    return SceneScore(
        scene="mean",
        frames=sum(score.frames for score in scores),
        answered=sum(score.answered for score in scores),
        unit=units.pop() if len(units) == 1 else "mixed",
        median_position=float(np.mean([score.median_position for score in scores])),
        median_rotation_deg=float(np.mean([score.median_rotation_deg for score in scores])),
        percent_of_extent=float(np.mean([score.percent_of_extent for score in scores])),
        scene_accuracy=float(np.mean([score.scene_accuracy for score in scores])),
        recall={
            key: float(np.mean([score.recall[key] for score in scores]))
            for key in (scores[0].recall if all(score.recall for score in scores) else ())
        },
    )


def confusion(
    true: Sequence[str], named: Sequence[str], names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Counts (len(names), len(names)): rows the true scene, columns the named one."""
    index = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for t, n in zip(true, named, strict=True):
        counts[index[t], index[n]] += 1
    return counts


def turn_vector(estimated: Array, true: Array) -> Array:
    """Rotation vectors from true to estimated, (..., 4), (..., 4) xyzw -> (..., 3) rad.

    About the axes of the frame that both orientations lead into, as REP-103's covariances are.
    """
    a, b = np.asarray(estimated, np.float64), np.asarray(true, np.float64)
    v = b[..., 3:] * a[..., :3] - a[..., 3:] * b[..., :3] - np.cross(a[..., :3], b[..., :3])
    w = (a * b).sum(-1)[..., None]
    v = np.where(w < 0, -v, v)
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, np.abs(w))
    return np.asarray(np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 2.0) * v)


def normalized_error_squared(error_N3: Array, covariance_N33: Array) -> Array:
    """e^T S^-1 e of each error, (N, 3), (N, 3, 3) -> (N,).

    Chi-squared with 3 degrees of freedom where S is the errors' covariance. The consistency test
    of filters (NEES, Bar-Shalom 2001).
    """
    solved_N3 = np.linalg.solve(covariance_N33, error_N3[..., None])[..., 0]
    return np.asarray((error_N3 * solved_N3).sum(-1))


def conformal_quantile(values: Array, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n values; infinite where n is too small for one.

    A new value that is exchangeable with these is at most so large with a probability of at least
    ``level`` (Vovk et al. 2005, split conformal prediction). n = 19 is the least for 0.95.
    """
    rank = math.ceil((len(values) + 1) * level - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf


@dataclass(frozen=True, slots=True)
class CovarianceScore:
    """How far the covariances of a scene's answers can be trusted, position and rotation apart.

    ``frames`` are those that were answered as this scene. Coverage: the share whose error lies in
    the REGION of its covariance. Errors are normalized and squared; of errors as the covariances
    say, the mean is 3 and the median 2.37.
    """

    scene: str
    frames: int
    position_coverage: float
    rotation_coverage: float
    position_median: float
    position_mean: float
    rotation_median: float
    rotation_mean: float


def score_covariance(
    scene: str, position_error_N3: Array, turn_N3: Array, covariance_N66: Array
) -> CovarianceScore:
    """Errors (N, 3) in a frame's axes, ``turn_vector`` (N, 3) and covariances, N at least 1."""
    position = normalized_error_squared(position_error_N3, covariance_N66[:, :3, :3])
    rotation = normalized_error_squared(turn_N3, covariance_N66[:, 3:, 3:])
    return CovarianceScore(
        scene,
        len(position),
        _mean(position <= CHI2_REGION),
        _mean(rotation <= CHI2_REGION),
        float(np.median(position)),
        float(position.mean()),
        float(np.median(rotation)),
        float(rotation.mean()),
    )


def auroc(own: Array, strange: Array) -> float:
    """Probability that an own frame scores above a strange one; ties count half. NaN if empty."""
    if not len(own) or not len(strange):
        return math.nan
    ranks = rankdata(np.concatenate((own, strange)))[: len(own)]
    wins = ranks.sum() - len(own) * (len(own) + 1) / 2
    return float(wins / (len(own) * len(strange)))


def false_accepts_at(own: Array, strange: Array, true_accepts: float = 0.95) -> float:
    """Share of strange frames that are let in where ``true_accepts`` of the own ones are.

    They score at least as high as the threshold for that; NaN if there are no frames of a kind.
    """
    if not len(own) or not len(strange):
        return math.nan
    kept = math.ceil(true_accepts * len(own) - 1e-9)
    return _mean(strange >= np.sort(own)[len(own) - kept])


@dataclass(frozen=True, slots=True)
class StrangerScore:
    """How a place that no row is of was told from those that are known.

    ``auroc`` and ``false_accepts_at_95`` (at 95 % true accepts) are of confidences, whatever the
    thresholds; ``false_accepts`` is the share of its frames that were answered.
    """

    stranger: str
    frames: int
    auroc: float
    false_accepts_at_95: float
    false_accepts: float


def score_stranger(
    stranger: str, own: Array, strange: Array, answered: npt.NDArray[np.bool_]
) -> StrangerScore:
    """Confidences of frames of known scenes, of the stranger's, and which of these had a pose."""
    return StrangerScore(
        stranger,
        len(strange),
        auroc(own, strange),
        false_accepts_at(own, strange),
        _mean(answered),
    )
