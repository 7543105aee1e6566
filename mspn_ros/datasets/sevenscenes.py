# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""7Scenes (Shotton et al. 2013): ``seq-NN/frame-NNNNNN.{color.png,pose.txt}`` and two split lists.

``pose.txt`` is a 4x4 camera-to-world matrix in metres. There are two ground truths for these
scenes (KinectFusion's and one from structure from motion): results on them do not compare.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from mspn_ros.datasets.base import (
    Camera,
    ReaderOptions,
    SceneBuilder,
    SceneData,
    assumed_camera,
    data_lines,
    parse_floats,
    read_text,
)
from mspn_ros.geometry import matrix_to_pose
from mspn_ros.records import DatasetError, Pose

# The Kinect's colour camera, as its users take it: 525 px at 640x480.
DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH = 525.0, 640
_SPLIT_FILES = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
_MAX_POSE_BYTES = 10_000
_IMAGE_SUFFIXES = (".color.png", ".color.jpg")


class SevenScenesReader:
    """Reader of the 7Scenes layout, colour as PNG or JPEG; depth is not read."""

    name = "7scenes"

    def detects(self, root: Path) -> bool:
        """A split list, or a sequence folder with poses."""
        has_list = any((root / file).is_file() for file in _SPLIT_FILES.values())
        return has_list or any(root.glob("seq-*/frame-*.pose.txt"))

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """See :class:`Reader`; both split lists missing is an error, one missing is not."""
        builder = SceneBuilder(scene, root, root)
        camera = assumed_camera(DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH, options)
        for sequence, split in _read_splits(root).items():
            if (root / sequence).is_dir():
                _add_sequence(builder, root, sequence, split, camera)
            else:
                builder.reject(sequence, split, "the sequence folder is missing")
        return builder.finish(self.name, 1.0, options)


def _read_splits(root: Path) -> dict[str, str]:
    """Sequence folder -> split; ``sequence3`` in the lists means ``seq-03``."""
    split_of: dict[str, str] = {}
    present = {split: root / file for split, file in _SPLIT_FILES.items() if (root / file).exists()}
    if not present:
        raise DatasetError(
            f"{root}: neither TrainSplit.txt nor TestSplit.txt; write them, with a line such as "
            "'sequence1' for every folder seq-01"
        )
    for split, path in present.items():
        for number, line in data_lines(path):
            match = re.fullmatch(r"(?:sequence|seq-)([0-9]{1,4})", line)
            if match is None:
                raise DatasetError(
                    f"{path}: line {number}: {line[:80]!r} names no sequence; write 'sequence1'"
                )
            sequence = f"seq-{int(match[1]):02d}"
            if split_of.setdefault(sequence, split) != split:
                raise DatasetError(
                    f"{path}: line {number}: {sequence} is in TrainSplit.txt too; "
                    "take it out of one of them"
                )
    return split_of


def _add_sequence(
    builder: SceneBuilder, root: Path, sequence: str, split: str, camera: Camera
) -> None:
    images: dict[str, str] = {}
    poses: set[str] = set()
    for file in (root / sequence).glob("frame-*"):
        frame, _, suffix = file.name.partition(".")
        if f".{suffix}" in _IMAGE_SUFFIXES:
            images[frame] = file.name
        elif suffix == "pose.txt":
            poses.add(frame)
    for frame in sorted(images.keys() | poses):
        image = images.get(frame, f"{frame}.color.png")
        pose = partial(_read_pose, root / sequence / f"{frame}.pose.txt")
        if frame in poses:
            builder.add(f"{sequence}/{image}", split, pose, camera)
        else:
            builder.reject(f"{sequence}/{image}", split, "the pose file is missing")


def _read_pose(path: Path) -> Pose:
    text = read_text(path, _MAX_POSE_BYTES)
    return matrix_to_pose(parse_floats(text, 16).reshape(4, 4))
