# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The furniture of synthetic rooms, each piece standing against the wall y = 0 of its builder."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mspn_ros.datasets.room_builder import THIN, Builder

# How many different prints and window views a room has; further ones repeat them.
PRINTS = 9
WINDOWS = 2


def _books(b: Builder, x0: float, x1: float, z: float, tallest: float) -> None:
    """A shelf of books and gaps; look-alike rooms hold the same ones in another order."""
    inks = (*b.palette.accents, (232, 226, 212))
    shelf = []
    filled = 0.0
    while filled < x1 - x0 - 0.12:
        is_gap = b.rng.random() < 0.16
        width = b.rng.uniform(0.05, 0.12)
        tint = inks[int(b.rng.integers(len(inks)))]
        shelf.append((width, 0.0 if is_gap else b.rng.uniform(0.62, 0.95), tint))
        filled += width
    x = x0
    for k in b.own_rng.permutation(len(shelf)).tolist():
        width, tall, tint = shelf[k]
        if tall > 0:
            high = (x + width - 0.006, 0.27, z + tallest * tall)
            b.box((x, 0.06, z), high, tint=tint, solid=False)
        x += width


def bookcase(b: Builder, width: float = 1.6, height: float = 2.05) -> None:
    """Open shelves with books."""
    w, deep, board = width / 2, 0.33, 0.035
    b.box((-w, 0, 0), (-w + board, deep, height), "wood")
    b.box((w - board, 0, 0), (w, deep, height), "wood")
    b.box((-w, 0, 0), (w, 0.03, height), "wood_dark")
    levels = np.linspace(0.08, height - board, round(height / 0.42) + 1)
    for z, above in pairwise(levels.tolist()):
        b.box((-w, 0, z), (w, deep, z + board), "wood")
        _books(b, -w + 0.05, w - 0.05, z + board, above - z - board)
    b.box((-w, 0, levels[-1]), (w, deep, height), "wood")


def narrow_bookcase(b: Builder) -> None:
    """A lower, narrower bookcase."""
    bookcase(b, 0.85, 1.65)


def _print(b: Builder, x: float, z: float, width: float) -> None:
    """The room's next print, its lower edge at z."""
    hung = sum(patch.material.startswith("print") for patch in b.room.patches)
    height = width * 1.25
    name = f"print{hung % PRINTS}"
    b.box(
        (x - width / 2, 0.002, z),
        (x + width / 2, 0.03, z + height),
        "wood_dark",
        front=name,
        solid=False,
    )


def wardrobe(b: Builder) -> None:
    """Two tall doors with handles."""
    b.box((-0.6, 0, 0), (0.6, 0.58, 2.1), "wood")
    for side in (-1, 1):
        low, high = sorted((side * 0.02, side * 0.57))
        b.box((low, 0.58, 0.08), (high, 0.6, 2.05), "wood", (235, 235, 235), solid=False)
        x = side * 0.08
        b.box((x - 0.012, 0.6, 0.95), (x + 0.012, 0.63, 1.2), tint=b.palette.dark, solid=False)
    for x, tall in ((-0.3, 0.22), (0.25, 0.3)):
        b.box((x - 0.22, 0.1, 2.1), (x + 0.2, 0.5, 2.1 + tall), "card")


def sideboard(b: Builder) -> None:
    """A low cupboard with a vase, a lamp and two prints above."""
    b.box((-0.8, 0.02, 0.12), (0.8, 0.45, 0.8), "wood")
    for k in range(3):
        x = -0.78 + 0.525 * k
        b.box((x, 0.45, 0.15), (x + 0.5, 0.465, 0.77), "wood", (226, 226, 226), solid=False)
        b.box((x + 0.21, 0.465, 0.6), (x + 0.29, 0.485, 0.62), tint=b.palette.dark, solid=False)
    for x in (-0.7, 0.7):
        b.box((x - 0.03, 0.06, 0), (x + 0.03, 0.4, 0.12), tint=b.palette.dark, solid=False)
    b.cone((-0.55, 0.24, 0.8), 0.26, (0.09, 0.05), b.accent())
    b.cone((0.55, 0.24, 0.8), 0.2, (0.03, 0.03), b.palette.dark)
    b.cone((0.55, 0.24, 0.98), 0.2, (0.15, 0.1), (255, 238, 200), glows=True)
    _print(b, -0.36, 1.22, 0.6)
    _print(b, 0.36, 1.32, 0.5)


