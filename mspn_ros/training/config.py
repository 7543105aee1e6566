# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The training configuration: frozen dataclasses are the one place of every default.

A YAML file names what differs; ``config/paper.yaml`` and ``config/default.yaml`` are the presets.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mspn_ros.network.backbone import Architecture
from mspn_ros.network.heads import HeadKind
from mspn_ros.records import ConfigError


@dataclass(frozen=True)
class LossConfig:
    """Pose loss and scene loss.

    Attributes:
        kind: learned (equation 3, a pair s_t, s_q per scene) or fixed (equation 2).
        beta: weight of the rotation in the fixed loss.
        s_t: start of the learned position weight.
        s_q: start of the learned rotation weight.
        scene_weight: weight of the cross entropy of equation 4; 0 trains without a classifier.
    """

    kind: Literal["learned", "fixed"] = "learned"
    beta: float = 300.0
    s_t: float = 0.0
    s_q: float = -3.0
    scene_weight: float = 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for all; stacked rows only where a batch has their scene.

    Attributes:
        backbone_lr: learning rate of the shared network.
        head_lr: learning rate of classifier and heads.
        loss_lr: learning rate of s_t and s_q.
        weight_decay: decoupled decay of the backbone's matrices; never of s_t, s_q.
        schedule: constant, or cosine down to zero after warm-up.
        warmup_epochs: linear warm-up, may be a fraction.
        frozen: submodules of the torchvision network, such as features.0 or layer1, that stay as
            loaded, batch statistics included; freezing the first ones saves most of a step's time.
        freeze_batch_norm: all BatchNorm layers normalise by the statistics they were loaded with.
            Several processes on CPUs then compute what one does; with live statistics each
            normalises by its own share of the batch (on GPUs SyncBatchNorm joins the shares).
    """

    backbone_lr: float = 1e-4
    head_lr: float = 1e-4
    loss_lr: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = 0.0
    frozen: tuple[str, ...] = ()
    freeze_batch_norm: bool = False


@dataclass(frozen=True)
class SamplingConfig:
    """Which images come together in a batch.

    Attributes:
        scenes: proportional (every frame once an epoch) or balanced (every scene equally often, as
            many images an epoch in all; frames of small scenes repeat).
        tuple_frames: frames of a tuple for MapNet's loss on motion; 1 takes single frames. An
            epoch has as many images as ever, in fewer tuples.
        tuple_spacing: recorded frames from one frame of a tuple to the next (MapNet: 10).
        nothing: images that show no place, noise and scrambled ones (training/nothing.py), as a
            share of a batch; the scene classifier learns that they are none of its scenes.
    """

    scenes: Literal["proportional", "balanced"] = "proportional"
    tuple_frames: int = 1
    tuple_spacing: int = 10
    nothing: float = 0.0


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image after the resize.

    Attributes:
        crop: random (the paper's) or center.
        turn_labels: turn the orientation label by the angle between the optical axis and the
            crop's centre, so that a shifted crop keeps a true label; needs intrinsics.
        brightness: brightness factor is drawn from 1 +- this.
        contrast: contrast factor is drawn from 1 +- this.
        saturation: saturation factor is drawn from 1 +- this.
        zoom: the image is shown up to 1 + this times larger or smaller; where it is shown larger,
            any part of it. This and the next two need architecture.fit=squeeze.
        roll: the camera is turned about its optical axis by up to so many degrees.
        shift: the image is moved by up to this share of its side, besides.
    """

    crop: Literal["random", "center"] = "random"
    turn_labels: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0
    shift: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether images are warped, not only cropped."""
        return bool(self.zoom or self.roll or self.shift)


@dataclass(frozen=True)
class CodingConfig:
    """What the heads regress; False and False is the paper's raw metres and absolute rotation.

    Attributes:
        normalise_positions: subtract the scene's mean position, divide by its spread.
        reference_rotation: orientation relative to the scene's mean rotation.
    """

    normalise_positions: bool = False
    reference_rotation: bool = False


@dataclass(frozen=True)
class ValidationConfig:
    """Blocks cut from the training split: settings are chosen on them, never on test.

    Attributes:
        fraction: share of each scene's frames held out; 0 trains on all frames.
        blocks: number of blocks per scene, contiguous in recording order.
        gap: frames left out on either side of a block.
        every: validate after this many epochs.
        track_test: also write down the errors on the test split then, for curves such as the
            paper's figure 2; nothing is chosen by them.
    """

    fraction: float = 0.12
    blocks: int = 3
    gap: int = 5
    every: int = 1
    track_test: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        scenes: scene set: YAML files or name=path.
        output: folder of the run; checkpoints and, at the end, model/ are written there.
        seed: of initialisation, order and augmentation.
        architecture: backbone, feature size, pose parameters, image size.
        weights: imagenet, none, the path of a state dict for the torchvision network, or a model
            directory whose backbone is taken over.
        head: linear (the paper's), adapter (network/adapter_head.py), dense
            (network/dense_head.py; needs architecture.cells), landmarks
            (network/landmark_head.py; needs architecture.descriptor_features besides) or
            adapted_landmarks (network/adapter_head.py; needs the same).
        landmarks: the most that a scene may have, for the head of that name; 41 bytes each.
        shared_head: one pose layer for all scenes, as PoseNet and the naive baseline have.
        epochs: passes over the training frames.
        batch_size: images per step.
        precision: float32, or bfloat16 autocast of the backbone.
        device: auto, cpu, cuda or cuda:N.
        cache: folder of the decoded images; auto is mspn_ros below the user's cache folder, none
            keeps them in memory.
        checkpoint_minutes: also write a checkpoint within an epoch after so many minutes; 0
            writes one after every step.
    """

    scenes: tuple[str, ...] = ()
    output: str = "runs/train"
    seed: int = 0
    architecture: Architecture = field(default_factory=Architecture)
    weights: str = "imagenet"
    head: HeadKind = "linear"
    landmarks: int = 1000
    shared_head: bool = False
    epochs: int = 100
    batch_size: int = 64
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    cache: str = "auto"
    checkpoint_minutes: float = 5.0
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    coding: CodingConfig = field(default_factory=CodingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: what is read back from a file equals it."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields


def load_config(
    path: Path, overrides: Sequence[str] = (), overlay: Path | None = None
) -> TrainConfig:
    """Read a YAML configuration; ``overrides`` are ``key.sub=value`` strings.

    ``overlay`` is a second YAML file whose settings replace those of the first, such as a
    method's (training/methods.py); overrides come last.

    Raises:
        ConfigError: no such file, bad YAML, an unknown key, or a value out of type or range.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration; presets are 'default' and 'paper'")
    files = [file for file in (path, overlay) if file is not None]
    fields = parse_settings(TrainConfig, overrides, str(path), files)
    result = TrainConfig(**fields | {"scenes": tuple(fields["scenes"])})
    check_config(result)
    return result


def parse_settings(
    kind: type, overrides: Sequence[str], place: str, files: Sequence[Path] = ()
) -> dict[str, Any]:
    """The fields of a dataclass of settings, from YAML files and then ``key.sub=value`` strings.

    Raises:
        ConfigError: at ``place``; an unknown key, or a value of another type.
    """
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(kind, None)
    arguments = [f"--config={file}" for file in files]
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"setting {override!r} is not of the form key=value")
        arguments.append(f"--{override}")
    try:
        # jsonargparse prints usage before raising; the error alone is what helps.
        with redirect_stderr(io.StringIO()):
            parsed = parser.parse_args(arguments)
            config = parser.instantiate(parsed)
    except (jsonargparse.ArgumentError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{place}: {reason[:300]}") from error
    return {k: v for k, v in vars(config).items() if k != "config"}


def check_config(config: TrainConfig) -> None:
    """Hold settings against their bounds and against each other.

    Raises:
        ConfigError: with the setting's name, its value and what is allowed.
    """
    bounds = {
        "seed": (config.seed, 0, 2**31 - 1),
        "epochs": (config.epochs, 1, 100_000),
        "batch_size": (config.batch_size, 2, 65_536),
        "landmarks": (config.landmarks, 1, 100_000),
        "checkpoint_minutes": (config.checkpoint_minutes, 0, 100_000),
        "loss.scene_weight": (config.loss.scene_weight, 0, 1e6),
        "loss.beta": (config.loss.beta, 0, 1e9),
        "sampling.tuple_frames": (config.sampling.tuple_frames, 1, config.batch_size),
        "sampling.tuple_spacing": (config.sampling.tuple_spacing, 1, 10_000),
        "sampling.nothing": (config.sampling.nothing, 0, 1),
        "validation.fraction": (config.validation.fraction, 0, 0.5),
        "validation.blocks": (config.validation.blocks, 1, 1000),
        "validation.gap": (config.validation.gap, 0, 1000),
        "validation.every": (config.validation.every, 1, 100_000),
        "optimizer.backbone_lr": (config.optimizer.backbone_lr, 0, 1),
        "optimizer.head_lr": (config.optimizer.head_lr, 0, 1),
        "optimizer.loss_lr": (config.optimizer.loss_lr, 0, 1),
        "optimizer.weight_decay": (config.optimizer.weight_decay, 0, 1),
        "optimizer.warmup_epochs": (config.optimizer.warmup_epochs, 0, config.epochs),
        "augment.brightness": (config.augment.brightness, 0, 1),
        "augment.contrast": (config.augment.contrast, 0, 1),
        "augment.saturation": (config.augment.saturation, 0, 1),
        "augment.zoom": (config.augment.zoom, 0, 4),
        "augment.roll": (config.augment.roll, 0, 180),
        "augment.shift": (config.augment.shift, 0, 0.5),
    }
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise ConfigError(f"{name} {value} is not within {low} to {high}")
    if config.augment.warps and config.architecture.fit != "squeeze":
        raise ConfigError(
            "augment.zoom, roll and shift warp whole images: set architecture.fit=squeeze, or "
            "leave them at 0"
        )
    if config.shared_head and config.head in ("landmarks", "adapted_landmarks"):
        raise ConfigError("shared_head has no scene whose landmarks it could find: set head=dense")
    if config.shared_head and config.loss.scene_weight:
        raise ConfigError(
            "shared_head has no scene to classify: set loss.scene_weight=0 (as the methods do)"
        )
    if config.sampling.nothing and not config.loss.scene_weight:
        raise ConfigError(
            "sampling.nothing teaches the scene classifier, which loss.scene_weight=0 leaves out"
        )
