# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether an image's camera sees as much as that of the training frames did, and what if not.

A network knows how large things are in its square by the training camera. An image of a wider
camera is cut to what the training camera would have shown; one of a narrower camera is cut less
where there is something to spare, and else left as it is: what was not seen cannot be made up
(docs/experiments.md, section 13, has the measurements).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mspn_ros.inference.served_rows import ServedRows
from mspn_ros.records import ImageHW3, Intrinsics, ModelError
from mspn_ros.view import View

# Focal lengths within this share of each other count as the same: nothing is done then.
TOLERANCE = 0.05
# Image sizes and cameras that are remembered; a robot has a handful.
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of an image in its pixels, from ``left`` and ``top``.

    The edge is repeated where it reaches beyond the image.
    """

    left: int
    top: int
    width: int
    height: int

    def cut(self, image_HW3: ImageHW3) -> ImageHW3:
        """What the window shows: (height, width, 3)."""
        height, width = image_HW3.shape[:2]
        right, bottom = self.left + self.width, self.top + self.height
        inside = image_HW3[max(0, self.top) : bottom, max(0, self.left) : right]
        beyond = (-self.top, bottom - height), (-self.left, right - width), (0, 0)
        if max(map(max, beyond)) <= 0:
            return inside
        return np.pad(inside, np.clip(beyond, 0, None), mode="edge")

    def camera(self, camera: Intrinsics) -> Intrinsics:
        """The camera of what the window shows of an image of ``camera``; its rays stay."""
        return replace(
            camera,
            cx=camera.cx - self.left,
            cy=camera.cy - self.top,
            width=self.width,
            height=self.height,
        )


@dataclass(frozen=True, slots=True)
class FieldOfView:
    """What was found of one camera, in words, and what its images are cut to, if to anything.

    ``differs``: from the training camera's. ``enlarged``: by how much what is seen is larger in the
    network's square than it was, 1 at least.
    """

    text: str
    window: Window | None = None
    differs: bool = False
    enlarged: float = 1.0


def usual_camera(view: View, cameras: Sequence[Intrinsics | None]) -> Intrinsics | None:
    """The one that a row keeps of its training frames' cameras: the median by focal length.

    Frames of several fields of view leave no image's to be held against: then it is an assumed one.
    """
    known = sorted((c for c in cameras if c is not None), key=lambda c: view.camera(c).fx)
    if not known:
        return None
    seen = [view.camera(camera) for camera in (known[0], known[-1])]
    alike = len(known) == len(cameras) and _spread(seen, "fx") <= TOLERANCE
    middle = known[len(known) // 2]
    return middle if alike else replace(middle, assumed=True)


class TrainingCameras:
    """Those of the training frames of some rows, as far as they were measured.

    Where rows differ, so do the squares that the network knows; an image within their range is left
    alone, one beyond is brought to the nearest of them, since the scene is not known yet.
    """

    def __init__(self, view: View, cameras: Iterable[Intrinsics | None]) -> None:
        """``cameras`` whose focal length was only assumed say nothing, as those that are None."""
        self._view = view
        known = [view.camera(c) for c in dict.fromkeys(cameras) if c is not None and not c.assumed]
        # Of the network's square: widest first, along x and along y.
        self._by_fx = sorted(known, key=lambda camera: camera.fx)
        self._by_fy = sorted(known, key=lambda camera: camera.fy)
        self._found: dict[tuple[Intrinsics | None, int, int], FieldOfView] = {}

    def __bool__(self) -> bool:
        """Whether any is known."""
        return bool(self._by_fx)

    def compare(self, camera: Intrinsics | None, height: int, width: int) -> FieldOfView:
        """Of images of ``camera`` that are (height, width) as decoded; same in, same out."""
        key = (camera, height, width)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[key] = self._compared(camera, height, width)
        return found

    def _compared(self, camera: Intrinsics | None, height: int, width: int) -> FieldOfView:
        if not self:
            return unchecked("the training frames' intrinsics are not known, or differ")
        if camera is None or camera.assumed:
            return unchecked("the camera's intrinsics are not known")
        if not camera.fits(width, height):
            return unchecked("the intrinsics are those of other images")
        own = camera.scaled_to(width, height)
        seen = self._view.camera(own)
        factors = (
            _factor(seen.fx, self._by_fx[0].fx, self._by_fx[-1].fx),
            _factor(seen.fy, self._by_fy[0].fy, self._by_fy[-1].fy),
        )
        if self._view.fit == "crop":
            # The square is cut from an image that keeps its shape.
            factors = (math.sqrt(factors[0] * factors[1]),) * 2
        text = self._text(seen, factors)
        if max(map(_apart, factors)) <= TOLERANCE:
            differ = max(_spread(self._by_fx, "fx"), _spread(self._by_fy, "fy")) > TOLERANCE
            said = "scenes differ, left as it is" if differ else "as in training"
            return FieldOfView(f"{text}: {said}")
        if max(factors) > 1 + TOLERANCE:
            factors = max(1.0, factors[0]), max(1.0, factors[1])
            window = self._window(own, seen, factors)
            return FieldOfView(f"{text}: cropped by {_pair(factors)}", window, True, max(factors))
        spare = self._view.resize / self._view.size if self._view.fit == "crop" else 1.0
        less = min(1 / factors[0], spare)
        if less <= 1 + TOLERANCE:
            return FieldOfView(f"{text}: left as it is", differs=True)
        # As much on either side: the middle stays where it is. Of the border nothing is seen.
        x, y = int(width * (less - 1) / 2), int(height * (less - 1) / 2)
        window = Window(-x, -y, width + 2 * x, height + 2 * y)
        return FieldOfView(f"{text}: cropped less by {less:.2f}", window, True)

    def _window(self, own: Intrinsics, seen: Intrinsics, factors: tuple[float, float]) -> Window:
        """What is left of an image.

        The principal point comes where the training camera has it, as far as the image reaches.
        """
        width, height = own.width / factors[0], own.height / factors[1]
        middle = (self._view.size - 1) / 2
        # A pixel of the square is so many of the image.
        x = own.cx - (self._by_fx[0].cx - middle) * own.fx / (seen.fx * factors[0])
        y = own.cy - (self._by_fy[0].cy - middle) * own.fy / (seen.fy * factors[1])
        window = _around(x, y, width, height)
        left = min(max(0, window.left), own.width - window.width)
        top = min(max(0, window.top), own.height - window.height)
        return replace(window, left=left, top=top)

    def _text(self, seen: Intrinsics, factors: tuple[float, float]) -> str:
        size, name = self._view.size, "wide"
        trained = [_angle(size, camera.fx) for camera in (self._by_fx[-1], self._by_fx[0])]
        angle = _angle(size, seen.fx)
        if _apart(factors[1]) > _apart(factors[0]) + 0.01:
            name, angle = "high", _angle(size, seen.fy)
            trained = [_angle(size, camera.fy) for camera in (self._by_fy[-1], self._by_fy[0])]
        known = " to ".join(dict.fromkeys(f"{value:.0f}" for value in trained))
        return f"{angle:.0f} deg {name}, trained with {known} deg"


class FieldsOfView:
    """Compares images' cameras with those of the rows in service, or of the one that is forced."""

    def __init__(self, rows: ServedRows, view: View) -> None:
        self._rows, self._view = rows, view
        # Of a bank that is read on demand, not even this is known of all rows.
        own = [row.intrinsics for row in rows] if rows.whole else []
        self._all = TrainingCameras(view, own)
        self._forced: tuple[int, TrainingCameras] | None = None

    @property
    def any_known(self) -> bool:
        """Whether the training camera of any row is known, or may be."""
        return bool(self._all) or not self._rows.whole

    def of(
        self, camera: Intrinsics | None, height: int, width: int, forced: int | None
    ) -> FieldOfView:
        """Of images of ``camera`` that are (height, width) as decoded; ``forced``: see ReadOut."""
        if forced is None and not self._rows.whole:
            return unchecked("rows are read on demand and no scene is forced")
        try:
            return self._cameras(forced).compare(camera, height, width)
        except ModelError:
            # Whoever reads this row for its answer tells why it cannot.
            return unchecked("the scene's row cannot be read")

    def corrected(
        self,
        images: Sequence[ImageHW3],
        cameras: Sequence[Intrinsics | None],
        forced: int | None,
    ) -> tuple[list[ImageHW3], list[Intrinsics | None]]:
        """Images as they are to be shown to the network, and their cameras.

        As they were where nothing is to be done.
        """
        shown, taken_by = list(images), list(cameras)
        for i, (image, camera) in enumerate(zip(images, cameras, strict=True)):
            height, width = image.shape[:2]
            window = self.of(camera, height, width, forced).window
            if window is not None and camera is not None:
                shown[i] = window.cut(image)
                taken_by[i] = window.camera(camera.scaled_to(width, height))
        return shown, taken_by

    def _cameras(self, forced: int | None) -> TrainingCameras:
        if forced is None:
            return self._all
        latest = self._forced
        if latest is None or latest[0] != forced:
            latest = forced, TrainingCameras(self._view, [self._rows[forced].intrinsics])
            self._forced = latest
        return latest[1]


