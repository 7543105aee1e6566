# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Light and sight in a room of boxes: ray distances, and baked shading of its patches.

The shading is baked once per room into vertex colours (soft light of windows and lamps, ambient
occlusion), so that rendering a frame needs no lights and stays fast and exactly repeatable.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mspn_ros.datasets.room_builder import Room
from mspn_ros.records import Array

_CELL_M = 0.16
_AMBIENT_REACH_M = 1.6
_WINDOW_LIGHT = np.array([1.35, 1.45, 1.6])
_LAMP_LIGHT = np.array([2.0, 1.75, 1.35])
_AMBIENT = np.array([0.62, 0.61, 0.6])


def box_distances(points_N3: Array, directions_N3: Array, boxes_B7: Array) -> Array:
    """Distance along each ray to the nearest box, inf where it meets none -> (N,) metres.

    Boxes are centre, half size, yaw as in ``Room.boxes``. A ray that starts inside a box meets it
    at 0. Slab method.
    """
    nearest = np.full(len(points_N3), np.inf, np.float32)
    # Columns apart: NumPy is several times faster on them than on rows of three.
    px, py, pz = np.ascontiguousarray(points_N3.T, np.float32)
    dx, dy, dz = np.ascontiguousarray(directions_N3.T, np.float32)
    for cx, cy, cz, hx, hy, hz, yaw in boxes_B7.tolist():
        c, s = math.cos(yaw), math.sin(yaw)
        qx, qy = px - cx, py - cy
        starts = (c * qx + s * qy, c * qy - s * qx, pz - cz)
        along = (c * dx + s * dy, c * dy - s * dx, dz)
        enters, leaves = np.zeros_like(nearest), nearest
        for start, speed, half in zip(starts, along, (hx, hy, hz), strict=True):
            # A zero would divide 0 by 0 where the ray runs within a face.
            inverse = 1 / np.where(np.abs(speed) < 1e-9, np.float32(1e-9), speed)
            middle, spread = -start * inverse, half * np.abs(inverse)
            enters = np.maximum(enters, middle - spread)
            leaves = np.minimum(leaves, middle + spread)
        # leaves is cut at the nearest hit so far, so a hit is nearer than that.
        nearest = np.where(leaves >= enters, enters, nearest)
    return nearest.astype(np.float64)


def wall_distances(points_N3: Array, directions_N3: Array, size: tuple[float, ...]) -> Array:
    """Distance along each ray from inside the room to what encloses it -> (N,) metres."""
    along = np.where(np.abs(directions_N3) < 1e-9, 1e-9, directions_N3)
    bound = np.where(along > 0, np.array(size), 0.0)
    return np.asarray(((bound - points_N3) / along).min(-1))


def _sphere(count: int) -> Array:
    """Evenly spread unit vectors (Fibonacci sphere) -> (count, 3)."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.stack((r * np.cos(turn), r * np.sin(turn), z), -1)


def _emitters(room: Room) -> list[tuple[Array, Array, Array]]:
    """Sample points (position, inward normal, power) of windows and lamps."""
    samples = []
    for sources, light, cuts in ((room.windows, _WINDOW_LIGHT, 3), (room.lamps, _LAMP_LIGHT, 2)):
        for row in sources:
            centre, normal, width, height = np.array(row[:3]), np.array(row[3:6]), row[6], row[7]
            across = np.array([1.0, 0, 0]) if abs(normal[2]) > 0.5 else np.cross(normal, (0, 0, 1))
            up = np.cross(across, normal)
            steps = (np.arange(cuts) + 0.5) / cuts - 0.5
            power = light * max(width * height, 0.4) / cuts**2
            for u in steps * width:
                for v in steps * height:
                    samples.append((centre + u * across + v * up + 0.03 * normal, normal, power))
    return samples


def bake(room: Room, points_N3: Array, normals_N3: Array) -> Array:
    """Light that reaches surface points: (N, 3), (N, 3) unit -> (N, 3) RGB factors in 0..1."""
    boxes = np.array(room.boxes)
    origins = points_N3 + 0.012 * normals_N3
    open_sky, weight = np.zeros(len(origins)), np.zeros(len(origins))
    for direction in _sphere(64):
        cosine = normals_N3 @ direction
        facing = np.flatnonzero(cosine > 0)
        rays = np.broadcast_to(direction, (len(facing), 3))
        reach = box_distances(origins[facing], rays, boxes)
        open_sky[facing] += cosine[facing] * np.minimum(reach / _AMBIENT_REACH_M, 1)
        weight[facing] += cosine[facing]
    light = (open_sky / np.maximum(weight, 1e-6))[:, None] * _AMBIENT
    for position, normal, power in _emitters(room):
        towards = position - origins
        distance = np.linalg.norm(towards, axis=-1)
        towards = towards / distance[:, None]
        gain = (normals_N3 * towards).sum(-1).clip(0) * (-(towards @ normal)).clip(0)
        lit = np.flatnonzero(gain > 1e-3)
        clear = box_distances(origins[lit], towards[lit], boxes) > distance[lit] - 0.06
        # The softened square keeps a lamp from burning out the wall beside it.
        fall = gain[lit] * clear / (0.5 + distance[lit] ** 2)
        light[lit] += fall[:, None] * power
    return np.asarray(1 - np.exp(-2.4 * light))


def tessellate(
    corners_43: Array, uv_42: Array
) -> tuple[Array, Array, Array, npt.NDArray[np.int64]]:
    """Cut a bilinear quad into cells of at most 16 cm, fine enough for vertex shading.

    Returns points (N, 3), their normals (N, 3), uv (N, 2) and triangles (T, 3).
    """
    edges = np.linalg.norm(corners_43 - np.roll(corners_43, -1, axis=0), axis=-1)
    nu = int(np.ceil(max(edges[0], edges[2]) / _CELL_M))
    nv = int(np.ceil(max(edges[1], edges[3]) / _CELL_M))
    u, v = (
        a.reshape(-1, 1) for a in np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1))
    )
    blend = np.hstack(((1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v))
    normal = np.cross(corners_43[2] - corners_43[0], corners_43[3] - corners_43[1])
    normal = normal / np.linalg.norm(normal)
    low = (np.arange(nv)[:, None] * (nu + 1) + np.arange(nu)).reshape(-1)
    a, b, c, d = low, low + 1, low + nu + 2, low + nu + 1
    triangles = np.concatenate((np.stack((a, b, c), -1), np.stack((a, c, d), -1)))
    points = blend @ corners_43
    return points, np.broadcast_to(normal, points.shape), blend @ uv_42, triangles
