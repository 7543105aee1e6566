# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""nerfstudio, instant-ngp and Blender: ``transforms.json`` or ``transforms_{train,test,val}.json``.

``transform_matrix`` is camera-to-world with OpenGL's camera axes (x right, y up, z back), hence
y and z are turned round here. Intrinsics stand in the file or in each frame, as ``fl_x`` ...
or as ``camera_angle_x``. Of the keys that nerfstudio_writer.py adds, ``metres_per_unit`` and
``stamp_s`` are read here, and FULL_OPENCV, the rational lens model.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.datasets.base import (
    Camera,
    ReaderOptions,
    SceneBuilder,
    SceneData,
    checked_intrinsics,
    contained,
    natural_key,
    read_text,
    stated_camera,
    unknown_camera,
)
from mspn_ros.geometry import matrix_to_pose
from mspn_ros.records import DatasetError, Intrinsics, Pose

_SPLITS = ("train", "test", "val")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
_PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
# COLMAP's name for OpenCV's model with a denominator, and OpenCV's order of its terms.
RATIONAL_MODEL = "FULL_OPENCV"
DISTORTION_TERMS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
# Its own inverse.
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


class NerfstudioReader:
    """Reader of ``transforms*.json``.

    One file with ``train_filenames``, ``test_filenames`` or ``val_filenames`` is split by these;
    without them every frame is for training. Files for each split win over the single one.
    """

    name = "nerfstudio"

    def detects(self, root: Path) -> bool:
        """One of the files."""
        return bool(_find_files(root))

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """See :class:`Reader`. The scale is unknown unless the files say ``metres_per_unit``."""
        files = _find_files(root)
        if not files:
            raise DatasetError(
                f"{root}: no transforms.json and no transforms_train.json; name their folder"
            )
        builder = SceneBuilder(scene, root, root)
        if "" not in files and (root / "transforms.json").is_file():
            builder.note("transforms.json was not read: there is a file for each split")
        entries = [entry for split, path in files.items() for entry in _read(builder, path, split)]
        named = [(_with_suffix(root, entry.listed), entry) for entry in entries]
        # Tools write frames in any order and blocks of one walk into several files; names carry
        # the recording's order.
        for name, entry in sorted(named, key=lambda item: natural_key(item[0])):
            pose = partial(_to_pose, entry.values.get("transform_matrix"))
            stamp_s = _number(entry.values.get("stamp_s"))
            camera = _frame_camera(entry.values)
            builder.add(name, entry.split, pose, camera, stamp_s=stamp_s)
        return builder.finish(self.name, _scale(builder, entries), options)


def _scale(builder: SceneBuilder, entries: list[_Entry]) -> float | None:
    """Metres in one unit, where all files say so and agree."""
    scales = {_number(entry.values.get("metres_per_unit")) for entry in entries}
    scale = scales.pop() if len(scales) == 1 else None
    if scale is not None and scale > 0:
        return scale
    if any("metres_per_unit" in entry.values for entry in entries):
        builder.note("metres_per_unit is not one number above 0 for all frames; it is not used")
    return None


