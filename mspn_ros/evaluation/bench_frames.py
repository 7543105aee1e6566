# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames and models that benchmarks are run with."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mspn_ros.datasets.bags import BagReader
from mspn_ros.evaluation.bench_scenes import random_rows
from mspn_ros.network.backbone import Architecture, Backbone
from mspn_ros.paths import package_file
from mspn_ros.records import ImageHW3
from mspn_ros.store.backbone_file import save_backbone
from mspn_ros.store.scene_bank import SceneBank

# Standard deviation of a camera's noise in grey levels. The demo's images are rendered and small:
# without noise they would compress, once enlarged, to less than half of what a camera's do.
_NOISE = 5.0
_JPEG_QUALITY = 90


def camera_frames(width: int, height: int, count: int = 8) -> list[ImageHW3]:
    """``count`` images as a camera on the demo's walk would give them, (height, width, 3) uint8.

    Images of the packaged bag, resized, with noise; always the same.
    """
    random = np.random.default_rng(0)
    frames = []
    with BagReader(package_file("demo", "walk.mcap")) as bag:
        for message in islice(bag.images(), 0, None, max(1, bag.image_count // count)):
            image = Image.fromarray(message.decode()).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            noisy = np.asarray(image) + random.normal(0, _NOISE, (height, width, 1))
            frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return frames[:count]


def jpeg_of(image: ImageHW3) -> bytes:
    """As camera drivers compress, at quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def write_random_model(folder: Path, backbone: str) -> Path:
    """A model directory of a backbone with random weights and one linear scene, into ``folder``.

    Raises:
        ConfigError: no such backbone.
    """
    torch.manual_seed(0)
    network = Backbone(Architecture(backbone)).eval()
    identity = save_backbone(folder, network, {"weights": "none"})
    with SceneBank(folder, read_only=False) as bank:
        bank.add(next(random_rows(network, identity)))
    return folder
