# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: network, loss weights and optimizers as named tensors, without pickle.

And what makes two runs the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mspn_ros.datasets.base import SceneData
from mspn_ros.paths import file_digest
from mspn_ros.records import ConfigError, MspnError
from mspn_ros.store.files import read_tensors, write_tensors
from mspn_ros.training.config import TrainConfig
from mspn_ros.training.learner import Learner

CHECKPOINT_FILE = "checkpoint.safetensors"
# Settings of the machine, not of the result.
_PLACE_FIELDS = ("output", "device", "cache", "checkpoint_minutes")


@dataclass
class Progress:
    """How far a run is: whole epochs, steps of the present one, and what they have summed up.

    ``loss_sum`` is over ``seen`` images of the present epoch, ``seconds`` and ``waited_s`` are
    the time it has taken and the part of it spent waiting for data.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self, entry: dict[str, Any]) -> None:
        """Close the present epoch with its history entry."""
        self.history.append(entry)
        self.epoch, self.step, self.seen = self.epoch + 1, 0, 0
        self.loss_sum, self.seconds, self.waited_s = 0.0, 0.0, 0.0


def run_identity(config: TrainConfig, scenes: Sequence[SceneData], weights: str) -> dict[str, Any]:
    """All that decides a run's result, as JSON: settings and data, not folders and devices.

    ``weights`` says what the backbone starts from by content, as ``Learner.weights`` does.
    """
    fields = config.to_json()
    for name in _PLACE_FIELDS:
        del fields[name]
    # More epochs may be added under a constant rate.
    if config.optimizer.schedule == "constant":
        del fields["epochs"]
    fields["weights"] = weights
    fields["scenes"] = [scene.name for scene in scenes]
    fields["data"] = data_digest(scenes)
    return fields


def data_digest(scenes: Sequence[SceneData]) -> str:
    """SHA-256 over names, splits, poses, cameras and images of all frames.

    Heads are learned for the coding of these very poses; a run that went on with others would
    end in wrong poses without a word.
    """
    digest = hashlib.sha256()
    for scene in scenes:
        for frame in scene.frames:
            text = f"{scene.name}|{frame.name}|{frame.split}|{frame.intrinsics}|"
            digest.update(text.encode())
            digest.update(frame.pose.position.tobytes() + frame.pose.quaternion.tobytes())
            digest.update(file_digest(frame.image_path))
    return digest.hexdigest()


def save_checkpoint(
    folder: Path,
    identity: dict[str, Any],
    learner: Learner,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Write the checkpoint whole: a crash or a full disk leaves the one before.

    Raises:
        ModelError: the disk is full or the folder cannot be written.
    """
    tensors = {f"learner.{k}": v for k, v in learner.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        tensors |= flatten_state(f"optimizer{i}", optimizer)
    fields = {"config": identity, "progress": vars(progress)}
    write_tensors(folder / CHECKPOINT_FILE, tensors, fields)


def load_checkpoint(
    folder: Path,
    identity: dict[str, Any],
    learner: Learner,
    optimizers: Sequence[torch.optim.Optimizer],
) -> Progress | None:
    """Put a run back to its last checkpoint; None if there is none.

    Raises:
        ConfigError: the checkpoint is of another configuration or other data.
        ModelError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    tensors, fields = read_tensors(path)
    stored = fields.get("config")
    if stored != identity:
        stored = stored if isinstance(stored, dict) else {}
        other = sorted(k for k in identity | stored if identity.get(k) != stored.get(k))
        raise ConfigError(
            f"{path}: made with other settings ({', '.join(other)}); "
            "choose another output folder or the settings of that run"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        start = f"{prefix}."
        return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

    try:
        learner.load_state_dict(part("learner"))
        for i, optimizer in enumerate(optimizers):
            restore_state(optimizer, part(f"optimizer{i}"))
        return Progress(**fields["progress"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MspnError(
            f"{path}: from another version ({reason}); train anew in another folder"
        ) from error


def flatten_state(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """``{prefix}.{parameter number}.{name}`` -> tensor, for every tensor of the state."""
    return {
        f"{prefix}.{number}.{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of ``flatten_state``, prefix removed; groups keep their present settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    # In the memory layout of its parameter, as it was before: another one rounds otherwise.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                if value.shape == parameter.shape:
                    own = torch.empty_like(parameter, dtype=value.dtype)
                    optimizer.state[parameter][name] = own.copy_(value)
