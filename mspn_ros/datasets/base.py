# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every dataset reader shares: the scene it returns, and how frames are taken or left out.

A reader turns one folder into :class:`SceneData`. Frames that cannot be used (no file, no image,
NaN pose, path outside the folder) go to ``bad`` with a reason; nothing is ever put in their place.
Only image headers are read here, so that indexing a scene takes a fraction of a second.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from mspn_ros.images import image_size
from mspn_ros.records import (
    Array,
    BadFrame,
    DatasetError,
    Frame,
    ImageError,
    Intrinsics,
    Pose,
    unit_name,
)

# The largest text file of poses that is read whole; real ones stay below 10 MB.
MAX_TEXT_BYTES = 128_000_000
_MAX_LINE = 64_000_000

# Intrinsics for an image of (width, height) pixels as it lies, None where nothing is known.
Camera = Callable[[int, int], Intrinsics | None]


@dataclass(frozen=True, slots=True)
class SceneData:
    """One place: its usable frames in recording order, and those left out.

    All positions share one world frame. ``metres_per_unit`` is 1 for metric formats and None
    where the scale is unknown (COLMAP, nerfstudio); positions are never rescaled. ``notes`` are
    sentences that a user should see (what was assumed, what was not read).
    """

    name: str
    format: str
    root: Path
    frames: tuple[Frame, ...]
    bad: tuple[BadFrame, ...]
    metres_per_unit: float | None
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Frame, ...]:
        """The frames of split ``name`` ("train", "test", "val"), in recording order."""
        return tuple(frame for frame in self.frames if frame.split == name)

    @property
    def unit(self) -> str:
        """Unit of the positions: "m", or "u" where one unit is not known to be one metre."""
        return unit_name(self.metres_per_unit)


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """What a user may tell a reader.

    ``focal_px`` replaces the assumed focal length, in pixels of the images as they lie; it does
    not touch intrinsics that the dataset itself states.
    """

    focal_px: float | None = None

    def __post_init__(self) -> None:
        if self.focal_px is not None and not 0 < self.focal_px < math.inf:
            raise DatasetError(
                f"focal_px {self.focal_px!r} is no focal length; give pixels above zero"
            )


class Reader(Protocol):
    """One dataset format."""

    name: str

    def detects(self, root: Path) -> bool:
        """Whether folder ``root`` looks like this format; cheap, never raises."""
        ...

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """Read ``root`` as scene ``scene``.

        Raises:
            DatasetError: lists or models are missing or broken, or no frame is usable.
        """
        ...


def assumed_camera(focal_px: float, at_width: int, options: ReaderOptions) -> Camera:
    """A pinhole of ``focal_px`` at ``at_width`` pixels, unless the user gave a focal length."""

    def camera(width: int, height: int) -> Intrinsics:
        given = options.focal_px
        focal = focal_px * width / at_width if given is None else given
        centre = (width - 1) / 2, (height - 1) / 2
        return Intrinsics(focal, focal, *centre, width, height, assumed=given is None)

    return camera


def stated_camera(intrinsics: Intrinsics) -> Camera:
    """The camera that the dataset states, scaled to the image as it lies.

    Calling it raises ValueError where the image does not have the camera's shape: a turned or
    cropped copy has another pose or other intrinsics than the file says.
    """

    def camera(width: int, height: int) -> Intrinsics:
        if not intrinsics.fits(width, height):
            raise ValueError(
                f"the image is {width}x{height} but its camera "
                f"{intrinsics.width}x{intrinsics.height}: turned or cropped"
            )
        return intrinsics.scaled_to(width, height)

    return camera


def unknown_camera(width: int, height: int) -> None:
    """The camera of an image whose intrinsics are unknown or no pinhole's."""


def checked_intrinsics(
    focal: tuple[float, float],
    centre: tuple[float, float],
    size: tuple[int, int],
    distortion: tuple[float, ...] = (),
) -> Intrinsics:
    """Intrinsics from a stranger's numbers; a distortion of zeros becomes none.

    Raises:
        ValueError: a number is not finite, a focal length or a side not above zero.
    """
    values = (*focal, *centre, *size, *distortion)
    if not all(math.isfinite(value) for value in values) or min(*focal, *size) <= 0:
        raise ValueError(f"camera {focal} {centre} {size} is impossible")
    kept = distortion if any(distortion) else ()
    return Intrinsics(*focal, *centre, *size, distortion=kept)


def contained(root: Path, relative: str) -> Path:
    """``root / relative``, which a stranger's file names.

    Raises:
        ValueError: the path is absolute or leaves ``root``.
    """
    normal = PurePosixPath(posixpath.normpath(relative))
    if normal.is_absolute() or normal.parts[:1] == ("..",):
        raise ValueError("its path is absolute or leaves the dataset's folder")
    return root / normal


