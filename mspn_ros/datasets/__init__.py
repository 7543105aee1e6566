# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of posed image sets: one file per format, all of them ending in the same SceneData."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mspn_ros.datasets.base import Reader, ReaderOptions, SceneData
from mspn_ros.datasets.cambridge import CambridgeReader
from mspn_ros.datasets.colmap import ColmapReader
from mspn_ros.datasets.kitti import KittiReader
from mspn_ros.datasets.nerfstudio import NerfstudioReader
from mspn_ros.datasets.sevenscenes import SevenScenesReader
from mspn_ros.datasets.tum import TumReader
from mspn_ros.images import read_image
from mspn_ros.paths import file_digest
from mspn_ros.records import UNKNOWN_SCENE, BadFrame, DatasetError, Frame, ImageError

__all__ = ["READERS", "ReaderOptions", "SceneData", "detect_format", "read_scene", "verify_images"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        SevenScenesReader(),
        CambridgeReader(),
        TumReader(),
        KittiReader(),
        ColmapReader(),
        NerfstudioReader(),
    )
}

# What tells a format, for the message when none is found.
_SIGNS = (
    "7scenes: TrainSplit.txt; cambridge: dataset_train.txt; tum: rgb.txt; kitti: image_2 and "
    "poses; colmap: sparse/0/images.bin; nerfstudio: transforms.json"
)
# A scene's name becomes its ROS frame id and part of file names.
_SCENE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def detect_format(root: Path) -> str:
    """The key in READERS of the one format that ``root`` looks like.

    Raises:
        DatasetError: no folder, empty, of no known format, or of several.
    """
    with _readable(root):
        _check_folder(root)
        found = [name for name, reader in READERS.items() if reader.detects(root)]
    if not found:
        raise DatasetError(
            f"{root}: no known format ({_SIGNS}); name the folder that holds these, or --format"
        )
    if len(found) > 1:
        raise DatasetError(
            f"{root}: it may be {' or '.join(found)}; say which with --format {found[0]}"
        )
    return found[0]


def read_scene(
    root: Path,
    name: str | None = None,
    format: str | None = None,
    options: ReaderOptions = ReaderOptions(),  # noqa: B008  (frozen)
) -> SceneData:
    """Read a folder as one scene; ``name`` is the folder's unless given, ``format`` is detected.

    Only image headers are read; :func:`verify_images` decodes them.

    Raises:
        DatasetError: no such folder or format, an unusable name, or no usable frame.
    """
    root = root.expanduser().absolute()
    if format is not None and format not in READERS:
        raise DatasetError(f"format {format!r} is unknown; known are {', '.join(READERS)}")
    scene = name if name is not None else root.name
    if not _SCENE_NAME.fullmatch(scene) or scene == UNKNOWN_SCENE:
        raise DatasetError(
            f"{root}: {scene[:100]!r} cannot be a scene's name (letters, digits, '_', '.', '-', "
            f"not {UNKNOWN_SCENE!r}); name it: kitchen={root}"
        )
    with _readable(root):
        _check_folder(root)
        return READERS[format or detect_format(root)].read(root, scene, options)


def verify_images(
    scene: SceneData, progress: Callable[[int, int], None] | None = None
) -> SceneData:
    """Decode every image; the scene with those that fail moved to ``bad``.

    Notes say how many images of one split are copies, byte by byte, of those of another: errors
    on such a test frame only tell what was learned by heart. ``progress`` is called with
    (done, total) after each image.
    """
    frames = []
    bad = list(scene.bad)
    for done, frame in enumerate(scene.frames, 1):
        try:
            read_image(frame.image_path)
            frames.append(frame)
        except ImageError as error:
            reason = str(error).removeprefix(str(frame.image_path)).lstrip(": ")
            bad.append(BadFrame(frame.name, frame.split, reason))
        if progress is not None:
            progress(done, len(scene.frames))
    notes = (*scene.notes, *_notes_on_copies(frames))
    return replace(scene, frames=tuple(frames), bad=tuple(bad), notes=notes)


def _notes_on_copies(frames: Sequence[Frame]) -> list[str]:
    learned = {file_digest(f.image_path) for f in frames if f.split == "train"}
    copies: dict[str, list[str]] = {}
    for frame in frames:
        if frame.split != "train" and file_digest(frame.image_path) in learned:
            copies.setdefault(frame.split, []).append(frame.name)
    return [
        f"{len(names)} {split} images are copies of train images (first: {names[0]}); errors on "
        "them say nothing"
        for split, names in copies.items()
    ]


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = root if error.filename is None else error.filename
        raise DatasetError(
            f"{place}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; check the path")
    if next(root.iterdir(), None) is None:
        raise DatasetError(f"{root}: the folder is empty; name one with images and poses")
