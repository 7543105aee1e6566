# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an answer was made of: votes and sightings, in the image and in the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mspn_ros.geometry import quaternion_to_matrix
from mspn_ros.inference.cell_rays import Shot, stand_in
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.scene_head import Reading
from mspn_ros.records import Array, SceneRow
from mspn_ros.view import camera_vector, project


@dataclass(frozen=True)
class Evidence:
    """Of one image, all in the scene's frame and unit, or in the image's pixels (x, y).

    ``position`` (3,) and ``rotation`` (3, 3), camera to scene. ``centre_C3``: where each cell
    votes that the camera is. ``point_M3``: the landmarks that the pose was made of, ``weight_M``
    within 0 to 1, where they were seen ``seen_M2``, and where the pose says that they are
    ``expected_M2``; no rows for heads without landmarks.
    """

    scene: str
    position: Array
    rotation: Array
    centre_C3: Array
    point_M3: Array
    weight_M: Array
    seen_M2: Array
    expected_M2: Array


def gather_evidence(
    coding: PoseCoding, reading: Reading, scene: int, row: SceneRow, shot: Shot
) -> Evidence:
    """Decode the first image's reading; ``scene`` is the place of ``row`` in the coding."""
    assert reading.votes is not None
    position, quaternion = coding.decode(
        reading.pose_BP[:1], torch.tensor([scene], device=reading.pose_BP.device)
    )
    rotation = quaternion_to_matrix(quaternion[0]).cpu()
    camera = torch.tensor([camera_vector(stand_in(shot, row))], dtype=torch.float64)
    point, ray = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)
    weight = torch.zeros(0)
    if reading.seen is not None:
        used = reading.seen.weight_BM[0] > 0
        point = coding.decode_points(reading.seen.point_BM3[0, used], scene).cpu()
        ray, weight = reading.seen.ray_BM3[0, used].double().cpu(), reading.seen.weight_BM[0, used]
    seen, _ = project(camera, ray[None])
    expected, _ = project(camera, ((point - position[0].cpu()) @ rotation)[None])
    return Evidence(
        row.name,
        position[0].cpu().numpy(),
        rotation.numpy(),
        coding.decode_points(reading.votes.centre_BC3[0], scene).cpu().numpy(),
        point.numpy(),
        np.asarray(weight.cpu().numpy(), np.float64),
        seen[0].numpy(),
        expected[0].numpy(),
    )
