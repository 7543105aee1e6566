# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether rows of a scene bank can be served behind a backbone."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mspn_ros.network.backbone import Backbone, Grid
from mspn_ros.network.heads import make_head
from mspn_ros.network.scene_head import SceneHead
from mspn_ros.records import ConfigError, ModelError, SceneRow
from mspn_ros.store.bank_index import BankIndex


class RowFit:
    """What a backbone asks of rows: its id, its feature size, heads of kinds that it can feed."""

    def __init__(self, backbone: Backbone, backbone_id: str) -> None:
        self.backbone_id = backbone_id
        self._architecture = backbone.architecture
        self._feature_size = backbone.feature_size
        self._heads: dict[str, SceneHead] = {}

    def check(self, row: SceneRow) -> None:
        """See whether a row fits.

        Raises:
            ModelError: it is of another backbone, or has other tensors than heads here have.
        """
        self._check_shared(row.name, row.backbone_id, row.classifier_weight.size)
        try:
            tensors = {name: torch.tensor(array) for name, array in row.head_tensors.items()}
            self._head(row.head).check_row(tensors)
        except (ConfigError, ValueError, TypeError) as error:
            raise ModelError(f"scene {row.name!r}: {error}; train the scene anew") from error

    def _check_shared(self, name: str, backbone_id: str, size: int) -> None:
        if backbone_id != self.backbone_id:
            raise ModelError(
                f"scene {name!r} was trained on backbone {backbone_id[:12]}, this model's "
                f"is {self.backbone_id[:12]}; remove the scene or train it anew here"
            )
        if size != self._feature_size:
            raise ModelError(
                f"scene {name!r} has {size} weights a row, the backbone gives "
                f"{self._feature_size} features; train the scene anew"
            )

    def sort_index(self, index: BankIndex) -> BankIndex:
        """The rows that fit as far as the index tells; the others are in ``refused`` by name."""
        kept, refused = [], dict(index.refused)
        fitting = (self.backbone_id, 4 * self._feature_size)
        kinds = {kind: self._trouble(kind) for kind in set(index.head)}
        columns = zip(index.backbone_id, map(len, index.classifier), index.head, strict=True)
        for i, (backbone_id, size, kind) in enumerate(columns):
            if (backbone_id, size) == fitting and kinds[kind] is None:
                kept.append(i)
                continue
            name = index.name[i]
            try:
                self._check_shared(name, backbone_id, size // 4)
            except ModelError as error:
                refused[name] = str(error)
            else:
                refused[name] = f"scene {name!r}: {kinds[kind]}; train the scene anew"
        return index.take(kept, refused)

    def _trouble(self, kind: str) -> str | None:
        try:
            self._head(kind)
        except (ConfigError, ValueError) as error:
            return str(error)
        return None

    def grid(self, kind: str) -> Grid:
        """Which squares of the image heads of this kind read."""
        return self._head(kind).grid

    def sort(self, rows: Iterable[SceneRow]) -> tuple[list[SceneRow], dict[str, str]]:
        """The rows that fit; and by name why the others do not."""
        fitting, refused = [], {}
        for row in rows:
            try:
                self.check(row)
            except ModelError as error:
                refused[row.name] = str(error)
            else:
                fitting.append(row)
        return fitting, refused

    def _head(self, kind: str) -> SceneHead:
        if kind not in self._heads:
            self._heads[kind] = make_head(kind, 1, self._architecture, self._feature_size)
        return self._heads[kind]