def sofa(b: Builder) -> None:
    """A sofa with three cushions under a large print."""
    cloth = b.palette.accents[1]
    b.box((-0.95, 0.04, 0.1), (0.95, 0.85, 0.42), "cloth", cloth)
    b.box((-0.95, 0.04, 0.42), (0.95, 0.26, 0.86), "cloth", cloth)
    for x in (-0.95, 0.77):
        b.box((x, 0.04, 0.1), (x + 0.18, 0.87, 0.62), "cloth", cloth)
    for k in range(3):
        x = -0.74 + 0.5 * k + b.rng.uniform(-0.05, 0.05)
        b.box((x, 0.27, 0.43), (x + 0.42, 0.4, 0.76), "cloth", b.accent(), solid=False)
    _print(b, -0.45, 1.25, 0.72)
    _print(b, 0.5, 1.25, 0.72)


def _chair(b: Builder, x: float, y: float, turn: float) -> None:
    seat = b.at(x, y, turn)
    for cx in (-0.19, 0.19):
        for cy in (-0.19, 0.19):
            seat.box(
                (cx - 0.02, cy - 0.02, 0), (cx + 0.02, cy + 0.02, 0.44), "wood_dark", solid=False
            )
    seat.box((-0.22, -0.22, 0.44), (0.22, 0.22, 0.49), "cloth", b.palette.accents[0])
    seat.box((-0.22, -0.22, 0.49), (0.22, -0.18, 0.95), "wood_dark")


def _table(b: Builder, low: tuple[float, float], high: tuple[float, float]) -> None:
    for x in (low[0] + 0.04, high[0] - 0.1):
        for y in (low[1] + 0.04, high[1] - 0.1):
            b.box((x, y, 0), (x + 0.06, y + 0.06, 0.71), "wood", solid=False)
    b.box((*low, 0.71), (*high, 0.75), "wood")


def desk(b: Builder) -> None:
    """A desk with a screen, books and a chair, a print above."""
    _table(b, (-0.7, 0.02), (0.7, 0.68))
    x = b.rng.uniform(-0.25, 0.25)
    b.box((x - 0.1, 0.15, 0.75), (x + 0.1, 0.3, 0.77), tint=b.palette.dark, solid=False)
    b.box((x - 0.3, 0.2, 0.85), (x + 0.3, 0.24, 1.2), tint=(52, 54, 60), front="screen")
    for k in range(3):
        b.box(
            (-0.62, 0.1, 0.75 + 0.045 * k),
            (-0.4 + 0.02 * k, 0.36, 0.79 + 0.045 * k),
            tint=b.accent(),
            solid=False,
        )
    b.cone((0.56, 0.2, 0.75), 0.12, (0.045, 0.045), b.accent())
    _chair(b, b.rng.uniform(-0.15, 0.15), 0.82, np.pi + b.rng.uniform(-0.4, 0.4))
    _print(b, -0.42, 1.4, 0.5)
    _print(b, 0.45, 1.32, 0.56)


def door(b: Builder) -> None:
    """A panelled door in its frame."""
    for x in (-0.53, 0.45):
        b.box((x, 0, 0), (x + 0.08, 0.05, 2.08), tint=(244, 242, 236), solid=False)
    b.box((-0.53, 0, 2.08), (0.53, 0.05, 2.16), tint=(244, 242, 236), solid=False)
    b.box((-0.45, 0, 0), (0.45, 0.025, 2.08), "door", solid=False)
    for z, top in ((0.2, 0.9), (1.08, 1.92)):
        b.box((-0.3, 0.025, z), (0.3, 0.04, top), "door", (224, 224, 224), solid=False)
    b.box((0.34, 0.025, 1.0), (0.39, 0.08, 1.03), tint=b.palette.dark, solid=False)


def window(b: Builder) -> None:
    """A window with curtains, a sill and a radiator; its light comes into the room."""
    low, high = 0.95, 2.25
    number = len(b.room.windows) % WINDOWS
    b.quad(
        [(0.6, 0.01, low), (-0.6, 0.01, low), (-0.6, 0.01, high), (0.6, 0.01, high)],
        f"outdoors{number}",
        glows=True,
    )
    for x in (-0.64, -0.02, 0.58):
        b.box((x, 0, low), (x + 0.05, 0.05, high), tint=(246, 246, 244), solid=False)
    for z in (low - 0.05, high):
        b.box((-0.64, 0, z), (0.64, 0.05, z + 0.06), tint=(246, 246, 244), solid=False)
    b.box((-0.7, 0, low - 0.09), (0.7, 0.2, low - 0.05), "wood", solid=False)
    for x in (-0.88, 0.62):
        b.box((x, 0.08, 0.6), (x + 0.26, 0.14, 2.38), "stripes", b.palette.accents[2], solid=False)
    b.box((-0.95, 0.07, 2.38), (0.95, 0.15, 2.42), "wood_dark", solid=False)
    b.box((-0.5, 0.03, 0.12), (0.5, 0.12, 0.72), tint=(240, 240, 236), front="stripes", solid=False)
    centre = b.to_world(np.array([0.0, 0.03, (low + high) / 2]))
    inward = b.to_world(np.array([0.0, 1.0, 0.0])) - b.to_world(np.zeros(3))
    b.room.windows.append([*centre, *inward, 1.2, high - low])


