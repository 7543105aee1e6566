# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses of images by structure from motion: starts sfm_process.py, and judges what comes back."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from mspn_ros.datasets.colmap import to_intrinsics
from mspn_ros.geometry import matrix_to_pose
from mspn_ros.records import Array, DatasetError, Intrinsics, Pose

# Radial distortion from one focal length and one term: phones and webcams need no more, and more
# terms drift where a walk shows little depth. OPENCV is for lenses that it does not fit.
CAMERA_MODELS = ("SIMPLE_RADIAL", "RADIAL", "OPENCV")
MISSING = "pycolmap is missing, which finds the poses; run: pip install mspn_ros[sfm]"
# Fewer teach a network nothing, and one model of them proves little.
LEAST_IMAGES = 8
# COLMAP drops observations beyond 4 pixels; where those that are left are this far off on average,
# cameras or lens are wrong.
MOST_ERROR_PX = 2.0
# Below this angle between the rays to a point its depth is a guess (pure rotation).
LEAST_ANGLE_DEG = 2.0
# The cameras' extent against the median distance of what they see.
LEAST_EXTENT = 0.05
# Focal length by the longer side: 11 to 125 degrees of view.
FOCAL_RANGE = (0.26, 5.0)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CameraGroup:
    """Images (names below the folder of images) that share one camera.

    ``focal_px`` is what is known of its focal length, None for a guess; SfM refines both.
    """

    model: str
    width: int
    height: int
    focal_px: float | None
    names: tuple[str, ...]

    def parameters(self) -> list[float] | None:
        """In COLMAP's order, the principal point at the centre, without distortion."""
        if self.focal_px is None:
            return None
        focal, centre = self.focal_px, [self.width / 2, self.height / 2]
        if self.model == "OPENCV":
            return [focal, focal, *centre, 0.0, 0.0, 0.0, 0.0]
        return [focal, *centre, *[0.0] * (2 if self.model == "RADIAL" else 1)]


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """One model: poses in a frame and unit of its own, and the points they were found by.

    ``poses`` and ``cameras`` are by image name. ``points_N3`` have ``colours_N3`` (uint8), mean
    reprojection errors, numbers of images that see them, and the widest angle between those.
    """

    poses: dict[str, Pose]
    cameras: dict[str, Intrinsics]
    points_N3: Array
    colours_N3: npt.NDArray[np.uint8]
    errors_px_N: Array
    track_lengths_N: Array
    angles_deg_N: Array

    @property
    def centres(self) -> Array:
        """Camera centres (M, 3)."""
        return np.array([pose.position for pose in self.poses.values()]).reshape(-1, 3)

    def without(self, names: Collection[str]) -> Reconstruction:
        """The same without some of its images; the points stay."""
        poses = {name: pose for name, pose in self.poses.items() if name not in names}
        cameras = {name: self.cameras[name] for name in poses}
        return replace(self, poses=poses, cameras=cameras)

    def figures(self) -> dict[str, float]:
        """Means over the points: reprojection error (px), track length; median angle (deg)."""
        if not len(self.points_N3):
            return {"points": 0, "reprojection_error_px": 0.0, "track_length": 0.0, "angle_deg": 0}
        weights = self.track_lengths_N
        return {
            "points": len(self.points_N3),
            # Each observation counts alike, as COLMAP counts.
            "reprojection_error_px": float(np.average(self.errors_px_N, weights=weights)),
            "track_length": float(weights.mean()),
            "angle_deg": float(np.median(self.angles_deg_N)),
        }


def version() -> str:
    """pycolmap's; told without importing it."""
    return importlib.metadata.version("pycolmap")


def pair_counts(work: Path) -> dict[str, int]:
    """Pairs of images that match, by COLMAP's name of what relates them (PANORAMIC ...)."""
    return dict(_read_json(work / "pairs.json") or {})


def require_pycolmap() -> None:
    """Find out before hours of work.

    Raises:
        DatasetError: it is not installed.
    """
    if find_spec("pycolmap") is None:
        raise DatasetError(MISSING)


def reconstruct(
    work: Path,
    images: Path,
    groups: Sequence[CameraGroup],
    passes: Sequence[Sequence[str]],
    *,
    features: int,
    threads: int,
    run: int = 0,
    progress: Progress | None = None,
) -> list[Reconstruction]:
    """The models of ``images``, the one with most images first; none where nothing fits together.

    ``passes`` are names in recording order. Each ``run`` reconstructs anew, with random numbers of
    its own, from the matches of the first. What ``work`` holds of the same task is used again.
    ``progress`` is called with (step, done, total).

    Raises:
        DatasetError: pycolmap is missing, or its process fails; its log is ``work/colmap.log``.
    """
    require_pycolmap()
    task = {
        "images": str(images),
        # Lists, as JSON gives them back: it is compared with what was stored.
        "groups": [
            {**asdict(group), "names": list(group.names), "parameters": group.parameters()}
            for group in groups
        ],
        "passes": [list(one) for one in passes],
        "features": features,
    }
    finished = work / f"finished-{run}.json"
    if _read_json(finished) != task:
        finished.unlink(missing_ok=True)
        if _read_json(work / "features.json") != task:
            # Of other images or cameras: nothing of it may be taken for these.
            for stored in ("features.db", "features.votes.json"):
                (work / stored).unlink(missing_ok=True)
            (work / "features.json").write_text(json.dumps(task), encoding="utf-8")
        told = task | {"threads": threads, "run": run}
        (work / "task.json").write_text(json.dumps(told), encoding="utf-8")
        _run_process(work, progress)
        finished.write_text(json.dumps(task), encoding="utf-8")
    models = sorted(work.glob(f"model-{run}-*.npz"), key=lambda path: int(path.stem.split("-")[2]))
    return [_load(path) for path in models]


