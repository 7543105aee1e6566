# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Network and loss as one module: a batch in, its loss out; and the optimizers of its parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mspn_ros.network.adapter_head import AdaptedLandmarkHead
from mspn_ros.network.backbone import Features
from mspn_ros.network.losses import (
    FixedPoseLoss,
    LearnedPoseLoss,
    PoseLoss,
    Sights,
    TupleLoss,
    VoteLoss,
    known_loss,
    scene_loss,
    sight_loss,
)
from mspn_ros.network.mspn import MSPN
from mspn_ros.network.pretrained import load_pretrained
from mspn_ros.records import ConfigError
from mspn_ros.store.backbone_file import BACKBONE_FILE, load_backbone
from mspn_ros.training.config import LossConfig, TrainConfig
from mspn_ros.training.row_adam import RowAdam


class Learner(nn.Module):
    """What a step computes; torch's DistributedDataParallel can wrap it whole."""

    def __init__(self, config: TrainConfig, scenes: int) -> None:
        """Build and initialise; seed torch first.

        Raises:
            MspnError: weights that are not there or do not fit, or unknown parts to freeze.
        """
        super().__init__()
        self.config = config
        self.network = MSPN(
            config.architecture, scenes, config.head, config.shared_head, config.landmarks
        )
        self.weights = _load_weights(self.network, config.weights)
        heads, neck = self.network.heads, self.network.backbone.place_neck
        if isinstance(heads, AdaptedLandmarkHead) and neck is not None:
            heads.start_from(*neck.projection)
        rows = 1 if config.shared_head else scenes
        self.pose_loss = _make_loss(config, rows)
        self.vote_loss = VoteLoss(rows) if self.network.grid else None
        _freeze(self.network, config)
        if not config.loss.scene_weight:
            # Without a gradient of its own it would only hold up the others' in a group.
            self.network.classifier.requires_grad_(False)

    @property
    def frame_loss(self) -> PoseLoss:
        """The loss on single frames, whose s_t and s_q belong to the scenes."""
        loss = self.pose_loss
        return loss.absolute if isinstance(loss, TupleLoss) else loss

    def train(self, mode: bool = True) -> Learner:
        """As every module, but frozen parts stay in evaluation mode."""
        super().train(mode)
        settings, backbone = self.config.optimizer, self.network.backbone
        for name in settings.frozen:
            backbone.network.get_submodule(name).eval()
        if settings.freeze_batch_norm:
            for module in backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(
        self,
        image_B3HW: Tensor,
        target_BP: Tensor,
        scene_B: Tensor,
        ray_BC3: Tensor | None = None,
        seen_BC: Tensor | None = None,
        sights: Sights | None = None,
        nothing_M3HW: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) 0..255, (B, P), (B,) -> (scalar loss, mean over B; (B, P) pose).

        ``ray_BC3``, ``seen_BC`` and ``sights`` for heads that read them, ``nothing_M3HW`` for the
        classifier, see ``Batch``.
        """
        bfloat16, images, nothing_MF = self.config.precision == "bfloat16", image_B3HW, None
        if nothing_M3HW is not None:
            # In one batch: normalised by the same statistics, as a robot's images will be.
            images = torch.cat((image_B3HW, nothing_M3HW))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            features = self.network.backbone(images)
        if nothing_M3HW is not None:
            nothing_MF = features.pooled_BF[len(image_B3HW) :].float()
            features = features.each(lambda part: part[: len(image_B3HW)])
        return self.loss(features, target_BP, scene_B, ray_BC3, seen_BC, sights, nothing_MF)

    def loss(
        self,
        features: Features,
        target_BP: Tensor,
        scene_B: Tensor,
        ray_BC3: Tensor | None = None,
        seen_BC: Tensor | None = None,
        sights: Sights | None = None,
        nothing_MF: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As calls, from what the backbone said of the images."""
        network, config = self.network, self.config
        prediction = network.read_out(features, scene_B, ray_BC3, seen_BC)
        reading, row_B = prediction.reading, network.head_of(scene_B)
        loss: Tensor = self.pose_loss(reading.pose_BP, target_BP, row_B)
        if self.vote_loss is not None:
            assert reading.votes is not None
            loss = loss + self.vote_loss(reading.votes, target_BP, row_B)
        if sights is not None:
            assert reading.sightings is not None
            loss = loss + sight_loss(reading.sightings, sights)
        if config.loss.scene_weight:
            said_BN = prediction.logits_BN
            named = scene_loss(said_BN, scene_B)
            if nothing_MF is not None:
                named = known_loss(said_BN, scene_B, network.classifier(nothing_MF))
            loss = loss + config.loss.scene_weight * named
        return loss, reading.pose_BP.detach()


