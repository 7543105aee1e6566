# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A backbone as OpenVINO takes it, converted here or in a process of its own.

The optional part of the package that extra openvino brings.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ConfigError
from mspn_ros.store.backbone_file import load_backbone, save_backbone

_TELEMETRY = "openvino_telemetry"
_CONVERTED = "model.xml"
# Seconds for a process to start, import PyTorch and convert; a busy robot takes ten.
_APART_S = 300.0


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """Keeps OpenVINO from reporting its imports to its makers.

    It does, unless it cannot import what does that: a robot has nothing to tell them, and should
    not wait for a network.
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
def openvino() -> Any:
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


def feature_names(backbone: Backbone) -> list[str]:
    """Which of ``Features`` the converted model gives, in its order."""
    size = backbone.architecture.crop
    with torch.inference_mode():
        features: Features = backbone(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    return [name for name, part in features._asdict().items() if part is not None]


def converted(backbone: Backbone, apart: bool) -> Any:
    """An ``openvino.Model``: (B, crop, crop, 3) uint8 -> what is there of Features.

    Python stands still for up to 0.15 s on the way; ``apart`` leaves that to a process of its own,
    so that a node that answers meanwhile misses no frame. Both ways go by a file, which rounds a
    little: a model gives the same bits whichever way it came.

    Raises:
        ConfigError: that process failed.
        Exception: the network has a layer that OpenVINO does not know.
    """
    with tempfile.TemporaryDirectory(prefix="mspn_convert_") as name:
        if apart:
            save_backbone(Path(name), backbone, {})
            _convert_apart(Path(name))
        else:
            _convert(backbone, Path(name))
        core = openvino().Core()
        # The folder is gone in a moment.
        core.set_property({"ENABLE_MMAP": False})
        return core.read_model(Path(name) / _CONVERTED)


def _convert(backbone: Backbone, folder: Path) -> None:
    size = backbone.architecture.crop
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with torch.inference_mode(), warnings.catch_warnings():
        # PyTorch calls deprecated what OpenVINO reads best.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Flat(backbone), example, check_trace=False
        )
        model = openvino().convert_model(
            traced, example_input=example, input=[([-1, size, size, 3], np.uint8)]
        )
    _forget_traces()
    openvino().save_model(model, folder / _CONVERTED, compress_to_fp16=False)


def _convert_apart(folder: Path) -> None:
    """Have a process convert the backbone in a folder."""
    command = [sys.executable, "-m", "mspn_ros.inference.openvino_model", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_APART_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"the backbone cannot be converted apart: {error}") from error
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise ConfigError(f"the backbone cannot be converted apart: {last}")


def _forget_traces() -> None:
    """Forget what PyTorch keeps of models that were traced, as its own tests do.

    It keeps the types of all that was ever traced, and weights with them: a process that loads
    model after model would grow by it each time.
    """
    with suppress(AttributeError):
        torch._C._jit_clear_class_registry()
        torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
        torch.jit._state._clear_class_state()


class _Flat(nn.Module):
    """The backbone with channels last, and of Features what is there."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image_BHW3: Tensor) -> tuple[Tensor, ...]:
        """See ``converted``."""
        features: Features = self.backbone(image_BHW3.permute(0, 3, 1, 2))
        return tuple(part for part in features if part is not None)


if __name__ == "__main__":
    _convert(load_backbone(Path(sys.argv[1]))[0].eval(), Path(sys.argv[1]))
