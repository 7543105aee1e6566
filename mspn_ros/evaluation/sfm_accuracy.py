# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How far poses found by ``mspn dataset from-video`` are from the given poses of known scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros import metrics
from mspn_ros.datasets import read_scene
from mspn_ros.datasets.base import SceneData
from mspn_ros.datasets.from_video import FromVideoConfig, make_dataset
from mspn_ros.datasets.nerfstudio_writer import PROVENANCE
from mspn_ros.datasets.sfm import Progress
from mspn_ros.datasets.video_frames import PhotoSource, Sources
from mspn_ros.evaluation.reconstruction_plot import draw_reconstruction
from mspn_ros.geometry import fit_similarity
from mspn_ros.records import DatasetError, Frame

HEADER = ("scene", "in the dataset", "position", "90 %", "largest", "rotation", "px", "focal", "s")


@dataclass(frozen=True, slots=True)
class SfmAccuracy:
    """Errors after one similarity transform (least squares over all posed frames).

    Positions in % of the extent of the given training positions (metrics.position_extent),
    rotations in degrees, medians unless named otherwise. ``focal_ratio`` is the focal length found
    by the given one; ``refused`` is why there is nothing.
    """

    scene: str
    frames: int
    posed: int = 0
    position_percent: float | None = None
    position_p90_percent: float | None = None
    position_largest_percent: float | None = None
    rotation_deg: float | None = None
    reprojection_error_px: float | None = None
    focal_ratio: float | None = None
    seconds: float | None = None
    refused: str = ""

    def cells(self) -> tuple[str, ...]:
        """A row under HEADER."""
        numbers = (
            (self.position_percent, "{:.2f} %"),
            (self.position_p90_percent, "{:.2f} %"),
            (self.position_largest_percent, "{:.2f} %"),
            (self.rotation_deg, "{:.2f}°"),
            (self.reprojection_error_px, "{:.2f}"),
            (self.focal_ratio, "{:.3f}"),
            (self.seconds, "{:.0f}"),
        )
        shown = ["-" if value is None else layout.format(value) for value, layout in numbers]
        return (self.scene, f"{self.posed} of {self.frames}", *shown)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure_sfm(
    scene: SceneData, output: Path, config: FromVideoConfig, progress: Progress | None = None
) -> SfmAccuracy:
    """Forget the poses of ``scene``, find them anew in ``output``, and compare.

    Training and test images are a pass each. A dataset that is there already is compared as it is.

    Raises:
        DatasetError: two images of a split have one file name, so that poses cannot be told apart.
    """
    passes = {split: scene.split(split) for split in ("train", "test")}
    for split, frames in passes.items():
        if len({frame.image_path.name for frame in frames}) < len(frames):
            raise DatasetError(f"{scene.root}: images of one name in {split}; measure one sequence")
    if not passes["train"]:
        raise DatasetError(f"{scene.root}: no frames for training; check its split")
    sources = {
        split: [PhotoSource([frame.image_path for frame in frames], scene.root, split)]
        for split, frames in passes.items()
        if frames
    }
    out = output / scene.name
    if not (out / PROVENANCE).is_file():
        both = Sources(sources.get("train", []), sources.get("test", []))
        try:
            # Every image is compared: none lies between blocks.
            every = replace(config, test_share=0.0)
            make_dataset(both, out, every, progress=progress, draw=draw_reconstruction)
        except DatasetError as error:
            return SfmAccuracy(scene.name, len(scene.frames), refused=str(error))
    return _compare(scene, passes, out)


def _compare(scene: SceneData, passes: Mapping[str, Sequence[Frame]], out: Path) -> SfmAccuracy:
    record = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
    truth = {(split, f.image_path.name): f for split, frames in passes.items() for f in frames}
    found = read_scene(out, scene.name).frames
    given = [truth[f.split, record["origins"][f.name]] for f in found]
    own, true = (np.array([f.pose.position for f in frames]) for frames in (found, given))
    try:
        similarity = fit_similarity(own, true)
    except ValueError as error:
        return SfmAccuracy(scene.name, len(scene.frames), len(found), refused=str(error))
    moved = [similarity.apply(f.pose.position, f.pose.quaternion) for f in found]
    extent = metrics.position_extent(np.array([f.pose.position for f in passes["train"]]))
    percent = 100 * metrics.position_error(np.array([p for p, _ in moved]), true) / extent
    angles = metrics.rotation_error_deg(
        np.array([q for _, q in moved]), np.array([f.pose.quaternion for f in given])
    )
    cameras = found[0].intrinsics, given[0].intrinsics
    return SfmAccuracy(
        scene.name,
        len(scene.frames),
        len(found),
        float(np.median(percent)),
        float(np.percentile(percent, 90)),
        float(percent.max()),
        float(np.median(angles)),
        record["reprojection_error_px"],
        None if None in cameras else cameras[0].fx / cameras[1].fx,  # type: ignore[union-attr]
        record["seconds"]["all"],
    )
