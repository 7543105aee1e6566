# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Procedural textures and pictures of the synthetic rooms: NumPy and OpenCV drawing, from a seed.

Everything is smooth or piecewise flat on purpose: fine noise would fill a JPEG with bits that tell
nothing about the place. A texture is an (H, W, 3) uint8 RGB array whose first row is its top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mspn_ros.records import Array, ImageHW3

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours that a pair of look-alike rooms shares, RGB 0..255."""

    wall: Colour
    dado: Colour
    floor: Colour
    wood: Colour
    dark: Colour
    accents: tuple[Colour, Colour, Colour, Colour]


PALETTES = (
    Palette(
        (226, 214, 190),
        (150, 172, 160),
        (176, 132, 88),
        (190, 146, 98),
        (74, 56, 46),
        ((188, 70, 52), (40, 96, 120), (226, 170, 66), (92, 128, 84)),
    ),
    Palette(
        (198, 212, 222),
        (96, 122, 150),
        (132, 126, 122),
        (214, 200, 176),
        (50, 56, 70),
        ((216, 120, 60), (52, 130, 128), (150, 66, 92), (228, 204, 140)),
    ),
    Palette(
        (214, 222, 200),
        (188, 140, 112),
        (120, 84, 62),
        (136, 90, 60),
        (46, 62, 56),
        ((60, 120, 90), (222, 190, 90), (170, 84, 66), (84, 100, 150)),
    ),
    Palette(
        (230, 206, 198),
        (170, 150, 178),
        (196, 172, 142),
        (232, 226, 216),
        (84, 66, 88),
        ((120, 84, 150), (226, 130, 120), (70, 130, 160), (236, 196, 96)),
    ),
)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: Array) -> Array:
    """Periodic noise of unit variance: white noise blurred by ``sigma`` (rows, columns) pixels."""
    fy = np.fft.fftfreq(shape[0])[:, None] * sigma[0]
    fx = np.fft.fftfreq(shape[1])[None, :] * sigma[1]
    gain = np.exp(-2 * np.pi**2 * (fy**2 + fx**2))
    gain[0, 0] = 0
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * gain).real
    return np.asarray(noise / noise.std())


def _shaded(colour: Colour, light: Array) -> ImageHW3:
    return np.clip(np.array(colour) * light[..., None], 0, 255).astype(np.uint8)


def plaster(rng: np.random.Generator, colour: Colour) -> ImageHW3:
    """A painted wall with broad, faint unevenness."""
    return _shaded(colour, 1 + 0.015 * smooth_noise(rng, (128, 128), np.array([9.0, 9.0])))


def wood(rng: np.random.Generator, colour: Colour) -> ImageHW3:
    """Grain along the rows."""
    return _shaded(colour, 1 + 0.035 * smooth_noise(rng, (128, 128), np.array([3.5, 34.0])))


def planks(rng: np.random.Generator, colour: Colour) -> ImageHW3:
    """A floor of eight boards with staggered ends."""
    light = 1 + 0.04 * smooth_noise(rng, (256, 256), np.array([4.0, 40.0]))
    for row in range(8):
        rows = slice(row * 32, row * 32 + 32)
        end = int(rng.integers(256))
        light[rows] *= 1 + 0.08 * rng.uniform(-1, 1)
        light[rows, end : end + 128] *= 1 + 0.07 * rng.uniform(-1, 1)
        light[row * 32 : row * 32 + 2] *= 0.8
    return _shaded(colour, light)


def tiles(rng: np.random.Generator, colour: Colour) -> ImageHW3:
    """A floor of 2 x 2 square tiles in two shades."""
    light = 1 + 0.02 * smooth_noise(rng, (256, 256), np.array([12.0, 12.0]))
    light[:128, :128] *= 0.84
    light[128:, 128:] *= 0.84
    for edge in (0, 128):
        light[edge : edge + 3] *= 1.18
        light[:, edge : edge + 3] *= 1.18
    return _shaded(colour, light)


def stripes(rng: np.random.Generator, colour: Colour) -> ImageHW3:
    """Vertical folds, for curtains and radiators."""
    phase = np.linspace(0, 2 * np.pi * 8, 128, endpoint=False)
    folds = 0.9 + 0.12 * np.sin(phase + 0.8 * np.sin(phase / 4 + rng.uniform(0, 6)))
    return _shaded(colour, np.repeat(folds[None], 16, axis=0))


def rug(rng: np.random.Generator, palette: Palette) -> ImageHW3:
    """Nested borders around a field of diamonds."""
    order = rng.permutation(4)
    ground, border, mark = (palette.accents[i] for i in order[:3])
    image = np.full((192, 256, 3), ground, np.uint8)
    cv2.rectangle(image, (0, 0), (255, 191), border, 28)
    cv2.rectangle(image, (24, 24), (231, 167), palette.wall, 4)
    for x in range(64, 224, 42):
        for y in range(60, 160, 36):
            points = np.array([(x - 14, y), (x, y - 12), (x + 14, y), (x, y + 12)])
            cv2.fillPoly(image, [points], mark, cv2.LINE_AA)
    return image


def outdoors(rng: np.random.Generator, own_rng: np.random.Generator, palette: Palette) -> ImageHW3:
    """What a window shows: sky, two ridges and round trees, pale as daylight is.

    The panorama is drawn from rng, which look-alike rooms share; own_rng says where it starts.
    """
    image = np.empty((192, 192, 3), np.uint8)
    t = np.linspace(0, 1, 192)[:, None]
    image[:] = ((1 - t) * (176, 210, 240) + t * (246, 246, 236)).astype(np.uint8)[:, None]
    x = np.arange(192)
    turn = 2 * np.pi * x / 192
    for level, colour in ((110, (176, 196, 190)), (140, (150, 178, 138))):
        phase, bend = rng.uniform(0, 2 * np.pi, 2)
        ridge = level + 12 * np.sin(turn + phase) + 6 * np.sin(3 * turn + bend)
        outline = [(0, 191), *zip(x.tolist(), ridge.astype(int).tolist(), strict=True), (191, 191)]
        cv2.fillPoly(image, [np.array(outline)], colour, cv2.LINE_AA)
    for radius in rng.integers(13, 24, size=4).tolist():
        centre = (int(rng.integers(24, 168)), int(rng.integers(118, 150)))
        cv2.rectangle(image, (centre[0] - 2, centre[1]), (centre[0] + 2, 191), palette.dark, -1)
        cv2.circle(image, centre, radius, (112, 150, 100), -1, cv2.LINE_AA)
    return np.roll(image, int(own_rng.integers(192)), axis=1)


# A motif takes sizes from the first generator, which look-alike rooms share, and places from the
# second, the room's own: so the areas of the inks agree while the shapes differ.
_Motif = Callable[[np.random.Generator, np.random.Generator, ImageHW3, list[Colour]], None]


def _discs(
    rng: np.random.Generator, own_rng: np.random.Generator, image: ImageHW3, inks: list[Colour]
) -> None:
    for ink in (*inks, *inks):
        centre = (int(own_rng.integers(20, 108)), int(own_rng.integers(24, 136)))
        cv2.circle(image, centre, int(rng.integers(12, 30)), ink, -1, cv2.LINE_AA)


def _bands(
    rng: np.random.Generator, own_rng: np.random.Generator, image: ImageHW3, inks: list[Colour]
) -> None:
    rise = int(128 * own_rng.uniform(-1.2, 1.2))
    for k, ink in enumerate((*inks, *inks)):
        y = int(-40 + k * 38 + own_rng.integers(-6, 6))
        thick = int(rng.integers(14, 26))
        band = [(0, y), (128, y + rise), (128, y + rise + thick), (0, y + thick)]
        cv2.fillPoly(image, [np.array(band)], ink, cv2.LINE_AA)


def _peaks(
    rng: np.random.Generator, own_rng: np.random.Generator, image: ImageHW3, inks: list[Colour]
) -> None:
    sun = (int(own_rng.integers(20, 108)), int(own_rng.integers(20, 50)))
    cv2.circle(image, sun, int(rng.integers(10, 20)), inks[0], -1, cv2.LINE_AA)
    for k, ink in enumerate((inks[1], inks[2], inks[0])):
        x, y = int(own_rng.integers(10, 118)), int(50 + 28 * k + rng.integers(-10, 10))
        peak = [(x - 110, 170), (x, y), (x + 110, 170)]
        cv2.fillPoly(image, [np.array(peak)], ink, cv2.LINE_AA)


def _mosaic(
    rng: np.random.Generator, own_rng: np.random.Generator, image: ImageHW3, inks: list[Colour]
) -> None:
    cells = [(x, y) for y in range(0, 160, 32) for x in range(0, 128, 32)]
    for k in own_rng.permutation(len(cells)).tolist():
        ink, kept = inks[int(rng.integers(3))], int(rng.integers(6))
        x, y = cells[k]
        corners = np.array([(x, y), (x + 32, y), (x + 32, y + 32), (x, y + 32)])
        if kept < 4:
            cv2.fillPoly(image, [np.delete(corners, kept, 0)], ink, cv2.LINE_AA)
        elif kept == 4:
            cv2.circle(image, (x + 16, y + 16), 12, ink, -1, cv2.LINE_AA)


def _vase(
    rng: np.random.Generator, own_rng: np.random.Generator, image: ImageHW3, inks: list[Colour]
) -> None:
    cv2.rectangle(image, (0, 118), (127, 159), inks[2], -1)
    x = int(own_rng.integers(44, 84))
    cv2.ellipse(image, (x, 118), (int(rng.integers(14, 24)), 30), 0, 0, 360, inks[0], -1)
    for radius in rng.integers(6, 12, size=5).tolist():
        angle, length = own_rng.uniform(-1.1, 1.1), own_rng.uniform(40, 72)
        tip = (int(x + length * np.sin(angle)), int(90 - length * np.cos(angle)))
        cv2.line(image, (x, 96), tip, inks[1], 3, cv2.LINE_AA)
        cv2.circle(image, tip, radius, inks[1], -1, cv2.LINE_AA)


_MOTIFS: tuple[_Motif, ...] = (_discs, _bands, _peaks, _mosaic, _vase)


def picture(
    rng: np.random.Generator, own_rng: np.random.Generator, palette: Palette, motif: int
) -> ImageHW3:
    """A framed print: inks and sizes of its shapes are drawn from rng, places from own_rng."""
    image = np.full((160, 128, 3), palette.wall, np.uint8)
    inks = [palette.accents[i] for i in rng.permutation(4)[:3]]
    _MOTIFS[motif % len(_MOTIFS)](rng, own_rng, image, inks)
    cv2.rectangle(image, (0, 0), (127, 159), (240, 238, 232), 14)
    cv2.rectangle(image, (0, 0), (127, 159), palette.dark, 7)
    return image
