# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A backbone made ready: on a device, behind an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mspn_ros.inference.cell_rays import Shot
from mspn_ros.inference.engine_choice import make_engine
from mspn_ros.inference.fit import RowFit
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.records import ImageHW3, Intrinsics


class LoadedBackbone:
    """Everything of a model but its rows; never changed once it is made."""

    def __init__(
        self,
        backbone: Backbone,
        identity: str,
        provenance: dict[str, Any],
        device: torch.device,
        engine: str,
        apart: bool,
    ) -> None:
        """What ``load_backbone`` gives; ``engine`` and ``apart`` as in ``make_engine``.

        Raises:
            ConfigError: see ``make_engine``.
        """
        self.identity, self.provenance, self.device = identity, provenance, device
        self.architecture, self.grids = backbone.architecture, backbone.grids
        self.fit = RowFit(backbone, self.identity)
        self.engine, self.engine_reason = make_engine(engine, backbone, device, apart)

    def prepare(
        self, images: Sequence[ImageHW3], cameras: Sequence[Intrinsics | None] | None
    ) -> tuple[list[Tensor], list[Shot]]:
        """Images and their cameras where known -> (size, size, 3) uint8, and what they were.

        The pixels are on the device.
        """
        shots = [
            Shot(image.shape[0], image.shape[1], camera)
            for image, camera in zip(images, cameras or [None] * len(images), strict=True)
        ]
        view = self.architecture.view
        return [view.prepared(image, self.device) for image in images], shots

    def features(
        self, images: Sequence[ImageHW3], cameras: Sequence[Intrinsics | None] | None
    ) -> tuple[Features, list[Shot]]:
        """Images and their cameras where known -> what heads read of them."""
        prepared, shots = self.prepare(images, cameras)
        return self.engine(torch.stack(prepared)), shots
