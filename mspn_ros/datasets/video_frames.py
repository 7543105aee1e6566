# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames of a video, or photos of a folder, upright and with their times, for from_video.py."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image

from mspn_ros.datasets.base import natural_key
from mspn_ros.images import check_size, read_image
from mspn_ros.records import BadFrame, DatasetError, ImageError, ImageHW3

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")
# A video that has this share of the frames that it says is told to be whole.
_WHOLE = 0.95
# More files than anybody photographs; a bound on what is listed.
MAX_PHOTOS = 100_000
# What FFmpeg may take a file for: containers only. Its playlists open other files, and addresses.
_FFMPEG_OPTIONS = (
    "protocol_whitelist;file|format_whitelist;mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
)
# Diagonal of the film that EXIF's "focal length in 35 mm film" is about (CIPA DCG-001).
_FILM_DIAGONAL_MM = 43.267
_EXIF_IFD, _ORIENTATION, _FOCAL_35MM = 0x8769, 0x0112, 0xA405
# EXIF orientation -> quarter turns anticlockwise, then mirrored left to right or not.
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False)}
_TURNS |= {7: (1, True), 8: (1, False)}


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One image of a source, upright.

    ``name`` is unique within the source and safe in a path; ``origin`` is what the user knows it
    by. ``stamp_s`` counts from the video's start, None for photos. ``focal_px`` is what the file
    says of its focal length.
    """

    index: int
    name: str
    origin: str
    stamp_s: float | None
    image: ImageHW3
    focal_px: float | None = None


class Source(Protocol):
    """One pass through the place."""

    path: Path
    name: str
    bad: list[BadFrame]

    def __len__(self) -> int:
        """About how many frames there are; 0 where the file does not say."""
        ...

    def frames(self, chosen: Collection[int] | None = None) -> Iterator[SourceFrame]:
        """All frames in order, or those with the ``chosen`` indices."""
        ...

    def fingerprint(self) -> list[Any]:
        """What differs once a file of it has changed, for JSON."""
        ...


def open_source(path: Path) -> Source:
    """A video file or a folder of photos.

    Raises:
        DatasetError: neither, unreadable, or without a single frame.
    """
    path = plain_path(path)
    try:
        if path.is_dir():
            return PhotoSource(_find_photos(path), path)
        if not path.exists():
            raise DatasetError(f"{path}: no such file or folder; check the path")
        if not path.is_file():
            raise DatasetError(f"{path}: neither a file nor a folder; name a video or photos")
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    if path.suffix.lower() in PHOTO_SUFFIXES:
        raise DatasetError(f"{path}: one photo makes no dataset; name the folder that it is in")
    return VideoSource(path)


def plain_path(path: Path) -> Path:
    """Absolute, without ``~``.

    Raises:
        DatasetError: no such user, or a name that is no UTF-8, which native libraries cannot take.
    """
    try:
        path = path.expanduser().absolute()
        str(path).encode()
    except (RuntimeError, UnicodeEncodeError) as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        reason = "no such user" if isinstance(error, RuntimeError) else "its name is no UTF-8"
        raise DatasetError(f"{shown}: {reason}; rename it, or give another path") from error
    return path


def safe_name(text: str) -> str:
    """``text`` as part of a path that every tool takes: letters, digits, ``_``, ``.``, ``-``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip(".") or "_"


