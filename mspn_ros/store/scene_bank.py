# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``scenes.db``: the scene bank, one SQLite row per scene.

The file itself: bank_file.py. What a row is: row_format.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mspn_ros.records import ModelError, SceneRow, listing
from mspn_ros.store.bank_file import SQLITE_ERRORS, STORED, BankFile, text_of
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

_ALL = ", ".join(("id", *COLUMNS, "checksum"))
# Before anything is fetched: a blob from a stranger may be a gigabyte.
_INDEX_SIZE = " + ".join(f"coalesce(length({name}), 0)" for name in INDEX_COLUMNS)
_SIZE = " + ".join(f"coalesce(length({name}), 0)" for name in COLUMNS)
# Above all rows that ever were. SQLite keeps the highest id beside the table; a second note of it
# outlives a damaged first one.
_NEXT_ID = (
    "SELECT 1 + max(coalesce((SELECT max(id) FROM scenes), 0), "
    "coalesce((SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence), 0))"
)
_FORGET_ID = "DELETE FROM sqlite_sequence WHERE name IS NOT 'scenes'"
_NOTE_ID = "INSERT INTO sqlite_sequence VALUES ('scenes, noted again', ?)"


@dataclass(frozen=True)
class BankContent:
    """Rows in the order of their ids; of the others, by what they are called, what is wrong."""

    rows: list[SceneRow]
    refused: dict[str, str]


class ChangedRowError(ModelError):
    """A row is not what it was when the index was read: the bank has changed since."""


class SceneBank(BankFile):
    """Reads and writes the rows of a bank."""

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
                    except (ModelError, *SQLITE_ERRORS) as error:
                        content.refused[f"row {scene_id}"] = str(error)
        except SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error
        return content

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
        except SQLITE_ERRORS:
            records, count = [], -1
        finally:
            self._db.text_factory = text_of
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
        except SQLITE_ERRORS as error:
            raise self._failed("cannot be read", error) from error
        for scene_id in ids:
            try:
                found = self._db.execute(query, (scene_id,)).fetchall()
                records += found
                if not found:
                    unread[f"row {scene_id}"] = self._too_large(scene_id)
            except SQLITE_ERRORS as error:
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
        except SQLITE_ERRORS as error:
            raise ModelError(
                f"{self.path}: row {scene_id} cannot be read ({error}); copy the bank anew"
            ) from error
        if found is None or found[-1] != checksum:
            raise ChangedRowError(
                f"{self.path}: row {scene_id} has changed since the bank was opened; reload it"
            )
        return self._checked(*found)

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
        marks = ", ".join("?" * (1 + len(STORED)))
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
        except SQLITE_ERRORS as error:
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

    def _taken(self, row: SceneRow) -> ModelError:
        return ModelError(
            f"{self.path}: scene {row.name!r} (uuid {row.uuid}) is there already; "
            "remove or rename it first"
        )
