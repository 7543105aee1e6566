# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How benchmarks measure: everything in turn, medians and tails, and ratios within a round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Seconds in which one library's threads go to sleep, that would take cores from the next one's.
_REST_S = 0.02
_WARM_UPS = 3

# done, total, note
Progress = Callable[[int, int, str], None]


def measure_in_turn(
    tasks: Mapping[str, Callable[[], object]], rounds: int, progress: Progress
) -> dict[str, list[float]]:
    """Milliseconds of every task in every round.

    Rounds begin with another task each, so that what else the machine does falls on all alike.
    A task is run once more right before it is timed, after a rest; a task on CUDA waits for its
    result.
    """
    for task in tasks.values():
        for _ in range(_WARM_UPS):
            task()
    names = list(tasks)
    found: dict[str, list[float]] = {name: [] for name in names}
    for done in range(rounds):
        progress(done, rounds, "rounds measured")
        for step in range(len(names)):
            name = names[(done + step) % len(names)]
            time.sleep(_REST_S)
            tasks[name]()
            start = time.perf_counter()
            tasks[name]()
            found[name].append((time.perf_counter() - start) * 1000)
    return found


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of one task's time to another's."""
    return float(np.median(np.array(times) / np.array(others)))


def machine() -> dict[str, Any]:
    """What the numbers are of: processor or GPU, threads, versions, and the load just now."""
    facts: dict[str, Any] = {"cpu": _cpu_name(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    facts["threads"] = torch.get_num_threads()
    for name in ("torch", "openvino"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    facts["load"] = os.getloadavg()[0]
    return facts


def _cpu_name() -> str:
    """From the kernel, with the instructions that 16-bit engines are quick by."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    fast = sorted(flags & {"avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16"})
    return " ".join([fields.get("model name", "unknown"), *(f"+{flag}" for flag in fast)])
