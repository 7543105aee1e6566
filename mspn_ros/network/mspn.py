"""Multi-Scene PoseNet: a shared backbone, a scene classifier, a database of scene heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mspn_ros.network.backbone import Architecture, Backbone
from mspn_ros.network.heads import HEADS, SceneClassifier


class Prediction(NamedTuple):
    """logits_BN over scenes, the scene_B whose head was used, pose_BP as the head gives it."""

    logits_BN: Tensor
    scene_B: Tensor
    pose_BP: Tensor


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
    ) -> None:
        super().__init__()
        self.backbone = Backbone(architecture)
        self.shared_head = shared_head
        size = self.backbone.feature_size
        self.classifier = SceneClassifier(scenes, size)
        rows = 1 if shared_head else scenes
        self.heads = HEADS[head](rows, size, architecture.pose_parameters)

    def head_of(self, scene_B: Tensor) -> Tensor:
        """(B,) scene indices -> (B,) indices of the head and of the loss weights they use."""
        return torch.zeros_like(scene_B) if self.shared_head else scene_B

    def forward(self, image_B3HW: Tensor, scene_B: Tensor | None = None) -> Prediction:
        """(B, 3, crop, crop) images -> Prediction.

        ``scene_B`` picks the heads (training, or a known scene); None takes the most likely
        scene, as the paper does at inference.
        """
        return self.read_out(self.backbone(image_B3HW), scene_B)

    def read_out(self, feature_BF: Tensor, scene_B: Tensor | None = None) -> Prediction:
        """(B, F) features -> Prediction, always in float32."""
        with torch.autocast(feature_BF.device.type, enabled=False):
            feature_BF = feature_BF.float()
            logits_BN = self.classifier(feature_BF)
            if scene_B is None:
                scene_B = logits_BN.argmax(1)
            return Prediction(logits_BN, scene_B, self.heads(feature_BF, self.head_of(scene_B)))