def _load_weights(network: MSPN, weights: str) -> str:
    folder = Path(weights).expanduser()
    if not (folder / BACKBONE_FILE).is_file():
        return load_pretrained(network.backbone, weights)
    backbone, identity, _ = load_backbone(folder)
    if backbone.architecture != network.backbone.architecture:
        raise ConfigError(
            f"{folder}: its backbone is {backbone.architecture.to_json()}, not the architecture "
            "to be trained; set architecture alike, or start from other weights"
        )
    network.backbone.load_state_dict(backbone.state_dict())
    return f"backbone {identity[:12]} of another model"


def _make_loss(config: TrainConfig, rows: int) -> PoseLoss | TupleLoss:
    frames = config.sampling.tuple_frames
    if frames == 1:
        return _frame_loss(config.loss, rows)
    return TupleLoss(_frame_loss(config.loss, rows), _frame_loss(config.loss, rows), frames)


def _frame_loss(settings: LossConfig, rows: int) -> PoseLoss:
    if settings.kind == "fixed":
        return FixedPoseLoss(settings.beta)
    return LearnedPoseLoss(rows, settings.s_t, settings.s_q)


def _freeze(network: MSPN, config: TrainConfig) -> None:
    part = network.backbone.network
    for name in config.optimizer.frozen:
        try:
            part.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            known = ", ".join(child for child, _ in part.named_children())
            raise ConfigError(
                f"optimizer.frozen: the backbone has no part {name!r}; its parts are {known}"
            ) from error


def make_optimizers(learner: Learner) -> list[torch.optim.Optimizer]:
    """AdamW for the backbone, RowAdam for stacked rows and for the loss weights."""
    settings, network = learner.config.optimizer, learner.network
    backbone = network.backbone
    pooled = [*backbone.network.parameters(), *backbone.projection.parameters()]
    groups = _groups(pooled, settings.backbone_lr, settings.weight_decay)
    for neck in (backbone.neck, backbone.place_neck):
        if neck is not None:
            # It begins anew, as the heads do, and learns at their rate.
            groups += _groups(neck.parameters(), settings.head_lr, settings.weight_decay)
    optimizers: list[torch.optim.Optimizer] = []
    if any(group["params"] for group in groups):
        optimizers.append(torch.optim.AdamW(groups))
    # A group for each: a scene's rows of the classifier learn from other scenes' images, too.
    stacked = [{"params": list(network.heads.parameters())}]
    if learner.config.loss.scene_weight:
        stacked.append({"params": list(network.classifier.rows.parameters())})
    optimizers.append(RowAdam(stacked, lr=settings.head_lr))
    weights = list(learner.pose_loss.parameters())
    if learner.vote_loss is not None:
        weights += learner.vote_loss.parameters()
    if weights:
        optimizers.append(RowAdam(weights, lr=settings.loss_lr))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _groups(parameters: Iterable[Tensor], rate: float, decay: float) -> list[dict[str, Any]]:
    """Norms and biases have one dimension; decay would only shrink them."""
    learned = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in learned if p.dim() > 1], "lr": rate, "weight_decay": decay},
        {"params": [p for p in learned if p.dim() <= 1], "lr": rate, "weight_decay": 0.0},
    ]
