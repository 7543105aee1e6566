"""``scenes.db``: the scene bank, one SQLite row per scene.

SQLite because adding or removing a scene is one transaction, a crash loses nothing, a running
node can watch it, and a copied file opens. ``journal_mode=DELETE`` and not WAL, which could not be
opened from a read-only folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mspn_ros.records import ModelError, SceneRow
from mspn_ros.store.row_format import COLUMNS, pack_row, row_checksum, unpack_row

BANK_FILE = "scenes.db"
BUSY_TIMEOUT_S = 10.0
APPLICATION_ID = 0x4D53504E  # "MSPN"
FORMAT = 1
# A row is below 64 KB at F = 512; this leaves room for F = 65536 and refuses absurd blobs.
MAX_ROW_BYTES = 16_000_000

_SCHEMA = (
    "CREATE TABLE scenes (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    + ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    + ", checksum TEXT NOT NULL)"
)


class SceneBank:
    """An open scene bank; a context manager.

    Writers take the lock at once (``BEGIN IMMEDIATE``) and wait for each other; readers see whole
    transactions only.
    """

    def __init__(self, model_dir: Path, read_only: bool = True) -> None:
        """Open ``model_dir``'s bank; a writer creates it where it is missing.

        Raises:
            ModelError: missing, no SQLite file, or another schema than this version's.
        """
        self.path = model_dir / BANK_FILE
        if read_only and not self.path.is_file():
            raise ModelError(f"{self.path}: no scene bank; make one with 'mspn train'")
        mode = "ro" if read_only else "rwc"
        try:
            self._db = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA trusted_schema=OFF")
            self._db.execute("PRAGMA cell_size_check=ON")
            if not read_only:
                self._db.execute("PRAGMA journal_mode=DELETE")
                self._db.execute("PRAGMA synchronous=FULL")
                self._create()
            self._check_schema()
        except sqlite3.Error as error:
            raise ModelError(f"{self.path}: cannot be opened as a scene bank ({error})") from error

    def __enter__(self) -> SceneBank:
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

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def rows(self) -> list[SceneRow]:
        """All scenes in the order of their ids, from one consistent snapshot.

        Raises:
            ModelError: a row is damaged (its checksum differs) or cannot be read.
        """
        names = ", ".join(("id", *COLUMNS, "checksum"))
        size = " + ".join(f"coalesce(length({name}), 0)" for name in COLUMNS)
        try:
            largest = self._db.execute(f"SELECT max({size}) FROM scenes").fetchone()[0] or 0
            if largest > MAX_ROW_BYTES:
                raise ModelError(
                    f"{self.path}: a row of {largest} bytes is over the limit of {MAX_ROW_BYTES}"
                )
            found = self._db.execute(f"SELECT {names} FROM scenes ORDER BY id").fetchall()
        except sqlite3.Error as error:
            raise ModelError(f"{self.path}: cannot be read ({error}); copy it anew") from error
        return [self._checked(*row) for row in found]

    def _checked(self, scene_id: int, *values: Any) -> SceneRow:
        columns, checksum = values[:-1], values[-1]
        if row_checksum(scene_id, columns) != checksum:
            raise ModelError(
                f"{self.path}: row {scene_id} is damaged (its checksum differs); remove the "
                "scene and add it again, or copy the bank anew"
            )
        return unpack_row(scene_id, columns, f"{self.path} row {scene_id}")

    def add(self, row: SceneRow) -> SceneRow:
        """Store a new scene; returns it with the id that the bank gave (never used before).

        Raises:
            ModelError: name or uuid is taken, or the bank cannot be written.
        """
        columns = pack_row(row)
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        try:
            with self._transaction():
                scene_id = self._db.execute(
                    f"INSERT INTO scenes ({', '.join(COLUMNS)}, checksum) VALUES ({marks})",
                    (*columns, ""),
                ).lastrowid
                assert scene_id is not None
                if scene_id > 2**31 - 1:
                    raise ModelError(f"{self.path}: scene ids are used up; make the bank anew")
                self._db.execute(
                    "UPDATE scenes SET checksum = ? WHERE id = ?",
                    (row_checksum(scene_id, columns), scene_id),
                )
        except sqlite3.IntegrityError as error:
            raise ModelError(
                f"{self.path}: scene {row.name!r} (uuid {row.uuid}) is there already; "
                "remove or rename it first"
            ) from error
        except sqlite3.Error as error:
            raise ModelError(f"{self.path}: cannot be written ({error})") from error
        return replace(row, id=scene_id)