class SceneBuilder:
    """Collects the frames of one scene while a reader walks through its files.

    Image names are paths below ``image_root``, with forward slashes.
    """

    def __init__(self, scene: str, root: Path, image_root: Path) -> None:
        self._scene = scene
        self._root = root
        self._image_root = image_root
        self._frames: dict[str, Frame] = {}
        self._bad: list[BadFrame] = []
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a sentence for the user."""
        self._notes.append(text)

    def reject(self, name: str, split: str, reason: str) -> None:
        """Leave a frame (or a broken line) out, and say why."""
        self._bad.append(BadFrame(name, split, reason))

    def add(
        self,
        name: str,
        split: str,
        pose: Pose | Callable[[], Pose],
        camera: Camera,
        sequence: str | None = None,
        stamp_s: float | None = None,
    ) -> None:
        """Take a frame, or reject it when its pose, file, header or camera fails.

        A callable ``pose`` raises ValueError or DatasetError for a broken one. ``sequence`` is
        the image's folder unless given.
        """
        try:
            path = contained(self._image_root, name)
            name = path.relative_to(self._image_root).as_posix()
            if name in self._frames:
                raise ValueError(f"listed already, in {self._frames[name].split}")
            # Pipes and devices would block a reader for ever.
            if not path.is_file():
                raise ValueError("the image file is missing")
            true_pose = pose() if callable(pose) else pose
            size = image_size(path)
            intrinsics = camera(*size)
        except (ValueError, ImageError, DatasetError) as error:
            self.reject(name, split, str(error).removeprefix(f"{self._image_root / name}: "))
            return
        except OSError as error:
            self.reject(name, split, f"cannot be read ({error.strerror})")
            return
        folder = posixpath.dirname(name) if sequence is None else sequence
        self._frames[name] = Frame(
            path, name, self._scene, split, true_pose, folder, stamp_s, intrinsics
        )

    def finish(
        self, format: str, metres_per_unit: float | None, options: ReaderOptions
    ) -> SceneData:
        """The scene.

        Raises:
            DatasetError: not one frame is usable.
        """
        frames = tuple(self._frames.values())
        if not frames and not self._bad:
            raise DatasetError(f"{self._root}: the {format} lists name no frame; check them")
        if not frames:
            reason, count = Counter(bad.reason for bad in self._bad).most_common(1)[0]
            raise DatasetError(
                f"{self._root}: none of {len(self._bad)} frames is usable; {count} times: "
                f"{reason} (first: {self._bad[0].name}). Check the files, or name another --format"
            )
        self._note_intrinsics(frames, options)
        return SceneData(
            self._scene,
            format,
            self._root,
            frames,
            tuple(self._bad),
            metres_per_unit,
            tuple(self._notes),
        )

    def _note_intrinsics(self, frames: tuple[Frame, ...], options: ReaderOptions) -> None:
        cameras = [frame.intrinsics for frame in frames if frame.intrinsics is not None]
        assumed = [camera for camera in cameras if camera.assumed]
        if assumed:
            self.note(
                f"focal length {assumed[0].fx:.1f} px at {assumed[0].width}x{assumed[0].height} is "
                f"assumed for {len(assumed)} frames; give focal_px where you know better"
            )
        if options.focal_px is not None and all(c.fx != options.focal_px for c in cameras):
            self.note(f"focal_px {options.focal_px:g} is not used: the dataset states its cameras")


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file from a stranger (UTF-8, broken characters replaced).

    Raises:
        DatasetError: missing, unreadable, no plain file, or longer than ``max_bytes``.
    """
    try:
        if not path.is_file():
            raise DatasetError(f"{path}: no such file; check the dataset or name another --format")
        size = path.stat().st_size
        if size > max_bytes:
            raise DatasetError(
                f"{path}: {size} bytes, over the limit of {max_bytes} for such a file; "
                "check that it is what its name says"
            )
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, stripped line) of a text file, without blank and ``#`` lines."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def bounded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of a text file too long to be read whole.

    Raises:
        DatasetError: a line without an end.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ""), 1):
            if len(line) == _MAX_LINE:
                raise DatasetError(f"{path}: line {number} has no end; check the file")
            yield number, line


def parse_floats(text: str, count: int) -> Array:
    """Exactly ``count`` numbers separated by white space -> (count,) float64; NaN passes.

    Raises:
        ValueError: another count, or something that is no number.
    """
    tokens = text.split()
    if len(tokens) != count:
        raise ValueError(f"malformed: {len(tokens)} values where {count} belong")
    try:
        return np.array([float(token) for token in tokens])
    except ValueError:
        raise ValueError("malformed: a value is no number") from None


def read_name_lists(folder: Path) -> dict[str, str] | None:
    """Image name -> split from ``train.txt`` and ``test.txt``; None where there is neither.

    Raises:
        DatasetError: a name stands in both lists.
    """
    lists = [split for split in ("train", "test") if (folder / f"{split}.txt").is_file()]
    split_of: dict[str, str] = {}
    for split in lists:
        for number, name in data_lines(folder / f"{split}.txt"):
            if split_of.setdefault(name, split) != split:
                raise DatasetError(
                    f"{folder / split}.txt: line {number}: {name!r} is in train.txt too; "
                    "take it out of one of them"
                )
    return split_of if lists else None


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"([0-9]+)", name)
    # Odd places hold digits: shorter numbers first, then by digits; int() refuses huge ones.
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part)
        for i, part in enumerate(parts)
    ]
