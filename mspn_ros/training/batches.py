# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which images make up each batch of an epoch; the next is made while the last is learned."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.losses import Sights
from mspn_ros.records import ConfigError
from mspn_ros.training.augment import Draw, cell_rays, draw, jitter, turned_labels, warp
from mspn_ros.training.config import TrainConfig
from mspn_ros.training.distributed import World
from mspn_ros.training.nothing import nothing_images
from mspn_ros.training.samples import Samples
from mspn_ros.training.sights import SceneLandmarks

# A share of the GPU's free memory that the images may take.
_RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class Batch:
    """What a step needs, on the device; ``index_B`` are the samples of this process's share.

    ``all_index_B`` are those of the whole batch, over all processes. ``quaternion_B4`` are the
    labels as the crops show them. ``ray_BC3`` and ``seen_BC``: of the squares of the grid, for
    heads that read one. ``sights``: of landmarks, for heads that look for them. ``nothing_M3HW``:
    images that show no place, where the configuration asks for them.
    """

    index_B: Tensor
    all_index_B: Tensor
    image_B3HW: Tensor
    target_BP: Tensor
    scene_B: Tensor
    quaternion_B4: Tensor
    ray_BC3: Tensor | None = None
    seen_BC: Tensor | None = None
    sights: Sights | None = None
    nothing_M3HW: Tensor | None = None


def place_samples(samples: Samples, device: torch.device) -> Samples:
    """The samples with their images on the GPU where they fit, else as they are (memory-mapped)."""
    if device.type != "cuda":
        return samples
    free, _ = torch.cuda.mem_get_info(device.index or 0)
    return samples.moved_to(device) if samples.pixel_bytes < _RESIDENT_SHARE * free else samples


def seed_of(*parts: int) -> int:
    """One seed from run, epoch and step, so that a resumed run draws what an unbroken one draws."""
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % (1 << 62)
    return seed


