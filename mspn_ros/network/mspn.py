# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-Scene PoseNet: a shared backbone, a scene classifier, a database of scene heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mspn_ros.network.backbone import Architecture, Backbone, Features
from mspn_ros.network.heads import SceneClassifier, make_head
from mspn_ros.network.scene_head import Reading


class Prediction(NamedTuple):
    """logits_BN over scenes, the scene_B whose head was used, and what the head said."""

    logits_BN: Tensor
    scene_B: Tensor
    reading: Reading

    @property
    def pose_BP(self) -> Tensor:  # noqa: N802
        """The pose, in the coding's parameters."""
        return self.reading.pose_BP


class MSPN(nn.Module):
    """The paper's network (figure 1): image -> feature -> scene -> the scene's dense layer -> pose.

    With ``shared_head`` one dense layer serves all scenes: behind a backbone with PoseNet's neck
    that is PoseNet for one scene, and the paper's naive baseline for several.
    Classifier and heads run in float32 even under autocast: bfloat16 there moves a room-sized
    position by centimetres.
    """

    def __init__(
        self,
        architecture: Architecture,
        scenes: int,
        head: str = "linear",
        shared_head: bool = False,
        landmarks: int = 0,
    ) -> None:
        """``landmarks``: the most that a scene may have, for a head of that kind."""
        super().__init__()
        self.backbone = Backbone(architecture)
        self.shared_head = shared_head
        size = self.backbone.feature_size
        self.classifier = SceneClassifier(scenes, size)
        rows = 1 if shared_head else scenes
        self.heads = make_head(head, rows, architecture, size, landmarks)

    @property
    def grid(self) -> int:
        """Squares along a side of the image whose rays the heads need; 0 for heads without."""
        return self.backbone.grids[self.heads.grid]

    def head_of(self, scene_B: Tensor) -> Tensor:
        """(B,) scene indices -> (B,) indices of the head and of the loss weights they use."""
        return torch.zeros_like(scene_B) if self.shared_head else scene_B

    def forward(
        self,
        image_B3HW: Tensor,
        scene_B: Tensor | None = None,
        ray_BC3: Tensor | None = None,
        seen_BC: Tensor | None = None,
    ) -> Prediction:
        """(B, 3, crop, crop) images -> Prediction.

        ``scene_B`` picks the heads (training, or a known scene); None takes the most likely
        scene, as the paper does at inference. Heads that read a ``grid`` need its squares' rays,
        and may be told which of them are seen.
        """
        return self.read_out(self.backbone(image_B3HW), scene_B, ray_BC3, seen_BC)

    def read_out(
        self,
        features: Features,
        scene_B: Tensor | None = None,
        ray_BC3: Tensor | None = None,
        seen_BC: Tensor | None = None,
    ) -> Prediction:
        """Features -> Prediction, always in float32."""
        with torch.autocast(features.pooled_BF.device.type, enabled=False):
            features = features.float()
            logits_BN = self.classifier(features.pooled_BF)
            if scene_B is None:
                scene_B = logits_BN.argmax(1)
            reading = self.heads.read(features, self.head_of(scene_B), ray_BC3, seen_BC)
            return Prediction(logits_BN, scene_B, reading)
