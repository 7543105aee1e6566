# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard curves of a run: ``tensorboard --logdir runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mspn_ros.records import MspnError

FOLDER = "tensorboard"
# A point per step would make files of long runs slow to open.
_EVERY_STEPS = 20


class Curves:
    """Losses, rates and errors in ``<output>/tensorboard``; of a resumed run, from there on."""

    def __init__(self, output: Path, first_step: int) -> None:
        # TensorBoard takes a second to import; who only reads this package need not wait.
        from torch.utils.tensorboard import SummaryWriter

        self._folder = output / FOLDER
        # What an interrupted run wrote after its checkpoint is written again.
        self._writer = SummaryWriter(str(self._folder), purge_step=first_step + 1)

    def step(self, number: int, loss: float, images_per_second: float) -> None:
        """Loss and speed of a step; ``number`` counts from the start of the run."""
        if number % _EVERY_STEPS == 0:
            self._add("step/loss", loss, number)
            self._add("step/images_per_second", images_per_second, number)

    def epoch(self, number: int, entry: dict[str, Any]) -> None:
        """All numbers of a history entry, at step ``number``."""
        for key, value in entry.items():
            if isinstance(value, int | float):
                self._add(f"epoch/{key}", value, number)
                continue
            for scene in value:
                for name in ("median_position", "median_rotation_deg", "scene_accuracy"):
                    if name in scene:
                        tag = f"{key}/{scene['scene']}/{name}"
                        self._add(tag, scene[name], number)
        self._writer.flush()

    def _add(self, tag: str, value: float, number: int) -> None:
        try:
            self._writer.add_scalar(tag, value, number)
        except OSError as error:
            raise MspnError(
                f"{self._folder}: curves cannot be written ({error.strerror}); free space, then "
                "go on with --resume"
            ) from error

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
