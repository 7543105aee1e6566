# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Furnished rooms as textured patches: the world that the synthetic scenes are rendered from.

Rooms come in pairs of look-alikes, as two flats across a landing are: a pair shares its palette,
materials and furniture, one room is arranged as the other's mirror image, and each has its own
prints on the walls, its own books and its own view. Colours cannot tell them, shapes can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mspn_ros.datasets import furniture, textures
from mspn_ros.datasets.room_builder import THIN, Builder, Room
from mspn_ros.datasets.textures import PALETTES, Palette
from mspn_ros.records import ImageHW3

_HEIGHT_M = 2.7
# What stands along the walls, with its width in metres; and what fills the corners.
_ALONG: tuple[tuple[Callable[[Builder], None], float], ...] = (
    (furniture.door, 1.1),
    (furniture.window, 1.95),
    (furniture.window, 1.95),
    (furniture.sofa, 1.95),
    (furniture.bookcase, 1.65),
    (furniture.sideboard, 1.7),
    (furniture.wardrobe, 1.25),
    (furniture.desk, 1.45),
    (furniture.gallery, 1.4),
    (furniture.narrow_bookcase, 0.9),
)
_CORNERS: tuple[Callable[[Builder], None], ...] = (
    furniture.plant,
    furniture.floor_lamp,
    furniture.carton_stack,
    furniture.plant,
)
_CORNER_M = 0.62


def _arrange(rng: np.random.Generator, lengths: list[float]) -> list[list[int]]:
    """Deal the items of _ALONG to the four walls, at random, so that each wall's fit its length."""
    while True:
        room_left = [length - 2 * _CORNER_M for length in lengths]
        walls: list[list[int]] = [[], [], [], []]
        for item in rng.permutation(len(_ALONG)).tolist():
            fits = [k for k in range(4) if room_left[k] >= _ALONG[item][1]]
            if not fits:
                break
            wall = fits[int(rng.integers(len(fits)))]
            room_left[wall] -= _ALONG[item][1]
            walls[wall].append(item)
        if all(walls) and sum(map(len, walls)) == len(_ALONG):
            return walls


def _shell(b: Builder) -> None:
    """Floor, ceiling, four walls with a coloured dado and a baseboard, a ceiling light."""
    w, d, h = b.room.size
    b.quad([(0, 0, 0), (w, 0, 0), (w, d, 0), (0, d, 0)], "floor", tile_m=1.6)
    b.quad([(0, d, h), (w, d, h), (w, 0, h), (0, 0, h)], "ceiling", tile_m=3.0)
    corners = [(0.0, 0.0), (w, 0.0), (w, d), (0.0, d)]
    for k, (x, y) in enumerate(corners):
        length = (w, d, w, d)[k]
        wall = b.at(x, y, k * np.pi / 2)
        for z0, z1, material in ((0.0, 0.9, "dado"), (0.9, h, "wall")):
            wall.quad(
                [(length, 0, z0), (0, 0, z0), (0, 0, z1), (length, 0, z1)], material, tile_m=3.0
            )
        for z, deep, tall in ((0.0, 0.02, 0.09), (0.88, 0.012, 0.05)):
            wall.box((0, 0, z), (length, deep, z + tall), tint=(240, 236, 226), solid=False)
    b.room.lamps.append([w / 2, d / 2, h - 0.02, 0.0, 0.0, -1.0, 1.2, 1.2])


def _materials(
    rng: np.random.Generator, own_rng: np.random.Generator, palette: Palette, tiled: bool
) -> dict[str, ImageHW3]:
    floor = textures.tiles if tiled else textures.planks
    materials = {
        "plain": np.full((4, 4, 3), 255, np.uint8),
        THIN: np.full((4, 4, 3), 255, np.uint8),
        "floor": floor(rng, palette.floor),
        "ceiling": textures.plaster(rng, (244, 242, 238)),
        "wall": textures.plaster(rng, palette.wall),
        "dado": textures.plaster(rng, palette.dado),
        "wood": textures.wood(rng, palette.wood),
        "wood_dark": textures.wood(rng, palette.dark),
        "door": textures.wood(rng, (222, 214, 200)),
        "card": textures.plaster(rng, (188, 152, 108)),
        "cloth": textures.plaster(rng, (250, 250, 250)),
        "stripes": textures.stripes(rng, (250, 250, 250)),
        "rug": textures.rug(rng, palette),
        "screen": textures.picture(rng, own_rng, palette, 1),
    }
    for k in range(furniture.WINDOWS):
        materials[f"outdoors{k}"] = textures.outdoors(rng, own_rng, palette)
    for k in range(furniture.PRINTS):
        materials[f"print{k}"] = textures.picture(rng, own_rng, palette, k)
    return materials


def _mirror(room: Room) -> None:
    """Turn a room into its mirror image: x becomes width - x."""
    width = room.size[0]
    for k, patch in enumerate(room.patches):
        corners = patch.corners * (-1, 1, 1) + (width, 0, 0)
        # Reversed, so that fronts stay counter-clockwise.
        room.patches[k] = replace(patch, corners=corners[::-1], uv=patch.uv[::-1])
    for box in room.boxes:
        box[0], box[6] = width - box[0], -box[6]
    for source in (*room.windows, *room.lamps):
        source[0], source[3] = width - source[0], -source[3]


def build_room(seed: int, index: int) -> Room:
    """The ``index``-th room of a seed; rooms 2k and 2k + 1 are look-alikes."""
    pair = index // 2
    palette = PALETTES[pair % len(PALETTES)]
    rng = np.random.default_rng((seed, pair, 0))
    own_rng = np.random.default_rng((seed, index, 1))
    width, depth = (float(side) for side in np.round(rng.uniform((6.2, 5.4), (7.2, 6.2)), 1))
    materials = _materials(rng, own_rng, palette, tiled=pair % 2 == 1)
    room = Room((width, depth, _HEIGHT_M), materials)
    floor = Builder(room, palette, rng, own_rng)
    _shell(floor)
    lengths = [width, depth, width, depth]
    corners = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)]
    fillers = rng.permutation(len(_CORNERS)).tolist()
    for k, items in enumerate(_arrange(rng, lengths)):
        wall = floor.at(*corners[k], k * np.pi / 2)
        _CORNERS[fillers[k]](wall.at(_CORNER_M / 2, 0.0, 0.0))
        gap = (lengths[k] - 2 * _CORNER_M - sum(_ALONG[item][1] for item in items)) / len(items)
        along = _CORNER_M
        for item in items:
            make, wide = _ALONG[item]
            make(wall.at(along + wide / 2 + gap * rng.uniform(-0.3, 0.3) + gap / 2, 0.0, 0.0))
            along += wide + gap
    x, y = np.array([width, depth]) / 2 + rng.uniform(-0.5, 0.5, 2)
    turn = float(rng.integers(2)) * np.pi / 2 + rng.uniform(-0.15, 0.15)
    furniture.dining(floor.at(float(x), float(y), turn))
    if index % 2:
        _mirror(room)
    return room
