# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames of a recording are worth learning from: moved on, sharp, well exposed.

Plain functions over poses and images in the order of time; where these come from is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from mspn_ros.records import Array, ConfigError, ImageHW3, Pose

# Sharpness is judged at the size that networks see: blur that is gone there does no harm.
_JUDGED_SIDE = 256
# The blur that an image is held against, in pixels of the judged size.
_SIGMA = 1.5
# Of test frames, where no recording of their own has them.
DEFAULT_TEST_SHARE = 0.2
# Levels at which a pixel says nothing any more.
_DARKEST, _BRIGHTEST = 4, 251


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """How frames are chosen.

    A frame is taken when the camera has moved ``min_metres`` (in units of the positions) or turned
    ``min_degrees`` since the last one; of the ``candidates`` frames looked at in between, the
    sharpest. It is left out if it is less than ``min_sharpness`` times as sharp as the median of
    its ``neighbours`` on both sides, or if ``max_clipped`` more of its pixels than theirs are black
    or white, or ``all_clipped`` of them altogether.
    """

    min_metres: float = 0.03
    min_degrees: float = 2.0
    min_sharpness: float = 0.7
    max_clipped: float = 0.3
    all_clipped: float = 0.8
    neighbours: int = 10
    candidates: int = 5

    def __post_init__(self) -> None:
        if not (0 <= self.min_metres < np.inf and 0 <= self.min_degrees <= 180):
            raise ConfigError(
                f"--min-metres {self.min_metres} --min-degrees {self.min_degrees}: not a distance "
                "from 0 on and an angle from 0 to 180"
            )
        if not (0 <= self.min_sharpness < 1 and 0 <= self.max_clipped <= 1):
            raise ConfigError(
                f"--min-sharpness {self.min_sharpness} --max-clipped {self.max_clipped}: both are "
                "shares, from 0 (keep all) to 1, and from 0 to 1 (keep all)"
            )


@dataclass(frozen=True, slots=True)
class Quality:
    """What an image is like: ``sharpness`` in 0 to 1, ``clipped`` share of black or white."""

    sharpness: float
    clipped: float


