"""``scenes.db``: the scene bank, one SQLite row per scene.

SQLite because adding or removing a scene is one transaction, a crash loses nothing, a running
node can watch it, and a copied file opens. ``journal_mode=DELETE`` and not WAL, which could not be
opened from a read-only folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mspn_ros.records import ModelError, SceneRow, listing
from mspn_ros.store.bank_index import RECORD, BankIndex, damaged, make_index
from mspn_ros.store.row_format import (
    CHECKSUMS,
    COLUMNS,
    INDEX_COLUMNS,
    MAX_ROW_BYTES,
    checksums,
    pack_row,
    row_checksum,
    unpack_row,
)

BANK_FILE = "scenes.db"
BUSY_TIMEOUT_S = 10.0
APPLICATION_ID = 0x4D53504E  # "MSPN"
FORMAT = 2

_STORED = INDEX_COLUMNS | CHECKSUMS | COLUMNS
_SCHEMA = (
    "CREATE TABLE scenes (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    + ", ".join(f"{name} {kind}" for name, kind in _STORED.items())
    + ")"
)
_ALL = ", ".join(("id", *COLUMNS, "checksum"))
# Before anything is fetched: a blob from a stranger may be a gigabyte.
_INDEX_SIZE = " + ".join(f"coalesce(length({name}), 0)" for name in INDEX_COLUMNS)
_SIZE = " + ".join(f"coalesce(length({name}), 0)" for name in COLUMNS)
_IDS = "SELECT id FROM scenes NOT INDEXED ORDER BY id"
# SQLite's own index of the second UNIQUE column.
_NAMES_BY_INDEX = "SELECT {} FROM scenes INDEXED BY sqlite_autoindex_scenes_2 ORDER BY name"
# Above all rows that ever were. SQLite keeps the highest id beside the table; a second note of it
# outlives a damaged first one.
_NEXT_ID = (
    "SELECT 1 + max(coalesce((SELECT max(id) FROM scenes), 0), "
    "coalesce((SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence), 0))"
)
_FORGET_ID = "DELETE FROM sqlite_sequence WHERE name IS NOT 'scenes'"
_NOTE_ID = "INSERT INTO sqlite_sequence VALUES ('scenes, noted again', ?)"

# Where SQLite quotes a damaged file in a message, that may be no UTF-8.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
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


@dataclass(frozen=True)
class BankContent:
    """Rows in the order of their ids; of the others, by what they are called, what is wrong."""

    rows: list[SceneRow]
    refused: dict[str, str]


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


class ChangedRowError(ModelError):
    """A row is not what it was when the index was read: the bank has changed since."""


class SceneBank:
    """An open scene bank; a context manager.

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
            SceneBank(model_dir).close()
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
            self._db.text_factory = _text
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
        except _SQLITE_ERRORS as error:
            raise self._failed("cannot be opened as a scene bank", error) from error

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
        """Before writing: a damaged list of free pages would lead to writing over rows."""
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

    def rows(self) -> list[SceneRow]:
        """All scenes in the order of their ids, from one consistent snapshot.

        Raises:
            ModelError: a row is damaged (its checksum differs) or cannot be read.
        """
        content = self.read()
        for reason in content.refused.values():
            raise ModelError(reason)
        return content.rows

    def read(self) -> BankContent:
        """As ``rows``, but rows that are damaged are named beside the others.

        Raises:
            ModelError: the file cannot be read.
        """
        content = BankContent([], {})
        try:
            with self._transaction("BEGIN"):
                ids = self._ids()
                content.refused.update(self._missing(set(ids)))
                for scene_id in ids:
                    try:
                        content.rows.append(self._row(scene_id))
                    except (ModelError, *_SQLITE_ERRORS) as error:
                        content.refused[f"row {scene_id}"] = str(error)
        except _SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error
        return content

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read within sees the bank as it is now; writers wait.

        Raises:
            ModelError: the file cannot be read.
        """
        try:
            with self._transaction("BEGIN"):
                yield
        except _SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error

    def index(self) -> BankIndex:
        """The first columns of all rows, checked; heads are not read.

        Raises:
            ModelError: the file cannot be read.
        """
        small = f"{_INDEX_SIZE} <= {MAX_ROW_BYTES}"
        select = f"SELECT {', '.join(RECORD)} FROM scenes NOT INDEXED WHERE {small}"
        unread: dict[str, str] = {}
        try:
            self._db.text_factory = str  # quicker
            records = self._db.execute(f"{select} ORDER BY id").fetchall()
            (count,) = self._db.execute("SELECT count(*) FROM scenes").fetchone()
        except _SQLITE_ERRORS:
            records, count = [], -1
        finally:
            self._db.text_factory = _text
        if len(records) != count:
            # Damaged pages, texts that are none, huge rows: the others stay in service.
            records, unread = self._read_singly(f"{select} AND id = ?")
        # Damage to the table's pages can show a row twice.
        records = list({record[0]: record for record in records}.values())
        unread |= self._missing({*(record[0] for record in records), *unread})
        return make_index(records, unread, str(self.path))

    def _read_singly(self, query: str) -> tuple[list[tuple[Any, ...]], dict[str, str]]:
        records, unread = [], {}
        try:
            ids = self._ids()
        except _SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error
        for scene_id in ids:
            try:
                found = self._db.execute(query, (scene_id,)).fetchall()
                records += found
                if not found:
                    unread[f"row {scene_id}"] = self._too_large(scene_id)
            except _SQLITE_ERRORS as error:
                unread[f"row {scene_id}"] = f"{self.path}: row {scene_id} cannot be read ({error})"
        return records, unread

    def _too_large(self, scene_id: int) -> str:
        return (
            f"{self.path}: row {scene_id} is over the limit of {MAX_ROW_BYTES} bytes; remove the "
            "scene"
        )

    def indexed_row(self, scene_id: int, checksum: str) -> SceneRow:
        """A whole row, which must be the one that the index spoke of, whatever the file is now.

        Raises:
            ChangedRowError: the row is another one by now, or gone.
            ModelError: it is damaged, or the file cannot be read.
        """
        try:
            found = self._fetched(scene_id)
        except _SQLITE_ERRORS as error:
            raise ModelError(
                f"{self.path}: row {scene_id} cannot be read ({error}); copy the bank anew"
            ) from error
        if found is None or found[-1] != checksum:
            raise ChangedRowError(
                f"{self.path}: row {scene_id} has changed since the bank was opened; reload it"
            )
        return self._checked(*found)

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
        except _SQLITE_ERRORS as error:
            reason = f"its index of names is damaged ({error}), so that rows may be missing"
            return {"index": f"{self.path}: {reason}; copy the bank anew"}
        return {
            f"row {scene_id}": f"{self.path}: row {scene_id} ({name!r:.80}) is in the index of "
            "names, but not in the table; copy the bank anew"
            for scene_id, name in listed
            if scene_id not in ids and f"row {scene_id}" not in ids
        }

    def _checked(self, scene_id: int, *values: Any) -> SceneRow:
        columns, checksum = values[:-1], values[-1]
        if row_checksum(scene_id, columns) != checksum:
            raise ModelError(damaged(str(self.path), scene_id))
        return unpack_row(scene_id, columns, f"{self.path} row {scene_id}")

    def add(self, row: SceneRow) -> SceneRow:
        """Store a new scene; returns it with the id that the bank gave (never used before).

        Raises:
            ModelError: name or uuid is taken, or the bank cannot be written.
        """
        return self.add_all([row])[0]

    def add_all(self, rows: Sequence[SceneRow]) -> list[SceneRow]:
        """As ``add``, all of them or none."""
        with self._writing():
            return [self._insert(row) for row in rows]

    def _insert(self, row: SceneRow) -> SceneRow:
        columns = pack_row(row)
        (scene_id,) = self._db.execute(_NEXT_ID).fetchone()
        if scene_id > 2**31 - 1:
            raise ModelError(f"{self.path}: scene ids are used up; make the bank anew")
        marks = ", ".join("?" * (1 + len(_STORED)))
        try:
            self._db.execute(
                f"INSERT INTO scenes (id, {', '.join((*COLUMNS, *CHECKSUMS))}) VALUES ({marks})",
                (scene_id, *columns, *checksums(scene_id, columns)),
            )
        except sqlite3.IntegrityError as error:
            raise self._taken(row) from error
        self._db.execute(_FORGET_ID)
        self._db.execute(_NOTE_ID, (scene_id,))
        return replace(row, id=scene_id)

    def remove(self, name: str) -> None:
        """Delete a scene, be its row damaged or not.

        Raises:
            ModelError: no such scene, or the bank cannot be written.
        """
        with self._writing():
            self._db.execute("DELETE FROM scenes WHERE id = ?", (self._id_of(name),))

    def change(self, scene: str, **fields: Any) -> SceneRow:
        """Give some of a scene's ``SceneRow`` fields other values; returns the row as it is then.

        Raises:
            ModelError: no such scene, it is damaged, the new name is taken, the values are not
                those of a row, or the bank cannot be written.
        """
        with self._writing():
            # A damaged row must not get a checksum that says it is whole.
            row = replace(self._row(self._id_of(scene)), **fields)
            columns = pack_row(row)
            unpack_row(row.id, columns, f"{self.path} scene {scene!r}")
            settings = ", ".join(f"{column} = ?" for column in (*COLUMNS, *CHECKSUMS))
            try:
                self._db.execute(
                    f"UPDATE scenes SET {settings} WHERE id = ?",
                    (*columns, *checksums(row.id, columns), row.id),
                )
            except sqlite3.IntegrityError as error:
                raise self._taken(row) from error
        return row

    def rename(self, name: str, new_name: str) -> SceneRow:
        """Give a scene another name; its frame follows if it was called like the scene.

        Raises:
            ModelError: see ``change``.
        """
        row = self.row(name).renamed(new_name)
        return self.change(name, name=row.name, frame_id=row.frame_id)

    def names(self) -> list[str]:
        """Of all rows, damaged ones included."""
        return [str(row[0]) for row in self._db.execute("SELECT name FROM scenes ORDER BY id")]

    def row(self, name: str) -> SceneRow:
        """One scene.

        Raises:
            ModelError: no such scene, or it is damaged.
        """
        try:
            return self._row(self._id_of(name))
        except _SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error

    def _row(self, scene_id: int) -> SceneRow:
        found = self._fetched(scene_id)
        if found is None:
            raise ModelError(
                f"{self.path}: row {scene_id} is listed but not found by its id: the file is "
                "damaged, copy it anew"
            )
        return self._checked(*found)

    def _fetched(self, scene_id: int) -> tuple[Any, ...] | None:
        """Id, COLUMNS and checksum as they are stored; all is fetched, so that no lock stays."""
        query = f"SELECT {_SIZE} FROM scenes WHERE id = ?"
        sizes = self._db.execute(query, (scene_id,)).fetchall()
        if sizes and sizes[0][0] > MAX_ROW_BYTES:
            raise ModelError(self._too_large(scene_id))
        found = self._db.execute(f"SELECT {_ALL} FROM scenes WHERE id = ?", (scene_id,)).fetchall()
        return found[0] if found else None

    def _id_of(self, name: str) -> int:
        by_name = "SELECT id FROM scenes {} WHERE name = ?"
        found = self._db.execute(by_name.format(""), (name,)).fetchone()
        # An index that is damaged may lead to another scene's row, or to none.
        same = "SELECT name FROM scenes NOT INDEXED WHERE id = ?"
        if found is None or self._db.execute(same, found).fetchone() != (name,):
            found = self._db.execute(by_name.format("NOT INDEXED"), (name,)).fetchone()
        if found is None:
            known = listing(self.names()).encode(errors="backslashreplace").decode()
            raise ModelError(f"{self.path}: no scene {name!r}; it has {known}")
        return int(found[0])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._transaction():
                yield
        except _SQLITE_ERRORS as error:
            raise self._failed("cannot be written", error) from error

    def _failed(self, what: str, error: Exception) -> ModelError:
        """What SQLite says, with a remedy."""
        name = getattr(error, "sqlite_errorname", "")
        # The right to the file, but not to its journal, shows as SQLITE_CANTOPEN.
        if name == "SQLITE_CANTOPEN" and Path(f"{self.path}-journal").exists():
            name = "SQLITE_READONLY_ROLLBACK"
        remedy = next((text for start, text in _REMEDIES.items() if name.startswith(start)), None)
        return ModelError(f"{self.path}: {what} ({error}); {remedy or 'copy it anew'}")

    def _taken(self, row: SceneRow) -> ModelError:
        return ModelError(
            f"{self.path}: scene {row.name!r} (uuid {row.uuid}) is there already; "
            "remove or rename it first"
        )
