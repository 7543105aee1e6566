# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a frame's bytes to its pose, and how much of it is the network: in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mspn_ros.evaluation.answers import latency_percentiles
from mspn_ros.evaluation.bench_frames import camera_frames, jpeg_of
from mspn_ros.evaluation.timing import Progress, machine, measure_in_turn, median_ratio
from mspn_ros.images import decode_compressed, decode_raw
from mspn_ros.inference.engine_names import PLAIN
from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import ConfigError, ImageHW3

DEFAULT_ROUNDS = 60
# (width, height) of camera images; the first is what ratios are about.
SIZES = ((640, 480), (1920, 1080))
CAMERAS = (2, 4)
_NETWORK, _PLAIN_NETWORK, _PLAIN_POSE = "network", "plain network", "plain raw 640x480"
_POSE = "raw 640x480"


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """The keys of ``mspn bench latency --json``; times in milliseconds, medians.

    ``reference_ms``: frame to pose by the plain path, eager PyTorch in float32; ``network_ms``: the
    backbone alone by ``engine``, of a prepared image; ``frame_to_pose_ms``: from the bytes of a raw
    640x480 frame to its pose. ``speedup``: reference_ms over frame_to_pose_ms; ``overhead``:
    frame_to_pose_ms over network_ms; ``network_speedup``: of the backbone alone; all medians of
    ratios within a round. ``first_ms``: the first frame after loading, as a robot's first.
    ``times_ms``: p50, p95 and p99 of everything that was measured.
    """

    device: str
    engine: str
    reference_ms: float
    network_ms: float
    frame_to_pose_ms: float
    speedup: float
    overhead: float
    network_speedup: float
    first_ms: float
    times_ms: dict[str, dict[str, float]]
    model: str
    scenes: int
    rounds: int
    machine: dict[str, Any]


def bench_latency(
    model: Path, device: str, engine: str, rounds: int, progress: Progress
) -> LatencyResult:
    """Measure a model by an engine beside the plain path.

    Raises:
        ModelError, ConfigError: see ``Localizer.load``; or rounds below 1.
    """
    if rounds < 1:
        raise ConfigError(f"--rounds: {rounds} is not at least 1")
    facts = machine()
    localizer = Localizer.load(model, device, engine=engine)
    [frame] = camera_frames(*SIZES[0], count=1)
    start = time.perf_counter()
    localizer.localize([frame])
    first_ms = (time.perf_counter() - start) * 1000
    plain = Localizer.load(model, device, engine=PLAIN)
    times = measure_in_turn(_tasks(localizer, plain), rounds, progress)
    told = {name: latency_percentiles(found) for name, found in times.items()}
    times_ms = {name: part for name, part in told.items() if part is not None}
    return LatencyResult(
        device=str(localizer.device),
        engine=localizer.engine,
        reference_ms=times_ms[_PLAIN_POSE]["p50"],
        network_ms=times_ms[_NETWORK]["p50"],
        frame_to_pose_ms=times_ms[_POSE]["p50"],
        speedup=median_ratio(times[_PLAIN_POSE], times[_POSE]),
        overhead=median_ratio(times[_POSE], times[_NETWORK]),
        network_speedup=median_ratio(times[_PLAIN_NETWORK], times[_NETWORK]),
        first_ms=first_ms,
        times_ms=times_ms,
        model=f"{localizer.architecture.backbone}, {localizer.architecture.crop} pixels",
        scenes=len(localizer.scenes),
        rounds=rounds,
        machine=facts,
    )


def _tasks(localizer: Localizer, plain: Localizer) -> dict[str, Callable[[], object]]:
    [frame], [large] = (camera_frames(*size, count=1) for size in SIZES)
    tasks: dict[str, Callable[[], object]] = {
        _PLAIN_NETWORK: network_of(plain, frame),
        _PLAIN_POSE: _raw(plain, frame),
        _NETWORK: network_of(localizer, frame),
        _POSE: _raw(localizer, frame),
        "raw 1920x1080": _raw(localizer, large),
        "JPEG 640x480": _jpeg(localizer, frame),
        "JPEG 1920x1080": _jpeg(localizer, large),
    }
    for cameras in CAMERAS:
        tasks[f"{cameras} cameras, raw 640x480"] = _raw(localizer, frame, cameras)
    return tasks


def network_of(localizer: Localizer, frame: ImageHW3, batch: int = 1) -> Callable[[], object]:
    """The backbone alone on a prepared image, or many."""
    backbone = localizer.backbone
    prepared, _ = backbone.prepare([frame], None)
    image_BHW3 = prepared[0].expand(batch, -1, -1, -1).contiguous()

    def run() -> object:
        features = backbone.engine(image_BHW3)
        if localizer.device.type == "cuda":
            torch.cuda.synchronize(localizer.device)
        return features

    return run


def _raw(localizer: Localizer, frame: ImageHW3, cameras: int = 1) -> Callable[[], object]:
    content = [bytearray(frame.tobytes()) for _ in range(cameras)]
    height, width, _ = frame.shape

    def run() -> object:
        images = [decode_raw(data, height, width, "rgb8", 3 * width) for data in content]
        return localizer.localize(images)

    return run


def _jpeg(localizer: Localizer, frame: ImageHW3) -> Callable[[], object]:
    content = jpeg_of(frame)
    return lambda: localizer.localize([decode_compressed(content, least=localizer.least_size)])
