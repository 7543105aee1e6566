# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP sparse models, text and binary, with the images beside them.

``images.txt|bin`` hold world-to-camera rotation (w, x, y, z) and translation, in the model's own
unit. Only cameras and images are read, in a few lines with bounded counts: pycolmap, an extra,
has no wheel for every robot and would read a million 3D points for nothing.
Format: https://colmap.github.io/format.html
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from mspn_ros.datasets.base import (
    Camera,
    ReaderOptions,
    SceneBuilder,
    SceneData,
    bounded_lines,
    checked_intrinsics,
    data_lines,
    natural_key,
    parse_floats,
    read_name_lists,
    stated_camera,
    unknown_camera,
)
from mspn_ros.geometry import invert_pose, quaternion_to_pose
from mspn_ros.records import Array, DatasetError, Intrinsics, Pose

# model -> (number in binary files, parameters). Those not in _PINHOLES are no pinhole with
# OpenCV's distortion (fish eyes, division models): their frames have no intrinsics.
_MODELS = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8),
    "FULL_OPENCV": (6, 12),
    "FOV": (7, 5),
    "SIMPLE_RADIAL_FISHEYE": (8, 4),
    "RADIAL_FISHEYE": (9, 5),
    "THIN_PRISM_FISHEYE": (10, 12),
    "RAD_TAN_THIN_PRISM_FISHEYE": (11, 16),
    "SIMPLE_DIVISION": (12, 4),
    "DIVISION": (13, 5),
    "SIMPLE_FISHEYE": (14, 3),
    "FISHEYE": (15, 4),
    "EUCM": (16, 6),
    "EQUIRECTANGULAR": (17, 2),
}
_SINGLE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_PINHOLES = (*_SINGLE_FOCAL, "PINHOLE", "OPENCV", "FULL_OPENCV")
_MODEL_OF_NUMBER = {number: model for model, (number, _) in _MODELS.items()}
_MAX_NAME_BYTES = 4096

_T = TypeVar("_T")
# (camera id, model, width, height, parameters)
_CameraRow = tuple[int, str, int, int, Array]


@dataclass(frozen=True, slots=True)
class _Image:
    """World-to-camera rotation (4,) wxyz and translation (3,) of one image."""

    name: str
    wxyz_xyz: Array
    camera_id: int

    def pose(self) -> Pose:
        w, x, y, z = self.wxyz_xyz[:4]
        return invert_pose(quaternion_to_pose(self.wxyz_xyz[4:], np.array([x, y, z, w])))


class ColmapReader:
    """Reader of a COLMAP model at the root, in ``sparse/`` or ``sparse/0/``.

    Images lie in ``images/`` or at the root. ``train.txt`` and ``test.txt`` list image names;
    without lists every image is for training.
    """

    name = "colmap"

    def detects(self, root: Path) -> bool:
        """``cameras`` and ``images`` with suffix .bin or .txt."""
        return _find_model(root) is not None

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """See :class:`Reader`. The scale is unknown: ``metres_per_unit`` is None."""
        model = _find_model(root)
        if model is None:
            raise DatasetError(
                f"{root}: no cameras.bin|txt with images.bin|txt here, in sparse/ or in sparse/0/; "
                "name the folder above sparse/"
            )
        folder, suffix = model
        image_root = root / "images"
        builder = SceneBuilder(scene, root, image_root if image_root.is_dir() else root)
        if (root / "sparse" / "1").is_dir():
            builder.note("only model sparse/0 was read: the others have worlds of their own")
        if suffix == ".bin":
            cameras = _parse(folder / "cameras.bin", _binary_cameras)
            images = _parse(folder / "images.bin", _binary_images)
        else:
            cameras = list(_text_cameras(folder / "cameras.txt"))
            images = list(_text_images(folder / "images.txt", builder))
        _add_images(builder, images, _to_cameras(builder, cameras), read_name_lists(root))
        return builder.finish(self.name, None, options)


def _find_model(root: Path) -> tuple[Path, str] | None:
    """(folder, suffix); binary first, as COLMAP does."""
    for folder in (root, root / "sparse", root / "sparse" / "0"):
        for suffix in (".bin", ".txt"):
            if all((folder / f"{stem}{suffix}").is_file() for stem in ("cameras", "images")):
                return folder, suffix
    return None


def _add_images(
    builder: SceneBuilder,
    images: list[_Image],
    cameras: dict[int, Camera],
    split_of: dict[str, str] | None,
) -> None:
    unlisted = 0
    # The model's order is that of its numbers, or none at all in binary files.
    for image in sorted(images, key=lambda image: natural_key(image.name)):
        split = "train" if split_of is None else split_of.get(image.name)
        if split is None:
            unlisted += 1
        elif image.camera_id not in cameras:
            builder.reject(image.name, split, f"camera {image.camera_id} is missing or impossible")
        else:
            builder.add(image.name, split, image.pose, cameras[image.camera_id])
    if unlisted:
        builder.note(f"{unlisted} images of the model are in no list and were left out")
    known = {image.name for image in images}
    for name, split in (split_of or {}).items():
        if name not in known:
            builder.reject(name, split, "listed, but the model has no such image")


