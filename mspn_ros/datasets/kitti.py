# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""KITTI odometry (Geiger et al. 2012): ``sequences/NN/image_2`` and ``poses/NN.txt``.

A line of poses is a 3x4 matrix from camera 0 to the sequence's first camera 0, in metres. Every
sequence therefore has an origin of its own and nothing tells how two of them lie to each other:
one scene is one sequence. A folder with several of them is refused rather than mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mspn_ros.datasets.base import (
    Camera,
    ReaderOptions,
    SceneBuilder,
    SceneData,
    assumed_camera,
    checked_intrinsics,
    data_lines,
    parse_floats,
    read_name_lists,
)
from mspn_ros.geometry import matrix_to_pose
from mspn_ros.records import Array, DatasetError, Intrinsics, Pose

# Focal length of the rectified cameras of sequences 00-02; the others differ by 2 %.
DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH = 718.856, 1241
# Colour first, left first.
_CAMERAS = ("image_2", "image_0", "image_3", "image_1")


class KittiReader:
    """Reader of one KITTI odometry sequence.

    The root is a sequence folder (``sequences/07``; poses at ``../../poses/07.txt`` or in its own
    ``poses.txt``), or a folder whose ``sequences/`` holds just one with poses. ``train.txt`` and
    ``test.txt`` in the sequence folder list file names of frames (``000123.png``); without
    lists every frame is for training. Positions are those of the camera that took the images.
    """

    name = "kitti"

    def detects(self, root: Path) -> bool:
        """A sequence folder with poses, or ``sequences/`` beside ``poses/``."""
        return bool(_find_sequences(root)) or (
            (root / "sequences").is_dir() and (root / "poses").is_dir()
        )

    def read(self, root: Path, scene: str, options: ReaderOptions) -> SceneData:
        """See :class:`Reader`; several sequences under one root are an error."""
        sequence = _only_sequence(root)
        builder = SceneBuilder(scene, root, sequence.folder)
        shift, camera = _read_camera(builder, sequence, options)
        split_of = read_name_lists(sequence.folder)
        # By line number, so that an empty line moves no pose to another image.
        poses = {number - 1: line for number, line in data_lines(sequence.poses)}
        stamps = _read_times(sequence.folder / "times.txt")
        images = {
            int(path.stem): path.name
            for path in (sequence.folder / sequence.images).glob("*.*")
            if path.suffix in (".png", ".jpg") and path.stem.isdecimal() and len(path.stem) <= 9
        }
        unlisted = 0
        for index in sorted(images.keys() | poses.keys()):
            file = images.get(index, f"{index:06d}.png")
            split = "train" if split_of is None else split_of.pop(file, None)
            if split is None:
                unlisted += 1
                continue
            name = f"{sequence.images}/{file}"
            if index not in poses:
                builder.reject(name, split, f"{sequence.poses.name} has no line for it")
                continue
            pose = partial(_to_pose, poses[index], shift)
            builder.add(name, split, pose, camera, sequence.folder.name, stamps.get(index))
        for file, split in (split_of or {}).items():
            builder.reject(file, split, "listed, but there is no such frame")
        if unlisted:
            builder.note(f"{unlisted} frames are in no list and were left out")
        return builder.finish(self.name, 1.0, options)


@dataclass(frozen=True, slots=True)
class _Sequence:
    folder: Path
    images: str
    poses: Path


def _find_sequences(root: Path) -> list[_Sequence]:
    """The root itself, or those in ``sequences/``, as far as they have images and poses."""
    folders = [root, *sorted((root / "sequences").glob("*"))]
    found = []
    for folder in folders:
        images = next((name for name in _CAMERAS if (folder / name).is_dir()), None)
        places = (folder / "poses.txt", folder.parent.parent / "poses" / f"{folder.name}.txt")
        poses = next((path for path in places if path.is_file()), None)
        if images is not None and poses is not None:
            found.append(_Sequence(folder, images, poses))
    return found


def _only_sequence(root: Path) -> _Sequence:
    found = _find_sequences(root)
    if not found:
        raise DatasetError(
            f"{root}: no image_2 or image_0 folder with poses; name a sequence folder such as "
            "sequences/07, with poses/07.txt two folders up or poses.txt in it"
        )
    if len(found) > 1:
        names = ", ".join(sequence.folder.name for sequence in found)
        raise DatasetError(
            f"{root}: sequences {names} have no common origin and cannot be one scene; name one, "
            f"such as {found[0].folder}"
        )
    return found[0]


def _read_camera(
    builder: SceneBuilder, sequence: _Sequence, options: ReaderOptions
) -> tuple[Array, Camera]:
    """(camera centre in camera 0's frame (3,), camera); from P0..P3 of ``calib.txt``.

    P = K [I | t] projects from camera 0's frame, so the centre is -K^-1 (fourth column).
    """
    number = sequence.images[-1]
    path = sequence.folder / "calib.txt"
    if not path.is_file():
        if number != "0":
            builder.note("no calib.txt: positions are camera 0's, up to 0.5 m beside the images'")
        return np.zeros(3), assumed_camera(DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH, options)
    for line_number, line in data_lines(path):
        key, _, values = line.partition(":")
        if key != f"P{number}":
            continue
        try:
            projection = parse_floats(values, 12).reshape(3, 4)
            k = projection[:, :3]
            intrinsics = partial(_intrinsics, k)
            intrinsics(1, 1)
            return np.asarray(-np.linalg.solve(k, projection[:, 3]), np.float64), intrinsics
        except ValueError as error:
            raise DatasetError(f"{path}: line {line_number}: {error}; mend the file") from error
    raise DatasetError(f"{path}: no line P{number}: for {sequence.images}; mend the file")


def _intrinsics(k: Array, width: int, height: int) -> Intrinsics:
    # calib.txt states no image size: it holds for the images as they lie.
    return checked_intrinsics((k[0, 0], k[1, 1]), (k[0, 2], k[1, 2]), (width, height))


def _to_pose(line: str, shift: Array) -> Pose:
    matrix = parse_floats(line, 12).reshape(3, 4)
    pose = matrix_to_pose(matrix)
    return replace(pose, position=pose.position + matrix[:, :3] @ shift)


def _read_times(path: Path) -> dict[int, float]:
    """Frame index -> seconds since the sequence's start; empty without the file."""
    if not path.is_file():
        return {}
    try:
        return {number - 1: float(parse_floats(line, 1)[0]) for number, line in data_lines(path)}
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; mend the file or take it away") from error