def epoch_batches(
    samples: Samples, config: TrainConfig, scenes: int, epoch: int, processes: int = 1
) -> list[Tensor]:
    """The batches of an epoch as sample indices; tuples lie side by side.

    A last batch is left out if it is too small for BatchNorm (one image) or for the processes to
    have a part each.
    """
    generator = torch.Generator().manual_seed(seed_of(config.seed, epoch))
    sampling = config.sampling
    if sampling.scenes == "balanced":
        order = _balanced(samples, scenes, generator)
    else:
        order = torch.randperm(len(samples), generator=generator)
    if sampling.tuple_frames > 1:
        count = -(-len(order) // sampling.tuple_frames)
        order = _tuples(samples, order[:count], sampling.tuple_frames, sampling.tuple_spacing)
    size = config.batch_size // sampling.tuple_frames * sampling.tuple_frames
    least = max(2, processes * sampling.tuple_frames)
    batches = [part for part in torch.split(order, size) if len(part) >= least]
    if not batches:
        raise ConfigError(
            f"{len(samples)} training images, batch_size {config.batch_size}: not one batch holds "
            f"the {least} images that {processes} process(es) need; use more frames or fewer "
            "processes"
        )
    return batches


def _balanced(samples: Samples, scenes: int, generator: torch.Generator) -> Tensor:
    """As many indices as samples, scene after scene in turn; small scenes start over."""
    turns = -(-len(samples) // scenes)
    columns = []
    for scene in range(scenes):
        own = samples.of_scene(scene)
        rounds = -(-turns // len(own))
        shuffled = [own[torch.randperm(len(own), generator=generator)] for _ in range(rounds)]
        columns.append(torch.cat(shuffled)[:turns])
    return torch.stack(columns, 1).flatten()[: len(samples)]


def _tuples(samples: Samples, order: Tensor, frames: int, spacing: int) -> Tensor:
    """Each index becomes ``frames`` indices of its own recording, ``spacing`` apart around it.

    Where a recording ends the nearest of its frames stands in (MapNet's clamping).
    """
    keys = [(frame.scene, frame.sequence) for frame in samples.frames]
    first: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
        last[key] = i
    low = torch.tensor([first[key] for key in keys])[order]
    high = torch.tensor([last[key] for key in keys])[order]
    offsets = (torch.arange(frames) - frames // 2) * spacing
    members = order[:, None] + offsets
    return torch.minimum(torch.maximum(members, low[:, None]), high[:, None]).flatten()


class BatchLoader:
    """Turns indices into batches on the device, one batch ahead in a thread.

    ``waited_s`` is the time that the training loop has spent waiting for a batch.
    """

    def __init__(
        self,
        samples: Samples,
        coding: PoseCoding,
        config: TrainConfig,
        world: World,
        device: torch.device,
        parameters: int,
        grid: int = 0,
        landmarks: SceneLandmarks | None = None,
    ) -> None:
        """``parameters``: P of the targets; ``grid``: squares along a side whose rays to give."""
        self.samples, self.coding, self.config = samples, coding, config
        self._parameters, self._grid, self._landmarks = parameters, grid, landmarks
        self.world, self.device = world, device
        self.waited_s = 0.0

    def batches(self, plan: Sequence[Tensor], epoch: int, first: int) -> Iterator[Batch]:
        """The batches of ``plan`` from step ``first`` on."""
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Batch] | None = None
            for step in range(first, len(plan)):
                started = time.perf_counter()
                batch = ahead.result() if ahead else self._prepare(plan[step], epoch, step)
                self.waited_s += time.perf_counter() - started
                if step + 1 < len(plan):
                    ahead = pool.submit(self._prepare, plan[step + 1], epoch, step + 1)
                yield batch

    def _prepare(self, all_index_B: Tensor, epoch: int, step: int) -> Batch:
        config, samples = self.config, self.samples
        generator = torch.Generator().manual_seed(seed_of(config.seed, epoch, step))
        crop = config.architecture.crop
        drawn = draw(samples, all_index_B, crop, config.augment, generator)
        frames = config.sampling.tuple_frames
        share = self.world.share(len(all_index_B) // frames, frames)
        index_B, drawn = all_index_B[share], drawn.part(share)
        quaternion_B4 = samples.quaternion_S4[index_B]
        ray_BC3, seen_BC = None, None
        if self._grid:
            # The rays tell of every turn of the view: the label stays the camera's.
            rays = cell_rays(samples, index_B, drawn, crop, self._grid)
            ray_BC3, seen_BC = (part.to(self.device, non_blocking=True) for part in rays)
        elif config.augment.turn_labels:
            quaternion_B4 = turned_labels(samples, index_B, drawn, crop)
        sights = None
        if self._landmarks is not None:
            found = self._landmarks.sights(samples, index_B, drawn, crop)
            sights = Sights(*(part.to(self.device, non_blocking=True) for part in found))
        scene_B = samples.scene_S[index_B]
        target_BP = self.coding.encode(
            samples.position_S3[index_B],
            quaternion_B4,
            scene_B,
            self._parameters,
        )
        image_B3HW = self._images(index_B, drawn, crop)
        nothing_M3HW = None
        if config.sampling.nothing:
            count = max(1, round(config.sampling.nothing * len(index_B)))
            own = torch.Generator().manual_seed(
                seed_of(config.seed, epoch, step, self.world.rank, 1)
            )
            nothing_M3HW = nothing_images(image_B3HW, count, own)
        return Batch(
            index_B,
            all_index_B,
            image_B3HW,
            target_BP.to(self.device, non_blocking=True),
            scene_B.to(self.device, non_blocking=True),
            quaternion_B4,
            ray_BC3,
            seen_BC,
            sights,
            nothing_M3HW,
        )

    def _images(self, index_B: Tensor, drawn: Draw, crop: int) -> Tensor:
        window = self.samples.crops(index_B, drawn.top_B, drawn.left_B, crop)
        if window.device.type == "cpu" and self.device.type == "cuda":
            window = window.pin_memory()
        window = window.to(self.device, non_blocking=True)
        if drawn.warp_B23 is not None:
            window = warp(window, drawn.warp_B23)
        image = jitter(window, drawn.factor_B3, self.config.augment)
        # Of (B, H, W, 3) this is the channels-last layout that convolutions like best.
        return image.permute(0, 3, 1, 2)