def check_usable(model: Reconstruction, images: int, least_share: float) -> None:
    """Refuse what would teach wrong poses.

    Raises:
        DatasetError: too few of ``images`` have a pose, the reprojection error is too large, the
            camera only turned, or it hardly moved.
    """
    placed, figures = len(model.poses), model.figures()
    if placed < LEAST_IMAGES or placed < least_share * images:
        raise DatasetError(
            f"only {placed} of {images} frames found their place ({least_share:.0%} and at least "
            f"{LEAST_IMAGES} are needed): the others share too little with them. Record slowly, in "
            "good light, without looking at bare walls, each view overlapping the one before; or "
            "lower --min-motion, or --min-registered if that part is enough"
        )
    if figures["reprojection_error_px"] > MOST_ERROR_PX:
        raise DatasetError(
            f"the mean reprojection error is {figures['reprojection_error_px']:.2f} px, over "
            f"{MOST_ERROR_PX} px: the lens is not modelled well, or things moved. Try "
            "--camera-model OPENCV, or switch off the camera's image stabilization"
        )
    for camera in model.cameras.values():
        relative = camera.fx / max(camera.width, camera.height)
        if not FOCAL_RANGE[0] <= relative <= FOCAL_RANGE[1]:
            raise DatasetError(
                f"the focal length came out as {camera.fx:.0f} px for images of {camera.width}x"
                f"{camera.height}, no camera's: the recording does not determine it. Give "
                "--focal-px, and walk sideways as well as ahead"
            )
    if figures["angle_deg"] < LEAST_ANGLE_DEG:
        raise DatasetError(
            f"points are seen under {figures['angle_deg']:.1f} degrees (median), under "
            f"{LEAST_ANGLE_DEG}: the camera almost only turned, which shows no distances. Walk "
            "while recording, sideways too"
        )
    extent = float(np.linalg.norm(np.ptp(model.centres, axis=0)))
    depth = _median_depth(model)
    if extent < LEAST_EXTENT * depth:
        raise DatasetError(
            f"all cameras lie within {extent / depth:.1%} of the distance of what they see "
            f"({LEAST_EXTENT:.0%} is needed): practically one place. Walk through the scene"
        )


def _median_depth(model: Reconstruction) -> float:
    middle = np.median(model.centres, axis=0)
    return float(np.median(np.linalg.norm(model.points_N3 - middle, axis=1)))


def _run_process(work: Path, progress: Progress | None) -> None:
    # By runpy rather than as a file: Python would put the script's folder first on its path, and
    # modules in it have names that others may have too.
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    script = Path(__file__).with_name("sfm_process.py")
    log = work / "colmap.log"
    said = ""
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", code, str(script), str(work)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                message = json.loads(line)
                said = message.get("error", said)
                if progress is not None and "step" in message:
                    progress(message["step"], message["done"], message["total"])
        except BaseException:
            process.kill()
            raise
        code_returned = process.wait()
    if said:
        raise DatasetError(said)
    if code_returned != 0:
        how = f"signal {-code_returned}" if code_returned < 0 else f"exit code {code_returned}"
        raise DatasetError(
            f"pycolmap's process ended with {how}; its last words are in {log}. Try again with "
            "fewer frames (--max-frames) or smaller ones (--max-side)"
        )


def _load(path: Path) -> Reconstruction:
    try:
        with np.load(path, allow_pickle=False) as stored:
            values: dict[str, Any] = {key: stored[key] for key in stored.files}
    except (ValueError, BadZipFile, EOFError) as error:
        raise DatasetError(f"{path}: is damaged ({error}); delete {path.parent}") from error
    cameras = [
        to_intrinsics(str(model), int(width), int(height), parameters)
        for model, (width, height), parameters in zip(
            values["camera_models"],
            values["camera_sizes"],
            values["camera_parameters"],
            strict=True,
        )
    ]
    names = [str(name) for name in values["names"]]
    bottom = [[0.0, 0.0, 0.0, 1.0]]
    return Reconstruction(
        {
            name: matrix_to_pose(np.concatenate((pose, bottom)))
            for name, pose in zip(names, values["poses"], strict=True)
        },
        {
            name: cameras[int(camera)]
            for name, camera in zip(names, values["camera_of"], strict=True)
        },
        values["points"],
        values["colours"],
        values["errors_px"],
        values["track_lengths"],
        values["angles_deg"],
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
