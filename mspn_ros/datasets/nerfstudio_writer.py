# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write posed images as nerfstudio's ``transforms_{train,test}.json``; nerfstudio.py reads them.

Beside what nerfstudio knows, a file says ``metres_per_unit``, and a frame its ``stamp_s``. Other
readers of the format pass over keys that they do not know.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspn_ros.datasets.nerfstudio import DISTORTION_TERMS, OPENGL_TO_OPENCV, RATIONAL_MODEL
from mspn_ros.geometry import pose_to_matrix
from mspn_ros.records import DatasetError, Intrinsics, Pose

# Up to k3 a lens is nerfstudio's own OPENCV; the rational one has COLMAP's name for it, so that
# whoever does not know it says so instead of taking k4 for the factor of r^8.
_PLAIN_MODEL, _PLAIN_TERMS = "OPENCV", DISTORTION_TERMS[:5]

# Beside them: what the dataset was made of and how.
PROVENANCE = "provenance.json"


@dataclass(frozen=True, slots=True)
class WrittenFrame:
    """One image of the dataset.

    ``file_path`` is relative to the dataset's folder, with forward slashes; its folder is the
    frame's sequence. ``pose`` is camera-to-world, OpenCV's camera axes. ``intrinsics`` are those of
    the image as it lies there, where they are not the same for all frames.
    """

    file_path: str
    pose: Pose
    stamp_s: float | None = None
    intrinsics: Intrinsics | None = None


@contextmanager
def new_dataset(out: Path) -> Iterator[Path]:
    """Yields a folder to fill, which becomes ``out`` when all went well: all of it, or nothing.

    It lies beside ``out``, so that the move is one rename, and is removed if anything is raised.

    Raises:
        DatasetError: ``out`` exists and is no empty folder, or cannot be written.
    """
    out = out.expanduser().absolute()
    if out.exists() and (not out.is_dir() or next(out.iterdir(), None) is not None):
        raise DatasetError(f"{out}: exists already and is not empty; name another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".dataset-") as temporary:
            # One below: a temporary folder is closed to all other users, a dataset is not.
            folder = Path(temporary) / "dataset"
            folder.mkdir()
            yield folder
            folder.rename(out)
    except OSError as error:
        raise DatasetError(
            f"{out}: cannot be written ({error.strerror or error}); check the folder and the disk"
        ) from error


def write_nerfstudio(
    folder: Path,
    split: str,
    frames: Iterable[WrittenFrame],
    camera: Intrinsics | None = None,
    *,
    metres_per_unit: float | None = None,
) -> Path:
    """Write ``folder/transforms_<split>.json`` for images that lie in ``folder`` already.

    ``camera`` is that of all frames that have none of their own. ``metres_per_unit`` is 1 where
    positions are metres, None where their unit is unknown. Returns the file's path.

    Raises:
        ValueError: a number is not finite.
        OSError: the file cannot be written.
    """
    content: dict[str, Any] = {}
    if metres_per_unit is not None:
        content["metres_per_unit"] = metres_per_unit
    written = list(frames)
    cameras = {frame.intrinsics or camera for frame in written}
    common = len(cameras) == 1
    if common and (only := cameras.pop()) is not None:
        content |= _camera_keys(only)
    # With several cameras each frame has all keys of its own, or it would inherit the file's lens.
    content["frames"] = [
        _frame_keys(frame, None if common else frame.intrinsics or camera) for frame in written
    ]
    return write_json(folder / f"transforms_{split}.json", content)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """``content`` as indented JSON; NaN and infinity are a ValueError."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _frame_keys(frame: WrittenFrame, camera: Intrinsics | None) -> dict[str, Any]:
    matrix = pose_to_matrix(frame.pose) @ OPENGL_TO_OPENCV
    keys: dict[str, Any] = {"file_path": frame.file_path, "transform_matrix": matrix.tolist()}
    if frame.stamp_s is not None:
        keys["stamp_s"] = frame.stamp_s
    return keys | (_camera_keys(camera) if camera is not None else {})


def _camera_keys(camera: Intrinsics) -> dict[str, Any]:
    """nerfstudio's names; its principal point counts from the corner of the first pixel."""
    rational = any(camera.distortion[len(_PLAIN_TERMS) :])
    names = DISTORTION_TERMS if rational else _PLAIN_TERMS
    return {
        "camera_model": RATIONAL_MODEL if rational else _PLAIN_MODEL,
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx + 0.5,
        "cy": camera.cy + 0.5,
        "w": camera.width,
        "h": camera.height,
        **dict.fromkeys(names, 0.0),
        **dict(zip(names, camera.distortion, strict=False)),
        **({"focal_assumed": True} if camera.assumed else {}),
    }
