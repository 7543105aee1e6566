# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From the frame and unit of a reconstruction to the user's: a distance, or known positions.

Structure from motion knows neither scale nor gravity. Without a word of the user the unit stays
unknown, and up is guessed from how the camera was held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.datasets.base import data_lines, parse_floats
from mspn_ros.geometry import Similarity, fit_similarity
from mspn_ros.records import Array, DatasetError, Pose, listing

# Frames further in time than this from a given pose have none.
MAX_STAMP_DIFFERENCE_S = 0.1
# How far a frame may be from the time by which a user names it: half a metre at walking pace.
MAX_NAMED_DIFFERENCE_S = 0.5
# No place is larger than this.
_MOST_METRES = 1e7
# Positions that a fit leaves this far apart, as a share of their extent, are not of these frames.
MOST_RESIDUAL = 0.1
_TRIALS = 300
# Median absolute deviation of a normal distribution, and how many deviations count as fitting.
_MAD, _FITTING = 1.4826, 3.0
# Below this mean length the cameras' up directions cancel out and say nothing.
_CLEAR_UP = 0.3


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """A frame of the reconstruction and what the user may call it: file names, or its time.

    ``stamp_s`` counts from the start of the first video, None elsewhere.
    """

    written: str
    names: tuple[str, ...]
    stamp_s: float | None
    pose: Pose


@dataclass(frozen=True, slots=True)
class Placement:
    """How poses come into the user's frame; ``metres_per_unit`` is None for an unknown unit.

    ``source`` says it in words, ``figures`` in numbers.
    """

    similarity: Similarity
    metres_per_unit: float | None
    source: str
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnownDistance:
    """Metres between the camera centres of two frames, by file name or seconds (``12.5s``)."""

    first: str
    second: str
    metres: float

    @classmethod
    def parse(cls, first: str, second: str, metres: str) -> KnownDistance:
        """From the command line.

        Raises:
            DatasetError: no distance above zero.
        """
        try:
            value = float(metres)
        except ValueError:
            value = math.nan
        if not 0 < value < _MOST_METRES:
            raise DatasetError(f"--known-distance {metres!r} is no distance; give metres above 0")
        return cls(first, second, value)


def level(frames: Sequence[PlacedFrame], metres_per_unit: float = 1.0) -> Similarity:
    """Up to +z, guessed from the mean of the cameras' up directions; origin at the first frame."""
    quaternions = np.array([frame.pose.quaternion for frame in frames])
    up = Rotation.from_quat(quaternions).apply([0.0, -1.0, 0.0]).mean(0)
    turn = Rotation.identity()
    if np.linalg.norm(up) >= _CLEAR_UP:
        turn, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [up])
    origin = metres_per_unit * turn.apply(frames[0].pose.position)
    return Similarity(-origin, turn, metres_per_unit)


def unscaled(frames: Sequence[PlacedFrame]) -> Placement:
    """Nothing is known: an arbitrary unit."""
    source = "unknown: positions have an arbitrary unit (give --known-distance for metres)"
    return Placement(level(frames), None, source, {})


def by_distances(frames: Sequence[PlacedFrame], known: Sequence[KnownDistance]) -> Placement:
    """Metres from known distances; the median scale of several.

    Raises:
        DatasetError: a frame is none of these, or two frames are in one place.
    """
    scales, spans = [], []
    for distance in known:
        pair = [find_frame(frames, text) for text in (distance.first, distance.second)]
        length = float(np.linalg.norm(pair[0].pose.position - pair[1].pose.position))
        everything = np.ptp([frame.pose.position for frame in frames], axis=0)
        if length < 0.01 * float(np.linalg.norm(everything)):
            raise DatasetError(
                f"--known-distance: {distance.first} and {distance.second} were taken in nearly "
                "one place; measure between frames that are far apart"
            )
        scales.append(distance.metres / length)
        spans.append(" to ".join(_called(frame) for frame in pair))
    scale = float(np.median(scales))
    spread = max(abs(value / scale - 1) for value in scales)
    figures = {"metres_per_sfm_unit": scale, "distances": spans, "largest_deviation": spread}
    source = f"{len(scales)} known distances, which differ by up to {spread:.1%}"
    if len(scales) == 1:
        source = f"one known distance of {known[0].metres:g} m, {spans[0]}"
    return Placement(level(frames, scale), 1.0, source, figures)


def _called(frame: PlacedFrame) -> str:
    return frame.names[0] if frame.stamp_s is None else f"{frame.stamp_s:.2f}s"


def by_positions(
    frames: Sequence[PlacedFrame], path: Path, first_stamp_s: float = 0.0
) -> Placement:
    """Frame and metres from known camera positions, by a fit that bears outliers.

    ``first_stamp_s`` is the time in ``path`` at which the first video starts.

    Raises:
        DatasetError: the file is broken, names too few of the frames, all of them on one line, or
            its positions do not go with the reconstruction.
    """
    found = read_positions(path, frames, first_stamp_s)
    if len(found) < 3:
        raise DatasetError(
            f"{path}: it has positions of {len(found)} of {len(frames)} frames and three are "
            "needed; lines are 'file x y z', or 'stamp x y z qx qy qz qw' with stamps that count "
            f"from the video's start (else give --first-stamp). First frames: "
            f"{listing([frame.names[0] for frame in frames[:3]])}"
        )
    own = np.array([frames[index].pose.position for index in found])
    given = np.array(list(found.values()))
    similarity, residuals, fitting = fit_robustly(path, own, given)
    extent = float(np.linalg.norm(np.ptp(given, axis=0)))
    median = float(np.median(residuals))
    if median > MOST_RESIDUAL * extent:
        raise DatasetError(
            f"{path}: after the best fit positions are {median:.3g} m off (median), of an extent "
            f"of {extent:.3g} m: they are not of these frames. Check names, units and --first-stamp"
        )
    figures = {
        "metres_per_sfm_unit": similarity.scale,
        "positions": len(found),
        "fitting": int(fitting.sum()),
        "median_residual_m": median,
        "largest_fitting_residual_m": float(residuals[fitting].max()),
    }
    source = (
        f"{len(found)} known positions, {int(fitting.sum())} of which fit; residual "
        f"{median:.3g} m (median)"
    )
    return Placement(similarity, 1.0, source, figures)


