# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One process or many: what a training process must know of the others under ``torchrun``.

torchrun --nproc_per_node 4 -m mspn_ros train default --scenes ... --output runs/four

Every process draws the same batches and takes its share of each; torch's DistributedDataParallel
averages the gradients. ``batch_size`` is that of all processes together, so that one process and
many take the same steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from mspn_ros.inference.engines import choose_device
from mspn_ros.records import ConfigError

# The others wait while the first process validates.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """This process among ``size``; process 0 writes files and talks."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, tuples: int, frames: int = 1) -> slice:
        """This process's part of a batch of ``tuples`` tuples of ``frames`` images each."""
        first, last = (self.rank + i for i in (0, 1))
        bounds = [tuples * i // self.size * frames for i in (first, last)]
        return slice(*bounds)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes; the value itself where there is one."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(device: str) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun started, if it did; yields this one's device too.

    gloo joins processes on CPUs, NCCL those on GPUs (each takes the one of its local rank).

    Raises:
        ConfigError: no such device, or more processes on a machine than GPUs.
    """
    chosen, _ = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(), chosen
        return
    if chosen.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} has no GPU of its own ({torch.cuda.device_count()} here); lower "
                "torchrun's --nproc_per_node"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"WORLD_SIZE is {size}, but the processes cannot be joined ({reason}); start them by "
            "torchrun"
        ) from error
    try:
        yield World(dist.get_rank(), size), chosen
    finally:
        dist.destroy_process_group()
