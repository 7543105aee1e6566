"""A backbone made ready: its file read and checked, on a device, behind an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mspn_ros.inference.cell_rays import Shot
from mspn_ros.inference.engine_choice import make_engine
from mspn_ros.inference.fit import RowFit
from mspn_ros.network.backbone import Features
from mspn_ros.records import ImageHW3, Intrinsics
from mspn_ros.store.backbone_file import load_backbone


class LoadedBackbone:
    """Everything of a model but its rows; never changed once it is made."""

    def __init__(self, model_dir: Path, device: torch.device, engine: str) -> None:
        """Read ``model_dir``'s backbone; ``engine`` is a name or auto.

        Raises:
            ModelError: see ``load_backbone``.
            ConfigError: see ``make_engine``.
        """
        backbone, self.identity, self.provenance = load_backbone(model_dir)
        self.device = device
        self.architecture, self.grids = backbone.architecture, backbone.grids
        self.fit = RowFit(backbone, self.identity)
        self.engine, self.engine_reason = make_engine(engine, backbone, device)

    def prepare(
        self, images: Sequence[ImageHW3], cameras: Sequence[Intrinsics | None] | None
    ) -> tuple[list[Tensor], list[Shot]]:
        """Images and their cameras where known -> (size, size, 3) uint8 on the device, and what
        they were.
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
