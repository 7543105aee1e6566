# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A scene for a model that is there already: a new row on the frozen backbone.

The backbone is run once over augmented views of the scene's images; the head then learns from
what it said. Nothing of any other scene is read but its row, and nothing of it is changed.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mspn_ros.datasets.base import SceneData
from mspn_ros.inference.confusion import likeliest_rivals
from mspn_ros.network.adapter_head import AdaptedLandmarkHead
from mspn_ros.network.backbone import Features, backbone_identity
from mspn_ros.network.heads import HeadKind
from mspn_ros.network.landmark_head import LandmarkHead
from mspn_ros.paths import config_file
from mspn_ros.records import Array, ConfigError, ModelError, SceneRow
from mspn_ros.store.backbone_file import load_backbone
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.cache import Progress
from mspn_ros.training.classifier_row import fit_classifier_row
from mspn_ros.training.config import TrainConfig, ValidationConfig, check_config, load_config
from mspn_ros.training.feature_views import FeatureViews, cache_views, mean_keys
from mspn_ros.training.finish import scene_row
from mspn_ros.training.held_out import HeldOut, central_features, judge, measure_votes
from mspn_ros.training.loop import Trainer
from mspn_ros.training.row_adam import RowAdam
from mspn_ros.training.watch import Watch

# Fine-tuning the whole network: a new scene "typically" has converged then (section 5.4).
FULL_EPOCHS = 10
# A later pass is kept if its errors are at most a tenth larger than the best ones: held-out blocks
# are few frames, and nearer to the training frames than what comes.
_AS_GOOD = 0.1


