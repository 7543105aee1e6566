# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames of a recording to keep: the sharpest of each stretch of equal motion in the image.

Without poses, motion is what optical flow shows: by how much of the image's longer side three
quarters of its corners have moved at most. (Not half of them: who walks on along a corridor sees
those at its end stand still.) A camera that stands still adds nothing, one that is swung adds much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mspn_ros.datasets.frame_choice import Quality, better, measure
from mspn_ros.records import Array, ImageHW3

_FLOW_SIDE = 320
_CORNERS = 200
# The share of the corners that motion is judged by; those that were lost moved most.
_JUDGED = 0.75
# Where fewer are found again from frame to frame, the view has changed: by an unknown amount.
_LEAST_TRACKED = 0.5
# Motion after which new corners are taken, as a share of the longer side.
_NEW_CORNERS = 0.15
_UNKNOWN_MOTION = 0.25


@dataclass(frozen=True, slots=True)
class Measured:
    """One frame of a recording; ``motion`` is how far the image has moved since the first."""

    index: int
    quality: Quality
    motion: float


class MotionMeter:
    """Measures the frames of one recording, in order.

    Corners are followed from frame to frame and compared with where they were found first
    (Lucas-Kanade), so that noise does not add up while the camera stands still.
    """

    def __init__(self) -> None:
        self._before: ImageHW3 | None = None
        self._origin = np.zeros((0, 1, 2), np.float32)
        self._points = self._origin
        self._begun_with = 0
        self._base = 0.0

    def measure(self, index: int, image: ImageHW3) -> Measured:
        """The next frame, (H, W, 3) RGB."""
        small = cv2.cvtColor(shrunk(image, _FLOW_SIDE), cv2.COLOR_RGB2GRAY)
        if self._before is None or self._before.shape != small.shape:
            self._restart(small, 0.0 if self._before is None else _UNKNOWN_MOTION)
            motion = 0.0
        else:
            motion = self._follow(small)
        self._before = small
        return Measured(index, measure(image), self._base + motion)

    def _follow(self, small: ImageHW3) -> float:
        if len(self._points) < 8:
            # Nothing to follow (a white wall, the dark): any change of the image is unknown.
            changed = float(cv2.absdiff(small, self._before).mean()) > 2.0
            self._restart(small, _UNKNOWN_MOTION if changed else 0.0)
            return 0.0
        points, found, _ = cv2.calcOpticalFlowPyrLK(
            self._before, small, self._points, None, winSize=(15, 15), maxLevel=4
        )
        kept = found.ravel() == 1
        if kept.mean() < _LEAST_TRACKED:
            self._restart(small, _UNKNOWN_MOTION)
            return 0.0
        self._origin, self._points = self._origin[kept], points[kept]
        moved = np.sort(np.linalg.norm(self._points - self._origin, axis=-1).ravel())
        judged = int(_JUDGED * self._begun_with)
        motion = float(moved[min(judged, len(moved) - 1)] / max(small.shape))
        if motion >= _NEW_CORNERS or judged >= len(moved):
            self._restart(small, motion)
            return 0.0
        return motion

    def _restart(self, small: ImageHW3, motion: float) -> None:
        self._base += motion
        corners = cv2.goodFeaturesToTrack(small, _CORNERS, 0.01, 5)
        self._origin = np.zeros((0, 1, 2), np.float32) if corners is None else corners
        self._points = self._origin
        self._begun_with = len(self._points)


def choose_frames(frames: Sequence[Measured], most: int, least_motion: float) -> list[Measured]:
    """At most ``most`` frames: the sharpest of each stretch of equal motion.

    A stretch is ``least_motion`` long, or as much longer as it takes to have no more than ``most``
    of them with a frame in; with 0 all frames are kept as long as they are no more than ``most``.
    """
    if least_motion <= 0:
        if len(frames) <= most:
            return list(frames)
        # As many frames to each stretch.
        motion, length = np.arange(len(frames), dtype=np.float64), 1.0
    else:
        motion, length = np.array([frame.motion for frame in frames], np.float64), least_motion
    if not frames:
        return []

    def stretches(length: float) -> npt.NDArray[np.int64]:
        return np.floor(motion / length).astype(np.int64)

    # Some stretches are empty, since swings and cuts pass over them: the shortest that will do is
    # found by halving, not by dividing.
    short, long = length, max(length, (float(np.ptp(motion)) + 1e-9) / most * 2)
    if len(np.unique(stretches(short))) > most:
        for _ in range(40):
            length = (short + long) / 2
            if len(np.unique(stretches(length))) > most:
                short = length
            else:
                long = length
        length = long
    stretch = stretches(length)
    place = motion / length
    return [_sharpest(frames, place, np.flatnonzero(stretch == k)) for k in np.unique(stretch)]


def _sharpest(frames: Sequence[Measured], place: Array, members: npt.NDArray[np.intp]) -> Measured:
    """Of the middle half of the stretch where it has frames there: neighbours keep a distance."""
    part = place[members] - np.floor(place[members])
    middle = members[(part >= 0.25) & (part <= 0.75)]
    candidates = [frames[int(k)] for k in (middle if len(middle) else members)]
    best = candidates[0]
    for frame in candidates[1:]:
        if better(frame.quality, best.quality):
            best = frame
    return best


def shrunk(image: ImageHW3, side: int) -> ImageHW3:
    """The image with a longer side of at most ``side`` pixels."""
    longer = max(image.shape[:2])
    if longer <= side:
        return image
    height, width = (max(1, round(length * side / longer)) for length in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