def unchecked(why: str) -> FieldOfView:
    """Nothing is done, and why nothing is known."""
    return FieldOfView(f"field of view cannot be checked: {why}")


def _factor(focal: float, lowest: float, highest: float) -> float:
    """By how much an image must grow to be as training frames; below 1 where it must shrink."""
    return min(max(focal, lowest), highest) / focal


def _apart(factor: float) -> float:
    return max(factor, 1 / factor) - 1


def _spread(cameras: Sequence[Intrinsics], name: str) -> float:
    """By how much the last one's focal length is larger than the first one's."""
    return float(getattr(cameras[-1], name) / getattr(cameras[0], name)) - 1


def _around(x: float, y: float, width: float, height: float) -> Window:
    """The window of about this size with (x, y), the centre of a pixel, in its middle."""
    columns, rows = max(1, round(width)), max(1, round(height))
    return Window(round(x - (columns - 1) / 2), round(y - (rows - 1) / 2), columns, rows)


def _angle(size: int, focal: float) -> float:
    """Degrees that ``size`` pixels about the optical axis see."""
    return math.degrees(2 * math.atan(size / 2 / focal))


def _pair(factors: tuple[float, float]) -> str:
    return " x ".join(dict.fromkeys(f"{factor:.2f}" for factor in factors))
