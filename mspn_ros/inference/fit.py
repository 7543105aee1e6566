"""Whether rows of a scene bank can be served behind a backbone."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mspn_ros.network.backbone import Backbone
from mspn_ros.network.heads import make_head
from mspn_ros.network.scene_head import SceneHead
from mspn_ros.records import ConfigError, ModelError, SceneRow


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
        if row.backbone_id != self.backbone_id:
            raise ModelError(
                f"scene {row.name!r} was trained on backbone {row.backbone_id[:12]}, this model's "
                f"is {self.backbone_id[:12]}; remove the scene or train it anew here"
            )
        size = row.classifier_weight.size
        if size != self._feature_size:
            raise ModelError(
                f"scene {row.name!r} has {size} weights a row, the backbone gives "
                f"{self._feature_size} features; train the scene anew"
            )
        try:
            tensors = {name: torch.tensor(array) for name, array in row.head_tensors.items()}
            self._head(row.head).check_row(tensors)
        except (ConfigError, ValueError, TypeError) as error:
            raise ModelError(f"scene {row.name!r}: {error}; train the scene anew") from error

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
