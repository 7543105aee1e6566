# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""All checks of a scene before training, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.convention_check import PAIRS, ConventionCheck, check_conventions
from mspn_ros.evaluation.image_checks import ImageChecks, check_images
from mspn_ros.evaluation.pose_checks import (
    Copies,
    Coverage,
    PoseChecks,
    check_poses,
    find_copies,
    measure_coverage,
)
from mspn_ros.records import Frame

# Shows what goes on: called with a text, it gives update(done, total).
Bar = Callable[[str], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True, slots=True)
class SceneChecks:
    """What was found; ``copies``, ``conventions``, ``images`` are None where no pixels were read.

    ``conventions`` has a check of train and test, on the frames whose intrinsics are known;
    ``coverage`` is None without frames of both splits.
    """

    poses: PoseChecks
    coverage: Coverage | None
    copies: tuple[Copies, ...] | None
    conventions: tuple[ConventionCheck, ...] | None
    images: ImageChecks | None

    def to_json(self, scene: SceneData) -> dict[str, Any]:
        """Plain values; lengths in the scene's unit, angles in degrees."""
        return {
            "poses": asdict(self.poses),
            "coverage": _coverage_json(self.coverage, scene.split("train"), scene.split("test")),
            "copies": None if self.copies is None else [asdict(group) for group in self.copies],
            "conventions": None
            if self.conventions is None
            else [check.to_json() for check in self.conventions],
            "images": _images_json(self.images),
        }


def check_scene(scene: SceneData, bar: Bar, headers_only: bool = False) -> SceneChecks:
    """Run all checks; with ``headers_only`` those that need no pixels.

    Images are sampled with fixed seeds: the same dataset gives the same answer.
    """
    poses = check_poses(scene)
    coverage = measure_coverage(scene.split("train"), scene.split("test"))
    if headers_only:
        return SceneChecks(poses, coverage, None, None, None)
    with bar(f"{scene.name}: equal images") as update:
        copies = tuple(find_copies(scene, update))
    conventions = []
    for split, count in (("train", PAIRS), ("test", PAIRS // 2)):
        frames = [frame for frame in scene.split(split) if frame.intrinsics is not None]
        if not frames:
            continue
        with bar(f"{scene.name}: poses against images, {split}") as update:
            conventions.append(
                check_conventions(frames, split, scene.format, count, progress=update)
            )
    with bar(f"{scene.name}: blur and exposure") as update:
        images = check_images(scene, progress=update)
    return SceneChecks(poses, coverage, copies, tuple(conventions), images)


def _coverage_json(
    coverage: Coverage | None, train: Sequence[Frame], test: Sequence[Frame]
) -> dict[str, Any] | None:
    if coverage is None:
        return None
    far = np.flatnonzero(coverage.far).tolist()
    return {
        "nearest_frame_position": coverage.oracle[0],
        "nearest_frame_deg": coverage.oracle[1],
        "mean_pose_position": coverage.mean[0],
        "mean_pose_deg": coverage.mean[1],
        "beyond": [
            {
                "name": test[i].name,
                "nearest": train[coverage.nearest[i]].name,
                "distance": float(coverage.distance[i]),
                "angle_deg": float(coverage.angle_deg[i]),
            }
            for i in far
        ],
    }


def _images_json(images: ImageChecks | None) -> dict[str, Any] | None:
    if images is None:
        return None
    return {
        "looked": len(images.looked),
        **{
            kind: [
                {"name": q.frame.name, "sharpness": q.sharpness, "clipped": q.clipped}
                for q in images.with_verdict(kind)
            ]
            for kind in ("blurred", "exposure")
        },
    }