class VideoSource:
    """A video file, by OpenCV's FFmpeg: turned upright, times by the container.

    A counter divided by the frame rate would be wrong for phones, whose rate varies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = safe_name(path.stem)
        self.bad: list[BadFrame] = []
        with _opened(path) as video:
            self._count = max(0, round(_property(video, cv2.CAP_PROP_FRAME_COUNT)))
            if not video.grab():
                raise DatasetError(
                    f"{path}: no frame of it can be decoded; play it, or convert it to MP4 (H.264)"
                )

    def __len__(self) -> int:
        return self._count

    def fingerprint(self) -> list[Any]:
        """See :class:`Source`."""
        return _file_fingerprint(self.path)

    def frames(self, chosen: Collection[int] | None = None) -> Iterator[SourceFrame]:
        """See :class:`Source`; ``bad`` says afterwards how many frames could not be decoded."""
        last = math.inf if chosen is None else max(chosen, default=-1)
        index = 0
        with _opened(self.path) as video:
            while index <= last and video.grab():
                if chosen is None or index in chosen:
                    stamp = _property(video, cv2.CAP_PROP_POS_MSEC) / 1000
                    decoded, image = video.retrieve()
                    if decoded:
                        check_size(image.shape[0], image.shape[1], f"{self.path}: frame {index}")
                        name = f"frame_{index:06d}"
                        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                        yield SourceFrame(index, name, f"{stamp:.3f} s", stamp, rgb)
                index += 1
        # Some containers only say how long they are, from which OpenCV guesses the frames.
        if chosen is None and index < self._count * _WHOLE - 1:
            reason = f"the last {self._count - index} of {self._count} frames cannot be decoded"
            self.bad = [BadFrame(f"after frame {index - 1}", "", reason)]


class PhotoSource:
    """Photos in the order given; EXIF says which side is up, and the focal length."""

    def __init__(self, photos: Sequence[Path], path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = safe_name(path.name if name is None else name)
        self.bad: list[BadFrame] = []
        self._photos = list(photos)
        self._names = _unique_names(self._photos)

    def __len__(self) -> int:
        return len(self._photos)

    def fingerprint(self) -> list[Any]:
        """See :class:`Source`."""
        return [_file_fingerprint(photo) for photo in self._photos]

    def frames(self, chosen: Collection[int] | None = None) -> Iterator[SourceFrame]:
        """See :class:`Source`; photos that cannot be decoded are in ``bad`` afterwards."""
        self.bad = []
        for index, photo in enumerate(self._photos):
            if chosen is not None and index not in chosen:
                continue
            try:
                image = read_image(photo)
            except ImageError as error:
                reason = str(error).removeprefix(f"{photo}").lstrip(": ")
                self.bad.append(BadFrame(photo.name, "", reason))
                continue
            orientation, focal_35mm = _read_exif(photo)
            upright = _turned(image, orientation)
            focal = math.hypot(*image.shape[:2]) * focal_35mm / _FILM_DIAGONAL_MM
            yield SourceFrame(index, self._names[index], photo.name, None, upright, focal or None)


def _find_photos(folder: Path) -> list[Path]:
    """Photos of a folder in natural order; sub-folders are not entered."""
    found, others = [], 0
    for entry in folder.iterdir():
        plain_path(entry)
        if entry.suffix.lower() in PHOTO_SUFFIXES and entry.is_file():
            found.append(entry)
        else:
            others += not entry.name.startswith(".")
        if len(found) > MAX_PHOTOS:
            raise DatasetError(f"{folder}: more than {MAX_PHOTOS} photos; name a smaller folder")
    if not found:
        what = f"{others} other files or folders and no photo" if others else "no file"
        raise DatasetError(
            f"{folder}: {what}; name a video, or a folder of {', '.join(PHOTO_SUFFIXES)} "
            "(convert HEIC first)"
        )
    return sorted(found, key=lambda photo: natural_key(photo.name))


def _unique_names(photos: Sequence[Path]) -> list[str]:
    taken: set[str] = set()
    names = []
    for photo in photos:
        name = stem = safe_name(photo.stem)
        number = 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _file_fingerprint(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    # OpenCV takes these from the environment alone; the level only before its first video.
    wanted = {
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": _FFMPEG_OPTIONS,
        "OPENCV_FFMPEG_LOGLEVEL": "-8",
    }
    before = {key: os.environ.get(key) for key in wanted}
    level = cv2.utils.logging.getLogLevel()
    os.environ.update(wanted)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    try:
        if not video.isOpened():
            raise DatasetError(
                f"{path}: no video that can be read (MP4, MOV, MKV, WebM, AVI); name another, "
                "or a folder of photos. A recording that was cut off may lack its index"
            )
        width = int(_property(video, cv2.CAP_PROP_FRAME_WIDTH))
        height = int(_property(video, cv2.CAP_PROP_FRAME_HEIGHT))
        check_size(height, width, f"{path}: video")
        yield video
    finally:
        video.release()


def _property(video: Any, key: int) -> float:
    value = float(video.get(key))
    return value if math.isfinite(value) else 0.0


def _read_exif(photo: Path) -> tuple[int, float]:
    """(orientation, focal length in 35 mm film in mm); (1, 0) where the file does not say."""
    try:
        with Image.open(photo) as image:
            exif = image.getexif()
            orientation = exif.get(_ORIENTATION, 1)
            focal = float(exif.get_ifd(_EXIF_IFD).get(_FOCAL_35MM, 0))
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, struct.error, ArithmeticError):
        return 1, 0.0
    known = focal if math.isfinite(focal) and 5 <= focal <= 2000 else 0.0
    return (orientation if orientation in _TURNS else 1), known


def _turned(image: ImageHW3, orientation: int) -> ImageHW3:
    turns, mirrored = _TURNS.get(orientation, (0, False))
    upright = np.rot90(image, turns)
    return np.ascontiguousarray(upright[:, ::-1] if mirrored else upright)


@dataclass(slots=True)
class Sources:
    """All passes: those to learn from and those to test with, each name given once."""

    train: Sequence[Source]
    test: Sequence[Source] = ()

    @classmethod
    def open(cls, train: Sequence[Path], test: Sequence[Path] = ()) -> Sources:
        """The videos and folders of photos.

        Raises:
            DatasetError: see :func:`open_source`; or one is given twice.
        """
        places = [os.path.realpath(plain_path(path)) for path in (*train, *test)]
        for place in places:
            if places.count(place) > 1:
                raise DatasetError(f"{place}: given twice; a pass is for training or for testing")
        return cls([open_source(path) for path in train], [open_source(path) for path in test])

    def __post_init__(self) -> None:
        taken: set[str] = set()
        for source in (*self.train, *self.test):
            name, number = source.name, 2
            while source.name in taken:
                source.name, number = f"{name}-{number}", number + 1
            taken.add(source.name)
