# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Smooth walks of a camera through a furnished room."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, label, map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from mspn_ros.datasets.room_builder import Room
from mspn_ros.datasets.room_light import box_distances, wall_distances
from mspn_ros.records import Array

CLEARANCE_M = 0.4
_GRID_M = 0.1
_HEADINGS = 72
_NEAR_VIEW_M = 1.6
_SURVEY_TURN_M = 9.0


def clearance_map(room: Room) -> Array:
    """Distance from each cell of a 10 cm floor grid to the nearest wall or furniture, (nx, ny)."""
    shape = tuple(round(side / _GRID_M) for side in room.size[:2])
    x, y = np.meshgrid(*((np.arange(n) + 0.5) * _GRID_M for n in shape), indexing="ij")
    free = np.ones((shape[0] + 2, shape[1] + 2), bool)
    free[[0, -1]] = free[:, [0, -1]] = False
    for cx, cy, cz, hx, hy, hz, yaw in room.boxes:
        if cz - hz < 1.9:
            dx, dy = x - cx, y - cy
            u = np.abs(dx * np.cos(yaw) + dy * np.sin(yaw))
            v = np.abs(dy * np.cos(yaw) - dx * np.sin(yaw))
            free[1:-1, 1:-1] &= (u > hx) | (v > hy)
    return np.asarray(distance_transform_edt(free)[1:-1, 1:-1] * _GRID_M)


def _grid_graph(clearance: Array, walkable: npt.NDArray[np.bool_]) -> coo_matrix:
    number = np.arange(clearance.size).reshape(clearance.shape)
    starts, ends, costs = [], [], []
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
        a = (slice(0, -dx or None), slice(0, -1) if dy > 0 else slice(-dy, None))
        b = (slice(dx, None), slice(1, None) if dy > 0 else slice(0, dy or None))
        a = (a[0], slice(None)) if dy == 0 else a
        b = (b[0], slice(None)) if dy == 0 else b
        both = walkable[a] & walkable[b]
        cost = np.hypot(dx, dy) * (1 + (0.5 / np.maximum(clearance[a], _GRID_M)) ** 3)
        starts.append(number[a][both])
        ends.append(number[b][both])
        costs.append(cost[both])
    shape = (clearance.size, clearance.size)
    edges = (np.concatenate(costs), (np.concatenate(starts), np.concatenate(ends)))
    return coo_matrix(edges, shape=shape).tocsr()


def _floor_path(room: Room, rng: np.random.Generator, length_m: float) -> Array:
    """A smooth path (N, 2) of at least ``length_m``, past waypoints spread over the free floor."""
    clearance = clearance_map(room)
    regions, _ = label(clearance >= CLEARANCE_M + 0.05)
    walkable = regions == np.bincount(regions[regions > 0]).argmax()
    cells = np.flatnonzero(walkable)
    graph = _grid_graph(clearance, walkable)
    place = np.stack(np.unravel_index(np.arange(clearance.size), clearance.shape), -1)
    route = [int(rng.choice(cells))]
    stops: list[int] = []
    walked = 0.0
    while walked < length_m * 1.4:
        stops = [*stops[-5:], route[-1]]
        choices = rng.choice(cells, 12)
        gaps = np.linalg.norm(place[choices][:, None] - place[stops][None], axis=-1).min(-1)
        goal = int(choices[gaps.argmax()])
        _, before = dijkstra(graph, False, route[-1], return_predecessors=True)
        leg = [goal]
        while before[leg[-1]] != route[-1] and before[leg[-1]] >= 0:
            leg.append(int(before[leg[-1]]))
        walked += _GRID_M * len(leg)
        route += leg[::-1]
    path = (place[route] + 0.5) * _GRID_M
    slope = [np.asarray(side) for side in np.gradient(clearance, _GRID_M)]
    for _ in range(12):
        path = gaussian_filter1d(path, 2.5, axis=0, mode="nearest")
        where = (path / _GRID_M - 0.5).T
        short = CLEARANCE_M + 0.05 - map_coordinates(clearance, where, order=1, mode="nearest")
        push = np.stack([map_coordinates(s, where, order=1, mode="nearest") for s in slope], -1)
        path = path + np.maximum(short, 0)[:, None] * push
    return np.asarray(gaussian_filter1d(path, 2.0, axis=0, mode="nearest"))


