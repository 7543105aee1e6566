# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Feature maps of the backbone, fused into one vector for each square of the image.

Cells are the larger squares, of 32 or 16 pixels, places those of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mspn_ros.records import ConfigError

# Pixels a cell is wide, by Architecture.cells.
STRIDES = {"coarse": (32,), "fine": (16, 32)}
# Pixels a place is wide.
PLACE_STRIDE = 8
# Numbers a place is worked on with, before it is described: W.
PLACE_WIDTH = 128


class CellNeck(nn.Module):
    """Maps of one or two strides -> (B, D, h, w): cells of D numbers each.

    The coarser map, which knows most of the image, is brought to the finer one's resolution and
    added to it, each through a dense layer; then every cell looks at its neighbours once.
    """

    def __init__(self, network: nn.Module, kind: str, size: int, features: int) -> None:
        """``size``: the image's pixels. ``features`` is D.

        Raises:
            ConfigError: the network has no such maps, or the image is no multiple of 32.
        """
        super().__init__()
        found = _stages(network, size)
        missing = [stride for stride in STRIDES[kind] if stride not in found]
        if missing or size % 32:
            raise ConfigError(
                f"cells {kind!r} need images of a multiple of 32 pixels (crop is {size}) and a "
                f"backbone with feature maps of stride {', '.join(map(str, STRIDES[kind]))}; take "
                "another crop, a backbone such as resnet34 or mobilenet_v2, or cells=none"
            )
        self.names = {stride: found[stride][0] for stride in STRIDES[kind]}
        self.cells = size // min(self.names)
        self.inputs = nn.ModuleDict(
            {
                str(stride): nn.Conv2d(found[stride][1], features, 1, bias=False)
                for stride in self.names
            }
        )
        self.mix = nn.Sequential(*_look_around(features))

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        """{stride: (B, channels, h, w)} -> (B, D, h, w)."""
        total: Tensor | None = None
        for stride in self.names:
            part = self.inputs[str(stride)](maps[stride])
            if total is not None:
                size = (total.shape[2], total.shape[3])
                part = total + F.interpolate(part, size, mode="bilinear")
            total = part
        cells_BDHW: Tensor = self.mix(total)
        return cells_BDHW


class PlaceNeck(nn.Module):
    """The map of stride 8 and the cells -> (B, D, h, w): places, each of a unit vector.

    The early map knows where exactly something is, the cells what it is part of.
    """

    def __init__(self, network: nn.Module, size: int, cell_features: int, features: int) -> None:
        """``size``: the image's pixels. ``features`` is D.

        Raises:
            ConfigError: the network has no such map.
        """
        super().__init__()
        found = _stages(network, size)
        if PLACE_STRIDE not in found:
            raise ConfigError(
                f"descriptor_features need a backbone with a feature map of stride {PLACE_STRIDE}; "
                "take one such as resnet34 or mobilenet_v2, or descriptor_features=0"
            )
        self.names = {PLACE_STRIDE: found[PLACE_STRIDE][0]}
        self.places = size // PLACE_STRIDE
        self.early = nn.Conv2d(found[PLACE_STRIDE][1], PLACE_WIDTH, 1, bias=False)
        self.late = nn.Conv2d(cell_features, PLACE_WIDTH, 1, bias=False)
        self.mix = nn.Sequential(*_look_around(PLACE_WIDTH), nn.Conv2d(PLACE_WIDTH, features, 1))

    def forward(self, maps: dict[int, Tensor], cells_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """{8: (B, channels, h, w)} and the cells -> (B, D, h, w), and the (B, W, h, w) before."""
        early = self.early(maps[PLACE_STRIDE])
        late = F.interpolate(self.late(cells_BCHW), early.shape[2:], mode="bilinear")
        rough_BWHW = self.mix[:-1](early + late)
        return F.normalize(self.mix[-1](rough_BWHW), dim=1), rough_BWHW

    @property
    def projection(self) -> tuple[Tensor, Tensor]:
        """The dense layer W -> D that describes: weight (D, W), bias (D,)."""
        last = self.mix[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        return last.weight.detach()[:, :, 0, 0], last.bias.detach()


def _look_around(features: int) -> list[nn.Module]:
    """Layers by which every square looks at its neighbours once."""
    return [
        nn.BatchNorm2d(features),
        nn.Hardswish(),
        nn.Conv2d(features, features, 3, padding=1, groups=features, bias=False),
        nn.Conv2d(features, features, 1, bias=False),
        nn.BatchNorm2d(features),
        nn.Hardswish(),
    ]


@contextmanager
def tapped(network: nn.Module, names: dict[int, str]) -> Iterator[dict[int, Tensor]]:
    """While entered, a forward pass leaves the named modules' outputs in the dictionary."""
    maps: dict[int, Tensor] = {}

    def tap(stride: int, name: str) -> torch.utils.hooks.RemovableHandle:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            maps[stride] = output

        return network.get_submodule(name).register_forward_hook(keep)

    handles = [tap(stride, name) for stride, name in names.items()]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _stages(network: nn.Module, size: int) -> dict[int, tuple[str, int]]:
    """Stride -> (name, channels) of the last stage that gives a map of that stride.

    Stages are the network's parts and the parts of its sequences (layer3, features.13).
    """
    stages = dict(network.named_children())
    for name, part in network.named_children():
        if isinstance(part, nn.Sequential):
            stages |= {f"{name}.{child}": module for child, module in part.named_children()}
    found: dict[int, tuple[str, int]] = {}
    seen: list[tuple[str, object]] = []
    handles = [
        module.register_forward_hook(lambda m, i, output, name=name: seen.append((name, output)))
        for name, module in stages.items()
    ]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    for name, output in seen:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3]:
            stride, rest = divmod(size, output.shape[2])
            if not rest:
                found[stride] = (name, output.shape[1])
    return found
