"""The training loop: one process, resumable after every epoch, the same weights by seed.

mspn train default --scenes kitchen=data/redkitchen desk=data/fr1_rpy --output runs/two
mspn train default --scenes ... --output runs/two --resume
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mspn_ros.datasets.base import SceneData
from mspn_ros.inference.engines import choose_device, exact_float32
from mspn_ros.network.backbone import load_pretrained
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.losses import FixedPoseLoss, LearnedPoseLoss, PoseLoss, scene_loss
from mspn_ros.network.mspn import MSPN
from mspn_ros.paths import make_folder
from mspn_ros.records import BadFrame, ConfigError, MspnError
from mspn_ros.store.files import read_tensors, write_tensors
from mspn_ros.training.augment import make_batch
from mspn_ros.training.config import TrainConfig
from mspn_ros.training.held_out import HeldOut, judge
from mspn_ros.training.row_adam import RowAdam
from mspn_ros.training.samples import Samples, cut_validation, load_samples
from mspn_ros.training.tensor_state import flatten_state, restore_state

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Step:
    """What a progress display is told after each step."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float


@dataclass(frozen=True)
class Watch:
    """Callbacks of a training run; all may be left out."""

    loading: Callable[[int, int], None] | None = None
    step: Callable[[Step], None] | None = None
    epoch: Callable[[dict[str, Any]], None] | None = None


