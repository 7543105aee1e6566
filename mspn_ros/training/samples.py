"""Training samples: each image decoded and resized once, kept as uint8; blocks for validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mspn_ros.datasets.base import SceneData
from mspn_ros.images import read_image, resize_shorter_side
from mspn_ros.records import BadFrame, DatasetError, Frame, ImageError, Intrinsics
from mspn_ros.training.config import ValidationConfig

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Samples:
    """Frames of all scenes with their resized images: [(h, w, 3) uint8], shorter side equal.

    ``scene_S``, ``position_S3`` (the scenes' units) and ``quaternion_S4`` xyzw are in the order
    of ``frames``; ``intrinsics`` are those of the resized images.
    """

    frames: tuple[Frame, ...]
    images: list[Tensor]
    scene_S: Tensor
    position_S3: Tensor
    quaternion_S4: Tensor
    intrinsics: tuple[Intrinsics | None, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def of_scene(self, scene: int) -> Tensor:
        """Indices of one scene's samples."""
        return torch.nonzero(self.scene_S == scene)[:, 0]


def load_samples(
    frames_by_scene: Sequence[Sequence[Frame]], resize: int, progress: Progress | None = None
) -> tuple[Samples, list[BadFrame]]:
    """Decode and resize every frame; a broken image is left out and returned with its reason.

    Raises:
        DatasetError: a scene was given frames, and none is usable; or there are none at all.
    """
    images: list[Tensor] = []
    kept: list[tuple[int, Frame]] = []
    bad: list[BadFrame] = []
    total = sum(len(frames) for frames in frames_by_scene)
    for scene, frames in enumerate(frames_by_scene):
        before = len(kept)
        for frame in frames:
            try:
                image = torch.from_numpy(read_image(frame.image_path))
                images.append(resize_shorter_side(image, resize).contiguous())
                kept.append((scene, frame))
            except ImageError as error:
                bad.append(BadFrame(frame.name, frame.split, str(error)))
            if progress:
                progress(len(kept) + len(bad), total)
        if frames and len(kept) == before:
            name = frames[0].scene
            raise DatasetError(
                f"scene {name}: no usable {frames[0].split} frame; see 'mspn inspect'"
            )
    if not kept:
        raise DatasetError("no frames to load; see 'mspn inspect'")
    cameras = tuple(
        frame.intrinsics.scaled_to(image.shape[1], image.shape[0]) if frame.intrinsics else None
        for (_, frame), image in zip(kept, images, strict=True)
    )
    samples = Samples(
        frames=tuple(frame for _, frame in kept),
        images=images,
        scene_S=torch.tensor([scene for scene, _ in kept]),
        position_S3=torch.tensor(np.stack([f.pose.position for _, f in kept])),
        quaternion_S4=torch.tensor(np.stack([f.pose.quaternion for _, f in kept])),
        intrinsics=cameras,
    )
    return samples, bad


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
