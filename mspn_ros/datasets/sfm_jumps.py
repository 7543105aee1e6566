# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames of a reconstruction that lie where the camera cannot have been.

A few frames that hang on the rest by few points may be posed far off, with a small reprojection
error. In a recording they show as a jump away from the frame before, and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mspn_ros.datasets.sfm import Reconstruction
from mspn_ros.records import Array

# A step of so many times the median one: frames are chosen by equal motion in the image.
JUMP = 25
# Longer parts are not called wrong: a user may have taken photos in two places by turns.
_LONGEST_STRAY = 10
# Strays are so many times farther away than the frame behind them.
_FARTHER = 3


@dataclass(frozen=True, slots=True)
class Jump:
    """A step of ``times`` the pass's median from image ``before`` to ``after``."""

    times: float
    before: str
    after: str


def find_jumps(
    model: Reconstruction, passes: Sequence[Sequence[str]]
) -> tuple[list[str], list[Jump]]:
    """Names of frames that jump away and back, and jumps that do not come back.

    ``passes`` are names in recording order; those without a pose are passed over.
    """
    strays: list[str] = []
    jumps: list[Jump] = []
    for one in passes:
        names = [name for name in one if name in model.poses]
        centres = np.array([model.poses[name].position for name in names]).reshape(-1, 3)
        steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
        usual = float(np.median(steps)) if len(steps) else 0.0
        if usual <= 0:
            continue
        here = 0
        while here < len(names) - 1:
            following = np.linalg.norm(centres[here + 1 :] - centres[here], axis=1)
            back = _return(following, JUMP * usual)
            if back is not None:
                strays += names[here + 1 : here + 1 + back]
                here += 1 + back
            else:
                jumps.append(Jump(float(following[0]) / usual, names[here], names[here + 1]))
                here += 1
    return strays, jumps


def _return(distances: Array, bound: float) -> int | None:
    """How many frames were away before one came back to within ``bound``; 0 for a usual step.

    None where none came back soon, or those before were hardly farther away: a gap in the
    recording, not a stray.
    """
    for index, distance in enumerate(distances[: _LONGEST_STRAY + 1]):
        if distance <= bound and (distances[:index] >= _FARTHER * distance).all():
            return index
    return None
