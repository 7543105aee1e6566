# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: one process or many, resumable at any step, the same weights by seed.

mspn train default --scenes kitchen=data/redkitchen desk=data/fr1_rpy --output runs/two
mspn train default --scenes ... --output runs/two --resume
torchrun --nproc_per_node 4 -m mspn_ros train default --scenes ... --output runs/two
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mspn_ros import metrics
from mspn_ros.datasets.base import SceneData
from mspn_ros.inference.engines import choose_device, exact_float32
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.landmark_head import LandmarkHead
from mspn_ros.network.mspn import MSPN
from mspn_ros.paths import make_folder
from mspn_ros.records import BadFrame, ConfigError, MspnError
from mspn_ros.store.files import write_whole
from mspn_ros.training.batches import Batch, BatchLoader, epoch_batches, place_samples, seed_of
from mspn_ros.training.cache import cache_folder
from mspn_ros.training.checkpoint import (
    CHECKPOINT_FILE,
    Progress,
    load_checkpoint,
    run_identity,
    save_checkpoint,
)
from mspn_ros.training.config import TrainConfig
from mspn_ros.training.curves import Curves
from mspn_ros.training.distributed import World
from mspn_ros.training.errors import TrainingErrors
from mspn_ros.training.held_out import HeldOut, judge, measure_votes
from mspn_ros.training.learner import Learner, make_optimizers
from mspn_ros.training.samples import FrameStore, Samples, cut_validation
from mspn_ros.training.sights import SceneLandmarks, find_landmarks
from mspn_ros.training.watch import Fetched, Step, Watch


