# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of a bank that a backbone can serve: all read when it is opened, or when asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from mspn_ros.inference.fit import RowFit
from mspn_ros.records import ModelError, SceneRow
from mspn_ros.store.bank_index import BankIndex
from mspn_ros.store.scene_bank import SceneBank

# A file up to this size is read whole, in about a second; of larger ones only the index is.
WHOLE_BYTES = 64_000_000
# Seconds that an answer waits for a writer before it says that a row cannot be read.
_WAIT_S = 0.2


class EmptyBankError(ModelError):
    """A scene bank without any row."""


class ServedRows(Sequence[SceneRow]):
    """Rows in the order of their ids; one that was not read when the bank was opened is read now.

    ``columns`` is the index of all; ``refused`` names rows that cannot be served. A row that is
    read late must have the checksum that the index told when it was opened: answers are those of
    that bank, whatever becomes of the file. A file that is replaced or removed goes on being read
    as it was; of one that is changed in place, rows that are not what they were are refused.
    """

    def __init__(self, model_dir: Path, fit: RowFit, whole_bytes: int = WHOLE_BYTES) -> None:
        """``whole_bytes``: the size of a file up to which all its rows are read here.

        Raises:
            EmptyBankError: the bank has no row.
            ModelError: the bank is missing, no scene bank, or has no row that can be served.
        """
        bank = SceneBank(model_dir, kept=True)
        try:
            with bank.snapshot():
                index = fit.sort_index(bank.index())
                self.whole = bank.path.stat().st_size <= whole_bytes
                self._rows: dict[int, SceneRow] = {}
                self.columns = self._read_all(bank, fit, index) if self.whole else index
        except BaseException:
            bank.close()
            raise
        self.refused = self.columns.refused
        self._fit = fit
        self._bank: SceneBank | None = bank
        self._lock = threading.Lock()
        if self.whole:
            bank.close()
            self._bank = None
        else:
            bank.wait_at_most(_WAIT_S)
        if not len(self.columns):
            self.close()
            for reason in self.refused.values():
                raise ModelError(f"{model_dir}: no scene can be served: {reason}")
            raise EmptyBankError(f"{model_dir}: the scene bank is empty; train or add a scene")

    def _read_all(self, bank: SceneBank, fit: RowFit, index: BankIndex) -> BankIndex:
        kept: list[int] = []
        refused = dict(index.refused)
        for i, (scene_id, checksum) in enumerate(zip(index.id, index.checksum, strict=True)):
            try:
                row = bank.indexed_row(scene_id, checksum)
            except ModelError as error:
                refused[f"row {scene_id}"] = str(error)
                continue
            try:
                fit.check(row)
            except ModelError as error:
                refused[row.name] = str(error)
            else:
                self._rows[len(kept)] = row
                kept.append(i)
        return index.take(kept, refused)

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, place: int) -> SceneRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[SceneRow]: ...
    def __getitem__(self, place: int | slice) -> SceneRow | list[SceneRow]:
        """The row, read from the file where it is not at hand.

        Raises:
            ModelError: it is damaged, does not fit after all, has changed, or cannot be read;
                ``refused`` names it from then on.
        """
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        if place in self._rows:
            return self._rows[place]
        with self._lock:
            return self._read(place)

    def __iter__(self) -> Iterator[SceneRow]:
        return (self[i] for i in range(len(self)))

    def _read(self, place: int) -> SceneRow:
        name = f"row {self.columns.id[place]}"
        if self._bank is None:
            raise ModelError(f"{name}: the bank is closed")
        try:
            row = self._bank.indexed_row(self.columns.id[place], self.columns.checksum[place])
            self._fit.check(row)
        except ModelError as error:
            # Replaced, not changed: others may be going through it.
            self.refused = {**self.refused, name: str(error)}
            raise
        if name in self.refused:
            self.refused = {key: why for key, why in self.refused.items() if key != name}
        return row

    def forget_classifier(self) -> None:
        """Let go of the classifier's bytes: of 100,000 rows, they are 200 MB."""
        self.columns = replace(self.columns, classifier=())

    def close(self) -> None:
        """Let go of the file; rows at hand stay."""
        with self._lock:
            if self._bank is not None:
                self._bank.close()
                self._bank = None

    def __del__(self) -> None:
        # Of one that was never made whole there is nothing to close.
        if getattr(self, "_bank", None) is not None:
            self.close()
