# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A real model directory with random weights, small enough to make in a test."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mspn_ros.network.backbone import Architecture
from mspn_ros.network.mspn import MSPN
from mspn_ros.records import HeldOutErrors, Intrinsics, SceneRow
from mspn_ros.store.backbone_file import save_backbone
from mspn_ros.store.scene_bank import SceneBank


def make_row(network: MSPN, index: int, name: str, backbone_id: str) -> SceneRow:
    """Scene ``index`` of ``network`` as a row of the bank."""
    size = network.backbone.feature_size
    classifier = network.classifier.rows.row(index)
    return SceneRow(
        name=name,
        uuid=str(uuid.uuid4()),
        frame_id=name,
        backbone_id=backbone_id,
        position_offset=np.array([1.0, 2.0, 3.0]) * (index + 1),
        position_scale=2.0,
        reference_rotation=np.array([0.0, 0.0, 0.0, 1.0]),
        head=network.heads.kind,
        head_tensors={k: v.numpy() for k, v in network.heads.row(index).items()},
        classifier_weight=classifier["weight"][0].numpy(),
        classifier_bias=float(classifier["bias"]),
        s_t=0.0,
        s_q=-3.0,
        feature_mean=np.zeros(size, np.float32),
        feature_std=np.ones(size, np.float32),
        acceptance_threshold=0.0,
        held_out=HeldOutErrors(10, 0.2, 4.0, (0.04, 0.04, 0.04), (0.01, 0.01, 0.01)),
        frames=100,
        box_low=np.full(3, -1.0),
        box_high=np.full(3, 1.0),
        metres_per_unit=1.0,
        provenance={"data": "random"},
        created="2026-01-01T00:00:00+00:00",
    )


def make_tiny_model(
    path: Path,
    scenes: Sequence[str] = ("hall", "lab"),
    seed: int = 0,
    pose_parameters: int = 6,
    crop: int = 64,
) -> Path:
    """A model directory with a random MobileNetV3-small and one row a scene.

    ``crop``: the side of what the network sees.
    """
    torch.manual_seed(seed)
    architecture = Architecture(
        "mobilenet_v3_small", pose_parameters=pose_parameters, resize=crop + 8, crop=crop
    )
    network = MSPN(architecture, len(scenes))
    # Batch statistics of varied pictures: without them a random network's features hardly differ.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        coarse = torch.rand(32, 3, 4, 4) * 255
        network.train()(torch.nn.functional.interpolate(coarse, size=64, mode="bilinear"))
        network.classifier.rows.weight.mul_(5)
    network.eval()
    path.mkdir(parents=True, exist_ok=True)
    identity = save_backbone(path, network.backbone, {"weights": "none"})
    with SceneBank(path, read_only=False) as bank:
        for index, name in enumerate(scenes):
            bank.add(make_row(network, index, name, identity))
    return path


# Head "dense" on whole images; its cells are 16 pixels wide.
DENSE = Architecture(
    "mobilenet_v3_small", cells="fine", cell_features=32, resize=64, crop=64, fit="squeeze"
)


def make_dense_model(path: Path) -> Path:
    """A dense model of scenes hall and lab with random weights; lab's camera is not known."""
    torch.manual_seed(0)
    return _write(path, MSPN(DENSE, 2, "dense").eval())


# Head "landmarks" besides; a place is 8 pixels wide.
LANDMARKS = replace(DENSE, descriptor_features=16)


def make_landmark_model(path: Path) -> Path:
    """As ``make_dense_model``, with 5 landmarks in the hall and 9 in the lab at random places."""
    torch.manual_seed(0)
    network = MSPN(LANDMARKS, 2, "landmarks", landmarks=9).eval()
    network.heads.place_landmarks(0, torch.randn(5, 3))
    network.heads.place_landmarks(1, torch.randn(9, 3))
    return _write(path, network)


def _write(path: Path, network: MSPN) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    identity = save_backbone(path, network.backbone, {})
    camera = Intrinsics(150.0, 150.0, 79.5, 59.5, 160, 120)
    with SceneBank(path, read_only=False) as bank:
        for i, (name, intrinsics) in enumerate((("hall", camera), ("lab", None))):
            bank.add(replace(make_row(network, i, name, identity), intrinsics=intrinsics))
    return path