def _to_cameras(builder: SceneBuilder, rows: list[_CameraRow]) -> dict[int, Camera]:
    cameras: dict[int, Camera] = {}
    for camera_id, model, width, height, parameters in rows:
        if model not in _PINHOLES:
            builder.note(f"camera {camera_id} is {model}, no pinhole: its frames lack intrinsics")
            cameras[camera_id] = unknown_camera
            continue
        try:
            cameras[camera_id] = stated_camera(to_intrinsics(model, width, height, parameters))
        except ValueError as error:
            builder.note(f"camera {camera_id}: {error}")
    return cameras


def to_intrinsics(model: str, width: int, height: int, parameters: Array) -> Intrinsics:
    """A camera from COLMAP's model (a pinhole's) and its parameters, in COLMAP's order.

    Raises:
        ValueError: a number is not finite, a focal length or a side not above zero.
    """
    values = [float(value) for value in parameters]
    if model in _SINGLE_FOCAL:
        values.insert(0, values[0])
    fx, fy, cx, cy, *distortion = values
    if model in ("SIMPLE_RADIAL", "RADIAL"):
        distortion = [*distortion, 0.0, 0.0, 0.0][:4]
    # COLMAP's origin is the corner of the first pixel, ours its centre.
    return checked_intrinsics((fx, fy), (cx - 0.5, cy - 0.5), (width, height), tuple(distortion))


def _text_cameras(path: Path) -> Iterator[_CameraRow]:
    for number, line in data_lines(path):
        try:
            camera_id, model, width, height, parameters = line.split(maxsplit=4)
            if model not in _MODELS:
                raise ValueError(f"unknown camera model {model!r}")
            values = parse_floats(parameters, _MODELS[model][1])
            yield int(camera_id), model, int(width), int(height), values
        except ValueError as error:
            raise DatasetError(
                f"{path}: line {number}: {error}; export the model again with COLMAP"
            ) from error


def _text_images(path: Path, builder: SceneBuilder) -> Iterator[_Image]:
    """Lines come in pairs: the image, then its points (often many, or an empty line)."""
    lines = ((number, line) for number, line in bounded_lines(path) if not line.startswith("#"))
    for number, line in lines:
        if not line.strip():
            continue
        fields = line.split(maxsplit=9)
        try:
            values = parse_floats(" ".join(fields[1:8]), 7)
            image = _Image(fields[9].strip(), values, int(fields[8]))
        except (ValueError, IndexError):
            builder.reject(f"{path.name} line {number}", "train", "malformed line")
        else:
            yield image
        _, points = next(lines, (0, ""))
        if len(points.split()) % 3:
            raise DatasetError(
                f"{path}: line {number + 1}: a list of points (may be empty) must follow each "
                "image; export the model again with COLMAP"
            )


def _parse(path: Path, parse: Callable[[BinaryIO], Iterator[_T]]) -> list[_T]:
    """All records of a binary file, after the count that it starts with.

    Nothing is allocated by a stated count: a forged one runs into the end of the file.
    """
    try:
        with path.open("rb") as file:
            (count,) = _unpack(file, "<Q")
            records = parse(file)
            return [next(records) for _ in range(count)]
    except (struct.error, OverflowError, ValueError) as error:
        raise DatasetError(
            f"{path}: truncated or no COLMAP file ({error}); export the model again"
        ) from error


def _binary_cameras(file: BinaryIO) -> Iterator[_CameraRow]:
    while True:
        camera_id, number, width, height = _unpack(file, "<IiQQ")
        if number not in _MODEL_OF_NUMBER:
            raise ValueError(f"unknown camera model {number}")
        model = _MODEL_OF_NUMBER[number]
        values = np.array(_unpack(file, f"<{_MODELS[model][1]}d"))
        yield camera_id, model, width, height, values


def _binary_images(file: BinaryIO) -> Iterator[_Image]:
    size = os.fstat(file.fileno()).st_size
    while True:
        _, *values, camera_id = _unpack(file, "<I7dI")
        name = bytearray()
        while (byte := file.read(1)) not in (b"", b"\0"):
            name += byte
            if len(name) > _MAX_NAME_BYTES:
                raise ValueError("an image name is endless")
        (points,) = _unpack(file, "<Q")
        # x, y and the 3D point's number: 24 bytes each, not needed here.
        if file.seek(24 * points, os.SEEK_CUR) > size:
            raise ValueError("the points of an image are missing")
        yield _Image(name.decode("utf-8", "replace"), np.array(values), camera_id)


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
