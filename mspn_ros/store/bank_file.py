# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The SQLite file that a scene bank is: opened with care, checked before it is written.

SQLite because adding or removing a scene is one transaction, a crash loses nothing, a running
node can watch it, and a copied file opens. ``journal_mode=DELETE`` and not WAL, which could not be
opened from a read-only folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from mspn_ros.records import ModelError
from mspn_ros.store.row_format import CHECKSUMS, COLUMNS, INDEX_COLUMNS

BANK_FILE = "scenes.db"
BUSY_TIMEOUT_S = 10.0
APPLICATION_ID = 0x4D53504E  # "MSPN"
FORMAT = 2
# Larger files are not read through before a change.
CHECKED_BYTES = 512_000_000

STORED = INDEX_COLUMNS | CHECKSUMS | COLUMNS
_SCHEMA = (
    "CREATE TABLE scenes (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    + ", ".join(f"{name} {kind}" for name, kind in STORED.items())
    + ")"
)
_IDS = "SELECT id FROM scenes NOT INDEXED ORDER BY id"
# SQLite's own index of the second UNIQUE column.
_NAMES_BY_INDEX = "SELECT {} FROM scenes INDEXED BY sqlite_autoindex_scenes_2 ORDER BY name"

# Where SQLite quotes a damaged file in a message, that may be no UTF-8.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
# By the start of SQLite's name for the error; the first that fits.
_REMEDIES = {
    "SQLITE_BUSY": f"another process has been writing for {BUSY_TIMEOUT_S:.0f} s; try again when "
    "it is done, or end it",
    "SQLITE_READONLY_ROLLBACK": "a writer was interrupted and its change must be undone first: "
    "run 'mspn scenes list' on it as a user who may write to the folder",
    "SQLITE_READONLY": "get the right to write to the file and its folder, or copy the model",
    "SQLITE_FULL": "free space; the bank is as it was",
    "SQLITE_IOERR": "check the disk and its free space; the bank is as it was",
    "SQLITE_CANTOPEN": "check the path and the rights to the file and its folder",
}

_File = TypeVar("_File", bound="BankFile")


def text_of(content: bytes) -> str:
    """Text as SQLite stores it, also where it is no UTF-8."""
    return content.decode(errors="surrogateescape")