def _number(value: object) -> float | None:
    """A finite number of a stranger's JSON, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _find_files(root: Path) -> dict[str, Path]:
    """Split -> file; the key is empty for the single file."""
    files = {split: root / f"transforms_{split}.json" for split in _SPLITS}
    present = {split: path for split, path in files.items() if path.is_file()}
    single = root / "transforms.json"
    return present or ({"": single} if single.is_file() else {})


@dataclass(frozen=True, slots=True)
class _Entry:
    """A frame as listed; ``values`` are its own keys over those of its file."""

    listed: str
    split: str
    values: dict[str, Any]


def _read(builder: SceneBuilder, path: Path, split: str) -> list[_Entry]:
    content = _load(path)
    split_of = None if split else _file_lists(path, content)
    common = {key: value for key, value in content.items() if key != "frames"}
    entries: list[_Entry] = []
    unlisted = 0
    for index, frame in enumerate(content["frames"]):
        listed = frame.get("file_path") if isinstance(frame, dict) else None
        if not isinstance(listed, str):
            builder.reject(f"{path.name} frame {index}", split or "train", "it has no file_path")
            continue
        frame_split = split or ("train" if split_of is None else split_of.pop(_plain(listed), ""))
        if frame_split:
            entries.append(_Entry(listed, frame_split, {**common, **frame}))
        else:
            unlisted += 1
    for name, listed_split in (split_of or {}).items():
        builder.reject(name, listed_split, f"listed, but {path.name} has no such frame")
    if unlisted:
        builder.note(f"{unlisted} frames of {path.name} are in no list and were left out")
    return entries


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: no valid JSON ({error}); write the file again") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise DatasetError(f"{path}: no list 'frames'; it is no nerfstudio or instant-ngp file")
    return content


def _file_lists(path: Path, content: dict[str, Any]) -> dict[str, str] | None:
    """Path as listed -> split; None where the file has no lists."""
    keys = {split: f"{split}_filenames" for split in _SPLITS}
    if not any(key in content for key in keys.values()):
        return None
    split_of: dict[str, str] = {}
    for split, key in keys.items():
        names = content.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DatasetError(f"{path}: {key} is no list of names; write the file again")
        for name in names:
            # nerfstudio itself lists the same images for test and val.
            split_of.setdefault(_plain(name), split)
    return split_of


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _with_suffix(root: Path, listed: str) -> str:
    """The listed path, completed where Blender's files leave the suffix away."""
    try:
        path = contained(root, listed)
        candidates = [listed, *(f"{listed}{suffix}" for suffix in _SUFFIXES)]
        found = (name for name in candidates if path.with_name(Path(name).name).is_file())
        return next(found, listed)
    except (ValueError, OSError):
        # Adding it says what is wrong.
        return listed


def _to_pose(matrix: object) -> Pose:
    try:
        values = np.array(matrix, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("malformed: transform_matrix is no matrix of numbers") from None
    if values.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"malformed: transform_matrix has shape {values.shape}, not (4, 4)")
    rows = np.vstack((values[:3], [0.0, 0.0, 0.0, 1.0]))
    return matrix_to_pose(rows @ OPENGL_TO_OPENCV)


def _frame_camera(values: dict[str, Any]) -> Camera:
    """The camera that a frame's keys describe; what is no number is a ValueError."""

    def camera(width: int, height: int) -> Intrinsics | None:
        try:
            return _to_camera(values, width, height)(width, height)
        except (TypeError, OverflowError):
            raise ValueError("malformed: an intrinsic value is no number") from None

    return camera


def _to_camera(values: dict[str, Any], width: int, height: int) -> Camera:
    model = str(values.get("camera_model", "OPENCV"))
    rational = model == RATIONAL_MODEL
    # OpenCV's plain form has no r^8 term, and a fish eye is no pinhole.
    if (model not in _PINHOLES and not rational) or values.get("is_fisheye"):
        return unknown_camera
    if not rational and float(values.get("k4", 0)):
        return unknown_camera
    size = int(values.get("w", width)), int(values.get("h", height))
    if "fl_x" in values:
        fx = float(values["fl_x"])
    elif "camera_angle_x" in values:
        fx = _focal(float(values["camera_angle_x"]), size[0])
    else:
        return unknown_camera
    if "fl_y" in values:
        fy = float(values["fl_y"])
    elif "camera_angle_y" in values and "fl_x" not in values:
        fy = _focal(float(values["camera_angle_y"]), size[1])
    else:
        fy = fx
    cx, cy = float(values.get("cx", size[0] / 2)), float(values.get("cy", size[1] / 2))
    count = len(DISTORTION_TERMS) if rational else 5
    terms = tuple(float(values.get(key, 0)) for key in DISTORTION_TERMS[:count])
    distortion = terms if any(terms[4:]) else terms[:4]
    # The origin is the corner of the first pixel, as in COLMAP; ours is its centre.
    found = checked_intrinsics((fx, fy), (cx - 0.5, cy - 0.5), size, distortion)
    return stated_camera(replace(found, assumed=values.get("focal_assumed") is True))


def _focal(angle: float, side: int) -> float:
    if not 0 < angle < math.pi:
        raise ValueError(f"camera angle {angle} is not between 0 and pi")
    return side / 2 / math.tan(angle / 2)
