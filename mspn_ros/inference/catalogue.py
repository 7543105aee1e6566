# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The catalogue: what others may know of the scenes in service."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mspn_ros.records import SceneRow
from mspn_ros.store.bank_index import BankIndex
from mspn_ros.store.row_format import row_bytes


@dataclass(frozen=True, slots=True)
class SceneInfo:
    """One line of the catalogue; the keys of ``mspn scenes list --json``."""

    id: int
    uuid: str
    name: str
    frame_id: str
    map_frame: str | None
    metres_per_unit: float | None
    frames: int
    bytes: int
    backbone_id: str


def scene_info(row: SceneRow) -> SceneInfo:
    """A row's line of the catalogue."""
    return SceneInfo(
        row.id,
        row.uuid,
        row.name,
        row.frame_id,
        row.map_frame,
        row.metres_per_unit,
        row.frames,
        row_bytes(row),
        row.backbone_id,
    )


def indexed_scenes(index: BankIndex) -> tuple[SceneInfo, ...]:
    """The catalogue of all rows that a bank's index has."""
    columns = [getattr(index, field.name) for field in fields(SceneInfo)]
    return tuple(SceneInfo(*values) for values in zip(*columns, strict=True))
