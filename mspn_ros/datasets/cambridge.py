# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cambridge Landmarks (Kendall et al. 2015): ``dataset_train.txt`` and ``dataset_test.txt``.

After three header lines, each line is ``file X Y Z W P Q R``: the camera centre in metres, and a
quaternion w, x, y, z that turns WORLD into CAMERA axes, hence inverted here. Focal lengths come
from VisualSFM's ``reconstruction.nvm`` where it lies beside the lists.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mspn_ros.datasets.base import (
    Camera,
    ReaderOptions,
    SceneBuilder,
    SceneData,
    assumed_camera,
    bounded_lines,
    checked_intrinsics,
    natural_key,
    parse_floats,
    read_text,
    stated_camera,
)
from mspn_ros.geometry import quaternion_to_pose
from mspn_ros.records import Array, BadFrame, DatasetError, Pose

# What the set's users take for its telephone camera, at its size of 1920x1080.
DEFAULT_FOCAL_PX, NATIVE_SIZE = 1670.0, (1920, 1080)
_HEADER_LINES = 3


@dataclass(frozen=True, slots=True)
class Label:
    """One line of a list: the image's name as written, and its camera-to-world pose."""

    name: str
    pose: Pose


class CambridgeReader:
    """Reader of the Cambridge Landmarks layout."""

    name = "cambridge"

    def detects(self, root: Path) -> bool:
        """One of the two lists."""
        return any(_list_path(root, split).is_file() for split in ("train", "test"))

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """See :class:`Reader`. The NVM file's one-sided distortion has no OpenCV form: not read."""
        builder = SceneBuilder(scene, root, root)
        labels: list[tuple[Label, str]] = []
        for split in ("train", "test"):
            path = _list_path(root, split)
            if not path.is_file():
                builder.note(f"there is no {path.name}: no frame is for {split}")
                continue
            listed, broken = read_labels(path)
            labels += [(label, split) for label in listed]
            for bad in broken:
                builder.reject(bad.name, split, bad.reason)
        cameras = _read_nvm_cameras(root / "reconstruction.nvm")
        default = assumed_camera(DEFAULT_FOCAL_PX, NATIVE_SIZE[0], options)
        for label, split in sorted(labels, key=lambda item: natural_key(item[0].name)):
            camera = cameras.get(_stem(label.name), default)
            builder.add(label.name, split, label.pose, camera)
        return builder.finish(self.name, 1.0, options)


def read_labels(path: Path) -> tuple[tuple[Label, ...], tuple[BadFrame, ...]]:
    """A ``dataset_*.txt`` without its images -> (labels in the list's order, broken lines).

    Raises:
        DatasetError: the file cannot be read.
    """
    split = path.stem.removeprefix("dataset_")
    labels: list[Label] = []
    bad: list[BadFrame] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, numbers = (*line.split(maxsplit=1), "", "")[:2]
        try:
            values = parse_floats(numbers, 7)
            labels.append(Label(name, _to_pose(values)))
        except ValueError as error:
            if number > _HEADER_LINES and line.strip():
                bad.append(BadFrame(name or f"{path.name} line {number}", split, str(error)))
    return tuple(labels), tuple(bad)


def _to_pose(xyz_wpqr: Array) -> Pose:
    w, x, y, z = xyz_wpqr[3:]
    # The conjugate: the list's rotation is world-to-camera.
    return quaternion_to_pose(xyz_wpqr[:3], np.array([-x, -y, -z, w]))


def _list_path(root: Path, split: str) -> Path:
    return root / f"dataset_{split}.txt"


def _stem(name: str) -> str:
    """Name without suffix: the NVM file says .jpg where the lists say .png."""
    return posixpath.splitext(name)[0]


def _read_nvm_cameras(path: Path) -> dict[str, Camera]:
    """Stem of the image name -> camera, from the head of an NVM_V3 file; empty without one.

    The focal length there is for the original 1920x1080 pixels, the principal point their centre.
    """
    if not path.is_file():
        return {}
    lines = (line for _, line in bounded_lines(path))
    head = next(lines, "")
    count = next((line.strip() for line in lines if line.strip()), "")
    if not head.startswith("NVM_V3") or not re.fullmatch("[0-9]{1,7}", count):
        raise DatasetError(f"{path}: no NVM_V3 file with cameras; take it away or replace it")
    cameras: dict[str, Camera] = {}
    centre = (NATIVE_SIZE[0] - 1) / 2, (NATIVE_SIZE[1] - 1) / 2
    for line in islice(lines, int(count)):
        try:
            name, focal, *_ = line.split()
            camera = checked_intrinsics((float(focal), float(focal)), centre, NATIVE_SIZE)
        except ValueError:
            # Its frame then has the assumed focal length, and says so.
            continue
        cameras[_stem(name)] = stated_camera(camera)
    return cameras
