# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Adam for stacked rows: rows without a gradient in a batch stay exactly as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RowAdam(torch.optim.Optimizer):
    """Adam over the first dimension of each parameter, every row with a step count of its own.

    Plain Adam moves a row whose scene is absent from the batch, by its momentum and by a bias
    correction that counts others' steps. Here N stacked layers learn exactly as N separate
    layers under N Adams. A row is absent if its gradient is all zeros in every parameter of its
    group: a layer's weight and bias belong together. Kingma and Ba 2015.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients; ``closure`` is not used."""
        for group in self.param_groups:
            learned = [p for p in group["params"] if p.grad is not None]
            moved = [(p.grad.reshape(p.shape[0], -1) != 0).any(1) for p in learned]
            if not moved:
                continue
            present_N = torch.stack(moved).any(0)
            for parameter in learned:
                self._update(parameter, present_N, group["lr"], group["betas"], group["eps"])

    def _update(
        self,
        parameter: Tensor,
        present_N: Tensor,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        rows = (parameter.shape[0],) + (1,) * (parameter.dim() - 1)
        if not state:
            # Not "step": Optimizer.load_state_dict keeps a state of that name on the CPU.
            state["row_steps"] = torch.zeros(rows, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        present = present_N.view(rows)
        step, mean, square = state["row_steps"], state["exp_avg"], state["exp_avg_sq"]
        step += present
        mean.copy_(torch.where(present, betas[0] * mean + (1 - betas[0]) * gradient, mean))
        square.copy_(torch.where(present, betas[1] * square + (1 - betas[1]) * gradient**2, square))
        # Rows never seen yet have step 0 and would divide by zero.
        counted = step.clamp(min=1)
        corrected = mean / (1 - betas[0] ** counted)
        scale = (square / (1 - betas[1] ** counted)).sqrt() + eps
        parameter.sub_(torch.where(present, lr * corrected / scale, torch.zeros_like(mean)))
