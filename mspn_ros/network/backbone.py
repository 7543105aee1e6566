# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The shared backbone: any torchvision classifier without its classifier, pooled to F numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from mspn_ros.network.cells import CellNeck, PlaceNeck, tapped
from mspn_ros.records import ConfigError, ModelError
from mspn_ros.view import View, normalise

# The attribute that holds the classifier, by family: ResNet and its kin, MobileNet and its kin,
# Swin, ViT.
CLASSIFIER_NAMES = ("fc", "classifier", "head", "heads")

# Which squares of the image a head reads.
Grid = Literal["none", "cells", "places"]

# PoseNet's and MapNet's, between the hidden layer and the pose.
POSENET_DROPOUT = 0.5


@dataclass(frozen=True)
class Architecture:
    """All that decides what the backbone computes from an image; stored beside its weights.

    ``feature_size`` None keeps the network's own width (512 for ResNet-34, the paper's section
    4.1); a number adds a projection to it (2048 gives the paper's parameter counts). ``neck`` is
    what follows the pooling: ``linear``, or ``posenet`` for the ReLU and dropout of the networks
    before MSPN (Kendall and Cipolla 2017), which needs a ``feature_size``.
    ``cells`` says which feature map a head reads besides: none, ``coarse`` (cells of 32 pixels)
    or ``fine`` (16 pixels, fused with the coarse map), ``cell_features`` numbers a cell.
    ``descriptor_features`` above 0 describes besides every square of 8 pixels by a unit vector of
    so many numbers, for heads that look for landmarks.
    Images become squares of ``crop`` pixels as ``fit`` says, see ``view.View``.
    """

    backbone: str = "resnet34"
    feature_size: int | None = None
    neck: Literal["linear", "posenet"] = "linear"
    cells: Literal["none", "coarse", "fine"] = "none"
    cell_features: int = 512
    descriptor_features: int = 0
    pose_parameters: int = 6
    resize: int = 256
    crop: int = 224
    fit: Literal["crop", "squeeze"] = "crop"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.pose_parameters not in (6, 7):
            raise ConfigError(f"pose_parameters {self.pose_parameters} is not 6 or 7")
        # A squeezed image is crop pixels wide and high, whatever resize says.
        resize = self.crop if self.fit == "squeeze" else self.resize
        if not 32 <= self.crop <= resize <= 2048:
            raise ConfigError(
                f"crop {self.crop} and resize {resize} need 32 <= crop <= resize <= 2048"
            )
        if self.fit not in ("crop", "squeeze"):
            raise ConfigError(f"fit {self.fit!r} is not crop or squeeze")
        if self.feature_size is not None and not 1 <= self.feature_size <= 65536:
            raise ConfigError(f"feature_size {self.feature_size} is not within 1 to 65536")
        if self.neck not in ("linear", "posenet"):
            raise ConfigError(f"neck {self.neck!r} is not linear or posenet")
        if self.cells not in ("none", "coarse", "fine"):
            raise ConfigError(f"cells {self.cells!r} is not none, coarse or fine")
        if not 1 <= self.cell_features <= 4096:
            raise ConfigError(f"cell_features {self.cell_features} is not within 1 to 4096")
        if not 0 <= self.descriptor_features <= 1024:
            raise ConfigError(f"descriptor_features {self.descriptor_features} is not 0 to 1024")
        if self.descriptor_features and self.cells == "none":
            raise ConfigError("descriptor_features are made of cells, too: set cells=fine")
        if self.neck == "posenet" and self.feature_size is None:
            raise ConfigError("neck posenet needs a feature_size; PoseNet's is 2048")

    @property
    def view(self) -> View:
        """What of an image the network sees."""
        return View(self.crop, self.resize, self.fit)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in a fixed order."""
        fields = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        # Absent where they are the usual ones: the ids of models made before there was a choice
        # hold.
        if self.cells == "none":
            del fields["cells"], fields["cell_features"]
        for name, usual in (
            ("neck", "linear"),
            ("fit", "crop"),
            ("descriptor_features", 0),
        ):
            if fields[name] == usual:
                del fields[name]
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Architecture:
        """The inverse of ``to_json``.

        Raises:
            ModelError: unknown or missing fields, or values that make no network.
        """
        try:
            tuples = {key: tuple(fields[key]) for key in ("mean", "std")}
            return cls(**{**fields, **tuples})
        except (KeyError, TypeError, ConfigError) as error:
            raise ModelError(f"the stored architecture is not usable: {error}") from error


class Features(NamedTuple):
    """What the backbone says of images: ``pooled_BF`` of the whole, ``cell_BCD`` of C cells.

    ``place_BED`` are unit vectors that describe E places, ``rough_BEW`` what they are made of by
    one dense layer. Cells and places come row by row; None where the architecture has none.
    """

    pooled_BF: Tensor
    cell_BCD: Tensor | None = None
    place_BED: Tensor | None = None
    rough_BEW: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Features:
        """All that are there, changed alike."""
        others = (None if part is None else change(part) for part in self[1:])
        return Features(change(self.pooled_BF), *others)

    def only(self, names: Sequence[str]) -> Features:
        """The pooled ones and those named."""
        named = zip(self._fields[1:], self[1:], strict=True)
        return Features(self.pooled_BF, *(part if name in names else None for name, part in named))

    def float(self) -> Features:
        """In float32."""
        return self.each(Tensor.float)

    def of(self, index_B: Tensor) -> Features:
        """Those of some of the images."""
        return self.each(lambda part: part[index_B])

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """Of several batches of images, one after the other."""
        others = (
            None if alike[0] is None else torch.cat([part for part in alike if part is not None])
            for alike in zip(*(part[1:] for part in parts), strict=True)
        )
        return Features(torch.cat([part.pooled_BF for part in parts]), *others)


class Backbone(nn.Module):
    """(B, 3, crop, crop) uint8 or 0..255 float images -> Features.

    Normalises, runs the torchvision network up to its global average pooling, then projects
    where the architecture asks for it: linearly, or as PoseNet by FC, ReLU and dropout. With
    ``cells``, feature maps on the way are fused besides.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = _without_classifier(architecture.backbone)
        self.register_buffer("mean", torch.tensor(architecture.mean), persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std), persistent=False)
        width = _output_width(self.network, architecture.crop)
        self.projection: nn.Module = nn.Identity()
        if architecture.feature_size is not None:
            self.projection = nn.Linear(width, architecture.feature_size)
        if architecture.neck == "posenet":
            self.projection = nn.Sequential(self.projection, nn.ReLU(), nn.Dropout(POSENET_DROPOUT))
        self.feature_size = architecture.feature_size or width
        self.neck: CellNeck | None = None
        if architecture.cells != "none":
            self.neck = CellNeck(
                self.network, architecture.cells, architecture.crop, architecture.cell_features
            )
        self.place_neck: PlaceNeck | None = None
        if architecture.descriptor_features:
            self.place_neck = PlaceNeck(
                self.network,
                architecture.crop,
                architecture.cell_features,
                architecture.descriptor_features,
            )

    @property
    def grids(self) -> dict[Grid, int]:
        """Cells and places along a side of the image, 0 without."""
        return {
            "none": 0,
            "cells": 0 if self.neck is None else self.neck.cells,
            "places": 0 if self.place_neck is None else self.place_neck.places,
        }

    def forward(self, image_B3HW: Tensor) -> Features:
        """See the class."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        names: dict[int, str] = {}
        for neck in (self.neck, self.place_neck):
            names |= {} if neck is None else neck.names
        with tapped(self.network, names) as maps:
            output = self.network(normalise(image_B3HW, self.mean, self.std))
        pooled_BF: Tensor = self.projection(_pool(output))
        if self.neck is None:
            return Features(pooled_BF)
        cells_BDHW = self.neck(maps)
        if self.place_neck is None:
            return Features(pooled_BF, _row_by_row(cells_BDHW))
        grids = (cells_BDHW, *self.place_neck(maps, cells_BDHW))
        return Features(pooled_BF, *map(_row_by_row, grids))


def _without_classifier(name: str) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"backbone {name!r} is no torchvision classifier; known are {', '.join(known)}"
        )
    extra = {}
    if name in ("googlenet", "inception_v3"):
        # transform_input turns ImageNet's normalisation into the one these two were trained with.
        extra = {"aux_logits": False, "init_weights": True, "transform_input": True}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **extra)
    attribute = next(a for a in CLASSIFIER_NAMES if hasattr(network, a))
    # SqueezeNet pools inside its classifier.
    pooled = name.startswith("squeezenet")
    setattr(network, attribute, nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity())
    if name.startswith(("vgg", "alexnet")):
        # Their 7x7 (6x6) pooling feeds dense layers that are gone; the paper pools globally.
        network.avgpool = nn.AdaptiveAvgPool2d(1)
    return network


def _row_by_row(map_BDHW: Tensor) -> Tensor:
    return map_BDHW.flatten(2).transpose(1, 2)


def _pool(output: Tensor) -> Tensor:
    return output.mean((2, 3)) if output.dim() == 4 else output.flatten(1)


def _output_width(network: nn.Module, size: int) -> int:
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return _pool(network(torch.zeros(1, 3, size, size))).shape[1]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"the backbone cannot take {size}x{size} images: {error}") from error
    finally:
        network.train(training)


def backbone_identity(backbone: Backbone) -> str:
    """``backbone_id``: SHA-256 over the architecture and every tensor, hex.

    Canonical JSON of the architecture, then for each tensor in sorted order its name, dtype,
    shape and little-endian bytes. Two backbones share an id only if they compute the same.
    """
    return weights_identity(backbone.architecture, backbone.state_dict())


def weights_identity(architecture: Architecture, tensors: Mapping[str, Tensor]) -> str:
    """``backbone_identity`` of a backbone that is not built yet."""
    digest = hashlib.sha256()
    digest.update(repr(sorted(architecture.to_json().items())).encode())
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
