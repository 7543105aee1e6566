# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Errors on training images as they come: for the progress display and the history."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mspn_ros import metrics
from mspn_ros.network.coding import PoseCoding
from mspn_ros.training.batches import Batch
from mspn_ros.training.samples import Samples


class TrainingErrors:
    """Of one epoch, on this process's share of the batches; ``extents`` are the scenes'."""

    def __init__(self, extents: list[float], samples: Samples, coding: PoseCoding) -> None:
        self._extents, self._samples, self._coding = np.array(extents), samples, coding
        self._scene: list[Any] = []
        self._position: list[Any] = []
        self._rotation: list[Any] = []

    def add(self, batch: Batch, pose_BP: Tensor) -> tuple[float, float]:
        """Take in a batch and its (B, P) output, on the CPU.

        Returns the batch's median position error in percent of extent, and of rotation in degrees.
        """
        scene_B = self._samples.scene_S[batch.index_B]
        position, quaternion = self._coding.decode(pose_BP, scene_B)
        true = self._samples.position_S3[batch.index_B].numpy()
        self._scene.append(scene_B.numpy())
        self._position.append(metrics.position_error(position.numpy(), true))
        self._rotation.append(
            metrics.rotation_error_deg(quaternion.numpy(), batch.quaternion_B4.numpy())
        )
        percent = 100 * self._position[-1] / self._extents[self._scene[-1]]
        return float(np.median(percent)), float(np.median(self._rotation[-1]))

    def by_scene(self, names: list[str]) -> list[dict[str, Any]]:
        """Medians of the epoch, since its start or since it was resumed."""
        if not self._scene:
            return []
        scene, position, rotation = map(
            np.concatenate, (self._scene, self._position, self._rotation)
        )
        return [
            {
                "scene": name,
                "median_position": float(np.median(position[scene == i])),
                "median_rotation_deg": float(np.median(rotation[scene == i])),
            }
            for i, name in enumerate(names)
            if (scene == i).any()
        ]
