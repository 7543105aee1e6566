"""The backbone on a CPU by OpenVINO; the optional part of the package that extra openvino brings.

Batch normalisation is folded into convolutions, layers are fused, and memory is laid out for the
processor; in float32 it computes what PyTorch does to six digits.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ConfigError

# By our names: what OpenVINO calls them among a processor's capabilities, and as a hint.
_PRECISIONS = {
    "float32": ("FP32", "f32"),
    "float16": ("FP16", "f16"),
    "bfloat16": ("BF16", "bf16"),
}
_TELEMETRY = "openvino_telemetry"


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """OpenVINO reports its imports to its makers, unless it cannot import what does that: a robot
    has nothing to tell them, and should not wait for a network.
    """
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


@functools.cache
def _openvino() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed, or does not import.
    """
    try:
        with _telemetry_off():
            import openvino

            # Imported by the first conversion otherwise.
            import openvino.tools.ovc
    # A build for another NumPy or libc raises more than ImportError.
    except Exception as error:
        raise ConfigError(
            f"OpenVINO does not import ({error}); pip install 'mspn_ros[openvino]', or take an "
            "engine of PyTorch"
        ) from error
    return openvino


def why_not(precision: str) -> str:
    """Why OpenVINO cannot compute in ``precision`` on this processor; empty where it can."""
    try:
        known = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except ConfigError as error:
        return str(error)
    if _PRECISIONS[precision][0] not in known:
        return f"this processor does not compute in {precision}"
    return ""


class OpenVinoEngine:
    """See the module and ``Engine``."""

    shares_cores = True

    def __init__(self, backbone: Backbone, precision: str) -> None:
        """``precision``: float32, float16 or bfloat16; see ``why_not``.

        Raises:
            ConfigError: the network has a layer that OpenVINO does not know.
        """
        self.name = f"openvino_{precision}"
        self._lock = threading.Lock()
        library, size = _openvino(), backbone.architecture.crop
        flat = _Flat(backbone.cpu().eval())
        example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        with torch.inference_mode():
            features: Features = backbone(flat.planes(example))
        self._names = [name for name, part in features._asdict().items() if part is not None]
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                # PyTorch calls deprecated what OpenVINO reads best.
                warnings.simplefilter("ignore")
                model = library.convert_model(
                    torch.jit.trace(flat, example, check_trace=False),  # type: ignore[no-untyped-call]
                    example_input=example,
                    input=[([-1, size, size, 3], np.uint8)],
                )
            _forget_traces()
            hints = {
                "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][1],
                "PERFORMANCE_HINT": "LATENCY",
                # As many as PyTorch, which OMP_NUM_THREADS bounds; not pinned, since two
                # processes would share the same cores.
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,
            }
            compiled = library.Core().compile_model(model, "CPU", hints)
        # Of its own kinds, one for each stage of the conversion.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"OpenVINO cannot run this {backbone.architecture.backbone} ({reason}); take "
                "engine torch_float32"
            ) from error
        self._request = compiled.create_infer_request()

    def __call__(self, image_BHW3: Tensor) -> Features:
        """See ``Engine``."""
        images = np.require(image_BHW3.numpy(), requirements="C")
        with self._lock:
            found = self._request.infer([images], share_inputs=True, share_outputs=True)
            # Copies: the next call overwrites what the library hands out.
            parts = [torch.from_numpy(array.copy()) for array in found.values()]
        return Features(**dict(zip(self._names, parts, strict=True)))


def _forget_traces() -> None:
    """PyTorch keeps the types of all that was ever traced, and weights with them: a node that
    exchanges its backbone would grow by it each time. Its own tests forget them so.
    """
    with suppress(AttributeError):
        torch._C._jit_clear_class_registry()
        torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
        torch.jit._state._clear_class_state()


class _Flat(nn.Module):
    """The backbone as OpenVINO takes it: channels last, and of Features what is there."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    @staticmethod
    def planes(image_BHW3: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, 3, H, W)."""
        return image_BHW3.permute(0, 3, 1, 2)

    def forward(self, image_BHW3: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(part for part in self.backbone(self.planes(image_BHW3)) if part is not None)
