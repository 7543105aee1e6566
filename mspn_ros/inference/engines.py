# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Engines run the backbone: prepared images in, float32 Features out. One small protocol.

``torch_float32`` is the plain path, which every other is held against. How they are chosen is in
inference/engine_choice.py, what each costs and changes in docs/performance.md.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from mspn_ros.inference.engine_names import PLAIN
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ConfigError

# Of each thread that is ``beside`` an engine just now, what it gives back.
_borrowed: list[int] = []
_borrowing = threading.Lock()


class Engine(Protocol):
    """(B, crop, crop, 3) uint8 on the engine's device -> Features, float32, on the same device.

    ``shares_cores``: it has threads of its own, which PyTorch's should not wait busily beside.
    """

    name: str
    shares_cores: bool

    def __call__(self, image_BHW3: Tensor) -> Features:
        """Run the backbone; no gradients."""
        ...


class TorchEngine:
    """Plain eager PyTorch in float32: the path that every faster engine is held against."""

    name = PLAIN
    shares_cores = False

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        exact_float32()
        self._backbone = backbone.to(device).eval()

    @torch.inference_mode()
    def __call__(self, image_BHW3: Tensor) -> Features:
        """See ``Engine``."""
        features: Features = self._backbone(image_BHW3.permute(0, 3, 1, 2).contiguous())
        return features.float()


class HalfEngine:
    """PyTorch in 16 bits, channels last, batch normalisation folded into convolutions.

    Layers' weights are stored in 16 bits; autocast turns what comes to them, and keeps in float32
    what needs it.
    """

    shares_cores = False

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype) -> None:
        self.name = f"torch_{str(dtype).removeprefix('torch.')}"
        self._dtype = dtype
        folded = fold_batch_norm(backbone).to(device).eval()
        for layer in folded.modules():
            # Not the layer after the pooling, which sees float32.
            if isinstance(layer, nn.Conv2d):
                layer.to(dtype)
        self._backbone = folded.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, image_BHW3: Tensor) -> Features:
        """See ``Engine``."""
        # Nothing is left for autocast to cache; a captured graph must not read what it frees.
        with torch.autocast(image_BHW3.device.type, self._dtype, cache_enabled=False):
            features: Features = self._backbone(image_BHW3.permute(0, 3, 1, 2))
        return features.float()


def fold_batch_norm(backbone: Backbone) -> Backbone:
    """A copy in which convolutions do what the batch normalisation behind them did.

    Of networks that cannot be traced, whose layers' order nobody knows, a plain copy.
    """
    folded = copy.deepcopy(backbone).eval()
    network = folded.network
    try:
        nodes = torch.fx.symbolic_trace(network).graph.nodes
    # Whatever the tracer stumbles over in code that is not ours.
    except Exception:
        return folded
    modules = dict(network.named_modules())
    for node in nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        # Only where nobody else reads what the convolution gives.
        if isinstance(conv, nn.Conv2d) and len(before.users) == 1:
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight, fused.bias
            parent, _, name = str(node.target).rpartition(".")
            setattr(network.get_submodule(parent), name, nn.Identity())
    return folded


@contextmanager
def beside(engine: Engine) -> Iterator[None]:
    """While entered, PyTorch leaves the cores to an engine that has threads of its own.

    OpenMP's threads wait for their next task busily, for longer than an image takes: with as many
    of them as cores, OpenVINO's would have none.
    """
    if not engine.shares_cores:
        yield
        return
    with one_thread():
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """While entered, PyTorch does what this thread asks for without any other.

    OpenMP makes threads for every thread that asks for the first time, and ends the process where
    it cannot, as without memory.
    """
    with _borrowing:
        _borrowed.append(usual_threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _borrowing:
            torch.set_num_threads(_borrowed.pop())


def usual_threads() -> int:
    """How many threads PyTorch has, or will have again when nobody is ``beside`` an engine.

    A thread that asks PyTorch for the first time would be told what another thread has set.
    """
    return _borrowed[-1] if _borrowed else torch.get_num_threads()


def exact_float32() -> None:
    """Make float32 mean float32 on CUDA: cuDNN's convolutions use TF32 (10 bits) by default."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def choose_device(name: str) -> tuple[torch.device, str]:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` -> the device, and why it was chosen.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "CUDA present"
        return torch.device("cpu"), "no CUDA device present"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {name!r} is not here ({count} CUDA devices); use auto or cpu")
    return device, "as set"