@dataclass(frozen=True)
class NewSceneConfig:
    """How a row is learned; what is not named here is as in default.yaml.

    Attributes:
        head: its kind; adapted_landmarks where the backbone describes places, else dense where it
            has cells, else linear.
        views: that the backbone sees in all, the images themselves and augmented ones; of every
            image as many, 3 at least and 12 at most.
        epochs: passes over all views, at most.
        patience: passes without a better result on the held-out blocks after which it ends.
        adapter_lr: learning rate of what the scene describes its places by; all rates fall to
            zero as a cosine does.
        landmarks: the most that the scene may have, for heads that look for them.
        seed: of initialisation, order and augmentation.
        device: auto, cpu, cuda or cuda:N.
        cache: folder of the decoded images, see ``TrainConfig``.
        validation: the blocks that are held out.
    """

    head: HeadKind | None = None
    views: int = 2000
    epochs: int = 4
    patience: int = 2
    adapter_lr: float = 4e-3
    landmarks: int = 768
    seed: int = 0
    device: str = "auto"
    cache: str = "auto"
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def check(self) -> None:
        """Refuse numbers that are none of these things.

        Raises:
            ConfigError: with the setting's name and bounds.
        """
        bounds = {
            "views": (self.views, 1, 1_000_000),
            "epochs": (self.epochs, 1, 10_000),
            "patience": (self.patience, 1, 10_000),
            "adapter_lr": (self.adapter_lr, 0, 1),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise ConfigError(f"{name} {value} is not within {low} to {high}")

    def views_of_each(self, images: int) -> int:
        """How many views of every image are seen."""
        return min(12, max(3, round(self.views / images)))


@dataclass(frozen=True)
class Epoch:
    """What is told after each pass: errors on the held-out blocks, None without any."""

    epoch: int
    epochs: int
    loss: float
    held_out: HeldOut | None


def one_scene_config(model: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of learning one scene from a model's backbone, the row or all of it.

    The recipe is that of default.yaml, whatever the model was trained by: its rows stand side by
    side with the new one, and learn nothing of it. ``overrides`` come last, as of ``mspn train``.

    Raises:
        MspnError: a model or settings that cannot be used.
    """
    architecture = load_backbone(model)[0].architecture
    head = "linear" if architecture.cells == "none" else "dense"
    if architecture.descriptor_features:
        head = "adapted_landmarks"
    fields = asdict(architecture).items()
    own = [f"architecture.{name}={_yaml(value)}" for name, value in fields]
    own += [f"weights={model}", f"head={head}", "loss.scene_weight=0", f"epochs={FULL_EPOCHS}"]
    if architecture.fit != "squeeze":
        own += [f"augment.{name}=0" for name in ("zoom", "roll", "shift")]
    return load_config(config_file("default.yaml"), [*own, *overrides])


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


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
        settings.check()
        self.model, self.settings = model, settings
        config = one_scene_config(model)
        self.rivals: list[SceneRow] = []
        with SceneBank(model) as bank:
            taken = scene.name in bank.names()
        if taken:
            raise ModelError(
                f"{model}: scene {scene.name!r} is there already; remove or rename it first, or "
                "give another name=PATH"
            )
        config = replace(
            config,
            head=settings.head or config.head,
            landmarks=settings.landmarks,
            seed=settings.seed,
            device=settings.device,
            cache=settings.cache,
            validation=settings.validation,
        )
        check_config(config)
        self.trainer = Trainer(config, [scene], watch)
        self.identity = backbone_identity(self.trainer.network.backbone)
        self._val_features: Features | None = None

    def learn(
        self, features: Progress | None = None, epoch: Callable[[Epoch], None] | None = None
    ) -> SceneRow:
        """The row, its id 0; ``features`` hears of images that the backbone has seen."""
        trainer, settings = self.trainer, self.settings
        count = settings.views_of_each(len(trainer.train_samples))
        views = cache_views(trainer, count, features)
        if trainer.val_samples is not None:
            samples, heads = trainer.val_samples, trainer.network.heads
            seen = central_features(trainer.network.backbone, samples, trainer.device)
            self._val_features = seen.only(heads.reads)
        self._start(views)
        self._learn_head(views, epoch)
        trainer.network.heads.round_rows()
        return self._row(views, self._held_out())

    def _start(self, views: FeatureViews) -> None:
        heads, landmarks = self.trainer.network.heads, self.trainer.landmarks
        if isinstance(heads, LandmarkHead):
            assert landmarks is not None
            device = self.trainer.device
            keys = mean_keys(views, heads.cpu(), len(landmarks.of_scene(0)))
            heads.place_keys(0, keys)
            heads.to(device)

    def _learn_head(self, views: FeatureViews, epoch: Callable[[Epoch], None] | None) -> None:
        """Until the held-out blocks say that it is enough; the head ends as it was best."""
        settings, heads = self.settings, self.trainer.network.heads
        optimizers = self._optimizers()
        best, best_score, since = None, math.inf, 0
        generator = torch.Generator().manual_seed(settings.seed)
        for number in range(settings.epochs):
            loss = self._epoch(views, optimizers, generator, number)
            said = self._held_out()
            if epoch:
                epoch(Epoch(number + 1, settings.epochs, loss, said))
            if said is None:
                continue
            since += 1
            if said.mean_log_error < best_score + _AS_GOOD:
                best = heads.row(0)
            if said.mean_log_error < best_score:
                best_score, since = said.mean_log_error, 0
            if since >= settings.patience:
                break
        if best is not None:
            heads.set_row(0, best)

    def _optimizers(self) -> list[tuple[RowAdam, float]]:
        """With their learning rates at the start."""
        heads, rates = self.trainer.network.heads, self.trainer.config.optimizer
        weights = [p for name, p in self.trainer.learner.named_parameters() if "_loss." in name]
        own = set()
        if isinstance(heads, AdaptedLandmarkHead):
            own = set(heads.describe.parameters())
        groups = [
            ([p for p in heads.parameters() if p not in own], rates.head_lr),
            (list(own), self.settings.adapter_lr),
            (weights, rates.loss_lr),
        ]
        return [(RowAdam(members, rate), rate) for members, rate in groups if members]

    def _epoch(
        self,
        views: FeatureViews,
        optimizers: list[tuple[RowAdam, float]],
        generator: torch.Generator,
        number: int,
    ) -> float:
        """One pass over the views; the mean loss."""
        learner, settings, device = self.trainer.learner, self.settings, self.trainer.device
        learner.network.heads.train()
        size = self.trainer.config.batch_size
        steps = -(-len(views) // size)
        total = 0.0
        for step, batch in enumerate(views.batches(size, generator)):
            done = (number + step / steps) / settings.epochs
            for optimizer, rate in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))
                optimizer.zero_grad()
            batch = batch.to(device)
            scene_B = torch.zeros(len(batch), dtype=torch.int64, device=device)
            loss, _ = learner.loss(
                batch.features, batch.target_MP, scene_B, batch.ray_MC3, batch.seen_MC, batch.sights
            )
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer, _ in optimizers:
                optimizer.step()
            total += float(loss.detach()) * len(batch)
        return total / len(views)

    def _held_out(self) -> HeldOut | None:
        """The head's errors on the held-out blocks.

        A landmark head learns first how far its votes are off there.
        """
        trainer, val, seen = self.trainer, self.trainer.val_samples, self._val_features
        if val is None:
            return None
        measure_votes(trainer.network, trainer.coding, val, trainer.device, seen)
        names = [trainer.scenes[0].name]
        (found,) = judge(trainer.network, trainer.coding, val, names, trainer.device, seen)
        return found

    def _row(self, views: FeatureViews, held_out: HeldOut | None) -> SceneRow:
        trainer, val = self.trainer, self._val_features
        every_MF = views.features.pooled_BF.float()
        with SceneBank(self.model) as bank:
            self.rivals = likeliest_rivals(bank, self.identity, every_MF.mean(0).numpy())
        weight_F, bias = fit_classifier_row(every_MF, self.rivals, self.settings.seed)
        trainer.network.classifier.rows.set_row(
            0, {"weight": weight_F[None], "bias": torch.tensor([bias])}
        )
        if held_out is not None and val is not None:
            confidence_B = self._confidence(val.pooled_BF.cpu(), weight_F, bias)
            held_out = replace(held_out, confidence_B=confidence_B)
        feature_SF = every_MF[: len(trainer.train_samples)]
        row = scene_row(trainer, 0, self.identity, feature_SF, held_out)
        return replace(row, uuid=str(uuid.uuid4()))

    def _confidence(self, feature_SF: Tensor, weight_F: Tensor, bias: float) -> Array:
        """Probabilities of the new scene beside all others."""
        weight_NF = np.stack([*(row.classifier_weight for row in self.rivals), weight_F.numpy()])
        bias_N = np.array([*(row.classifier_bias for row in self.rivals), bias])
        logit_SN = feature_SF.double() @ torch.tensor(weight_NF).double().T + torch.tensor(bias_N)
        return np.asarray(logit_SN.softmax(1)[:, -1].numpy())

    def add(self, row: SceneRow) -> SceneRow:
        """Store the row.

        Raises:
            ModelError: its name was taken meanwhile, or the bank cannot be written.
        """
        with SceneBank(self.model, read_only=False) as bank:
            return bank.add(row)
