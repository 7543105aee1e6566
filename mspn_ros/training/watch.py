# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is told of a training run while it goes on, and how it is fetched without waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What a progress display is told after each step.

    ``percent_of_extent`` and ``rotation_deg`` are the batch's median training errors.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    percent_of_extent: float
    rotation_deg: float
    images_per_second: float
    data_wait: float


@dataclass(frozen=True)
class Watch:
    """Callbacks of a training run; all may be left out."""

    loading: Callable[[int, int], None] | None = None
    landmarks: Callable[[int, int], None] | None = None
    step: Callable[[Step], None] | None = None
    epoch: Callable[[dict[str, Any]], None] | None = None


class Fetched:
    """Tensors on their way to the CPU, waited for only when asked for.

    On CUDA the copies are queued right behind the step that made them: asking for them while the
    next step runs does not wait for that one.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)
        self._done = None
        if tensors[0].device.type == "cuda":
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def get(self) -> tuple[Tensor, ...]:
        """The tensors on the CPU."""
        if self._done is not None:
            self._done.synchronize()
        return self._tensors
