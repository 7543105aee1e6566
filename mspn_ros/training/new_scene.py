"""A scene for a model that is there already: a new row on the frozen backbone.

The backbone is run once over augmented views of the scene's images; the head then learns from
what it said. Nothing of any other scene is read but its row, and nothing of it is changed.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mspn_ros.datasets.base import SceneData
from mspn_ros.network.heads import HeadKind
from mspn_ros.network.landmark_head import LandmarkHead
from mspn_ros.records import ModelError, SceneRow
from mspn_ros.store.backbone_file import load_backbone
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.cache import Progress
from mspn_ros.training.classifier_row import fit_classifier_row
from mspn_ros.training.config import AugmentConfig, TrainConfig
from mspn_ros.training.feature_views import FeatureViews, cache_views, mean_keys
from mspn_ros.training.finish import scene_row
from mspn_ros.training.held_out import HeldOut, central_features, judge, measure_votes
from mspn_ros.training.loop import Trainer
from mspn_ros.training.row_adam import RowAdam
from mspn_ros.training.watch import Watch

# A later pass is kept if its errors are at most a tenth larger than the best ones: held-out blocks
# are few frames, and nearer to the training frames than what comes.
_AS_GOOD = 0.1


@dataclass(frozen=True)
class NewSceneConfig:
    """How a row is learned.

    Attributes:
        head: its kind; landmarks where the backbone describes places, else linear, if empty.
        views: of every training image, the first one not augmented.
        epochs: passes over all views, at most.
        patience: passes without a better result on the held-out blocks after which it ends.
        batch_size: views per step.
        head_lr: learning rate of the head, falling to zero as a cosine does.
        loss_lr: learning rate of the losses' weights.
        landmarks: the most that the scene may have, for heads that look for them.
        seed: of initialisation, order and augmentation.
        device: auto, cpu, cuda or cuda:N.
        cache: folder of the decoded images, see ``TrainConfig``.
    """

    head: HeadKind | None = None
    views: int = 4
    epochs: int = 12
    patience: int = 4
    batch_size: int = 16
    head_lr: float = 8e-3
    loss_lr: float = 1e-2
    landmarks: int = 1000
    seed: int = 0
    device: str = "auto"
    cache: str = "auto"


@dataclass(frozen=True)
class Epoch:
    """What is told after each pass: errors on the held-out blocks, None without any."""

    epoch: int
    epochs: int
    loss: float
    held_out: HeldOut | None


class SceneAdder:
    """Learns one scene's row for ``model``; nothing is written but by ``add``."""

    def __init__(
        self,
        model: Path,
        scene: SceneData,
        settings: NewSceneConfig,
        watch: Watch | None = None,
    ) -> None:
        """Open the model, load the scene's images.

        Raises:
            MspnError: a model, scene or settings that cannot be used, or a name that is taken.
        """
        self.model, self.settings = model, settings
        backbone, self.identity, _ = load_backbone(model)
        with SceneBank(model) as bank:
            self.others = [r for r in bank.read().rows if r.backbone_id == self.identity]
            taken = [name for name in bank.names() if name == scene.name]
        if taken:
            raise ModelError(
                f"{model}: scene {scene.name!r} is there already; remove or rename it first, or "
                "give another name=PATH"
            )
        architecture = backbone.architecture
        kind = settings.head or ("landmarks" if architecture.descriptor_features else "linear")
        warps = architecture.fit == "squeeze"
        config = TrainConfig(
            seed=settings.seed,
            architecture=architecture,
            weights=str(model),
            head=kind,
            landmarks=settings.landmarks,
            device=settings.device,
            cache=settings.cache,
        )
        self.trainer = Trainer(
            replace(
                config,
                loss=replace(config.loss, s_q=-1.0, scene_weight=0.0),
                coding=replace(config.coding, normalise_positions=True, reference_rotation=True),
                augment=AugmentConfig(
                    turn_labels=True,
                    zoom=0.35 if warps else 0.0,
                    shift=0.06 if warps else 0.0,
                    brightness=0.3,
                    contrast=0.3,
                    saturation=0.3,
                ),
            ),
            [scene],
            watch,
        )

    def learn(
        self, features: Progress | None = None, epoch: Callable[[Epoch], None] | None = None
    ) -> SceneRow:
        """The row, its id 0; ``features`` hears of images that the backbone has seen."""
        trainer, settings = self.trainer, self.settings
        views = cache_views(trainer, settings.views, features)
        learner, heads = trainer.learner, trainer.network.heads
        if isinstance(heads, LandmarkHead):
            assert trainer.landmarks is not None
            heads.place_keys(0, mean_keys(views, len(trainer.landmarks.of_scene(0))))
        val = trainer.val_samples
        val_features = None
        if val is not None:
            val_features = central_features(trainer.network.backbone, val, trainer.device)

        def held_out() -> HeldOut | None:
            if val is None:
                return None
            measure_votes(trainer.network, trainer.coding, val, trainer.device, val_features)
            names = [trainer.scenes[0].name]
            (found,) = judge(
                trainer.network, trainer.coding, val, names, trainer.device, val_features
            )
            return found

        weights = [p for name, p in learner.named_parameters() if "_loss." in name]
        optimizers = [
            RowAdam(heads.parameters(), settings.head_lr),
            RowAdam(weights, settings.loss_lr),
        ]
        best, best_score, since = None, math.inf, 0
        generator = torch.Generator().manual_seed(settings.seed)
        for number in range(settings.epochs):
            loss = self._epoch(views, optimizers, generator, number)
            said = held_out()
            if epoch:
                epoch(Epoch(number + 1, settings.epochs, loss, said))
            if said is None:
                continue
            since += 1
            if said.mean_log_error < best_score + _AS_GOOD:
                best, since = heads.row(0), 0
            best_score = min(best_score, said.mean_log_error)
            if since >= settings.patience:
                break
        if best is not None:
            heads.set_row(0, best)
        heads.round_rows()
        return self._row(views, held_out(), val_features.pooled_BF if val_features else None)

    def _epoch(
        self,
        views: FeatureViews,
        optimizers: list[RowAdam],
        generator: torch.Generator,
        number: int,
    ) -> float:
        """One pass over the views; the mean loss."""
        learner, settings, device = self.trainer.learner, self.settings, self.trainer.device
        learner.network.heads.train()
        steps = -(-len(views) // settings.batch_size)
        total, rates = 0.0, (settings.head_lr, settings.loss_lr)
        for step, batch in enumerate(views.batches(settings.batch_size, generator)):
            done = (number + step / steps) / settings.epochs
            for optimizer, rate in zip(optimizers, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))
                optimizer.zero_grad()
            batch = batch.to(device)
            scene_B = torch.zeros(len(batch), dtype=torch.int64, device=device)
            loss, _ = learner.loss(
                batch.features, batch.target_MP, scene_B, batch.ray_MC3, batch.seen_MC, batch.sights
            )
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            total += float(loss.detach()) * len(batch)
        return total / len(views)

    def _row(
        self, views: FeatureViews, held_out: HeldOut | None, val_SF: Tensor | None
    ) -> SceneRow:
        trainer = self.trainer
        feature_SF = views.features.pooled_BF[: len(trainer.train_samples)].float()
        every_MF = views.features.pooled_BF.float()
        weight_F, bias = fit_classifier_row(every_MF, self.others, self.settings.seed)
        trainer.network.classifier.rows.set_row(
            0, {"weight": weight_F[None], "bias": torch.tensor([bias])}
        )
        if held_out is not None and val_SF is not None:
            held_out = replace(
                held_out, confidence_B=self._confidence(val_SF.cpu(), weight_F, bias)
            )
        row = scene_row(trainer, 0, self.identity, feature_SF, held_out)
        return replace(row, uuid=str(uuid.uuid4()))

    def _confidence(self, feature_SF: Tensor, weight_F: Tensor, bias: float) -> np.ndarray:
        """Probabilities of the new scene beside all others."""
        weight_NF = np.stack([*(row.classifier_weight for row in self.others), weight_F.numpy()])
        bias_N = np.array([*(row.classifier_bias for row in self.others), bias])
        logit_SN = feature_SF.double() @ torch.tensor(weight_NF).double().T + torch.tensor(bias_N)
        return np.asarray(logit_SN.softmax(1)[:, -1].numpy())

    def add(self, row: SceneRow) -> SceneRow:
        """Store the row.

        Raises:
            ModelError: its name was taken meanwhile, or the bank cannot be written.
        """
        with SceneBank(self.model, read_only=False) as bank:
            return bank.add(row)