class Trainer:
    """One run: holds data, network, optimizers and history; ``run`` does what is left to do."""

    def __init__(
        self, config: TrainConfig, scenes: list[SceneData], watch: Watch | None = None
    ) -> None:
        """Load data and build the network.

        Raises:
            MspnError: unusable settings, scenes or weights.
        """
        self.config, self.scenes, self.watch = config, scenes, watch or Watch()
        if not scenes:
            raise ConfigError("no scenes to train on; give --scenes name=path or a scene set")
        self.device, _ = choose_device(config.device)
        if config.precision == "float32":
            exact_float32()
        torch.manual_seed(config.seed)
        self.network = MSPN(config.architecture, len(scenes))
        self.weights = load_pretrained(self.network.backbone, config.weights)
        # Fast convolution layout of both CPUs and GPUs.
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self._frozen = self._freeze()
        self.pose_loss = self._make_loss().to(self.device)
        self.train_samples, self.val_samples, self.bad = self._load()
        self.coding = self._fit_coding()
        self.optimizers = self._make_optimizers()
        self.epoch = 0
        self.history: list[dict[str, Any]] = []

    def _freeze(self) -> list[nn.Module]:
        network = self.network.backbone.network
        frozen = []
        for name in self.config.optimizer.frozen:
            try:
                frozen.append(network.get_submodule(name))
            except AttributeError as error:
                known = ", ".join(child for child, _ in network.named_children())
                raise ConfigError(
                    f"optimizer.frozen: the backbone has no part {name!r}; its parts are {known}"
                ) from error
            frozen[-1].requires_grad_(False)
        return frozen

    def _make_loss(self) -> PoseLoss:
        loss = self.config.loss
        if loss.kind == "fixed":
            return FixedPoseLoss(loss.beta)
        return LearnedPoseLoss(len(self.scenes), loss.s_t, loss.s_q)

    def _load(self) -> tuple[Samples, Samples | None, list[BadFrame]]:
        parts = [cut_validation(scene, self.config.validation) for scene in self.scenes]
        resize = self.config.architecture.resize
        train, bad = load_samples([p[0] for p in parts], resize, self.watch.loading)
        if not any(p[1] for p in parts):
            return train, None, bad
        val, bad_val = load_samples([p[1] for p in parts], resize, self.watch.loading)
        return train, val, bad + bad_val

    @property
    def scenes_without_held_out(self) -> list[str]:
        """Scenes of which no frame is held out though validation is asked for."""
        if self.config.validation.fraction == 0:
            return []
        held = set() if self.val_samples is None else set(self.val_samples.scene_S.tolist())
        return [scene.name for i, scene in enumerate(self.scenes) if i not in held]

    def _fit_coding(self) -> PoseCoding:
        samples, settings = self.train_samples, self.config.coding
        members = [samples.of_scene(i) for i in range(len(self.scenes))]
        return PoseCoding.fit(
            [samples.position_S3[m].numpy() for m in members],
            [samples.quaternion_S4[m].numpy() for m in members],
            settings.normalise_positions,
            settings.reference_rotation,
        )

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        settings = self.config.optimizer
        backbone = [p for p in self.network.backbone.parameters() if p.requires_grad]
        # Norms and biases have one dimension; decay would only shrink them.
        decayed = [p for p in backbone if p.dim() > 1]
        plain = [p for p in backbone if p.dim() <= 1]
        shared = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.backbone_lr,
        )
        stacked = [*self.network.heads.parameters(), *self.network.classifier.rows.parameters()]
        rows = RowAdam(stacked, lr=settings.head_lr)
        optimizers: list[torch.optim.Optimizer] = [shared, rows]
        if weights := list(self.pose_loss.parameters()):
            optimizers.append(RowAdam(weights, lr=settings.loss_lr))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["peak_lr"] = group["lr"]
        return optimizers

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch takes; the last may be a smaller batch."""
        return math.ceil(len(self.train_samples) / self.config.batch_size)

    def _set_learning_rates(self, done: int) -> None:
        settings = self.config.optimizer
        warmup = settings.warmup_epochs * self.steps_per_epoch
        total = self.config.epochs * self.steps_per_epoch
        factor = min(1.0, (done + 1) / warmup) if warmup else 1.0
        if settings.schedule == "cosine" and done >= warmup:
            factor = 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1.0, total - warmup)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor

    def run(self) -> None:
        """Train until ``config.epochs`` epochs are done; a checkpoint after each.

        Raises:
            MspnError: the loss is not finite, a checkpoint cannot be written, or the folder
                holds a run that was not resumed.
        """
        if self.epoch == 0 and (Path(self.config.output) / CHECKPOINT_FILE).exists():
            raise ConfigError(
                f"{self.config.output}: holds a run already; pass --resume to go on with it, or "
                "choose another --output"
            )
        make_folder(Path(self.config.output))
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            loss = self._run_epoch()
            self.epoch += 1
            entry: dict[str, Any] = {"epoch": self.epoch, "loss": loss}
            entry["images_per_second"] = len(self.train_samples) / (time.perf_counter() - started)
            last = self.epoch == self.config.epochs
            if self.val_samples and (last or self.epoch % self.config.validation.every == 0):
                entry["validation"] = [score.to_json() for score in self.validate()]
            self.history.append(entry)
            self._save()
            if self.watch.epoch:
                self.watch.epoch(entry)

    def _run_epoch(self) -> float:
        # Seeded by the epoch, not carried on: a resumed run draws what an uninterrupted one draws.
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        torch.manual_seed(self.config.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.train_samples), generator=generator)
        self.network.train()
        for module in self._frozen:
            module.eval()
        total, seen, started = 0.0, 0, time.perf_counter()
        for step, index_B in enumerate(torch.split(order, self.config.batch_size)):
            # BatchNorm cannot learn from a single image left over.
            if len(index_B) == 1 and len(order) > 1:
                continue
            self._set_learning_rates(self.epoch * self.steps_per_epoch + step)
            loss = self._step(index_B, generator)
            if not math.isfinite(loss):
                self._report_nan(index_B)
            total, seen = total + loss * len(index_B), seen + len(index_B)
            if self.watch.step:
                rate = seen / (time.perf_counter() - started)
                self.watch.step(
                    Step(self.epoch, self.config.epochs, step + 1, self.steps_per_epoch, loss, rate)
                )
        return total / seen

    def _step(self, index_B: Tensor, generator: torch.Generator) -> float:
        samples, config = self.train_samples, self.config
        image, quaternion = make_batch(
            samples, index_B, config.architecture.crop, config.augment, generator
        )
        scene_B = samples.scene_S[index_B]
        target = self.coding.encode(
            samples.position_S3[index_B], quaternion, scene_B, config.architecture.pose_parameters
        )
        scene_B, target = scene_B.to(self.device), target.to(self.device)
        image = image.to(self.device).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            feature_BF = self.network.backbone(image)
        prediction = self.network.read_out(feature_BF, scene_B)
        loss: Tensor = self.pose_loss(prediction.pose_BP, target, scene_B)
        if config.loss.scene_weight:
            loss = loss + config.loss.scene_weight * scene_loss(prediction.logits_BN, scene_B)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        # A step on a NaN would spoil the weights that the checkpoint before still has.
        if math.isfinite(value):
            for optimizer in self.optimizers:
                optimizer.step()
        return value

    def _autocast(self) -> torch.autocast:
        bfloat16 = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)

    def _report_nan(self, index_B: Tensor) -> None:
        names = [self.train_samples.frames[i].image_path for i in index_B.tolist()]
        place = Path(self.config.output) / "nan_batch.txt"
        place.write_text("\n".join(map(str, names)) + "\n")
        raise MspnError(
            f"the loss is not finite in epoch {self.epoch + 1}; the batch's {len(names)} files are "
            f"listed in {place}; lower the learning rates or look at these frames, then --resume"
        )

    def validate(self) -> list[HeldOut]:
        """Errors on the held-out blocks, one entry per scene that has any."""
        if self.val_samples is None:
            return []
        return judge(
            self.network, self.coding, self.val_samples, [s.name for s in self.scenes], self.device
        )

    def _save(self) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"loss.{k}": v for k, v in self.pose_loss.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            tensors |= flatten_state(f"optimizer{i}", optimizer)
        fields = {"config": self._identity(), "epoch": self.epoch, "history": self.history}
        write_tensors(Path(self.config.output) / CHECKPOINT_FILE, tensors, fields)

    def _identity(self) -> dict[str, Any]:
        # More epochs may be added under a constant rate; folder and device do not matter.
        fields = replace(self.config, output="", device="").to_json()
        if self.config.optimizer.schedule == "constant":
            fields.pop("epochs")
        fields["data"] = self._data_digest()
        return fields

    def _data_digest(self) -> str:
        # Heads are learned for the coding of these very poses; other data under them would give
        # wrong poses without a word.
        digest = hashlib.sha256()
        for samples in filter(None, (self.train_samples, self.val_samples)):
            for frame, camera in zip(samples.frames, samples.intrinsics, strict=True):
                digest.update(f"{frame.scene}|{frame.name}|{camera}|".encode())
            digest.update(samples.position_S3.numpy().tobytes())
            digest.update(samples.quaternion_S4.numpy().tobytes())
        return digest.hexdigest()

    def resume(self) -> bool:
        """Go back to the last checkpoint in the output folder; False if there is none.

        Raises:
            ConfigError: the checkpoint is of another configuration.
            ModelError: the checkpoint is damaged.
        """
        path = Path(self.config.output) / CHECKPOINT_FILE
        if not path.is_file():
            return False
        tensors, fields = read_tensors(path)
        own = self._identity()
        if fields.get("config") != own:
            stored = fields.get("config", {})
            other = sorted(k for k in own | stored if own.get(k) != stored.get(k))
            raise ConfigError(
                f"{path}: made with other settings ({', '.join(other)}); "
                "choose another output folder or the settings of that run"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}."
            return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

        self.network.load_state_dict(part("network"))
        self.pose_loss.load_state_dict(part("loss"))
        for i, optimizer in enumerate(self.optimizers):
            restore_state(optimizer, part(f"optimizer{i}"))
        self.epoch, self.history = int(fields["epoch"]), list(fields["history"])
        return True
