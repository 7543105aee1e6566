# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The backbone on a CPU by OpenVINO.

Batch normalisation is folded into convolutions, layers are fused, and memory is laid out for the
processor; in float32 it computes what PyTorch does to six digits.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from mspn_ros.inference.openvino_model import converted, feature_names, openvino
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ConfigError

# By our names: what OpenVINO calls them among a processor's capabilities, and as a hint.
_PRECISIONS = {
    "float32": ("FP32", "f32"),
    "float16": ("FP16", "f16"),
    "bfloat16": ("BF16", "bf16"),
}


def why_not(precision: str) -> str:
    """Why OpenVINO cannot compute in ``precision`` on this processor; empty where it can."""
    try:
        known = openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except ConfigError as error:
        return str(error)
    if _PRECISIONS[precision][0] not in known:
        return f"this processor does not compute in {precision}"
    return ""


class OpenVinoEngine:
    """See the module and ``Engine``."""

    shares_cores = True

    def __init__(self, backbone: Backbone, precision: str, threads: int, apart: bool) -> None:
        """``precision``: float32, float16 or bfloat16; see ``why_not``.

        ``threads`` are its own. ``apart``: convert in a process of its own, see ``converted``.

        Raises:
            ConfigError: the network has a layer that OpenVINO does not know.
        """
        self.name = f"openvino_{precision}"
        self._lock = threading.Lock()
        backbone = backbone.cpu().eval()
        self._names = feature_names(backbone)
        hints = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][1],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Two processes would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = converted(backbone, apart)
            compiled = openvino().Core().compile_model(model, "CPU", hints)
        except ConfigError:
            raise
        # Of the library's own kinds, one for each stage.
        except Exception as error:
            told = [line for line in str(error).splitlines() if "Exception from" not in line]
            reason = told[0] if told else type(error).__name__
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
