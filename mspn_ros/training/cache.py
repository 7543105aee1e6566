# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The image cache: every image decoded and resized once, then memory-mapped by all later runs.

One pack per scene and split, named by what is in it: the content of every image file, the size,
and the format's version. Changed images or settings make another pack; a pack is never changed.

    <key>.u8     pixels of all images, one after the other, (h, w, 3) uint8
    <key>.json   their sizes, and the reason where an image is broken; its presence says "whole"

Packs may be deleted at any time; the next run makes them anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mspn_ros.images import read_image
from mspn_ros.paths import file_digest
from mspn_ros.records import ConfigError, Frame, ImageError
from mspn_ros.store.files import locked, write_whole
from mspn_ros.view import View

_FORMAT = 1
# Decoded images waiting to be written; bounds the memory.
_WINDOW = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImagePack:
    """Resized images of frames, in the frames' order.

    ``pixels_P3`` uint8 holds all pixels, row by row, image by image; ``first_S`` is where an
    image starts, ``size_S2`` its (height, width), zeros for a broken one. ``problems`` says by
    position what is wrong with the broken ones. ``digests`` are of the files' content.
    """

    key: str
    pixels_P3: Tensor
    first_S: Tensor
    size_S2: Tensor
    problems: dict[int, str]
    digests: tuple[bytes, ...]


def cache_folder(setting: str) -> Path | None:
    """``auto``, ``none`` or a folder -> the folder of the packs, None to keep images in memory."""
    if setting == "none":
        return None
    if setting != "auto":
        return Path(setting).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mspn_ros" / "images"


def open_pack(
    frames: Sequence[Frame], view: View, folder: Path | None, progress: Progress | None = None
) -> ImagePack:
    """The pack of ``frames`` as ``view`` resizes them; made if it is not there.

    ``folder`` None decodes into memory. Several processes may ask at once: one makes the pack,
    the others wait for it.

    Raises:
        ConfigError: the folder cannot be written, or the disk is full.
    """
    with ThreadPoolExecutor() as pool:
        digests = tuple(pool.map(lambda frame: file_digest(frame.image_path), frames))
    if folder is None:
        buffer = bytearray()
        sizes, problems = _decode(frames, view, buffer.extend, progress)
        return _pack("", np.frombuffer(buffer, np.uint8), sizes, problems, digests)
    content = b"".join((f"{_FORMAT}|{_size(view)}|".encode(), *digests))
    key = hashlib.sha256(content).hexdigest()[:32]
    try:
        found = _map(folder, key, digests)
        return found or _make(folder, key, frames, view, digests, progress)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the image cache cannot be written ({error.strerror}); free space, or set "
            "cache (or XDG_CACHE_HOME) to another folder, or cache=none to keep images in memory"
        ) from error


def _size(view: View) -> str:
    """What decides the pixels of a pack."""
    return f"squeeze{view.size}" if view.fit == "squeeze" else f"{view.resize}"


def _map(folder: Path, key: str, digests: tuple[bytes, ...]) -> ImagePack | None:
    """The pack, if it is there and whole."""
    pixels_path, index_path = folder / f"{key}.u8", folder / f"{key}.json"
    try:
        index = json.loads(index_path.read_text())
        sizes = [(int(height), int(width)) for height, width in index["sizes"]]
        problems = {int(i): str(reason) for i, reason in index["problems"].items()}
        length = pixels_path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if len(sizes) != len(digests) or length != sum(h * w * 3 for h, w in sizes):
        return None
    # Read-only: a writable private mapping would count against the memory that the system has.
    pixels = np.memmap(pixels_path, np.uint8, "r") if length else np.zeros(0, np.uint8)
    return _pack(key, pixels, sizes, problems, digests)


def _pack(
    key: str,
    pixels: npt.NDArray[np.uint8],
    sizes: list[tuple[int, int]],
    problems: dict[int, str],
    digests: tuple[bytes, ...],
) -> ImagePack:
    size_S2 = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
    area_S = size_S2.prod(1)
    first_S = area_S.cumsum(0) - area_S
    with warnings.catch_warnings():
        # torch warns that the memory cannot be written: nobody does.
        warnings.simplefilter("ignore", UserWarning)
        pixels_P3 = torch.from_numpy(pixels).view(-1, 3)
    return ImagePack(key, pixels_P3, first_S, size_S2, problems, digests)


def _make(
    folder: Path,
    key: str,
    frames: Sequence[Frame],
    view: View,
    digests: tuple[bytes, ...],
    progress: Progress | None,
) -> ImagePack:
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{key}.lock"):
        # Another process may have made it while this one waited.
        found = _map(folder, key, digests)
        if found is not None:
            return found
        part = folder / f"{key}.part"
        try:
            with part.open("wb") as file:
                sizes, problems = _decode(frames, view, file.write, progress)
                file.flush()
                os.fsync(file.fileno())
            part.replace(folder / f"{key}.u8")
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        index = {"format": _FORMAT, "resize": _size(view), "sizes": sizes, "problems": problems}
        write_whole(folder / f"{key}.json", json.dumps(index).encode())
    found = _map(folder, key, digests)
    if found is None:
        raise ConfigError(f"{folder}: the pack {key} vanished while in use; start again")
    return found


def _decode(
    frames: Sequence[Frame],
    view: View,
    write: Callable[[bytes], object],
    progress: Progress | None,
) -> tuple[list[tuple[int, int]], dict[int, str]]:
    def load(frame: Frame) -> Tensor | ImageError:
        try:
            image = torch.from_numpy(read_image(frame.image_path))
        except ImageError as error:
            return error
        return view.resized(image).contiguous()

    sizes: list[tuple[int, int]] = []
    problems: dict[int, str] = {}
    remaining = iter(frames)
    with ThreadPoolExecutor() as pool:
        while window := list(islice(remaining, _WINDOW)):
            for loaded in pool.map(load, window):
                if isinstance(loaded, ImageError):
                    problems[len(sizes)] = str(loaded)
                    sizes.append((0, 0))
                else:
                    write(loaded.numpy().tobytes())
                    sizes.append((loaded.shape[0], loaded.shape[1]))
                if progress:
                    progress(len(sizes), len(frames))
    return sizes, problems
