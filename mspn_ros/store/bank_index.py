# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The index of a scene bank: what is read of all rows when it is opened, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mspn_ros.store.row_format import INDEX_COLUMNS, check_index_columns, index_checksum

# As records come from the file; the last is the index's own checksum.
RECORD = ("id", *INDEX_COLUMNS, "checksum", "index_checksum")

_Blob = bytes  # a field is called bytes


@dataclass(frozen=True)
class BankIndex:
    """Columns of the index, in the order of ids.

    ``classifier`` holds F little-endian float32 a row. ``checksum`` is what the whole row must
    have when it is read later. ``refused`` says of damaged rows, by what they are called, what is
    wrong; they are not in the columns.
    """

    id: Sequence[int]
    uuid: Sequence[str]
    name: Sequence[str]
    frame_id: Sequence[str]
    map_frame: Sequence[str | None]
    metres_per_unit: Sequence[float | None]
    backbone_id: Sequence[str]
    head: Sequence[str]
    frames: Sequence[int]
    bytes: Sequence[int]
    acceptance_threshold: Sequence[float]
    classifier_bias: Sequence[float]
    classifier: Sequence[_Blob]
    checksum: Sequence[str]
    refused: dict[str, str]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, kept: Sequence[int], refused: dict[str, str]) -> BankIndex:
        """Only the rows at these places, and why others are left out."""
        columns = [getattr(self, name) for name in RECORD[:-1]]
        if len(kept) < len(self):
            columns = [[column[i] for i in kept] for column in columns]
        return _made(columns, refused)


def _made(columns: Sequence[Any], refused: dict[str, str]) -> BankIndex:
    return BankIndex(**dict(zip(RECORD[:-1], columns, strict=True)), refused=refused)


def make_index(records: Sequence[tuple[Any, ...]], unread: dict[str, str], place: str) -> BankIndex:
    """Check records, one a row and in the order of RECORD; ``unread``: rows that gave none."""
    refused, whole = dict(unread), []
    for record in records:
        try:
            if index_checksum(record[0], record[1:-2], record[-2]) == record[-1]:
                whole.append(record)
                continue
            reason = damaged(place, record[0])
        except ValueError as error:
            reason = _odd(place, record[0], error)
        refused[f"row {record[0]}"] = reason
    columns = _columns(whole)
    try:
        check_index_columns(columns[1:-2])
    except ValueError:
        # Which of them, only a look at each can tell.
        whole = [record for record in whole if _is_sound(record, place, refused)]
        columns = _columns(whole)
    return _made(columns[:-1], refused)


def _columns(records: Sequence[tuple[Any, ...]]) -> list[Sequence[Any]]:
    return list(zip(*records, strict=True)) if records else [()] * len(RECORD)


def _is_sound(record: tuple[Any, ...], place: str, refused: dict[str, str]) -> bool:
    try:
        check_index_columns([(value,) for value in record[1:-2]])
    except ValueError as error:
        refused[f"row {record[0]}"] = _odd(place, record[0], error)
        return False
    return True


def _odd(place: str, scene_id: int, error: ValueError) -> str:
    return f"{place} row {scene_id}: not a scene of this version ({error})"


def damaged(place: str, scene_id: int) -> str:
    """What is said of a row whose checksum differs."""
    return (
        f"{place}: row {scene_id} is damaged (its checksum differs); remove the scene and add it "
        "again, or copy the bank anew"
    )