def gallery(b: Builder) -> None:
    """Three prints on an otherwise free piece of wall, a low bench below."""
    for x, z, width in ((-0.5, 1.2, 0.5), (0.02, 1.42, 0.38), (0.5, 1.15, 0.52)):
        _print(b, x, z, width)
    b.box((-0.6, 0.05, 0.36), (0.6, 0.4, 0.42), "wood")
    for x in (-0.55, 0.45):
        b.box((x, 0.08, 0), (x + 0.1, 0.37, 0.36), "wood_dark")


def plant(b: Builder) -> None:
    """A potted plant of kite-shaped leaves."""
    b.cone((0, 0.32, 0), 0.34, (0.13, 0.18), b.palette.accents[0])
    b.box((-0.12, 0.2, 0.0), (0.12, 0.44, 0.33), tint=(70, 52, 40))
    for k in range(26):
        turn = 2.4 * k + b.rng.uniform(-0.3, 0.3)
        rise, reach = b.rng.uniform(0.35, 1.05), b.rng.uniform(0.18, 0.34)
        out = np.array([np.cos(turn), np.sin(turn), 0])
        side = np.array([-np.sin(turn), np.cos(turn), 0]) * b.rng.uniform(0.05, 0.09)
        stem = np.array([0, 0.32, 0.34 + 0.45 * rise]) + out * 0.04
        middle = stem + out * reach * 0.6 + (0, 0, 0.3 * rise)
        tip = stem + out * reach + (0, 0, 0.22 * rise)
        green = int(b.rng.integers(92, 140))
        leaf = [tuple(stem), tuple(middle + side), tuple(tip), tuple(middle - side)]
        b.quad(leaf, THIN, (green - 40, green, green - 56))


def floor_lamp(b: Builder) -> None:
    """A lit standard lamp."""
    b.cone((0, 0.3, 0), 0.03, (0.15, 0.14), b.palette.dark)
    b.box((-0.015, 0.285, 0), (0.015, 0.315, 1.5), tint=b.palette.dark)
    b.cone((0, 0.3, 1.4), 0.3, (0.22, 0.13), (255, 236, 196), glows=True)
    b.room.lamps.append([*b.to_world(np.array([0, 0.3, 1.75])), 0.0, 0.0, 1.0, 0.25, 0.25])


def carton_stack(b: Builder) -> None:
    """Cardboard boxes, not quite in line."""
    z = 0.0
    for size in (0.46, 0.4, 0.3):
        pile = b.at(0.0, 0.3, b.rng.uniform(-0.35, 0.35))
        tall = size * b.rng.uniform(0.7, 0.9)
        pile.box((-size / 2, -size / 2, z), (size / 2, size / 2, z + tall), "card", solid=z == 0)
        pile.box(
            (-0.03, -size / 2, z + tall),
            (0.03, size / 2, z + tall + 0.004),
            tint=(206, 180, 136),
            solid=False,
        )
        z += tall


def dining(b: Builder) -> None:
    """A table with four chairs on a rug, a pendant above."""
    b.quad([(-1.3, -1.0, 0.012), (1.3, -1.0, 0.012), (1.3, 1.0, 0.012), (-1.3, 1.0, 0.012)], "rug")
    _table(b, (-0.7, -0.42), (0.7, 0.42))
    for x in (-0.36, 0.36):
        for side in (-1, 1):
            y = side * b.rng.uniform(0.5, 0.62)
            turn = np.pi if side > 0 else 0.0
            _chair(b, x, y, turn + b.rng.uniform(-0.25, 0.25))
    b.cone((b.rng.uniform(-0.4, 0.4), 0, 0.75), 0.1, (0.1, 0.16), b.accent())
    b.cone((0, 0, 1.95), 0.22, (0.26, 0.1), b.palette.accents[2], glows=True)
    b.box((-0.008, -0.008, 2.15), (0.008, 0.008, b.room.size[2]), tint=b.palette.dark, solid=False)
    b.room.lamps.append([*b.to_world(np.array([0, 0, 1.93])), 0.0, 0.0, -1.0, 0.4, 0.4])
