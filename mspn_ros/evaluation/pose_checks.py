# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What poses and bytes of files tell of a dataset: jumps, runs, copies, what training covers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter
from scipy.spatial import cKDTree

from mspn_ros import metrics
from mspn_ros.datasets.base import SceneData, natural_key
from mspn_ros.datasets.frame_choice import find_jumps
from mspn_ros.evaluation.baselines import mean_pose, nearest_frames
from mspn_ros.paths import file_digest
from mspn_ros.records import Array, Frame

# A step is a jump if it is so many times as fast as others (find_jumps), and so large in itself: in
# parts of the extent, and in degrees. To an outlier leads one and from it another.
_JUMP_FACTOR, _JUMP_OF_EXTENT, _JUMP_DEG = 10.0, 0.05, 20.0
_OUTLIER_FACTOR = 5.0
_WINDOW = 31
# A pose is alone if no other is within this part of the extent and so many usual distances.
_ALONE_OF_EXTENT, _ALONE_FACTOR = 0.15, 10.0
_LEAST_STUCK, _LEAST_STILL = 3, 30
_STILL_OF_EXTENT, _STILL_DEG = 0.005, 1.0
# Copies of an image may have poses that differ by rounding, or by a frame's time where a driver
# sent the last image again.
_SAME_OF_EXTENT, _SAME_DEG = 0.02, 3.0
# What training covers: a frame further from all training frames than this, in parts of the extent
# or in degrees, sees much that no training frame sees.
FAR_OF_EXTENT, FAR_DEG = 0.2, 30.0

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Step:
    """What lies between a frame and the next of its sequence; ``distance`` in the scene's unit."""

    first: str
    second: str
    distance: float
    angle_deg: float


@dataclass(frozen=True, slots=True)
class Run:
    """Frames of one sequence that follow each other, from ``first`` to ``last``."""

    first: str
    last: str
    frames: int


@dataclass(frozen=True, slots=True)
class Copies:
    """Files with the same bytes; ``distance`` and ``angle_deg``: the most between their poses."""

    names: tuple[str, ...]
    distance: float
    angle_deg: float
    same_pose: bool


@dataclass(frozen=True, slots=True)
class PoseChecks:
    """What is odd about poses. ``outliers`` are frames off both neighbours, which fit each other.

    Each outlier comes with its step from the frame before. ``jumps`` are steps after which the
    walk goes on elsewhere. ``alone`` are names and distances to the nearest other position.
    ``interleaved`` is the share of test frames with a training frame next to them in the recording.
    """

    outliers: tuple[Step, ...]
    jumps: tuple[Step, ...]
    alone: tuple[tuple[str, float], ...]
    equal_stamps: tuple[tuple[str, str], ...]
    stuck: tuple[Run, ...]
    still: tuple[Run, ...]
    interleaved: float


def check_poses(scene: SceneData) -> PoseChecks:
    """Everything that needs no pixels."""
    extent = metrics.position_extent(positions(scene.frames)) or 1.0
    outliers: list[Step] = []
    jumps: list[Step] = []
    equal: list[tuple[str, str]] = []
    stuck: list[Run] = []
    still: list[Run] = []
    for frames in _sequences(scene.frames):
        odd, far = _find_jumps(frames, extent)
        outliers += odd
        jumps += far
        equal += [
            (a.name, b.name)
            for a, b in pairwise(frames)
            if a.stamp_s is not None and a.stamp_s == b.stamp_s
        ]
        stuck += _runs(frames, 0.0, 0.0, _LEAST_STUCK)
        still += _runs(frames, _STILL_OF_EXTENT * extent, _STILL_DEG, _LEAST_STILL)
    return PoseChecks(
        tuple(outliers),
        tuple(jumps),
        tuple(_find_alone(scene.frames, extent)),
        tuple(equal),
        tuple(stuck),
        tuple(still),
        _interleaved(scene.frames),
    )


def positions(frames: Sequence[Frame]) -> Array:
    """(N, 3)."""
    return np.array([frame.pose.position for frame in frames], np.float64).reshape(-1, 3)


