# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a camera moved between two images, from the images alone.

Matched keypoints (training/keypoints.py) and the essential matrix (Nister 2004) by OpenCV. The
poses of the frames have no part in it: what comes out is held against them (convention_check.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from mspn_ros.metrics import position_extent, rotation_error_deg
from mspn_ros.records import Array, Frame, ImageError
from mspn_ros.training.keypoints import Keypoints, find_keypoints, most_alike

# A pair with fewer matches that fit one fundamental matrix says nothing; one with so many is good,
# and no nearer partner is looked for.
LEAST_MATCHES, GOOD_MATCHES = 40, 100
# Of all that look alike; where fewer fit, those that do may do so by chance.
_LEAST_FITTING = 0.5
# Frames apart in one sequence that are tried for a partner, the furthest first: it has moved most.
_GAPS = (60, 30, 15, 8, 4, 2, 1)
# Matches are off by about a pixel.
_TOLERANCE_PX = 1.5
# Of what a rotation alone leaves over, in pixels (median): below the first there is no translation
# to be seen, from the second on its direction is known.
_NO_PARALLAX_PX, _CLEAR_PARALLAX_PX = 1.5, 4.0
# And in parts of the turn: a lens that is not quite as said leaves something over, too.
_CLEAR_PARALLAX_OF_TURN = 0.08
# Share of matches that have to fit the essential matrix, and of these to lie before both cameras.
_LEAST_INSIDE, _LEAST_AHEAD = 0.6, 0.8
_REFINEMENTS = 8
_NEIGHBOURS = 3
_KEPT_IN_MEMORY = 150


@dataclass(frozen=True, slots=True)
class Matches:
    """Two frames (indices into the frames asked about) and rays (M, 3) to what both of them see.

    Rays are in each camera's axes, x right, y down, z forward; ``pixel`` is a pixel's angle, rad.
    """

    first: int
    second: int
    first_ray: Array
    second_ray: Array
    pixel: float

    def __len__(self) -> int:
        return len(self.first_ray)


@dataclass(frozen=True, slots=True)
class Motion:
    """What the images say: x_second = ``rotation`` x_first + depth * ``direction``.

    ``direction`` (3,) is a unit vector, None where there is too little parallax to know it.
    """

    first: int
    second: int
    rotation: Array
    direction: Array | None


def sample_matches(
    frames: Sequence[Frame],
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Matches]:
    """At most ``count`` pairs of frames that see the same things from different poses.

    First frames are spread over all, at random; partners come from the same sequence, by their
    order alone, or else from those whose poses are said to be near. ``progress`` is called with
    (done, total).
    """
    rng = np.random.default_rng(seed)
    total = min(count, len(frames))
    # One of each of ``total`` equal parts.
    edges = np.linspace(0, len(frames), total + 1)
    edges = np.round(edges).astype(int)
    firsts = [int(rng.integers(a, max(a + 1, b))) for a, b in pairwise(edges)]
    look = _Looks(frames)
    found: list[Matches] = []
    for done, first in enumerate(firsts, 1):
        best = _best_partner(look, first, _partners(frames, first))
        if best is not None:
            found.append(best)
        if progress is not None:
            progress(done, total)
    return found


def _best_partner(look: _Looks, first: int, partners: Sequence[int]) -> Matches | None:
    """The first partner with GOOD_MATCHES, or the one with most."""
    best: Matches | None = None
    for second in partners:
        matches = look.matches(first, second)
        if matches is not None and (best is None or len(matches) > len(best)):
            best = matches
        if best is not None and len(best) >= GOOD_MATCHES:
            break
    return best


def _partners(frames: Sequence[Frame], first: int) -> list[int]:
    own = frames[first].sequence
    places = [first + sign * gap for gap in _GAPS for sign in (1, -1)]
    inside = [j for j in places if 0 <= j < len(frames) and frames[j].sequence == own]
    # One direction is enough where it leads somewhere.
    ahead = [j for j in inside if j > first]
    ordered = ahead if len(ahead) >= len(_GAPS) // 2 else inside
    return list(dict.fromkeys([*ordered, *_near_poses(frames, first)]))


def _near_poses(frames: Sequence[Frame], first: int) -> list[int]:
    positions = np.array([frame.pose.position for frame in frames])
    quaternions = np.array([frame.pose.quaternion for frame in frames])
    angle = rotation_error_deg(quaternions, quaternions[first][None])
    far = np.linalg.norm(positions - positions[first], axis=1)
    cost = far / max(position_extent(positions), 1e-12) + angle / 90
    # Nearer than this it is the same picture.
    cost[cost < 0.05] = np.inf
    return [int(j) for j in np.argsort(cost)[:_NEIGHBOURS] if np.isfinite(cost[j])]


class _Looks:
    """Keypoints of frames, found when they are asked for; the latest are kept."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._keypoints = lru_cache(_KEPT_IN_MEMORY)(self._find)

    def _find(self, index: int) -> Keypoints | None:
        try:
            return find_keypoints(self._frames[index])
        except ImageError:
            return None

    def matches(self, first: int, second: int) -> Matches | None:
        """Matches that fit one fundamental matrix; None for too few."""
        a, b = self._keypoints(first), self._keypoints(second)
        if a is None or b is None:
            return None
        pair_M2 = most_alike(a, b)
        near, far = a.ray_K3[pair_M2[:, 0]], b.ray_K3[pair_M2[:, 1]]
        ahead = (near[:, 2] > 0.1) & (far[:, 2] > 0.1)
        near, far = near[ahead], far[ahead]
        if len(near) < LEAST_MATCHES:
            return None
        pixel = max(a.pixel, b.pixel)
        # In pixels of a camera of the focal length 1 / pixel, so that a tolerance can be given.
        plane = [ray[:, :2] / ray[:, 2:] / pixel for ray in (near, far)]
        kept = _fits_fundamental(*plane)
        if kept.sum() < max(LEAST_MATCHES, _LEAST_FITTING * len(kept)):
            return None
        return Matches(first, second, near[kept], far[kept], pixel)


def _fits_fundamental(first_M2: Array, second_M2: Array) -> npt.NDArray[np.bool_]:
    cv2.setRNGSeed(0)
    _, mask = cv2.findFundamentalMat(
        first_M2, second_M2, cv2.USAC_MAGSAC, _TOLERANCE_PX, 0.999, 2000
    )
    return np.zeros(len(first_M2), bool) if mask is None else mask.ravel() > 0


def motion(matches: Matches, focal_factor: float = 1.0) -> Motion | None:
    """The motion between two frames; None where the matches fit none.

    ``focal_factor``: as if the focal length were so many times the one that the rays were made by.
    """
    first, second = (
        np.column_stack((ray[:, :2] / ray[:, 2:] / focal_factor, np.ones(len(ray))))
        for ray in (matches.first_ray, matches.second_ray)
    )
    pixel = matches.pixel / focal_factor
    turned = _rotation_alone(_unit(first), _unit(second))
    left_over = _angles(_unit(first) @ turned.T, _unit(second))
    parallax = float(np.median(left_over)) / pixel
    if parallax < _NO_PARALLAX_PX:
        return Motion(matches.first, matches.second, turned, None)
    cv2.setRNGSeed(0)
    essential, mask = cv2.findEssentialMat(
        first[:, :2], second[:, :2], np.eye(3), cv2.USAC_MAGSAC, 0.999, _TOLERANCE_PX * pixel
    )
    if essential is None or essential.shape != (3, 3):
        return None
    inside = int((mask > 0).sum())
    ahead, rotation, direction, _ = cv2.recoverPose(
        essential, first[:, :2], second[:, :2], np.eye(3), mask=mask
    )
    if inside < _LEAST_INSIDE * len(first) or ahead < _LEAST_AHEAD * inside:
        return None
    turn = math.acos(min(max((float(np.trace(turned)) - 1) / 2, -1.0), 1.0))
    clear = parallax * pixel >= max(_CLEAR_PARALLAX_PX * pixel, _CLEAR_PARALLAX_OF_TURN * turn)
    return Motion(
        matches.first, matches.second, np.asarray(rotation), direction[:, 0] if clear else None
    )


def _rotation_alone(first_M3: Array, second_M3: Array) -> Array:
    """The rotation that best carries unit rays into others, outliers weighed down."""
    weight = np.ones(len(first_M3))
    rotation = np.eye(3)
    for _ in range(_REFINEMENTS):
        u, _, vt = np.linalg.svd((second_M3 * weight[:, None]).T @ first_M3)
        rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        angle = _angles(first_M3 @ rotation.T, second_M3)
        weight = 1 / np.maximum(angle, max(float(np.median(angle)), 1e-9))
    return np.asarray(rotation)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _angles(a_M3: Array, b_M3: Array) -> Array:
    """Angles between unit vectors, rad; exact for small ones."""
    return np.asarray(2 * np.arcsin(np.minimum(np.linalg.norm(a_M3 - b_M3, axis=1) / 2, 1)))
