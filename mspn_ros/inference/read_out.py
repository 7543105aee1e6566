"""From features to poses: classifier, heads and coding of all scenes in service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mspn_ros.inference.catalogue import scene_info
from mspn_ros.inference.cell_rays import CellRays, Shot
from mspn_ros.network.backbone import Architecture, Features, Grid
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.heads import RowError, SceneClassifier, head_of_rows
from mspn_ros.network.scene_head import Reading
from mspn_ros.records import Array, ConfigError, ModelError, SceneRow


class Answer(NamedTuple):
    """Of one image: probabilities (N,), the index of the scene that answered, and its pose.

    ``position`` (3,), ``quaternion`` (4,) xyzw; ``covariance`` (6, 6) of position and rotation
    vector as the head gives it, None for heads that give none. All in the scene's frame.
    """

    probability_N: Array
    scene: int
    position: Array
    quaternion: Array
    covariance: Array | None


class ReadOut:
    """The bank's rows as stacked tensors on a device; replaced whole when the bank changes."""

    def __init__(
        self,
        rows: Sequence[SceneRow],
        architecture: Architecture,
        features: int,
        grids: dict[Grid, int],
        device: torch.device,
    ) -> None:
        self.scenes = tuple(scene_info(row) for row in rows)
        self.rows = tuple(rows)
        self.index = {row.name: i for i, row in enumerate(rows)}
        feature_size = rows[0].classifier_weight.size
        if feature_size != features:
            raise ModelError(
                f"scene {rows[0].name!r} has {feature_size} weights a row, the backbone gives "
                f"{features} features; train the scene anew"
            )
        kinds = {row.head for row in rows}
        if len(kinds) != 1:
            raise ModelError(
                f"scene heads of kinds {', '.join(sorted(kinds))} cannot be served together; "
                "remove the scenes of one kind, or train them anew"
            )
        stored = [{k: torch.tensor(v) for k, v in row.head_tensors.items()} for row in rows]
        try:
            self.heads = head_of_rows(kinds.pop(), stored, architecture, feature_size).eval()
        except RowError as error:
            name = rows[error.index].name
            raise ModelError(f"scene {name!r}: {error}; train the scene anew") from error
        except ConfigError as error:
            raise ModelError(f"scene {rows[0].name!r}: {error}") from error
        self.classifier = SceneClassifier(len(rows), feature_size)
        for i, row in enumerate(rows):
            weight = torch.tensor(row.classifier_weight)[None]
            bias = torch.tensor([row.classifier_bias])
            try:
                self.classifier.rows.set_row(i, {"weight": weight, "bias": bias})
            except ValueError as error:
                raise ModelError(f"scene {row.name!r}: {error}; train the scene anew") from error
        self.classifier.to(device)
        self.heads.to(device)
        self.coding = PoseCoding(
            torch.tensor(np.stack([row.position_offset for row in rows])),
            torch.tensor([row.position_scale for row in rows]),
            torch.tensor(np.stack([row.reference_rotation for row in rows])),
        ).to(device)
        self._rays: CellRays | None = None
        if grid := grids[self.heads.grid]:
            self._rays = CellRays(rows, architecture.view, grid, device)

    @torch.inference_mode()
    def read(
        self, features: Features, shots: Sequence[Shot], forced: int | None
    ) -> tuple[Tensor, Tensor, Reading]:
        """As calls, but what the heads say as they say it: (B, N) float64, (B,), Reading."""
        probability_BN = self.classifier(features.pooled_BF).double().softmax(1)
        scene_B = probability_BN.argmax(1)
        if forced is not None:
            scene_B = torch.full_like(scene_B, forced)
        ray_BC3 = None if self._rays is None else self._rays(shots, scene_B)
        return probability_BN, scene_B, self.heads.read(features, scene_B, ray_BC3, None)

    @torch.inference_mode()
    def __call__(
        self, features: Features, shots: Sequence[Shot], forced: int | None
    ) -> list[Answer]:
        """Features of B images -> an answer for each.

        ``shots`` are the images as they came; ``forced`` is the scene that is known.
        """
        probability_BN, scene_B, reading = self.read(features, shots, forced)
        position, quaternion = self.coding.decode(reading.pose_BP, scene_B)
        parts = [probability_BN, scene_B[:, None].double(), position, quaternion]
        if reading.covariance_B66 is not None:
            parts.append(self.coding.decode_covariance(reading.covariance_B66, scene_B).flatten(1))
        # One copy back from the device instead of five.
        packed = torch.cat(parts, 1).cpu().numpy()
        ends = np.cumsum([part.shape[1] for part in parts])[:-1]
        return [_answer(*np.split(row, ends)) for row in packed]


def _answer(
    probability_N: Array,
    scene_1: Array,
    position: Array,
    quaternion: Array,
    covariance_36: Array | None = None,
) -> Answer:
    covariance = None if covariance_36 is None else covariance_36.reshape(6, 6)
    return Answer(probability_N, int(scene_1[0]), position, quaternion, covariance)
