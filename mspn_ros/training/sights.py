# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the landmarks of each training image's scene are, as the network is shown the image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mspn_ros.geometry import quaternion_to_matrix
from mspn_ros.network.cells import PLACE_STRIDE
from mspn_ros.network.losses import FOUND, MISSED, OUTSIDE, UNKNOWN, Sights
from mspn_ros.training.augment import Draw
from mspn_ros.training.cache import Progress
from mspn_ros.training.landmarks import cached_landmarks
from mspn_ros.training.samples import Samples
from mspn_ros.view import project

# Landmarks this share of a side beyond the edge are outside; nearer ones may show in part.
_MARGIN = 0.06


@dataclass(frozen=True)
class SceneLandmarks:
    """Landmarks of N scenes, at most K each, and in which samples they were found.

    ``point_NK3`` in the scenes' frames and units, float64; zeros from ``count_N`` on.
    ``found_SK``: by the landmarks of the sample's own scene.
    """

    point_NK3: Tensor
    count_N: Tensor
    found_SK: Tensor

    def of_scene(self, scene: int) -> Tensor:
        """One scene's points, (count, 3)."""
        return self.point_NK3[scene, : int(self.count_N[scene])]

    def sights(self, samples: Samples, index_B: Tensor, drawn: Draw, size: int) -> Sights:
        """Of the images ``index_B`` as they were drawn, squares of ``size`` pixels."""
        scene_B = samples.scene_S[index_B]
        rotation_B33 = quaternion_to_matrix(samples.quaternion_S4[index_B].double())
        offset_BK3 = self.point_NK3[scene_B] - samples.position_S3[index_B, None].double()
        pixel_BK2, ahead_BK = project(samples.camera_SK[index_B], offset_BK3 @ rotation_B33)
        pixel_BK2 = drawn.targets(pixel_BK2)
        margin = _MARGIN * size
        inside_BK = ahead_BK & _within(pixel_BK2, size, 0.0)
        around_BK = ahead_BK & _within(pixel_BK2, size, margin)
        present_BK = torch.arange(self.found_SK.shape[1]) < self.count_N[scene_B, None]
        state_BK = torch.full(inside_BK.shape, UNKNOWN, dtype=torch.uint8)
        state_BK[present_BK & ~around_BK] = OUTSIDE
        state_BK[present_BK & inside_BK] = MISSED
        state_BK[self.found_SK[index_B] & inside_BK] = FOUND
        place_BK2 = (pixel_BK2 + 0.5) / PLACE_STRIDE - 0.5
        return Sights(place_BK2.float(), state_BK)


def find_landmarks(
    samples: Samples, scenes: int, count: int, cache: Path | None, tell: Progress | None = None
) -> SceneLandmarks:
    """Choose up to ``count`` landmarks for each scene from its samples.

    ``cache`` is the folder where they are kept for the next run, ``tell`` hears of frames done.

    Raises:
        ImageError: an image cannot be read.
        ConfigError: the cache cannot be written.
    """
    point_NK3 = torch.zeros(scenes, count, 3, dtype=torch.float64)
    count_N = torch.zeros(scenes, dtype=torch.int64)
    found_SK = torch.zeros(len(samples), count, dtype=torch.bool)
    done = 0
    for scene in range(scenes):
        members = samples.of_scene(scene)
        frames = [samples.frames[i] for i in members.tolist()]

        def on(frame: int, _: int, before: int = done) -> None:
            if tell:
                tell(before + frame, len(samples))

        chosen = cached_landmarks(frames, count, cache, on)
        found = len(chosen.point_K3)
        point_NK3[scene, :found] = torch.from_numpy(chosen.point_K3)
        count_N[scene] = found
        found_SK[members, :found] = torch.from_numpy(chosen.found_SK)
        done += len(frames)
    return SceneLandmarks(point_NK3, count_N, found_SK)


def _within(pixel_BK2: Tensor, size: int, margin: float) -> Tensor:
    return ((pixel_BK2 > -0.5 - margin) & (pixel_BK2 < size - 0.5 + margin)).all(2)
