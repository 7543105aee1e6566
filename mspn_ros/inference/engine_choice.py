# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which engine runs the backbone: the one asked for, or the fastest that is as good as exact.

An engine that computes something else than the plain path is found out before it answers: both see
the same images when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mspn_ros.inference import openvino_engine
from mspn_ros.inference.engine_names import AUTO, ENGINES, PLAIN, check_engine_name
from mspn_ros.inference.engines import Engine, HalfEngine, TorchEngine, usual_threads
from mspn_ros.inference.openvino_engine import OpenVinoEngine
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ConfigError, MspnError

# How far features may be off the plain path's on the trial's images, as a share of the largest one:
# some rounding, and no other network.
_EXACT, _HALF = 1e-4, 0.1
_TRIAL_IMAGES = 2


@dataclass(frozen=True, slots=True)
class _Kind:
    """``device_type`` it runs on, any if empty; ``why_not``: why it cannot, empty where it can.

    ``good``: why auto may take it, empty where its answers differ by more than is asked for.
    """

    device_type: str
    make: Callable[[Backbone, torch.device, bool], Engine]
    tolerance: float
    good: str = ""
    why_not: Callable[[], str] = lambda: ""


def _openvino(precision: str, good: str = "") -> _Kind:
    return _Kind(
        "cpu",
        # As many threads as PyTorch, which OMP_NUM_THREADS bounds.
        lambda backbone, device, apart: OpenVinoEngine(backbone, precision, usual_threads(), apart),
        _EXACT if precision == "float32" else _HALF,
        good,
        lambda: openvino_engine.why_not(precision),
    )


def _half(device_type: str, dtype: torch.dtype, good: str = "") -> _Kind:
    def make(backbone: Backbone, device: torch.device, apart: bool) -> Engine:
        return HalfEngine(backbone, device, dtype)

    return _Kind(device_type, make, _HALF, good)


def _plain(backbone: Backbone, device: torch.device, apart: bool) -> Engine:
    return TorchEngine(backbone, device)


# In the order in which auto tries them.
_KINDS = {
    "openvino_float32": _openvino("float32", "the fastest that is exact"),
    "openvino_float16": _openvino("float16"),
    "openvino_bfloat16": _openvino("bfloat16"),
    "torch_bfloat16": _half("cpu", torch.bfloat16),
    "torch_float16": _half("cuda", torch.float16, "10 bits keep poses within a few percent"),
    PLAIN: _Kind("", _plain, 0.0, "the plain path"),
}
assert tuple(_KINDS) == ENGINES


def make_engine(
    name: str, backbone: Backbone, device: torch.device, apart: bool = False
) -> tuple[Engine, str]:
    """An engine for a backbone on a device, and why this one; ``name`` is auto or one of ENGINES.

    The backbone is the engine's from then on. ``apart``: others are being answered meanwhile; what
    would hold up Python is done by a process of its own.

    Raises:
        ConfigError: no such engine, it does not run here, or it fails the trial.
    """
    if name != AUTO:
        return _asked_for(name, backbone, device, apart), "as set"
    passed_over: list[str] = []
    for other, kind in _KINDS.items():
        if kind.device_type not in ("", device.type) or not kind.good:
            continue
        try:
            engine = _asked_for(other, backbone, device, apart)
            return engine, "; ".join([kind.good, *passed_over])
        except MspnError as error:
            passed_over.append(f"not {other}: {error}")
    raise ConfigError(f"no engine runs on {device}: {'; '.join(passed_over)}")


def _asked_for(name: str, backbone: Backbone, device: torch.device, apart: bool) -> Engine:
    check_engine_name(name)
    kind = _KINDS[name]
    if kind.device_type not in ("", device.type):
        raise ConfigError(f"engine {name!r} runs on {kind.device_type}, not on {device}")
    if why := kind.why_not():
        raise ConfigError(why)
    plain = TorchEngine(backbone, device)
    if name == PLAIN:
        return plain
    image_BHW3 = trial_images(backbone.architecture.crop).to(device)
    expected = plain(image_BHW3)
    # What a driver or a library may raise, out of memory above all.
    try:
        engine = kind.make(backbone, device, apart)
        found = engine(image_BHW3)
    except RuntimeError as error:
        raise ConfigError(f"engine {name!r} fails: {str(error).partition(chr(10))[0]}") from error
    if (off := deviation(found, expected)) > kind.tolerance:
        raise ConfigError(
            f"engine {name!r} computes something else than {PLAIN}: features are off by "
            f"{off:.2g} of the largest, {kind.tolerance:.0e} is allowed"
        )
    return engine


def trial_images(size: int) -> Tensor:
    """(B, size, size, 3) uint8: smooth and rough, light and dark, the same on each machine."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(_TRIAL_IMAGES, 3, 8, 8, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    rough = torch.rand(_TRIAL_IMAGES, 3, size, size, generator=random)
    return (255 * (0.7 * smooth + 0.3 * rough)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def deviation(found: Features, expected: Features) -> float:
    """The farthest that any feature is off, as a share of the largest of its kind; inf for NaN."""
    worst = 0.0
    for part, other in zip(found, expected, strict=True):
        if part is not None and other is not None:
            off = float((part - other).abs().max() / other.abs().max().clamp(min=1e-12))
            worst = max(worst, off) if off == off else float("inf")
    return worst
