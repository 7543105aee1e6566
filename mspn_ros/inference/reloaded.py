# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a reload has changed of the scenes in service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mspn_ros.records import listing
from mspn_ros.store.bank_index import BankIndex


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Names of scenes that came, went, or are not what they were; of renamed ones old and new.

    ``refused`` says of rows that are left out by now, and were not before, why. ``backbone`` holds
    the id of a new backbone, "" where it is the same.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    changed: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    backbone: str = ""

    def __str__(self) -> str:
        """In one line, bounded however large the bank is."""
        renamed = [f"{old} to {new}" for old, new in self.renamed]
        parts = [
            f"{what} {listing(names)}"
            for what, names in (
                ("added", self.added),
                ("removed", self.removed),
                ("renamed", renamed),
                ("changed", self.changed),
                ("left out", [name for name, _ in self.refused]),
            )
            if names
        ]
        if self.backbone:
            parts.insert(0, f"backbone exchanged for {self.backbone[:12]}")
        return "; ".join(parts) or "nothing has changed"

    def __bool__(self) -> bool:
        """Whether anything has changed."""
        return str(self) != str(Reloaded())


def compare(before: BankIndex | None, after: BankIndex | None, backbone: str) -> Reloaded:
    """What has changed from one bank to the next; None is a bank without rows."""
    old, new = _rows(before), _rows(after)
    both = [(old[key], new[key]) for key in new if key in old]
    refused_before = before.refused if before is not None else {}
    refused = after.refused if after is not None else {}
    return Reloaded(
        tuple(new[key][0] for key in new if key not in old),
        tuple(old[key][0] for key in old if key not in new),
        tuple((a[0], b[0]) for a, b in both if a[0] != b[0]),
        tuple(a[0] for a, b in both if a[0] == b[0] and a != b),
        tuple((name, why) for name, why in refused.items() if name not in refused_before),
        backbone,
    )


def _rows(index: BankIndex | None) -> dict[str, tuple[str, str]]:
    """Of each scene, which keeps its uuid, name and checksum."""
    if index is None:
        return {}
    columns: Sequence[Sequence[str]] = (index.uuid, index.name, index.checksum)
    return {uuid: (name, checksum) for uuid, name, checksum in zip(*columns, strict=True)}
