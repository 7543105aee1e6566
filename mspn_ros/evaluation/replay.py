# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Replay of a bag without ROS: every image through the Localizer, compared with ground truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mspn_ros.datasets.bag_messages import BagCamera, BagImage, camera_at
from mspn_ros.datasets.bags import BagReader
from mspn_ros.datasets.trajectory import Trajectory
from mspn_ros.evaluation.answers import Answer
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.scene_filter import SceneFilter
from mspn_ros.records import (
    UNKNOWN_SCENE,
    UNKNOWN_SCENE_ID,
    BagError,
    ImageError,
    ImageHW3,
    Intrinsics,
    Pose,
    PoseEstimate,
    SceneRow,
)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """True scene and pose by stamp, from the trajectories of a bag."""

    trajectories: dict[str, Trajectory]

    def at(self, stamp_ns: int) -> tuple[str, Pose | None]:
        """(scene, pose) at a stamp; ("", None) where no trajectory covers it."""
        for scene, trajectory in self.trajectories.items():
            pose = trajectory.interpolate(stamp_ns)
            if pose is not None:
                return scene, pose
        return "", None


def ground_truth(bag: BagReader, rows: Sequence[SceneRow], scene: str | None) -> GroundTruth:
    """The bag's ground truth by scene name.

    A pose's ``frame_id`` names its scene (as scene name or as the scene's frame_id); ``scene``
    says to which scene the poses belong where their frame is another, such as ``map``.

    Raises:
        BagError: poses in a frame of no scene, or in several frames while ``scene`` is given.
    """
    names = {row.frame_id: row.name for row in rows} | {row.name: row.name for row in rows}
    found: dict[str, Trajectory] = {}
    if bag.pose_topic is None:
        return GroundTruth(found)
    trajectories = bag.ground_truth()
    if scene is not None:
        if scene not in names:
            raise BagError(f"scene {scene!r} is not in the model; it has {', '.join(names)}")
        if len(trajectories) != 1:
            raise BagError(
                f"{bag.path}: {bag.pose_topic} has poses in frames {', '.join(trajectories)}; "
                "--scene fits a bag with one frame only"
            )
        return GroundTruth({names[scene]: next(iter(trajectories.values()))})
    for frame_id, trajectory in trajectories.items():
        if frame_id not in names:
            raise BagError(
                f"{bag.path}: {bag.pose_topic} has poses in frame {frame_id!r}, which is no "
                f"scene's; the model has {', '.join(names)}. Pass --scene, or --pose-topic none."
            )
        found[names[frame_id]] = trajectory
    return GroundTruth(found)


def _camera(cameras: Sequence[BagCamera], image: BagImage, picture: ImageHW3) -> Intrinsics | None:
    """The camera that the bag names for an image, if it can be the image's."""
    found = camera_at(cameras, image.log_time_ns)
    height, width = picture.shape[:2]
    return found.intrinsics if found and found.intrinsics.fits(width, height) else None


def replay_offline(
    bag: BagReader,
    localizer: Localizer,
    truth: GroundTruth,
    progress: Callable[[int, int], None] | None = None,
    scene_filter: float = 0.0,
    min_margin: float = 0.0,
) -> tuple[list[Answer], dict[str, int]]:
    """Every image of the bag, in recorded order, one at a time as the node does.

    ``scene_filter`` and ``min_margin`` are as the node's parameters.
    Returns answers and counts of dropped frames: ``rejected`` images could not be decoded.
    Deterministic; as fast as the machine allows.
    """
    answers: list[Answer] = []
    counts = {"rejected": 0}
    cameras, scenes = bag.cameras(), SceneFilter(scene_filter)
    for number, image in enumerate(bag.images(), 1):
        scene, pose = truth.at(image.stamp_ns)
        started = time.perf_counter()
        try:
            picture = image.decode()
            camera = _camera(cameras, image, picture)
            prior = scenes.prior(image.stamp_ns / 1e9, len(localizer.rows))
            (estimate,) = localizer.localize(
                [picture], cameras=[camera], prior=prior, min_margin=min_margin
            )
            scenes.take(image.stamp_ns / 1e9, estimate.probabilities)
        except ImageError as error:
            counts["rejected"] += 1
            estimate = PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason=str(error))
        latency = 1e3 * (time.perf_counter() - started)
        stamp_s = image.stamp_ns / 1e9
        answers.append(Answer(str(image.stamp_ns), scene, stamp_s, pose, estimate, latency))
        if progress:
            progress(number, bag.image_count)
    return answers, counts