def measure(image: ImageHW3) -> Quality:
    """How sharp and how well exposed an image is.

    Sharpness is the share of the gradients' energy that another blur takes away: a sharp image
    loses most of it, a blurred one little, whatever the scene has of edges. It is measured at
    256 pixels for the shorter side. After Crete et al. 2007, "The blur effect".
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = _JUDGED_SIDE / min(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    clipped = float(np.mean((grey <= _DARKEST) | (grey >= _BRIGHTEST)))
    pixels = grey.astype(np.float32)
    # Along the worse of both axes: motion blurs one of them and leaves the other sharp.
    blurred = cv2.GaussianBlur(pixels, (0, 0), _SIGMA)
    shares = []
    for axis in (0, 1):
        before = float(np.square(np.diff(pixels, axis=axis)).sum())
        after = float(np.square(np.diff(blurred, axis=axis)).sum())
        shares.append(1 - after / before if before > 0 else 0.0)
    return Quality(max(0.0, min(shares)), clipped)


def group_by_motion(poses: Sequence[Pose], options: ChoiceOptions) -> list[list[int]]:
    """Frames in groups: each begins where the camera has moved or turned on since the last began.

    Only indices of ``options.candidates`` frames, spread over the group's time, are given of each.
    """
    groups: list[list[int]] = []
    for index, pose in enumerate(poses):
        if groups and not _moved(poses[groups[-1][0]], pose, options):
            groups[-1].append(index)
        else:
            groups.append([index])
    return [_spread(group, options.candidates) for group in groups]


def _moved(start: Pose, pose: Pose, options: ChoiceOptions) -> bool:
    moved = float(np.linalg.norm(pose.position - start.position))
    if moved >= options.min_metres:
        return True
    # 2 acos |q1 . q2| is good enough for whole degrees, and this runs for each frame.
    cosine = min(1.0, abs(float(np.dot(start.quaternion, pose.quaternion))))
    return bool(np.degrees(2 * np.arccos(cosine)) >= options.min_degrees)


def _spread(group: list[int], count: int) -> list[int]:
    if len(group) <= count:
        return group
    chosen = np.linspace(0, len(group) - 1, count).round().astype(int)
    return [group[i] for i in chosen]


def better(one: Quality, other: Quality | None) -> bool:
    """Whether ``one`` is the image to take of two that show the same."""
    if other is None:
        return True
    if abs(one.clipped - other.clipped) > 0.1:
        return one.clipped < other.clipped
    return one.sharpness > other.sharpness


def judge(qualities: Sequence[Quality], options: ChoiceOptions) -> list[str]:
    """Of each image "" (take it), "blurred" or "exposure", held against its neighbours in time."""
    sharpness = np.array([quality.sharpness for quality in qualities])
    clipped = np.array([quality.clipped for quality in qualities])
    verdicts = []
    for i in range(len(qualities)):
        around = np.r_[max(0, i - options.neighbours) : i, i + 1 : i + 1 + options.neighbours]
        around = around[around < len(qualities)]
        usual_sharp = float(np.median(sharpness[around])) if len(around) else sharpness[i]
        usual_clip = float(np.median(clipped[around])) if len(around) else 0.0
        if clipped[i] > min(usual_clip + options.max_clipped, options.all_clipped):
            verdicts.append("exposure" if options.max_clipped < 1 else "")
        elif sharpness[i] < options.min_sharpness * usual_sharp:
            verdicts.append("blurred")
        else:
            verdicts.append("")
    return verdicts


@dataclass(frozen=True, slots=True)
class Jump:
    """Poses that leap between two samples, by ``distance`` (in units of the positions) and turn."""

    start_ns: int
    end_ns: int
    distance: float
    degrees: float


def find_jumps(
    stamps_ns: npt.NDArray[np.int64],
    positions: Array,
    quaternions: Array,
    least: tuple[float, float] = (0.1, 3.0),
    factor: float = 4.0,
) -> list[Jump]:
    """Steps that nothing that moves makes: (N,), (N, 3), (N, 4) xyzw in the order of time.

    A jump is ``factor`` times as fast as 90 % of all steps and as the steps before and after it
    (whoever sets off is about as fast a sample later), and is at least ``least`` (metres, degrees)
    long: a loop closure, a tracker's relocalisation, two markers mixed up.
    """
    if len(stamps_ns) < 3:
        return []
    seconds = np.diff(stamps_ns) / 1e9
    rotations = Rotation.from_quat(quaternions)
    metres = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    degrees = np.degrees((rotations[:-1].inv() * rotations[1:]).magnitude())
    jumps = np.zeros(len(seconds), bool)
    for lengths, floor in ((metres, least[0]), (degrees, least[1])):
        speeds = lengths / seconds
        padded = np.concatenate(([speeds[1]], speeds, [speeds[-2]]))
        usual = np.maximum(np.maximum(padded[:-2], padded[2:]), np.percentile(speeds, 90))
        jumps |= (speeds > factor * usual) & (lengths >= floor)
    return [
        Jump(int(stamps_ns[i]), int(stamps_ns[i + 1]), float(metres[i]), float(degrees[i]))
        for i in np.flatnonzero(jumps)
    ]


def held_out_blocks(count: int, share: float, blocks: int = 4, guard: int = 4) -> list[str]:
    """A split of ``count`` frames of one walk: "train", "test", or "" (between the two).

    ``share`` of the frames, in up to ``blocks`` blocks spread over the walk, are for testing, and
    ``guard`` frames beside each belong to neither, so that no test frame is nearly a train frame.
    Short walks have fewer blocks: none is shorter than its two guards.

    Raises:
        ConfigError: ``share`` is not in 0 to 0.5.
    """
    if not 0 <= share <= 0.5:
        raise ConfigError(f"--test-share {share} is not from 0 (no test frames) to 0.5")
    splits = ["train"] * count
    wanted = round(count * share)
    blocks = min(blocks, wanted // (2 * guard))
    if wanted and not blocks:
        blocks, guard = 1, min(guard, wanted // 2)
    for block in range(blocks):
        middle = (2 * block + 1) * count // (2 * blocks)
        start = middle - wanted // blocks // 2
        end = start + wanted // blocks
        for i in range(max(0, start - guard), min(count, end + guard)):
            splits[i] = "test" if start <= i < end else ""
    return splits
