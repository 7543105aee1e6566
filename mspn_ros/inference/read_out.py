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
from mspn_ros.network.heads import SceneClassifier, head_of_rows
from mspn_ros.network.scene_head import Reading
from mspn_ros.records import Array, SceneRow


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


class _Group:
    """The scenes whose heads are of one kind, stacked; ``scenes`` are their indices in the bank."""

    def __init__(
        self,
        kind: str,
        rows: Sequence[SceneRow],
        scenes: Sequence[int],
        architecture: Architecture,
        grids: dict[Grid, int],
        device: torch.device,
    ) -> None:
        stored = [{k: torch.tensor(v) for k, v in row.head_tensors.items()} for row in rows]
        feature_size = rows[0].classifier_weight.size
        self.heads = head_of_rows(kind, stored, architecture, feature_size).eval().to(device)
        self.rays: CellRays | None = None
        if grid := grids[self.heads.grid]:
            self.rays = CellRays(rows, architecture.view, grid, device)
        self.place = dict(zip(scenes, range(len(scenes)), strict=True))

    def read(self, features: Features, shots: Sequence[Shot], scenes: Sequence[int]) -> Reading:
        """Features of B images and their scenes, all of this group -> Reading."""
        index_B = torch.tensor([self.place[i] for i in scenes], device=features.pooled_BF.device)
        ray_BC3 = None if self.rays is None else self.rays(shots, index_B)
        return self.heads.read(features, index_B, ray_BC3, None)


class ReadOut:
    """The bank's rows as stacked tensors on a device; replaced whole when the bank changes."""

    def __init__(
        self,
        rows: Sequence[SceneRow],
        architecture: Architecture,
        grids: dict[Grid, int],
        device: torch.device,
    ) -> None:
        """``rows`` are those that fit, see ``RowFit``."""
        self.scenes = tuple(scene_info(row) for row in rows)
        self.rows = tuple(rows)
        self.index = {row.name: i for i, row in enumerate(rows)}
        self.classifier = SceneClassifier(len(rows), rows[0].classifier_weight.size)
        for i, row in enumerate(rows):
            weight = torch.tensor(row.classifier_weight)[None]
            self.classifier.rows.set_row(
                i, {"weight": weight, "bias": torch.tensor([row.classifier_bias])}
            )
        self.classifier.to(device)
        self.coding = PoseCoding(
            torch.tensor(np.stack([row.position_offset for row in rows])),
            torch.tensor([row.position_scale for row in rows]),
            torch.tensor(np.stack([row.reference_rotation for row in rows])),
        ).to(device)
        self._groups = {}
        for kind in dict.fromkeys(row.head for row in rows):
            scenes = [i for i, row in enumerate(rows) if row.head == kind]
            members = [rows[i] for i in scenes]
            self._groups[kind] = _Group(kind, members, scenes, architecture, grids, device)

    @property
    def reads_rays(self) -> bool:
        """Whether any of the heads needs to know along which rays an image looks."""
        return any(group.rays is not None for group in self._groups.values())

    @torch.inference_mode()
    def read(
        self, features: Features, shots: Sequence[Shot], forced: int | None
    ) -> tuple[Tensor, list[int], list[tuple[list[int], Reading]]]:
        """As calls, but what the heads say as they say it.

        Probabilities (B, N) float64, the scenes that answer, and for each kind of head that was
        asked the images that it was asked about, with its Reading of them.
        """
        probability_BN = self.classifier(features.pooled_BF).double().softmax(1)
        scenes = [forced] * len(shots) if forced is not None else probability_BN.argmax(1).tolist()
        images: dict[str, list[int]] = {}
        for i, scene in enumerate(scenes):
            images.setdefault(self.rows[scene].head, []).append(i)
        readings = []
        for kind, members in images.items():
            own = features
            if len(members) < len(shots):
                own = features.of(torch.tensor(members, device=features.pooled_BF.device))
            asked = [shots[i] for i in members], [scenes[i] for i in members]
            readings.append((members, self._groups[kind].read(own, *asked)))
        return probability_BN, scenes, readings

    @torch.inference_mode()
    def __call__(
        self, features: Features, shots: Sequence[Shot], forced: int | None
    ) -> list[Answer]:
        """Features of B images -> an answer for each.

        ``shots`` are the images as they came; ``forced`` is the scene that is known.
        """
        probability_BN, scenes, readings = self.read(features, shots, forced)
        answers: dict[int, Answer] = {}
        for members, reading in readings:
            scene_B = torch.tensor([scenes[i] for i in members], device=probability_BN.device)
            position, quaternion = self.coding.decode(reading.pose_BP, scene_B)
            parts = [probability_BN[members], position, quaternion]
            if reading.covariance_B66 is not None:
                own = self.coding.decode_covariance(reading.covariance_B66, scene_B)
                parts.append(own.flatten(1))
            # One copy back from the device instead of four.
            packed = torch.cat(parts, 1).cpu().numpy()
            ends = np.cumsum([part.shape[1] for part in parts])[:-1]
            for i, row in zip(members, packed, strict=True):
                answers[i] = _answer(scenes[i], *np.split(row, ends))
        return [answers[i] for i in range(len(shots))]


def _answer(
    scene: int,
    probability_N: Array,
    position: Array,
    quaternion: Array,
    covariance_36: Array | None = None,
) -> Answer:
    covariance = None if covariance_36 is None else covariance_36.reshape(6, 6)
    return Answer(probability_N, scene, position, quaternion, covariance)
