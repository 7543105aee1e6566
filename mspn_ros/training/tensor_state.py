"""Optimizer state as plain named tensors: no pickle in checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


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
