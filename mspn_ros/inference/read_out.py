# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From features to poses: classifier, heads and coding of all scenes in service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mspn_ros.inference.catalogue import SceneInfo, indexed_scenes
from mspn_ros.inference.cell_rays import Shot
from mspn_ros.inference.familiarity import sighting_sign
from mspn_ros.inference.field_of_view import FieldsOfView
from mspn_ros.inference.loaded_rows import LoadedGroup, LoadedRows
from mspn_ros.inference.scene_logits import Allowed, SceneLogits
from mspn_ros.inference.served_rows import ServedRows
from mspn_ros.network.backbone import Architecture, Features, Grid
from mspn_ros.network.scene_head import Reading
from mspn_ros.records import Array, SceneRow

# By places in the bank, what to add to the logits of scenes; nothing to those of others.
Prior = Mapping[int, float]

# Of so many scenes an answer tells the probabilities.
MOST_LIKELY = 10


class Likely(NamedTuple):
    """Of one image: the scene that answers and its probability among those that may.

    With a prior, ``probability`` is that of the scene which the image alone makes likeliest.
    ``scenes`` are the most likely ones, by their place in the bank, with their probabilities;
    MOST_LIKELY of them, or all. ``among_all`` is as ``probability``, but among all scenes in
    service, whether they may answer or not.
    """

    scene: int
    probability: float
    scenes: tuple[tuple[int, float], ...]
    among_all: float


class Answer(NamedTuple):
    """Of one image: how likely scenes are, the row that answered, and its pose.

    ``position`` (3,), ``quaternion`` (4,) xyzw; ``covariance`` (6, 6) of position and rotation
    vector as the head gives it, None for heads that give none. All in the scene's frame. Without
    a row, ``trouble`` says why it could not be read; the pose is then NaN. ``familiarity``: see
    inference/familiarity.py; None if the row does not know what is usual.
    """

    likely: Likely
    row: SceneRow | None
    position: Array
    quaternion: Array
    covariance: Array | None
    familiarity: float | None = None
    trouble: str = ""


class GroupReading(NamedTuple):
    """What the heads of one group say: of which images, by which places of the group."""

    images: list[int]
    group: LoadedGroup
    places: list[int]
    reading: Reading


