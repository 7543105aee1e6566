# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a frozen backbone says of augmented views of all training images, computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.network.landmark_head import LandmarkHead
from mspn_ros.network.losses import FOUND, Sights
from mspn_ros.training.batches import Batch, BatchLoader
from mspn_ros.training.cache import Progress
from mspn_ros.training.config import AugmentConfig
from mspn_ros.training.distributed import World
from mspn_ros.training.loop import Trainer

_BATCH = 32


@dataclass(frozen=True)
class FeatureViews:
    """Of M views, on the CPU: half-precision features, targets (M, P), and what ``Batch`` has."""

    features: Features
    target_MP: Tensor
    ray_MC3: Tensor | None
    seen_MC: Tensor | None
    sights: Sights | None

    def __len__(self) -> int:
        return len(self.target_MP)

    def of(self, index_B: Tensor) -> FeatureViews:
        """Some of the views, their features in float32."""
        ray_MC3, seen_MC = (None if t is None else t[index_B] for t in (self.ray_MC3, self.seen_MC))
        sights = self.sights and Sights(*(part[index_B] for part in self.sights))
        features = self.features.of(index_B).float()
        target_BP = self.target_MP[index_B]
        return FeatureViews(features, target_BP, ray_MC3, seen_MC, sights)

    def to(self, device: torch.device) -> FeatureViews:
        """On another device."""
        if device.type == "cpu":
            return self
        ray_MC3, seen_MC = (
            None if part is None else part.to(device) for part in (self.ray_MC3, self.seen_MC)
        )
        sights = self.sights and Sights(*(part.to(device) for part in self.sights))
        features = self.features.each(lambda part: part.to(device))
        target_MP = self.target_MP.to(device)
        return FeatureViews(features, target_MP, ray_MC3, seen_MC, sights)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[FeatureViews]:
        """All views once, in random order."""
        for index_B in torch.split(torch.randperm(len(self), generator=generator), size):
            yield self.of(index_B)


def cache_views(trainer: Trainer, views: int, tell: Progress | None = None) -> FeatureViews:
    """``views`` views of every training image of a trainer, the first as it is, by its backbone.

    Kept is what the trainer's heads read. ``tell`` hears of images done.
    """
    samples, backbone = trainer.train_samples, trainer.network.backbone.eval()
    plan = list(torch.split(torch.arange(len(samples)), _BATCH))
    parts: list[FeatureViews] = []
    for view in range(views):
        plain = replace(trainer.config, augment=AugmentConfig(crop="center"))
        loader = BatchLoader(
            samples,
            trainer.coding,
            trainer.config if view else plain,
            World(),
            trainer.device,
            trainer.network.heads.outputs,
            trainer.network.grid,
            trainer.landmarks,
        )
        for batch in loader.batches(plan, view, 0):
            parts.append(_kept(backbone, batch, trainer.network.heads.reads))
            if tell:
                tell(view * len(samples) + int(batch.index_B[-1]) + 1, views * len(samples))
    return FeatureViews(
        Features.joined([part.features for part in parts]),
        torch.cat([part.target_MP for part in parts]),
        _joined([part.ray_MC3 for part in parts]),
        _joined([part.seen_MC for part in parts]),
        None
        if parts[0].sights is None
        else Sights(*map(torch.cat, zip(*(p.sights for p in parts if p.sights), strict=True))),
    )


@torch.no_grad()
def _kept(backbone: Backbone, batch: Batch, reads: Sequence[str]) -> FeatureViews:
    features: Features = backbone(batch.image_B3HW)
    kept = features.only(reads).each(lambda part: part.half().cpu())
    ray, seen = (None if part is None else part.cpu() for part in (batch.ray_BC3, batch.seen_BC))
    sights = batch.sights and Sights(*(part.cpu() for part in batch.sights))
    return FeatureViews(kept, batch.target_BP.cpu(), ray, seen, sights)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


@torch.no_grad()
def mean_keys(views: FeatureViews, head: LandmarkHead, landmarks: int) -> Tensor:
    """Of each landmark the mean descriptor (K, D) of where it was found: where its key starts.

    ``head`` has one scene, and is on the CPU.
    """
    total_KD = torch.zeros(landmarks, head.key.shape[2])
    for index_B in torch.split(torch.arange(len(views)), _BATCH):
        part = views.of(index_B)
        assert part.sights is not None
        place_BED = head.described(part.features, torch.zeros_like(index_B))
        side = math.isqrt(place_BED.shape[1])
        x, y = part.sights.place_BK2.round().long().clamp(0, side - 1).unbind(2)
        at_BK1 = (y * side + x)[..., None]
        described_BKD = place_BED.gather(1, at_BK1.expand(-1, -1, total_KD.shape[1]))
        found_BK1 = (part.sights.state_BK == FOUND)[..., None]
        total_KD += (described_BKD * found_BK1).sum(0)[:landmarks]
    return F.normalize(total_KD, dim=1)
