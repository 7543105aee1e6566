# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training samples: poses and labels of frames beside their cached images; validation blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mspn_ros.datasets.base import SceneData
from mspn_ros.images import image_size
from mspn_ros.records import BadFrame, DatasetError, Frame, Pose
from mspn_ros.training.cache import ImagePack, Progress, cache_folder, open_pack
from mspn_ros.training.config import ValidationConfig
from mspn_ros.view import View, assumed_camera, camera_vector, cell_centres, pixel_rays


@dataclass(frozen=True)
class Samples:
    """Frames of all scenes with their resized images (``View.resized``).

    In the order of ``frames``: ``pack_S`` and ``first_S`` say in which of ``packs`` (P, 3) and
    at which pixel an image starts, ``size_S2`` is its (height, width); ``scene_S``;
    ``position_S3`` in the scenes' units; ``quaternion_S4`` xyzw; ``camera_SK`` is
    ``view.camera_vector`` of the resized image, ``camera_known_S`` whether the dataset says so or
    it is ``view.assumed_camera``.
    """

    frames: tuple[Frame, ...]
    packs: tuple[Tensor, ...]
    pack_S: Tensor
    first_S: Tensor
    size_S2: Tensor
    scene_S: Tensor
    position_S3: Tensor
    quaternion_S4: Tensor
    camera_SK: Tensor
    camera_known_S: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def of_scene(self, scene: int) -> Tensor:
        """Indices of one scene's samples."""
        return torch.nonzero(self.scene_S == scene)[:, 0]

    @property
    def pixel_bytes(self) -> int:
        """Size of all images."""
        return int(self.size_S2.prod(1).sum()) * 3

    def moved_to(self, device: torch.device) -> Samples:
        """The same samples with their images, and no others, in one pack on ``device``."""
        area_S = self.size_S2.prod(1)
        first_S = area_S.cumsum(0) - area_S
        pixels = torch.empty(int(area_S.sum()), 3, dtype=torch.uint8, device=device)
        for i, (start, area) in enumerate(zip(first_S.tolist(), area_S.tolist(), strict=True)):
            source = self.packs[int(self.pack_S[i])]
            offset = int(self.first_S[i])
            pixels[start : start + area] = source[offset : offset + area].to(device)
        return replace(self, packs=(pixels,), pack_S=torch.zeros_like(first_S), first_S=first_S)

    def crops(self, index_B: Tensor, top_B: Tensor, left_B: Tensor, size: int) -> Tensor:
        """``size`` x ``size`` windows: (B, size, size, 3) uint8 on the images' device."""
        pack = self.packs[0]
        if pack.device.type != "cpu":
            # moved_to has put all images into one pack.
            width_B = self.size_S2[index_B, 1]
            start_B = self.first_S[index_B] + top_B * width_B + left_B
            return gather_windows(pack, start_B.to(pack.device), width_B.to(pack.device), size)
        corners = zip(index_B.tolist(), top_B.tolist(), left_B.tolist(), strict=True)
        return torch.stack(
            [self._image(i)[top : top + size, left : left + size] for i, top, left in corners]
        )

    def _image(self, i: int) -> Tensor:
        (height, width), first = self.size_S2[i].tolist(), int(self.first_S[i])
        pixels = self.packs[int(self.pack_S[i])][first : first + height * width]
        return pixels.view(height, width, 3)

    def central_rays(self, index_B: Tensor, size: int, cells: int) -> Tensor:
        """Rays (B, C, 3) of the cells of the central windows, in the camera's axes; float32."""
        corner_B2 = ((self.size_S2[index_B] - size) // 2).flip(1)
        pixel_BC2 = cell_centres(size, cells) + corner_B2[:, None]
        return pixel_rays(self.camera_SK[index_B], pixel_BC2).float()

    def center_crops(self, index_B: Tensor, size: int) -> Tensor:
        """The central windows, where ``view.center_crop`` cuts them."""
        room_B2 = self.size_S2[index_B] - size
        return self.crops(index_B, room_B2[:, 0] // 2, room_B2[:, 1] // 2, size)


def gather_windows(pixels_P3: Tensor, start_B: Tensor, width_B: Tensor, size: int) -> Tensor:
    """Windows of images of any widths by one index expression: (B, size, size, 3).

    ``start_B`` is each window's first pixel. What GPUs do best; on CPUs slices are far quicker.
    """
    step = torch.arange(size, device=pixels_P3.device)
    pixel_BHW = start_B[:, None, None] + step[:, None] * width_B[:, None, None] + step
    return pixels_P3[pixel_BHW]


class FrameStore:
    """All images of one split of some scenes, in packs; samples are taken from it."""

    def __init__(
        self,
        scenes: Sequence[SceneData],
        split: str,
        view: View,
        cache: str,
        progress: Progress | None = None,
    ) -> None:
        """Open or make one pack per scene.

        Raises:
            ConfigError: the cache cannot be written.
        """
        self._frames = [scene.split(split) for scene in scenes]
        total, done = sum(map(len, self._frames)), 0
        self.packs: list[ImagePack] = []
        for frames in self._frames:

            def tell(count: int, _: int, before: int = done) -> None:
                if progress:
                    progress(before + count, total)

            self.packs.append(open_pack(frames, view, cache_folder(cache), tell))
            done += len(frames)

    def take(
        self, frames_by_scene: Sequence[Sequence[Frame]], to_learn: bool = True
    ) -> tuple[Samples, list[BadFrame]]:
        """Samples of the named frames; unusable ones are left out and returned with the reason.

        Unusable are broken images and, ``to_learn`` from, copies of an earlier image with another
        pose: one of the two is wrong, and nothing in a single image could tell them apart.

        Raises:
            DatasetError: a scene was given frames, and none is usable; or there are none at all.
        """
        kept: list[tuple[int, int, Frame]] = []
        bad: list[BadFrame] = []
        for scene, frames in enumerate(frames_by_scene):
            place = {frame.name: i for i, frame in enumerate(self._frames[scene])}
            pack, seen = self.packs[scene], dict[bytes, Frame]()
            before = len(kept)
            for frame in frames:
                i = place[frame.name]
                first = seen.setdefault(pack.digests[i], frame)
                if reason := pack.problems.get(i):
                    bad.append(BadFrame(frame.name, frame.split, reason))
                elif to_learn and not _same_pose(first.pose, frame.pose):
                    reason = f"{frame.image_path}: a copy of {first.name}, with another pose"
                    bad.append(BadFrame(frame.name, frame.split, reason))
                else:
                    kept.append((scene, i, frame))
            if frames and len(kept) == before:
                raise DatasetError(
                    f"scene {frames[0].scene}: no usable {frames[0].split} frame; see "
                    "'mspn inspect'"
                )
        if not kept:
            raise DatasetError("no frames to load; see 'mspn inspect'")
        return self._samples(kept), bad

    def _samples(self, kept: Sequence[tuple[int, int, Frame]]) -> Samples:
        size_S2 = torch.stack([self.packs[scene].size_S2[i] for scene, i, _ in kept])
        scene_S = torch.tensor([scene for scene, _, _ in kept])
        return Samples(
            frames=tuple(frame for _, _, frame in kept),
            packs=tuple(pack.pixels_P3 for pack in self.packs),
            pack_S=scene_S,
            first_S=torch.stack([self.packs[scene].first_S[i] for scene, i, _ in kept]),
            size_S2=size_S2,
            scene_S=scene_S,
            position_S3=torch.tensor(np.stack([f.pose.position for _, _, f in kept])),
            quaternion_S4=torch.tensor(np.stack([f.pose.quaternion for _, _, f in kept])),
            camera_SK=torch.tensor(
                [
                    _camera(frame, *size)
                    for (_, _, frame), size in zip(kept, size_S2.tolist(), strict=True)
                ],
                dtype=torch.float64,
            ),
            camera_known_S=torch.tensor([f.intrinsics is not None for _, _, f in kept]),
        )


def _same_pose(a: Pose, b: Pose) -> bool:
    # q and -q are one rotation. Not relative: map coordinates may reach 1e6 m.
    aligned = abs(float(a.quaternion @ b.quaternion))
    return float(np.linalg.norm(a.position - b.position)) < 1e-6 and aligned > 1 - 1e-9


def _camera(frame: Frame, height: int, width: int) -> list[float]:
    camera = frame.intrinsics or assumed_camera(*image_size(frame.image_path))
    return camera_vector(camera.scaled_to(width, height))


def cut_validation(
    scene: SceneData, config: ValidationConfig
) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
    """(training, validation) frames of a scene's train split, by contiguous blocks.

    ``blocks`` blocks, spread evenly over the recording order, hold ``fraction`` of the frames;
    ``gap`` frames on either side belong to neither, since neighbours in a video are near copies.
    """
    frames = scene.split("train")
    if not frames:
        raise DatasetError(
            f"scene {scene.name}: no training frames in {scene.root}; check its split files"
        )
    length = int(len(frames) * config.fraction / config.blocks)
    if length == 0:
        return frames, ()
    role = np.zeros(len(frames), np.int64)
    for block in range(config.blocks):
        middle = (block + 0.5) * len(frames) / config.blocks
        first = int(middle - length / 2)
        outer = slice(max(0, first - config.gap), first + length + config.gap)
        role[outer] = np.maximum(role[outer], 1)
        role[first : first + length] = 2
    training = tuple(f for f, r in zip(frames, role, strict=True) if r == 0)
    held_out = tuple(replace(f, split="val") for f, r in zip(frames, role, strict=True) if r == 2)
    if not training:
        raise DatasetError(
            f"scene {scene.name}: {len(frames)} training frames are too few to hold out "
            f"{config.blocks} blocks with gap {config.gap}; set validation.fraction to 0"
        )
    return training, held_out
