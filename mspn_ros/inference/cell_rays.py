# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Along which rays the cells of an image look: by its own camera, or the best guess of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mspn_ros.records import ConfigError, Intrinsics, SceneRow
from mspn_ros.view import View, assumed_camera, camera_vector, cell_centres, pixel_rays

# Image sizes and cameras that are remembered; a robot has a handful.
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Shot:
    """An image's size as it came, and its camera where that is known."""

    height: int
    width: int
    camera: Intrinsics | None = None

    def __post_init__(self) -> None:
        if self.camera is not None and not self.camera.fits(self.width, self.height):
            raise ConfigError(
                f"a camera of {self.camera.width}x{self.camera.height} pixels cannot have taken "
                f"an image of {self.width}x{self.height}; pass the intrinsics of this image"
            )


def stand_in(shot: Shot, row: SceneRow) -> Intrinsics:
    """The camera that an image is taken to be of, in its pixels: its own, the scene's, a guess."""
    return _fitting(shot, shot.camera or row.intrinsics)


def _fitting(shot: Shot, camera: Intrinsics | None) -> Intrinsics:
    if camera is None or not camera.fits(shot.width, shot.height):
        return assumed_camera(shot.width, shot.height)
    return camera.scaled_to(shot.width, shot.height)


class CellRays:
    """Rays of the cells, in the camera's axes.

    Where an image's camera is not known, that of the training frames of the scene stands in:
    a robot mostly comes back with the camera that it was there with. Where that does not fit the
    image's shape, or is not known either, it is ``view.assumed_camera``.
    """

    def __init__(
        self, rows: Sequence[SceneRow], view: View, cells: int, device: torch.device
    ) -> None:
        self._view, self._cells, self._device = view, cells, device
        own = [row.intrinsics for row in rows]
        # Those of the training frames, each once, and which of them is a row's.
        self.cameras = list(dict.fromkeys(own))
        self.camera_of_place = [self.cameras.index(camera) for camera in own]
        self._known: dict[tuple[int, int, Intrinsics | None], Tensor] = {}

    def __call__(self, shots: Sequence[Shot], places: Sequence[int]) -> Tensor:
        """Rays (B, C, 3) of each image; the row at its place stands in where it has no camera."""
        rays = [
            self.of(shot, self.cameras[self.camera_of_place[place]])
            for shot, place in zip(shots, places, strict=True)
        ]
        return torch.stack(rays)

    def of(self, shot: Shot, instead: Intrinsics | None) -> Tensor:
        """Rays (C, 3) of an image; ``instead`` stands in for its camera where that is not known."""
        height, width, camera = shot.height, shot.width, shot.camera or instead
        key = (height, width, camera)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            vector = camera_vector(self._view.camera(_fitting(Shot(height, width), camera)))
            camera_1K = torch.tensor([vector], dtype=torch.float64)
            pixel_1C2 = cell_centres(self._view.size, self._cells).expand(1, -1, -1)
            self._known[key] = pixel_rays(camera_1K, pixel_1C2)[0].float().to(self._device)
        return self._known[key]
