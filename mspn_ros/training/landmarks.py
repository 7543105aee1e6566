# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Landmarks: points of a scene that can be found again in its training images.

From the frames' known poses alone: keypoints matched between neighbouring frames are triangulated;
a point is kept if it is found where it should be in several frames; of these are chosen those that
together cover every part of every frame (Do et al. 2022, Learning to Detect Scene Landmarks, choose
theirs likewise by tracks). Nothing random but by a fixed seed: the same frames give the same
landmarks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from mspn_ros import metrics
from mspn_ros.paths import file_digest
from mspn_ros.records import Array, ConfigError, Frame
from mspn_ros.store.files import locked, read_tensors, write_tensors
from mspn_ros.training.cache import Progress
from mspn_ros.training.keypoints import Keypoints, find_keypoints, match, triangulate

_T = TypeVar("_T", bound=np.floating[Any])
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Of what is kept in the cache; another one whenever other landmarks would be chosen.
_FORMAT = 1
# Frames that landmarks are made of: evenly spread ones of longer recordings.
_MOST_FRAMES = 1500
# Candidates in all, spread over the pairs of frames.
_CANDIDATES = 40_000
# Frames that a frame is matched with: its nearest, and others that look the same way.
_NEAREST, _OTHERS = 2, 6
# What counts as near for that: shares of the extent, and degrees, added up, to this sum.
_SHARE, _DEGREES, _REACH = 0.1, 20.0, 3.0
# Pixels a match may lie off its epipolar line, and a keypoint off its point's image.
_EPIPOLAR_PX, _IMAGE_PX = 2.0, 2.5
# Rays that meet at less say nothing of depth.
_LEAST_ANGLE = np.radians(0.7)
# Cosine of a point's mean descriptor and that of the keypoint at its place.
_ALIKE = 0.78
_LEAST_FRAMES = 3
# Parts along a side of an image that landmarks are to cover.
_PARTS = 4
# How much less another landmark is worth in a part that has n: (1 + n) ** -this.
_SATURATION = 1.5


@dataclass(frozen=True)
class Landmarks:
    """``point_K3`` in the scene's frame and unit, and in which frames they were found (S, K)."""

    point_K3: Array
    found_SK: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Support:
    """Candidate ``point_M`` was found in frame ``frame_M`` at keypoint ``keypoint_M`` of all."""

    point_M: npt.NDArray[np.int64]
    frame_M: npt.NDArray[np.int64]
    keypoint_M: npt.NDArray[np.int64]


def cached_landmarks(
    frames: Sequence[Frame], count: int, folder: Path | None, tell: Progress | None = None
) -> Landmarks:
    """``choose_landmarks``, kept in ``folder`` (None: nowhere) for the same frames and count.

    Raises:
        ImageError: an image cannot be read.
        ConfigError: the folder cannot be written.
    """
    if folder is None:
        return choose_landmarks(frames, count, tell)
    path = folder / f"{_key(frames, count)}.landmarks.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Processes of one run ask at once: one makes them, the others wait.
        with locked(path.with_suffix(".lock")):
            if not path.is_file():
                made = choose_landmarks(frames, count, tell)
                tensors = {"point": made.point_K3, "found": made.found_SK}
                write_tensors(path, {k: torch.from_numpy(v) for k, v in tensors.items()}, {})
            stored, _ = read_tensors(path)
            return Landmarks(stored["point"].numpy(), stored["found"].numpy())
    except OSError as error:
        raise ConfigError(
            f"{folder}: the cache cannot be written ({error.strerror}); free space, set cache to "
            "another folder, or cache=none"
        ) from error


def _key(frames: Sequence[Frame], count: int) -> str:
    """All that decides the landmarks."""
    digest = hashlib.sha256(f"{_FORMAT}|{count}".encode())
    for frame in frames:
        digest.update(file_digest(frame.image_path))
        digest.update(frame.pose.position.tobytes() + frame.pose.quaternion.tobytes())
        digest.update(repr(frame.intrinsics).encode())
    return digest.hexdigest()[:32]


