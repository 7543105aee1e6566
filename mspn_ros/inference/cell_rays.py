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
        # Many scenes share a camera: rays are kept once for each camera, not for each scene.
        self._cameras = list(dict.fromkeys(row.intrinsics for row in rows))
        place = {camera: i for i, camera in enumerate(self._cameras)}
        self._camera_N = torch.tensor([place[row.intrinsics] for row in rows], device=device)
        self._known: dict[tuple[int, int, tuple[Intrinsics | None, ...]], Tensor] = {}

    def __call__(self, shots: Sequence[Shot], scene_B: Tensor) -> Tensor:
        """Rays (B, C, 3) of each image, the scene standing in where its camera is not known."""
        rays = []
        for i, shot in enumerate(shots):
            if shot.camera is not None:
                rays.append(self._of(shot, (shot.camera,)))
            else:
                table_UC3 = self._of(shot, tuple(self._cameras))
                rays.append(table_UC3[self._camera_N[scene_B[i : i + 1]]])
        return torch.cat(rays)

    def _of(self, shot: Shot, cameras: tuple[Intrinsics | None, ...]) -> Tensor:
        """Rays (U, C, 3) of each of the cameras in an image of the shot's size."""
        key = (shot.height, shot.width, cameras)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            chosen = [_fitting(shot, camera) for camera in cameras]
            vectors = [camera_vector(self._view.camera(camera)) for camera in chosen]
            camera_UK = torch.tensor(vectors, dtype=torch.float64)
            pixel_UC2 = cell_centres(self._view.size, self._cells).expand(len(chosen), -1, -1)
            self._known[key] = pixel_rays(camera_UK, pixel_UC2).float().to(self._device)
        return self._known[key]