class Trainer:
    """One run: holds data, network, optimizers and history; ``run`` does what is left to do."""

    def __init__(
        self,
        config: TrainConfig,
        scenes: list[SceneData],
        watch: Watch | None = None,
        world: World | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Load data and build the network; ``world`` and ``device`` are joined_world's.

        Raises:
            MspnError: unusable settings, scenes or weights.
        """
        self.config, self.scenes, self.watch = config, scenes, watch or Watch()
        if not scenes:
            raise ConfigError("no scenes to train on; give --scenes name=path or a scene set")
        self.world = world or World()
        self.device = device or choose_device(config.device)[0]
        if config.precision == "float32":
            exact_float32()
        torch.manual_seed(config.seed)
        self.learner = Learner(config, len(scenes))
        # Fast convolution layout of both CPUs and GPUs.
        self.learner.to(self.device).to(memory_format=torch.channels_last)
        live = not config.optimizer.freeze_batch_norm
        if self.world.size > 1 and self.device.type == "cuda" and live:
            self.learner = nn.SyncBatchNorm.convert_sync_batchnorm(self.learner)  # type: ignore[no-untyped-call]
        self.train_samples, self.val_samples, self.test_samples, self.bad = self._load()
        self.coding = self._fit_coding()
        self.landmarks = self._find_landmarks()
        self._extents = [
            metrics.position_extent(self.train_samples.position_S3[members].numpy()) or 1.0
            for members in map(self.train_samples.of_scene, range(len(scenes)))
        ]
        self.optimizers = make_optimizers(self.learner)
        self.progress = Progress()
        self._identity = run_identity(config, scenes, self.learner.weights)
        self._saved_at = time.monotonic()

    @property
    def network(self) -> MSPN:
        """The network being learned."""
        return self.learner.network

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per finished epoch."""
        return self.progress.history

    def _load(self) -> tuple[Samples, Samples | None, Samples | None, list[BadFrame]]:
        parts = [cut_validation(scene, self.config.validation) for scene in self.scenes]
        view, cache = self.config.architecture.view, self.config.cache
        store = FrameStore(self.scenes, "train", view, cache, self.watch.loading)
        train, bad = store.take([part[0] for part in parts])
        val, test = None, None
        if any(part[1] for part in parts):
            val, bad_val = store.take([part[1] for part in parts])
            bad += bad_val
        if self.config.validation.track_test:
            tests = FrameStore(self.scenes, "test", view, cache, self.watch.loading)
            frames = [scene.split("test") for scene in self.scenes]
            test, bad_test = tests.take(frames, to_learn=False)
            bad += bad_test
        return train, val, test, bad

    @property
    def scenes_without_held_out(self) -> list[str]:
        """Scenes of which no frame is held out though validation is asked for."""
        if self.config.validation.fraction == 0:
            return []
        held = set() if self.val_samples is None else set(self.val_samples.scene_S.tolist())
        return [scene.name for i, scene in enumerate(self.scenes) if i not in held]

    def _fit_coding(self) -> PoseCoding:
        samples, settings = self.train_samples, self.config.coding
        scenes = range(len(self.scenes))
        # One head for all scenes has one coding for all: it is not told the scene.
        shared = self.config.shared_head
        members = [torch.arange(len(samples)) if shared else samples.of_scene(i) for i in scenes]
        return PoseCoding.fit(
            [samples.position_S3[m].numpy() for m in members],
            [samples.quaternion_S4[m].numpy() for m in members],
            settings.normalise_positions,
            settings.reference_rotation,
        )

    def _find_landmarks(self) -> SceneLandmarks | None:
        """Those of all scenes, put into the heads that look for them; None for other heads."""
        heads, samples = self.network.heads, self.train_samples
        if not isinstance(heads, LandmarkHead):
            return None
        scenes, folder = len(self.scenes), cache_folder(self.config.cache)
        count, tell = self.config.landmarks, self.watch.landmarks
        found = find_landmarks(samples, scenes, count, folder, tell)
        for scene in range(scenes):
            point_K3 = found.of_scene(scene)
            heads.place_landmarks(scene, self.coding.encode_points(point_K3, scene))
        return found

    def _set_learning_rates(self, done: int, steps_per_epoch: int) -> None:
        settings = self.config.optimizer
        warmup = settings.warmup_epochs * steps_per_epoch
        total = self.config.epochs * steps_per_epoch
        factor = min(1.0, (done + 1) / warmup) if warmup else 1.0
        if settings.schedule == "cosine" and done >= warmup:
            factor = 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1.0, total - warmup)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor

    def run(self) -> None:
        """Train until ``config.epochs`` epochs are done; a checkpoint after each, and in between.

        Raises:
            MspnError: the loss is not finite, a checkpoint cannot be written, or the folder
                holds a run that was not resumed.
        """
        output = Path(self.config.output)
        if self.progress == Progress() and (output / CHECKPOINT_FILE).exists():
            raise ConfigError(
                f"{output}: holds a run already; pass --resume to go on with it, or "
                "choose another --output"
            )
        make_folder(output)
        self.world.wait()  # no process may write before all have looked
        samples = place_samples(self.train_samples, self.device)
        loader = BatchLoader(
            samples,
            self.coding,
            self.config,
            self.world,
            self.device,
            self.network.heads.outputs,
            self.network.grid,
            self.landmarks,
        )
        model: nn.Module = self.learner
        if self.world.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            model = DistributedDataParallel(self.learner, device_ids=ids)
        curves = None
        while self.progress.epoch < self.config.epochs:
            epoch = self.progress.epoch
            plan = epoch_batches(samples, self.config, len(self.scenes), epoch, self.world.size)
            if self.world.leads and curves is None:
                curves = Curves(output, epoch * len(plan) + self.progress.step)
            entry = self._run_epoch(model, loader, plan, curves)
            self.progress.next_epoch(entry)
            self._save()
            if curves:
                curves.epoch(self.progress.epoch * len(plan), entry)
            if self.watch.epoch and self.world.leads:
                self.watch.epoch(entry)
        if curves:
            curves.close()
        self.world.wait()

    def _run_epoch(
        self, model: nn.Module, loader: BatchLoader, plan: list[Tensor], curves: Curves | None
    ) -> dict[str, Any]:
        progress, config = self.progress, self.config
        self.learner.train()
        errors = TrainingErrors(self._extents, self.train_samples, self.coding)
        behind: tuple[Batch, Fetched] | None = None
        waited_before = loader.waited_s - progress.waited_s
        started = time.perf_counter() - progress.seconds

        def finish(batch: Batch, fetched: Fetched) -> None:
            loss, pose_BP = fetched.get()
            value = float(loss)
            if not math.isfinite(value):
                self._report_nan(batch.all_index_B)
            progress.step += 1
            progress.loss_sum += value * len(batch.all_index_B)
            progress.seen += len(batch.all_index_B)
            progress.seconds = time.perf_counter() - started
            progress.waited_s = loader.waited_s - waited_before
            median = errors.add(batch, pose_BP)
            rate = progress.seen / progress.seconds
            if curves:
                curves.step(progress.epoch * len(plan) + progress.step, value, rate)
            if self.watch.step and self.world.leads:
                wait = progress.waited_s / progress.seconds
                place = progress.epoch, config.epochs, progress.step, len(plan)
                self.watch.step(Step(*place, value, *median, rate, wait))

        for batch in loader.batches(plan, progress.epoch, progress.step):
            # A loss is read one step late: reading at once would leave a GPU idle meanwhile.
            result = self._step(model, batch, len(plan), progress.step + (behind is not None))
            if behind:
                finish(*behind)
            behind = (batch, Fetched(*result))
            if time.monotonic() - self._saved_at > 60 * config.checkpoint_minutes:
                finish(*behind)
                behind = None
                self._save()
        if behind:
            finish(*behind)
        self._check_weights()
        return self._epoch_entry(errors)

    def _step(
        self, model: nn.Module, batch: Batch, steps_per_epoch: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """One update; the whole batch's mean loss, still on the device, and the poses."""
        config, world = self.config, self.world
        done = self.progress.epoch * steps_per_epoch + step
        self._set_learning_rates(done, steps_per_epoch)
        # Dropout: by step, so that a resumed run drops alike; by process, or all drop alike.
        torch.manual_seed(seed_of(config.seed, self.progress.epoch, step, world.rank))
        loss, pose_BP = model(
            batch.image_B3HW,
            batch.target_BP,
            batch.scene_B,
            batch.ray_BC3,
            batch.seen_BC,
            batch.sights,
            batch.nothing_M3HW,
        )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        # The processes' gradients are averaged evenly, but shares may differ by an image.
        weight = len(batch.index_B) / len(batch.all_index_B)
        (loss * (weight * world.size)).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return world.sum(loss.detach() * weight), pose_BP

    def _epoch_entry(self, errors: TrainingErrors) -> dict[str, Any]:
        progress = self.progress
        entry: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "loss": progress.loss_sum / progress.seen,
            "images_per_second": progress.seen / progress.seconds,
            "data_wait": progress.waited_s / progress.seconds,
            "training": errors.by_scene([scene.name for scene in self.scenes]),
        }
        last = progress.epoch + 1 == self.config.epochs
        if last or (progress.epoch + 1) % self.config.validation.every == 0:
            if self.val_samples is not None and self.world.leads:
                entry["validation"] = [self._score(score) for score in self.validate()]
            if self.test_samples is not None and self.world.leads:
                entry["test"] = [self._score(score) for score in self.judge(self.test_samples)]
        return entry

    def _score(self, held_out: HeldOut) -> dict[str, Any]:
        fields = held_out.to_json()
        if not self.config.loss.scene_weight:
            del fields["scene_accuracy"]  # nobody taught it to name scenes
        return fields

    def _report_nan(self, index_B: Tensor) -> None:
        names = [self.train_samples.frames[i].image_path for i in index_B.tolist()]
        place = Path(self.config.output) / "nan_batch.txt"
        if self.world.leads:
            write_whole(place, ("\n".join(map(str, names)) + "\n").encode())
        raise MspnError(
            f"the loss is not finite in epoch {self.progress.epoch + 1}; the batch's {len(names)} "
            f"files are listed in {place}; look at these frames, or train with lower learning "
            "rates into another --output"
        )

    def judge(self, samples: Samples) -> list[HeldOut]:
        """Errors on ``samples`` with the scene known, one entry per scene that has any."""
        names = [scene.name for scene in self.scenes]
        return judge(self.network, self.coding, samples, names, self.device)

    def validate(self) -> list[HeldOut]:
        """Errors on the held-out blocks, one entry per scene that has any.

        A landmark head learns first how far its votes are off there.
        """
        if self.val_samples is None:
            return []
        measure_votes(self.network, self.coding, self.val_samples, self.device)
        return self.judge(self.val_samples)

    def _save(self) -> None:
        if self.world.leads:
            self._check_weights()
            folder = Path(self.config.output)
            save_checkpoint(folder, self._identity, self.learner, self.optimizers, self.progress)
        self._saved_at = time.monotonic()

    def _check_weights(self) -> None:
        # The last step's gradients may have spoiled what its loss did not show yet.
        if not all(torch.isfinite(p).all() for p in self.learner.parameters()):
            raise MspnError(
                f"the weights are not finite after {len(self.history)} epochs and "
                f"{self.progress.step} steps; the last checkpoint is kept. Train with lower "
                "learning rates into another --output"
            )

    def resume(self) -> bool:
        """Go back to the last checkpoint in the output folder; False if there is none.

        Raises:
            ConfigError: the checkpoint is of another configuration.
            ModelError: the checkpoint is damaged.
        """
        folder = Path(self.config.output)
        found = load_checkpoint(folder, self._identity, self.learner, self.optimizers)
        self.progress = found or Progress()
        return found is not None