def choose_landmarks(
    frames: Sequence[Frame], count: int, tell: Progress | None = None
) -> Landmarks:
    """Up to ``count`` landmarks of one scene's frames; fewer, or none, where there are not so many.

    ``tell`` hears how many of the frames have been looked at.

    Raises:
        ImageError: an image cannot be read.
    """
    found_SK = np.zeros((len(frames), 0), bool)
    used = np.unique(np.linspace(0, len(frames) - 1, _MOST_FRAMES).round().astype(int))
    views = []
    for number, view in enumerate(_each(find_keypoints, [frames[i] for i in used])):
        views.append(view)
        if tell:
            tell(number + 1, len(used))
    points, descriptors = _candidates(views)
    support = _Support(*(np.zeros(0, np.int64) for _ in range(3)))
    for _ in range(2):
        support = _find(points, descriptors, views)
        points, descriptors, support = _refined(points, views, support)
    if not len(points):
        return Landmarks(np.zeros((0, 3)), found_SK)
    chosen = _cover(len(points), views, support, count)
    found_SK = np.zeros((len(frames), len(chosen)), bool)
    place = np.full(len(points), -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[support.point_M] >= 0
    found_SK[used[support.frame_M[kept]], place[support.point_M[kept]]] = True
    return Landmarks(points[chosen], found_SK)


def _each(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Results in order, by as many threads as torch uses: OpenCV and SciPy let others run."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(function, items)


def _pairs(views: Sequence[Keypoints]) -> list[tuple[int, int]]:
    """Frames that may show the same: each one's nearest, and some others near and alike."""
    centre = np.stack([view.centre_3 for view in views])
    axis = np.stack([view.rotation_33[:, 2] for view in views])
    extent = metrics.position_extent(centre) or 1.0
    random = np.random.default_rng(0)
    pairs = set()
    for i in range(len(views)):
        shift = np.linalg.norm(centre - centre[i], axis=1) / extent
        turn = np.degrees(np.arccos(np.clip(axis @ axis[i], -1, 1)))
        far = shift / _SHARE + turn / _DEGREES
        near = np.flatnonzero((far < _REACH) & (shift > 1e-6))
        weight = np.exp(-far[near])
        others = near[np.argsort(far[near])[:_NEAREST]]
        if len(near):
            size = min(_OTHERS, len(near))
            drawn = random.choice(near, size, replace=False, p=weight / weight.sum())
            others = np.concatenate((others, drawn))
        pairs |= {(min(i, int(j)), max(i, int(j))) for j in others}
    return sorted(pairs)


def _candidates(views: Sequence[Keypoints]) -> tuple[Array, npt.NDArray[np.float32]]:
    """Points (P, 3) triangulated from pairs of frames, and their descriptors (P, D)."""
    pairs = _pairs(views)
    random = np.random.default_rng(0)
    share = max(8, _CANDIDATES // max(1, len(pairs)))
    points, descriptors = [np.zeros((0, 3))], [np.zeros((0, 128), np.float32)]

    def meet(pair: tuple[int, int]) -> tuple[npt.NDArray[np.int64], Array, Array]:
        a, b = views[pair[0]], views[pair[1]]
        matched = match(a, b, _EPIPOLAR_PX)
        return matched, *triangulate(a, b, matched)

    for (i, j), (matched, point_M3, angle_M) in zip(pairs, _each(meet, pairs), strict=True):
        a, b = views[i], views[j]
        good = np.flatnonzero(angle_M > _LEAST_ANGLE)
        if len(good) > share:
            good = random.choice(good, share, replace=False)
        points.append(point_M3[good])
        first, second = matched[good].T
        descriptors.append(_unit(a.descriptor_KD[first] + b.descriptor_KD[second]))
    return np.concatenate(points), np.concatenate(descriptors)


def _find(
    points: Array, descriptors: npt.NDArray[np.float32], views: Sequence[Keypoints]
) -> _Support:
    """Look for every point in every frame: a keypoint near its image that looks like it."""
    none = np.zeros(0, np.int64)

    def look(view: Keypoints) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        seen = (points - view.centre_3) @ view.rotation_33
        ahead = np.flatnonzero(seen[:, 2] > 0)
        if not len(ahead) or not len(view.ray_K3):
            return none, none
        # Distance on the unit sphere is the angle, nearly.
        direction = _unit(seen[ahead])
        off, nearest = cKDTree(view.ray_K3).query(
            direction, distance_upper_bound=_IMAGE_PX * view.pixel
        )
        near = np.flatnonzero(np.isfinite(off))
        point, keypoint = ahead[near], nearest[near]
        alike = (descriptors[point] * view.descriptor_KD[keypoint]).sum(1)
        good = alike > _ALIKE
        return point[good], keypoint[good]

    parts = [(none, none, none)]
    before = 0
    for number, (point, keypoint) in enumerate(_each(look, views)):
        parts.append((point, np.full(len(point), number), before + keypoint))
        before += len(views[number].ray_K3)
    return _Support(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _refined(
    points: Array, views: Sequence[Keypoints], support: _Support
) -> tuple[Array, npt.NDArray[np.float32], _Support]:
    """Points found often enough, moved to where all their rays meet best; mean descriptors."""
    rays = np.concatenate([view.world_ray for view in views])
    centres = np.stack([view.centre_3 for view in views])
    kept = np.bincount(support.point_M, minlength=len(points)) >= _LEAST_FRAMES
    place = np.cumsum(kept) - 1
    mine = kept[support.point_M]
    support = _Support(
        place[support.point_M[mine]], support.frame_M[mine], support.keypoint_M[mine]
    )
    size = int(kept.sum())
    ray = rays[support.keypoint_M]
    across = np.eye(3) - ray[:, :, None] * ray[:, None, :]
    # The old place has a little weight: rays that hardly cross leave it where it was.
    count = len(ray)
    ones = np.ones(count, np.float32)
    of_point = csr_array((ones, (support.point_M, np.arange(count))), shape=(size, count))
    normal = np.eye(3) * 1e-3 + (of_point @ across.reshape(-1, 9)).reshape(-1, 3, 3)
    pulled = np.einsum("mij,mj->mi", across, centres[support.frame_M])
    right = 1e-3 * points[kept] + of_point @ pulled
    moved = np.linalg.solve(normal, right[..., None])[..., 0]
    return np.asarray(moved), _mean_descriptors(size, views, support), support


def _mean_descriptors(
    size: int, views: Sequence[Keypoints], support: _Support
) -> npt.NDArray[np.float32]:
    """Of each point, over the frames that it was found in; one frame in memory at a time."""
    total_PD = np.zeros((size, 128), np.float32)
    ends = np.searchsorted(support.frame_M, np.arange(len(views) + 1))
    before = 0
    for number, view in enumerate(views):
        mine = slice(ends[number], ends[number + 1])
        # A point is found at one keypoint of a frame, hence no index comes twice.
        total_PD[support.point_M[mine]] += view.descriptor_KD[support.keypoint_M[mine] - before]
        before += len(view.ray_K3)
    return _unit(total_PD)


def _cover(
    size: int, views: Sequence[Keypoints], support: _Support, count: int
) -> npt.NDArray[np.int64]:
    """Greedily the points that add most to the parts of frames that have fewest yet.

    Points that share a keypoint with a chosen one are the same thing again, and left out.
    """
    ray = np.concatenate([view.ray_K3 for view in views])[support.keypoint_M]
    plane = ray[:, :2] / np.maximum(ray[:, 2:], 1e-6)
    reach = np.abs(plane).max(0) + 1e-9
    part = np.clip(((plane / reach + 1) / 2 * _PARTS).astype(int), 0, _PARTS - 1)
    column = support.frame_M * _PARTS**2 + part[:, 1] * _PARTS + part[:, 0]
    ones = np.ones(len(column), np.float32)
    columns = len(views) * _PARTS**2
    shows = csr_array((ones, (support.point_M, column)), shape=(size, columns))
    keypoints = sum(len(view.ray_K3) for view in views)
    claims = csr_array((ones, (support.point_M, support.keypoint_M)), shape=(size, keypoints))
    claimed_by = claims.T.tocsr()
    filled, free = np.zeros(columns, np.float32), np.ones(size, bool)
    chosen: list[int] = []
    while len(chosen) < count and free.any():
        worth = np.where(free, shows @ (1 + filled) ** -_SATURATION, -1)
        best = int(worth.argmax())
        chosen.append(best)
        start, end = shows.indptr[best : best + 2]
        np.add.at(filled, shows.indices[start:end], shows.data[start:end])
        start, end = claims.indptr[best : best + 2]
        free[claimed_by[claims.indices[start:end]].indices] = False
        free[best] = False
    return np.array(chosen)


def _unit(vectors: npt.NDArray[_T]) -> npt.NDArray[_T]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), vectors.dtype)
