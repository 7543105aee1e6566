# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a synthetic room consists of, and a builder that puts boxes and quads into it.

World axes: x and y along the walls, z up, metres, the origin in a lower corner.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from mspn_ros.datasets.textures import Colour, Palette
from mspn_ros.records import Array, ImageHW3

WHITE: Colour = (255, 255, 255)
# Materials with a grain, which runs along a board.
_GRAINED = ("wood", "wood_dark", "door")
# The material of what is seen from both sides: leaves, bowls, shades. All else is one-sided.
THIN = "thin"


@dataclass(frozen=True, slots=True)
class Patch:
    """A bilinear quad: corners (4, 3) counter-clockwise as its front is seen, uv (4, 2)."""

    corners: Array
    uv: Array
    material: str
    tint: Colour = WHITE
    glows: bool = False


@dataclass(slots=True)
class Room:
    """Patches to draw, materials to draw them with, and the boxes that block light and feet.

    ``boxes`` rows are centre x y z, half size x y z, yaw (rad); ``windows`` and ``lamps`` are
    light sources: centre x y z, inward normal x y z, width, height, all in metres.
    """

    size: tuple[float, float, float]
    materials: dict[str, ImageHW3]
    patches: list[Patch] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    windows: list[list[float]] = field(default_factory=list)
    lamps: list[list[float]] = field(default_factory=list)


@dataclass(slots=True)
class Builder:
    """Adds furniture to a room in a local frame: x along the wall, y into the room, z up.

    Look-alike rooms share ``rng``, for what is alike in them; ``own_rng`` is the room's own.
    """

    room: Room
    palette: Palette
    rng: np.random.Generator
    own_rng: np.random.Generator
    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0

    def to_world(self, local: Array) -> Array:
        """Local points or directions' ends (..., 3) -> world (..., 3)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return np.asarray(local @ rotation.T + (self.x, self.y, 0))

    def quad(
        self,
        corners: list[tuple[float, float, float]],
        material: str = "plain",
        tint: Colour = WHITE,
        tile_m: float | None = None,
        glows: bool = False,
    ) -> None:
        """A quad from local corners; its texture is stretched, or repeats every ``tile_m``."""
        local = np.array(corners)
        uv = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
        if tile_m is not None:
            edges = np.linalg.norm(local[1] - local[0]), np.linalg.norm(local[3] - local[0])
            # The start differs from board to board, as if each were sawn from another tree.
            uv = uv * edges / tile_m
            if material in _GRAINED and edges[1] > edges[0]:
                uv = uv[:, ::-1]  # the grain runs along a board
            uv = uv + np.round(local[0, :2] * 7.31, 3)
        self.room.patches.append(Patch(self.to_world(local), uv, material, tint, glows))

    def box(
        self,
        low: tuple[float, float, float],
        high: tuple[float, float, float],
        material: str = "plain",
        tint: Colour = WHITE,
        front: str | None = None,
        solid: bool = True,
    ) -> None:
        """An upright box between two local corners; ``front`` (+y) may have its own material."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        tile = None if material == "plain" else 0.8
        sides = [
            [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
            [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
            [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
            [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
            [(x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)],
        ]
        for k, side in enumerate(sides[: 5 if z0 <= 0 else 6]):
            if k == 0 and front is not None:
                self.quad(side, front)
            else:
                self.quad(side, material, tint, tile)
        if solid:
            centre = self.to_world((np.array(low) + np.array(high)) / 2)
            half = (np.array(high) - np.array(low)) / 2
            self.room.boxes.append([*centre, *half, self.yaw])

    def cone(
        self,
        foot: tuple[float, float, float],
        height: float,
        radii: tuple[float, float],
        tint: Colour,
        glows: bool = False,
    ) -> None:
        """The side of an upright ten-sided cone or cylinder: radii at its foot and top."""
        x, y, z = foot
        angle = np.linspace(0, 2 * np.pi, 11)
        ring = np.stack((np.cos(angle), np.sin(angle)), -1)
        for (ax, ay), (bx, by) in pairwise(ring.tolist()):
            r0, r1 = radii
            lower = [(x + r0 * ax, y + r0 * ay, z), (x + r0 * bx, y + r0 * by, z)]
            upper = [
                (x + r1 * bx, y + r1 * by, z + height),
                (x + r1 * ax, y + r1 * ay, z + height),
            ]
            self.quad(lower + upper, THIN, tint, glows=glows)

    def at(self, x: float, y: float, turn: float) -> Builder:
        """A builder whose frame lies at local (x, y), turned by ``turn`` (rad)."""
        place = self.to_world(np.array([x, y, 0.0]))
        return replace(self, x=float(place[0]), y=float(place[1]), yaw=self.yaw + turn)

    def accent(self) -> Colour:
        """One of the palette's accents, at random."""
        return self.palette.accents[int(self.rng.integers(4))]
