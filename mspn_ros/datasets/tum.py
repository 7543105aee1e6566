# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TUM RGB-D and plain trajectories: ``rgb.txt`` lists images, ``groundtruth.txt`` poses.

``groundtruth.txt`` lines are ``stamp tx ty tz qx qy qz qw``: camera-to-world, metres, seconds.
The folder is one sequence (all of it for training), or holds ``train/`` and ``test/``, each one
sequence or a folder of sequences.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from mspn_ros.datasets.base import (
    Camera,
    ReaderOptions,
    SceneBuilder,
    SceneData,
    assumed_camera,
    data_lines,
    parse_floats,
)
from mspn_ros.geometry import quaternion_to_pose
from mspn_ros.records import Array, DatasetError, Pose

# TUM's own default for its Kinects under ROS: 525 px at 640x480.
DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH = 525.0, 640
# Images and poses further apart than this are no pair; TUM's own bound.
MAX_STAMP_DIFFERENCE_S = 0.02


class TumReader:
    """Reader of TUM RGB-D sequences."""

    name = "tum"

    def detects(self, root: Path) -> bool:
        """``rgb.txt`` in the folder, in ``train/`` or ``test/``, or one folder below these."""
        return bool(_find_sequences(root))

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """See :class:`Reader`; every image takes the pose nearest in time, within 0.02 s."""
        builder = SceneBuilder(scene, root, root)
        camera = assumed_camera(DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH, options)
        sequences = _find_sequences(root)
        if not sequences:
            raise DatasetError(
                f"{root}: no rgb.txt here, in train/ or in test/; name a TUM sequence's folder"
            )
        for folder, split in sequences:
            _add_sequence(builder, root, folder, split, camera)
        return builder.finish(self.name, 1.0, options)


def _find_sequences(root: Path) -> list[tuple[Path, str]]:
    """(sequence folder, split), sorted by folder within each split."""
    if (root / "rgb.txt").is_file():
        return [(root, "train")]
    return [
        (path.parent, split)
        for split in ("train", "test")
        for pattern in ("rgb.txt", "*/rgb.txt")
        for path in sorted((root / split).glob(pattern))
    ]


def _add_sequence(
    builder: SceneBuilder, root: Path, folder: Path, split: str, camera: Camera
) -> None:
    prefix = folder.relative_to(root).as_posix()
    sequence = folder.name if prefix == "." else prefix
    stamps, poses = _read_trajectory(builder, folder / "groundtruth.txt", sequence, split)
    images: list[tuple[float, str]] = []
    for number, line in data_lines(folder / "rgb.txt"):
        stamp_text, image = (*line.split(maxsplit=1), "")[:2]
        stamp = _parse_stamp(stamp_text)
        if stamp is None or not image:
            builder.reject(
                f"{sequence}/rgb.txt line {number}", split, "malformed: no stamp or file"
            )
        else:
            images.append((stamp, image))
    for stamp, image in sorted(images):
        name = f"{prefix}/{image}"
        nearest = _nearest(stamps, stamp)
        if nearest is None:
            builder.reject(name, split, f"no pose within {MAX_STAMP_DIFFERENCE_S} s of the image")
        else:
            builder.add(name, split, partial(_to_pose, poses[nearest]), camera, sequence, stamp)


def _read_trajectory(
    builder: SceneBuilder, path: Path, sequence: str, split: str
) -> tuple[Array, list[Array]]:
    """Sorted stamps (N,) and N rows of tx ty tz qx qy qz qw; broken lines go to ``builder``."""
    rows: list[Array] = []
    for number, line in data_lines(path):
        try:
            row = parse_floats(line, 8)
            if not math.isfinite(row[0]):
                raise ValueError("malformed: the stamp is no number")
            rows.append(row)
        except ValueError as error:
            builder.reject(f"{sequence}/{path.name} line {number}", split, str(error))
    rows.sort(key=lambda row: float(row[0]))
    return np.array([row[0] for row in rows]), [row[1:] for row in rows]


def _nearest(stamps: Array, stamp: float) -> int | None:
    """Index of the stamp nearest to ``stamp``, None where none is close enough."""
    after = int(np.searchsorted(stamps, stamp))
    candidates = [i for i in (after - 1, after) if 0 <= i < len(stamps)]
    nearest = min(candidates, key=lambda i: abs(stamps[i] - stamp), default=None)
    # Stamps near 1e9 s carry a rounding error of about 1e-7 s.
    if nearest is None or abs(stamps[nearest] - stamp) > MAX_STAMP_DIFFERENCE_S + 1e-6:
        return None
    return nearest


def _to_pose(row: Array) -> Pose:
    return quaternion_to_pose(row[:3], row[3:])


def _parse_stamp(text: str) -> float | None:
    try:
        stamp = float(text)
    except ValueError:
        return None
    return stamp if math.isfinite(stamp) else None
