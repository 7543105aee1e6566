# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images a second by batch, and how much of the processor's arithmetic that is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mspn_ros.evaluation.bench_frames import camera_frames
from mspn_ros.evaluation.bench_latency import network_of
from mspn_ros.evaluation.timing import Progress, machine, measure_in_turn, median_ratio
from mspn_ros.inference.engine_names import PLAIN
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.backbone import Backbone
from mspn_ros.records import ConfigError

DEFAULT_BATCHES = (1, 4, 16)
DEFAULT_ROUNDS = 10
_MOST_BATCH = 1024
# Sides of the square matrices whose product tells the rate: large enough to reach it.
_MATRIX = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Of one batch size: images a second by the engine, by the plain path, and localized whole.

    ``share``: of the rate of matrix products in the engine's precision.
    """

    batch: int
    network_per_s: float
    plain_network_per_s: float
    localized_per_s: float
    speedup: float
    share: float


@dataclass(frozen=True, slots=True)
class ThroughputResult:
    """The keys of ``mspn bench throughput --json``.

    ``operations``: floating-point operations of one image (a multiplication and an addition are
    two); ``matrix_per_s``: operations a second of PyTorch's product of square matrices in
    ``precision``, measured in the same rounds.
    """

    device: str
    engine: str
    precision: str
    operations: int
    matrix_per_s: float
    batches: tuple[BatchResult, ...]
    model: str
    rounds: int
    machine: dict[str, Any]


def bench_throughput(
    model: Path,
    device: str,
    engine: str,
    batches: Sequence[int],
    rounds: int,
    progress: Progress,
) -> ThroughputResult:
    """Measure a model by an engine beside the plain path.

    Raises:
        ModelError, ConfigError: see ``Localizer.load``; or rounds or batches out of range.
    """
    if rounds < 1 or not batches or not 1 <= min(batches) <= max(batches) <= _MOST_BATCH:
        raise ConfigError(f"--rounds is at least 1, --batches are 1 to {_MOST_BATCH}")
    facts = machine()
    localizer = Localizer.load(model, device, engine=engine)
    plain = Localizer.load(model, device, engine=PLAIN)
    precision = localizer.engine.rpartition("_")[2]
    [frame] = camera_frames(640, 480, count=1)
    side = _MATRIX[localizer.device.type]
    tasks: dict[str, Callable[[], object]] = {"matrix": _product(side, precision, localizer.device)}
    sizes = sorted(set(batches))
    for batch in sizes:
        tasks[f"network {batch}"] = network_of(localizer, frame, batch)
        tasks[f"plain {batch}"] = network_of(plain, frame, batch)
        tasks[f"localize {batch}"] = functools.partial(localizer.localize, [frame] * batch)
    times = measure_in_turn(tasks, rounds, progress)
    medians_s = {name: median(found) / 1000 for name, found in times.items()}
    operations, matrix_per_s = operations_of(localizer), 2 * side**3 / medians_s["matrix"]
    found = tuple(
        BatchResult(
            batch=batch,
            network_per_s=batch / medians_s[f"network {batch}"],
            plain_network_per_s=batch / medians_s[f"plain {batch}"],
            localized_per_s=batch / medians_s[f"localize {batch}"],
            speedup=median_ratio(times[f"plain {batch}"], times[f"network {batch}"]),
            share=batch * operations / medians_s[f"network {batch}"] / matrix_per_s,
        )
        for batch in sizes
    )
    return ThroughputResult(
        str(localizer.device),
        localizer.engine,
        precision,
        operations,
        matrix_per_s,
        found,
        f"{localizer.architecture.backbone}, {localizer.architecture.crop} pixels",
        rounds,
        facts,
    )


def operations_of(localizer: Localizer) -> int:
    """Floating-point operations of the backbone for one image; convolutions and products."""
    network = Backbone(localizer.architecture).eval()
    size = localizer.architecture.crop
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    return int(counter.get_total_flops())


def _product(side: int, precision: str, device: torch.device) -> Callable[[], object]:
    dtype = getattr(torch, precision)
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))

    def run() -> object:
        product = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return product

    return run
