# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rows whose heads are loaded: stacked by kind, all of a small bank, the latest of a large one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np
import torch

from mspn_ros.inference.cell_rays import CellRays, Shot
from mspn_ros.inference.familiarity import FamiliarityOfRows
from mspn_ros.inference.served_rows import ServedRows
from mspn_ros.network.backbone import Architecture, Features, Grid
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.heads import head_of_rows, padded_landmarks
from mspn_ros.network.scene_head import Reading
from mspn_ros.records import ModelError, SceneRow

# Rows of a bank that is read on demand which stay loaded, of each kind of head.
MOST_LOADED = 32

# Rows whose tensors have equal shapes: what one gives cannot depend on what others hold.
_Shape = tuple[str, int]


class LoadedGroup:
    """Scenes whose heads are of one kind and size, stacked; never changed once it is made.

    ``place`` turns the scenes' places in the bank into places in ``rows`` and in the tensors.
    """

    def __init__(
        self,
        rows: Sequence[SceneRow],
        scenes: Sequence[int],
        architecture: Architecture,
        grids: dict[Grid, int],
        device: torch.device,
    ) -> None:
        self.rows = tuple(rows)
        self.place = {scene: place for place, scene in enumerate(scenes)}
        stored = [{k: torch.tensor(v) for k, v in row.head_tensors.items()} for row in rows]
        feature_size = rows[0].classifier_weight.size
        heads = head_of_rows(rows[0].head, stored, architecture, feature_size)
        self.heads = heads.eval().to(device)
        self.familiarity = FamiliarityOfRows(self.rows).to(device)
        self.rays: CellRays | None = None
        if grid := grids[heads.grid]:
            self.rays = CellRays(rows, architecture.view, grid, device)
        self.coding = PoseCoding(
            torch.tensor(np.stack([row.position_offset for row in rows])),
            torch.tensor([row.position_scale for row in rows]),
            torch.tensor(np.stack([row.reference_rotation for row in rows])),
        ).to(device)

    def read(self, features: Features, shots: Sequence[Shot], places: Sequence[int]) -> Reading:
        """Features of B images and their places in the group -> Reading."""
        place_B = torch.tensor(places, device=features.pooled_BF.device)
        ray_BC3 = None if self.rays is None else self.rays(shots, places)
        return self.heads.read(features, place_B, ray_BC3, None)


class LoadedRows:
    """The groups in service; of a bank that is read on demand, rows come and go."""

    def __init__(
        self,
        rows: ServedRows,
        architecture: Architecture,
        grids: dict[Grid, int],
        device: torch.device,
        most: int = MOST_LOADED,
    ) -> None:
        self._rows, self._most = rows, most
        self._made_for = architecture, grids, device
        self._lock = threading.Lock()
        # Of each shape the scenes, the one that was needed last at the end.
        self._latest: dict[_Shape, dict[int, SceneRow]] = {}
        self._groups: dict[int, LoadedGroup] = {}
        if rows.whole:
            for scene, row in enumerate(rows):
                self._latest.setdefault(_shape(row), {})[scene] = row
            for shape in self._latest:
                self._stack(shape)

    @property
    def distinct(self) -> list[LoadedGroup]:
        """The groups that are loaded, each once."""
        return list({id(group): group for group in self._groups.values()}.values())

    def groups(self, scenes: Collection[int]) -> tuple[dict[int, LoadedGroup], dict[int, str]]:
        """The groups of these scenes, by their places in the bank.

        Of those that cannot be read, why.
        """
        if self._rows.whole:
            return self._groups, {}
        with self._lock:
            troubles = self._load(scenes)
            return {s: self._groups[s] for s in scenes if s not in troubles}, troubles

    def _load(self, scenes: Collection[int]) -> dict[int, str]:
        troubles: dict[int, str] = {}
        grown: set[_Shape] = set()
        for scene in scenes:
            group = self._groups.get(scene)
            try:
                row = self._rows[scene] if group is None else group.rows[group.place[scene]]
            except ModelError as error:
                troubles[scene] = str(error)
                continue
            shape = _shape(row)
            latest = self._latest.setdefault(shape, {})
            latest.pop(scene, None)
            latest[scene] = row
            if group is None:
                grown.add(shape)
        for shape in grown:
            latest = self._latest[shape]
            spare = max(0, len(latest) - self._most)
            for old in [s for s in latest if s not in scenes][:spare]:
                del latest[old], self._groups[old]
            self._stack(shape)
        return troubles

    def _stack(self, shape: _Shape) -> None:
        members = self._latest[shape]
        group = LoadedGroup(list(members.values()), list(members), *self._made_for)
        self._groups.update(dict.fromkeys(members, group))


def _shape(row: SceneRow) -> _Shape:
    return row.head, padded_landmarks(row.head_tensors)