class BankFile:
    """An open bank; a context manager. ``SceneBank`` reads and writes its rows.

    Writers take the lock at once (``BEGIN IMMEDIATE``) and wait for each other; readers see whole
    transactions only.
    """

    def __init__(self, model_dir: Path, read_only: bool = True, kept: bool = False) -> None:
        """Open ``model_dir``'s bank; a writer creates it where it is missing.

        ``kept``: a reader that stays open while the file may be replaced.

        Raises:
            ModelError: missing, no SQLite file, or another schema than this version's.
        """
        self.path = model_dir / BANK_FILE
        if read_only and not self.path.is_file():
            raise ModelError(f"{self.path}: no scene bank; make one with 'mspn train'")
        # A reader too must undo the half of a change that a killed writer left, or it could not
        # read: SQLite opens what this process may not write as read-only by itself.
        mode = "rw" if read_only else "rwc"
        if kept:
            # But not from a file that is no longer there by this name: SQLite would take the
            # journal of the one that is there now for its own, and delete it under its writer.
            BankFile(model_dir).close()
            mode = "ro"
        try:
            self._db = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            # Bytes that are no UTF-8 shall damage their row, not the reading of all.
            self._db.text_factory = text_of
            self._db.execute("PRAGMA trusted_schema=OFF")
            self._db.execute("PRAGMA cell_size_check=ON")
            self._db.execute("PRAGMA synchronous=FULL")
            if read_only:
                self._db.execute("PRAGMA query_only=ON")
            else:
                self._db.execute("PRAGMA journal_mode=DELETE")
                self._create()
            self._check_schema()
            if not read_only:
                self._check_pages()
        except SQLITE_ERRORS as error:
            raise self._failed("cannot be opened as a scene bank", error) from error

    def __enter__(self: _File) -> _File:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._db.close()

    def wait_at_most(self, seconds: float) -> None:
        """For other processes' locks, from now on, instead of BUSY_TIMEOUT_S."""
        self._db.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")

    def _create(self) -> None:
        with self._transaction():
            if not self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version={FORMAT}")

    def _check_schema(self) -> None:
        # A bank from strangers could carry triggers or views that run on our queries.
        objects = self._db.execute(
            "SELECT sql FROM sqlite_master WHERE name <> 'sqlite_sequence' AND sql IS NOT NULL"
        ).fetchall()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if objects != [(_SCHEMA,)] or version != FORMAT:
            raise ModelError(
                f"{self.path}: its schema (format {version}) is not that of a scene bank of "
                f"format {FORMAT}; make the model anew or use the version that wrote it"
            )

    def _check_pages(self) -> None:
        """Before writing: a damaged list of free pages would lead to writing over rows.

        Of small files only: all is read for it, which would cost large banks seconds a change.
        """
        if self.path.stat().st_size > CHECKED_BYTES:
            return
        found = [str(line) for (line,) in self._db.execute("PRAGMA integrity_check(20)")]
        pages = [line for line in found if line.startswith("*** in database")]
        # What is wrong inside one row is that row's matter: it can be removed.
        indexes = [line for line in found if line != "ok" and " value in " not in line]
        missing = self._missing(set(self._ids())) if indexes and not pages else {}
        if pages or missing:
            reason = " ".join((*pages, *missing.values())[0].split())
            raise ModelError(
                f"{self.path}: its pages are damaged ({reason:.200}), nothing is written to it; "
                "copy the bank anew, or 'mspn scenes export' what 'mspn scenes list' still reads"
            )
        if indexes:
            # A name or uuid has been damaged, in the table or in its index: the table decides.
            with self._writing():
                self._db.execute("REINDEX scenes")

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # After a full disk SQLite has rolled back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read within sees the bank as it is now; writers wait.

        Raises:
            ModelError: the file cannot be read.
        """
        try:
            with self._transaction("BEGIN"):
                yield
        except SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._transaction():
                yield
        except SQLITE_ERRORS as error:
            raise self._failed("cannot be written", error) from error

    def _ids(self) -> list[int]:
        """Of all rows in the table; damage to its pages can show a row twice."""
        return list(dict.fromkeys(i for (i,) in self._db.execute(_IDS)))

    def _missing(self, ids: Container[int | str]) -> dict[str, str]:
        """What is wrong with rows, by what they are called, that only the index of names has.

        Damage to a page of the table can take rows away without a trace in it. ``ids``: the rows
        that are known, by id or by what they are called.
        """
        try:
            listed = self._db.execute(_NAMES_BY_INDEX.format("id")).fetchall()
            if any(i not in ids and f"row {i}" not in ids for (i,) in listed):
                listed = self._db.execute(_NAMES_BY_INDEX.format("id, name")).fetchall()
            else:
                listed = []  # names of a whole bank are not even read
        except SQLITE_ERRORS as error:
            reason = f"its index of names is damaged ({error}), so that rows may be missing"
            return {"index": f"{self.path}: {reason}; copy the bank anew"}
        return {
            f"row {scene_id}": f"{self.path}: row {scene_id} ({name!r:.80}) is in the index of "
            "names, but not in the table; copy the bank anew"
            for scene_id, name in listed
            if scene_id not in ids and f"row {scene_id}" not in ids
        }

    def _failed(self, what: str, error: Exception) -> ModelError:
        """What SQLite says, with a remedy."""
        name = getattr(error, "sqlite_errorname", "")
        # The right to the file, but not to its journal, shows as SQLITE_CANTOPEN.
        if name == "SQLITE_CANTOPEN" and Path(f"{self.path}-journal").exists():
            name = "SQLITE_READONLY_ROLLBACK"
        remedy = next((text for start, text in _REMEDIES.items() if name.startswith(start)), None)
        return ModelError(f"{self.path}: {what} ({error}); {remedy or 'copy it anew'}")