def _sway(rng: np.random.Generator, t: Array, periods_m: tuple[float, float]) -> Array:
    """A smooth aimless signal within about -1..1 over the walked distance t (N,) m."""
    total = np.zeros_like(t)
    for weight in (0.5, 0.35, 0.25):
        total += weight * np.sin(2 * np.pi * t / rng.uniform(*periods_m) + rng.uniform(0, 7))
    return total


def _headings(room: Room, eyes_N3: Array, wished_N: Array) -> Array:
    """Smooth headings (N,) rad near the wished ones that seldom face a near wall (Viterbi)."""
    angles = np.arange(_HEADINGS) * 2 * np.pi / _HEADINGS
    rays = np.stack((np.cos(angles), np.sin(angles), np.full(_HEADINGS, -0.08)), -1)
    points = np.repeat(eyes_N3, _HEADINGS, axis=0)
    directions = np.tile(rays, (len(eyes_N3), 1))
    boxes = np.array([box for box in room.boxes if box[2] + box[5] > 0.9])
    depth = np.minimum(
        box_distances(points, directions, boxes), wall_distances(points, directions, room.size)
    ).reshape(-1, _HEADINGS)
    cost = 1.5 * (1 - np.cos(angles - wished_N[:, None]))
    cost += 5 * np.maximum(0, _NEAR_VIEW_M - depth) ** 2
    total, choice = cost[0], np.zeros(cost.shape, int)
    for k in range(1, len(cost)):
        turned = np.stack([np.roll(total, step) + 0.4 * step**2 for step in (-1, 0, 1)])
        choice[k] = turned.argmin(0)
        total = turned.min(0) + cost[k]
    heading = int(total.argmin())
    steps = np.zeros(len(cost))
    for k in range(len(cost) - 1, 0, -1):
        steps[k] = choice[k, heading] - 1
        heading = (heading - int(steps[k])) % _HEADINGS
    turned_by = heading + np.cumsum(steps)
    return np.asarray(gaussian_filter1d(turned_by * 2 * np.pi / _HEADINGS, 3.0, mode="nearest"))


def walk(room: Room, rng: np.random.Generator, frames: int, step_m: float, survey: bool) -> Array:
    """A walk of ``frames`` camera-to-world matrices (N, 4, 4), ``step_m`` apart.

    The camera is carried 1.25 to 1.65 m above the floor, at least CLEARANCE_M from furniture and
    walls, looks ahead and about, seldom at something nearer than 1.6 m, and sways in pitch and
    roll. A survey turns slowly round and round instead, to see every place in every direction.
    Axes x right, y down, z forward; metres.
    """
    path = _floor_path(room, rng, frames * step_m)
    walked = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=-1))))
    t = np.asarray(np.arange(frames) * step_m, np.float64)
    floor = np.stack([np.interp(t, walked, path[:, k]) for k in range(2)], -1)
    ahead = np.gradient(floor, axis=0)
    eyes = np.concatenate((floor, (1.45 + 0.18 * _sway(rng, t, (3.0, 9.0)))[:, None]), -1)
    if survey:
        towards = rng.choice((-1, 1)) * 2 * np.pi * t / _SURVEY_TURN_M + rng.uniform(0, 2 * np.pi)
    else:
        towards = np.arctan2(ahead[:, 1], ahead[:, 0])
    wished = towards + 1.5 * _sway(rng, t, (6.0, 15.0))
    yaw = _headings(room, eyes, wished)
    pitch = np.radians(-7 + 6 * _sway(rng, t, (2.5, 7.0)))
    roll = np.radians(2.5 * _sway(rng, t, (2.0, 6.0)))
    forward = np.stack(
        (np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)), -1
    )
    level = np.stack((np.sin(yaw), -np.cos(yaw), np.zeros_like(yaw)), -1)
    down = np.cross(forward, level)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.zeros((frames, 4, 4))
    poses[:, :3, 0] = c * level + s * down
    poses[:, :3, 1] = c * down - s * level
    poses[:, :3, 2] = forward
    poses[:, :3, 3] = eyes
    poses[:, 3, 3] = 1
    return poses