class ReadOut:
    """The bank's rows as tensors on a device; replaced whole when the bank changes."""

    def __init__(
        self,
        rows: ServedRows,
        architecture: Architecture,
        grids: dict[Grid, int],
        device: torch.device,
        before: ReadOut | None = None,
    ) -> None:
        """``before``: what served until now; memory is shared with it where rows were added."""
        self.rows = rows
        self.logits: SceneLogits = SceneLogits(
            rows.columns, device, before.logits if before else None
        )
        self.loaded = LoadedRows(rows, architecture, grids, device)
        self._only: tuple[frozenset[str], Allowed | None] | None = None
        self.fields_of_view = FieldsOfView(rows, architecture.view)

    @cached_property
    def scenes(self) -> tuple[SceneInfo, ...]:
        """The catalogue, made when first asked for."""
        return indexed_scenes(self.rows.columns)

    def only(self, names: frozenset[str]) -> Allowed | None:
        """The scenes of these names, kept for the next call; None where the bank has none."""
        kept = self._only
        if kept is None or kept[0] != names:
            places = [self.index[name] for name in names if name in self.index]
            kept = self._only = (names, self.logits.only(places) if places else None)
        return kept[1]

    @cached_property
    def index(self) -> dict[str, int]:
        """Names to places in the bank."""
        return {name: i for i, name in enumerate(self.rows.columns.name)}

    @torch.inference_mode()
    def read(
        self,
        features: Features,
        shots: Sequence[Shot],
        forced: int | None,
        prior: Prior | None = None,
        allowed: Allowed | None = None,
    ) -> tuple[list[Likely], list[GroupReading], dict[int, str]]:
        """As calls, but what the heads say as they say it.

        How likely scenes are of each image; the readings, group by group; and of scenes whose
        rows could not be read, why.
        """
        likely = self._likely(features.pooled_BF, forced, prior or {}, allowed)
        groups, troubles = self.loaded.groups({one.scene for one in likely})
        asked: dict[int, list[int]] = {}
        for i, one in enumerate(likely):
            if one.scene not in troubles:
                asked.setdefault(id(groups[one.scene]), []).append(i)
        readings = []
        for images in asked.values():
            group = groups[likely[images[0]].scene]
            own = features
            if len(images) < len(shots):
                own = features.of(torch.tensor(images, device=features.pooled_BF.device))
            places = [group.place[likely[i].scene] for i in images]
            reading = group.read(own, [shots[i] for i in images], places)
            readings.append(GroupReading(images, group, places, reading))
        return likely, readings, troubles

    def _likely(
        self, feature_BF: Tensor, forced: int | None, prior: Prior, allowed: Allowed | None
    ) -> list[Likely]:
        logit_BK, scene_BK, total_B1 = self.logits.best(feature_BF, MOST_LIKELY, prior, allowed)
        log_BK = logit_BK.double() - total_B1
        own_B1 = among_all_B1 = log_BK[:, :1]
        if forced is not None:
            own_B1 = (self.logits.of(feature_BF, forced) + prior.get(forced, 0.0)) - total_B1
            among_all_B1 = own_B1
        elif prior or allowed is not None:
            # A place that no scene knows must not look sure because frames before agreed on one.
            alone = self.logits.best(feature_BF, 1, None, allowed)
            own_B1 = among_all_B1 = alone.logit_BK.double() - alone.total_B1
            if allowed is not None:
                everywhere = self.logits.best(feature_BF, 1)
                among_all_B1 = alone.logit_BK.double() - everywhere.total_B1
        # One copy back from the device; places are exact in float64.
        parts = (own_B1.exp(), among_all_B1.exp(), log_BK.exp(), scene_BK.double())
        found = []
        for own, among_all, *values in torch.cat(parts, 1).tolist():
            half = len(values) // 2
            scenes = [int(scene) for scene in values[half:]]
            best = tuple(zip(scenes, values[:half], strict=True))
            found.append(Likely(scenes[0] if forced is None else forced, own, best, among_all))
        return found

    @torch.inference_mode()
    def __call__(
        self,
        features: Features,
        shots: Sequence[Shot],
        forced: int | None,
        prior: Prior | None = None,
        allowed: Allowed | None = None,
    ) -> list[Answer]:
        """Features of B images -> an answer for each.

        ``shots`` are the images as they came; ``forced`` is the scene that is known, ``prior`` what
        is known of others before the images are seen; only ``allowed`` ones may answer.
        """
        likely, readings, troubles = self.read(features, shots, forced, prior, allowed)
        answers: dict[int, Answer] = {}
        for images, group, places, reading in readings:
            place_B = torch.tensor(places, device=features.pooled_BF.device)
            own_BF = features.pooled_BF[images]
            known_B = group.familiarity(own_BF, sighting_sign(reading), place_B)
            parts = [known_B[:, None], *group.coding.decode(reading.pose_BP, place_B)]
            if reading.covariance_B66 is not None:
                own = group.coding.decode_covariance(reading.covariance_B66, place_B)
                parts.append(own.flatten(1))
            # One copy back from the device instead of four.
            packed = torch.cat(parts, 1).cpu().numpy()
            for i, place, row in zip(images, places, packed, strict=True):
                answers[i] = answer_of(likely[i], group.rows[place], row)
        nothing = np.full(8, np.nan)
        for i, one in enumerate(likely):
            if one.scene in troubles:
                answers[i] = answer_of(one, None, nothing)._replace(trouble=troubles[one.scene])
        return [answers[i] for i in range(len(shots))]


def answer_of(likely: Likely, row: SceneRow | None, packed: Array) -> Answer:
    """From familiarity, position, quaternion, and the covariance where there is one, as numbers."""
    known, position, quaternion, covariance = np.split(packed, (1, 4, 8))
    own = covariance.reshape(6, 6) if covariance.size else None
    familiarity = float(known[0]) if np.isfinite(known[0]) else None
    return Answer(likely, row, position, quaternion, own, familiarity)
