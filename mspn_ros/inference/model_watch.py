# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Notices that the files of a model directory have changed, whichever way."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from mspn_ros.store.backbone_file import BACKBONE_FILE
from mspn_ros.store.bank_file import BANK_FILE
from mspn_ros.store.files import file_stamp

BANK, BACKBONE = "bank", "backbone"


class ModelWatch:
    """Tells what has changed since it was last asked; looking takes about 0.1 ms and no lock stays.

    A bank that is written to by SQLite changes its ``data_version``, which only a connection that
    stays open can tell; one that is replaced by rename changes its inode and no version; one that
    is copied over in place changes its time of modification. Paths are followed anew each time, so
    that links may be turned. For one thread.
    """

    def __init__(self, model_dir: Path) -> None:
        """What is there now counts as seen; a missing file as one that may come."""
        self._bank, self._backbone = model_dir / BANK_FILE, model_dir / BACKBONE_FILE
        self._db: sqlite3.Connection | None = None
        self._opened = 0
        self._file: tuple[int, ...] | None = None
        self._version: tuple[int, int] | None = None
        self._seen = self._look()

    def changed(self) -> frozenset[str]:
        """Those of BANK and BACKBONE that have changed, or may have, since the last call."""
        before, self._seen = self._seen, self._look()
        return frozenset(name for name in self._seen if self._seen[name] != before[name])

    def close(self) -> None:
        """Let go of the bank's file."""
        if self._db is not None:
            self._db.close()
        self._db = None

    def _look(self) -> dict[str, object]:
        bank = file_stamp(self._bank)
        if bank is None or bank[:2] != self._file:
            self.close()
            self._file, self._version = None if bank is None else bank[:2], None
        if bank is not None:
            self._ask_version()
        return {BANK: (bank, self._version), BACKBONE: file_stamp(self._backbone)}

    def _ask_version(self) -> None:
        try:
            if self._db is None:
                # Versions of two connections cannot be compared.
                self._opened += 1
                self._db = sqlite3.connect(
                    f"{self._bank.resolve().as_uri()}?mode=ro",
                    uri=True,
                    timeout=0,
                    isolation_level=None,
                    check_same_thread=False,
                )
            found = self._db.execute("PRAGMA data_version").fetchall()
            self._version = self._opened, found[0][0]
        except sqlite3.Error as error:
            # While another process commits, its change is not there yet: the next look will tell.
            if "locked" in str(error):
                return
            with contextlib.suppress(sqlite3.Error):
                self.close()
            self._version = None