def fit_robustly(path: Path, own: Array, given: Array) -> tuple[Similarity, Array, Any]:
    """The similarity, residuals (N,) and which fit: least median of squares, then least squares.

    Up to half of the positions may be wrong (Rousseeuw 1984).
    """
    rng = np.random.default_rng(0)
    best: tuple[float, Similarity] | None = None
    for _ in range(_TRIALS if len(own) > 3 else 1):
        chosen = rng.choice(len(own), 3, replace=False)
        try:
            trial = fit_similarity(own[chosen], given[chosen])
        except ValueError:
            continue
        middle = float(np.median(_residuals(trial, own, given)))
        if best is None or middle < best[0]:
            best = middle, trial
    try:
        if best is None:
            raise ValueError("the points lie on one line or in one place")
        fitting = _residuals(best[1], own, given) <= _FITTING * _MAD * best[0] + 1e-12
        similarity = fit_similarity(own[fitting], given[fitting])
    except ValueError as error:
        raise DatasetError(
            f"{path}: {error}: these positions leave a rotation open. Give positions off the "
            "line, at another height for one"
        ) from error
    return similarity, _residuals(similarity, own, given), fitting


def _residuals(similarity: Similarity, own: Array, given: Array) -> Array:
    moved = similarity.scale * similarity.rotation.apply(own) + similarity.translation
    return np.asarray(np.linalg.norm(moved - given, axis=1))


def read_positions(
    path: Path, frames: Sequence[PlacedFrame], first_stamp_s: float
) -> dict[int, Array]:
    """Index of a frame -> position (3,): by name, or interpolated in time.

    Raises:
        DatasetError: missing, or a line is neither form.
    """
    index_of = {name: i for i, frame in enumerate(frames) for name in frame.names}
    named: dict[int, Array] = {}
    timed: list[Array] = []
    for number, line in data_lines(path):
        # Names may have blanks where commas part the fields.
        fields = [field.strip() for field in line.split(",")] if "," in line else line.split()
        try:
            if len(fields) == 8:
                numbers = parse_floats(" ".join(fields), 8)
            elif len(fields) == 4:
                numbers = parse_floats(" ".join(fields[1:]), 3)
            else:
                raise ValueError(f"{len(fields)} fields")
        except ValueError as error:
            # A table's heading is no mistake.
            if number == 1 and len(fields) in (4, 8):
                continue
            raise DatasetError(
                f"{path}: line {number}: {error}; lines are 'file x y z' or "
                "'stamp x y z qx qy qz qw'"
            ) from error
        where = numbers[1:4] if len(fields) == 8 else numbers
        if not (np.isfinite(numbers).all() and np.abs(where).max() < _MOST_METRES):
            raise DatasetError(f"{path}: line {number}: no position, {line!r}; give metres")
        if len(fields) == 8:
            timed.append(numbers)
        elif fields[0] in index_of:
            named[index_of[fields[0]]] = numbers
    return {**_at_times(frames, timed, first_stamp_s), **named}


def _at_times(
    frames: Sequence[PlacedFrame], rows: Sequence[Array], first_stamp_s: float
) -> dict[int, Array]:
    if not rows:
        return {}
    table = np.array(sorted(rows, key=lambda row: float(row[0])))
    found = {}
    for index, frame in enumerate(frames):
        if frame.stamp_s is None:
            continue
        stamp = frame.stamp_s + first_stamp_s
        if np.abs(table[:, 0] - stamp).min() <= MAX_STAMP_DIFFERENCE_S:
            found[index] = np.array([np.interp(stamp, table[:, 0], table[:, k]) for k in (1, 2, 3)])
    return found


def find_frame(frames: Sequence[PlacedFrame], text: str) -> PlacedFrame:
    """The frame called ``text``; ``12.5s`` is the one nearest to that time of the first video.

    Raises:
        DatasetError: there is none, or it has no pose.
    """
    for frame in frames:
        if text in frame.names:
            return frame
    timed = [(frame, frame.stamp_s) for frame in frames if frame.stamp_s is not None]
    try:
        seconds = float(text.removesuffix("s")) if text.endswith("s") else math.nan
    except ValueError:
        seconds = math.nan
    if timed and math.isfinite(seconds):
        frame, stamp = min(timed, key=lambda item: abs(item[1] - seconds))
        if abs(stamp - seconds) <= MAX_NAMED_DIFFERENCE_S:
            return frame
        raise DatasetError(
            f"--known-distance: no frame with a pose is within {MAX_NAMED_DIFFERENCE_S} s of "
            f"{text}; the nearest is at {stamp:.2f}s. Measure from there, or lower --min-motion"
        )
    raise DatasetError(
        f"--known-distance: no frame with a pose is called {text!r}; they are "
        f"{listing([frame.names[0] for frame in frames])}; of a video a time may be given, as 12.5s"
    )


def placed(similarity: Similarity, poses: Mapping[str, Pose]) -> dict[str, Pose]:
    """Poses by name in the user's frame."""
    moved = {n: similarity.apply(p.position, p.quaternion) for n, p in poses.items()}
    return {name: Pose(*pair) for name, pair in moved.items()}
