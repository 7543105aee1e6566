"""Engines run the backbone: prepared images in, float32 Features out. One small protocol."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ConfigError


class Engine(Protocol):
    """(B, 3, crop, crop) uint8 on the engine's device -> Features, float32, on the same device."""

    name: str

    def __call__(self, image_B3HW: Tensor) -> Features:
        """Run the backbone; no gradients."""
        ...


class TorchEngine:
    """Plain eager PyTorch in float32: the path that every faster engine is held against."""

    name = "torch_float32"

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        exact_float32()
        self._backbone = backbone.to(device).eval()

    @torch.inference_mode()
    def __call__(self, image_B3HW: Tensor) -> Features:
        """See ``Engine``."""
        features: Features = self._backbone(image_B3HW)
        return features.float()


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