def quaternions(frames: Sequence[Frame]) -> Array:
    """(N, 4) xyzw."""
    return np.array([frame.pose.quaternion for frame in frames], np.float64).reshape(-1, 4)


def _sequences(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    grouped: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        grouped.setdefault((frame.split, frame.sequence), []).append(frame)
    yield from grouped.values()


def _interleaved(frames: Sequence[Frame]) -> float:
    recordings: dict[str, list[Frame]] = {}
    for frame in frames:
        recordings.setdefault(frame.sequence, []).append(frame)
    beside = tests = 0
    for recording in recordings.values():
        timed = all(frame.stamp_s is not None for frame in recording)
        splits = [
            frame.split
            for frame in sorted(
                recording, key=lambda f: (f.stamp_s if timed else 0, natural_key(f.name))
            )
        ]
        around = zip(["", *splits[:-1]], splits, [*splits[1:], ""], strict=True)
        beside += sum(own == "test" and "train" in (a, b) for a, own, b in around)
        tests += splits.count("test")
    return beside / tests if tests else 0.0


def _times(frames: Sequence[Frame]) -> Array:
    """Stamps, or else numbers at the end of names, where they increase; or else 0, 1, 2 ..."""
    stamps = [frame.stamp_s for frame in frames]
    numbers = [re.findall(r"[0-9]+", frame.name.rpartition("/")[2])[-1:] for frame in frames]
    # Numbers of more digits are dates or hashes.
    if all(stamp is not None for stamp in stamps):
        times = np.array(stamps, np.float64)
    elif all(number and len(number[0]) <= 9 for number in numbers):
        times = np.array([int(number[0]) for number in numbers], np.float64)
    else:
        times = np.arange(len(frames), dtype=np.float64)
    increase = np.diff(times)
    return times if len(increase) and increase.min() > 0 else np.arange(len(frames), dtype=float)


def _between(frames: Sequence[Frame], gap: int) -> tuple[Array, Array]:
    p, q = positions(frames), quaternions(frames)
    return (
        metrics.position_error(p[gap:], p[:-gap]),
        metrics.rotation_error_deg(q[gap:], q[:-gap]),
    )


def _find_jumps(frames: Sequence[Frame], extent: float) -> tuple[list[Step], list[Step]]:
    """Outliers and jumps of one sequence, as PoseChecks has them."""
    if len(frames) < 5:
        return [], []
    distance, angle = _between(frames, 1)
    off = _off_both_neighbours(frames, extent)
    outliers = [
        Step(frames[i - 1].name, frames[i].name, float(distance[i - 1]), float(angle[i - 1]))
        for i in map(int, np.flatnonzero(off))
    ]
    # A single outlier is two leaps, each of which hides the other.
    walk = [frame for frame, odd in zip(frames, off, strict=True) if not odd]
    times = _times(walk)
    # In parts of the whole: whatever unit stamps are in, only ratios of speeds count.
    stamps = np.round((times - times[0]) / (times[-1] - times[0]) * 1e15).astype(np.int64)
    least = _JUMP_OF_EXTENT * extent, _JUMP_DEG
    index = {int(stamp): i for i, stamp in enumerate(stamps)}
    jumps = find_jumps(stamps, positions(walk), quaternions(walk), least, _JUMP_FACTOR)
    return outliers, [
        Step(walk[index[j.start_ns]].name, walk[index[j.end_ns]].name, j.distance, j.degrees)
        for j in jumps
    ]


def _off_both_neighbours(frames: Sequence[Frame], extent: float) -> Flags:
    """Frames off the one before and the one after, which are near each other."""
    distance, angle = _between(frames, 1)
    over, over_angle = _between(frames, 2)
    lapse = np.diff(_times(frames))
    far = _too_large(distance, lapse, _JUMP_OF_EXTENT * extent)
    far |= _too_large(angle, lapse, _JUMP_DEG)
    near = (over < 0.5 * distance[:-1] + _JUMP_OF_EXTENT * extent) & (
        over_angle < 0.5 * angle[:-1] + _JUMP_DEG
    )
    off = np.zeros(len(frames), bool)
    off[1:-1] = far[:-1] & far[1:] & near
    return off


def _too_large(step: Array, lapse: Array, least: float) -> Flags:
    speed = step / lapse
    usual = median_filter(speed, size=_WINDOW, mode="nearest")
    usual = np.maximum(usual, 0.5 * float(np.median(speed)))
    return np.asarray((step > least) & (speed > _OUTLIER_FACTOR * usual))


def _runs(frames: Sequence[Frame], distance: float, angle: float, least: int) -> list[Run]:
    """Runs of at least ``least`` frames that stay this near to their first."""
    p, q = positions(frames), quaternions(frames)
    found = []
    start = 0
    while start < len(frames):
        end = start + 1
        while end < len(frames) and (
            np.abs(p[end] - p[start]).max() <= distance
            and metrics.rotation_error_deg(q[end], q[start]) <= angle + 1e-9
        ):
            end += 1
        if end - start >= least:
            found.append(Run(frames[start].name, frames[end - 1].name, end - start))
        start = end
    return found


def _find_alone(frames: Sequence[Frame], extent: float) -> list[tuple[str, float]]:
    if len(frames) < 10:
        return []
    nearest = cKDTree(positions(frames)).query(positions(frames), k=2)[0][:, 1]
    bound = max(_ALONE_OF_EXTENT * extent, _ALONE_FACTOR * float(np.median(nearest)))
    return [(frames[i].name, float(nearest[i])) for i in map(int, np.flatnonzero(nearest > bound))]


def find_copies(
    scene: SceneData, progress: Callable[[int, int], None] | None = None
) -> list[Copies]:
    """Groups of files with the same bytes; reads every file."""
    extent = metrics.position_extent(positions(scene.frames)) or 1.0
    groups: dict[bytes, list[Frame]] = {}
    for done, frame in enumerate(scene.frames, 1):
        groups.setdefault(file_digest(frame.image_path), []).append(frame)
        if progress is not None:
            progress(done, len(scene.frames))
    found = []
    for digest, frames in groups.items():
        if len(frames) < 2 or not any(digest):
            continue
        p, q = positions(frames), quaternions(frames)
        far = float(metrics.position_error(p, p[0]).max())
        angle = float(metrics.rotation_error_deg(q, q[:1]).max())
        same = far <= _SAME_OF_EXTENT * extent and angle <= _SAME_DEG
        found.append(Copies(tuple(frame.name for frame in frames), far, angle, same))
    return found


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far test frames are from what was learned; arrays have one entry a test frame.

    ``nearest`` indexes the training frames (evaluation/baselines.py says which is nearest);
    ``far`` marks frames beyond FAR_OF_EXTENT or FAR_DEG. The medians are what perfect retrieval
    and the mean training pose reach.
    """

    nearest: npt.NDArray[np.int64]
    distance: Array
    angle_deg: Array
    far: Flags
    extent: float
    oracle: tuple[float, float]
    mean: tuple[float, float]

    @property
    def bound(self) -> float:
        """The distance beyond which a frame is far; cameras in one place have no extent."""
        return FAR_OF_EXTENT * (self.extent or 1.0)


def measure_coverage(train: Sequence[Frame], test: Sequence[Frame]) -> Coverage | None:
    """Test frames against training frames; None where one of them is empty."""
    if not train or not test:
        return None
    known = positions(train), quaternions(train)
    asked = positions(test), quaternions(test)
    nearest = nearest_frames(*known, *asked)
    distance = metrics.position_error(known[0][nearest], asked[0])
    angle = metrics.rotation_error_deg(known[1][nearest], asked[1])
    extent = metrics.position_extent(known[0])
    middle = mean_pose(*known, len(test))
    return Coverage(
        nearest=nearest,
        distance=distance,
        angle_deg=angle,
        far=(distance > FAR_OF_EXTENT * (extent or 1.0)) | (angle > FAR_DEG),
        extent=extent,
        oracle=(float(np.median(distance)), float(np.median(angle))),
        mean=(
            float(np.median(metrics.position_error(middle[0], asked[0]))),
            float(np.median(metrics.rotation_error_deg(middle[1], asked[1]))),
        ),
    )
