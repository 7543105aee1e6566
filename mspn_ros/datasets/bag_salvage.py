# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What can still be read of a damaged ROS 2 bag: MCAP chunk by chunk, SQLite row by row.

rosbags wants the index at an MCAP file's end and every page of a database, and a recorder that was
killed, or a disk that was full, leaves neither. Formats: https://mcap.dev/spec and SQLite's own.
"""

from __future__ import annotations

import sqlite3
import struct
import sys
from binascii import crc32
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from lz4.frame import LZ4FrameDecompressor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from mspn_ros.records import BagError

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 3, 4, 5, 6, 15
# Of one chunk, unpacked: a forged size must not allocate gigabytes. rosbag2 writes under 1 MB, and
# one message more.
_MOST_CHUNK_BYTES = 1 << 30
# How far ahead, in rows, a database is asked for the next one that can be read.
_FARTHEST_ROW = 1 << 20


class Connection(NamedTuple):
    """A topic of one type, as rosbags names its parts."""

    topic: str
    msgtype: str
    msgcount: int


@dataclass(slots=True)
class Loss:
    """What could not be read of one file; ``places`` are the damages, in words."""

    file: str
    bytes: int = 0
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.file}: {self.bytes} bytes cannot be read ({'; '.join(self.places)})"


class _Storage(Protocol):
    loss: Loss
    counts: Counter[tuple[str, str]]
    span_ns: tuple[int, int] | None

    def messages(
        self, wanted: set[tuple[str, str]]
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]: ...

    def close(self) -> None: ...


class SalvagedBag:
    """The readable part of MCAP and SQLite files, with rosbags' names for what is asked of it.

    Messages come file by file in the order of the files' own, which is nearly that of log times.
    ``losses`` says what is missing.

    Raises:
        BagError: nothing at all can be read.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self._storages: list[_Storage] = [
            _Mcap(file) if file.suffix == ".mcap" else _Sqlite(file) for file in files
        ]
        counts: Counter[tuple[str, str]] = Counter()
        for storage in self._storages:
            counts.update(storage.counts)
        self.connections = [Connection(*key, count) for key, count in counts.items()]
        self.losses = [storage.loss for storage in self._storages if storage.loss.places]
        spans = [storage.span_ns for storage in self._storages if storage.span_ns is not None]
        if not spans:
            self.close()
            raise BagError(
                f"{path}: cannot be read as a bag, and no message can be salvaged from it "
                f"({'; '.join(map(str, self.losses)) or 'it has none'}); copy it anew"
            )
        self.start_time = min(start for start, _ in spans)
        self.end_time = max(end for _, end in spans) + 1
        self.duration = self.end_time - self.start_time
        self.message_count = sum(counts.values())

    def messages(
        self, connections: Collection[Connection]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, log time in ns, CDR) of the messages that can be read."""
        by_key = {connection[:2]: connection for connection in connections}
        for storage in self._storages:
            for key, log_time_ns, data in storage.messages(set(by_key)):
                yield by_key[key], log_time_ns, data

    def close(self) -> None:
        """Close the files."""
        for storage in self._storages:
            storage.close()


def _records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(opcode, content) of the whole records at the beginning of ``data``."""
    at = 0
    while at + 9 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at + 1)
        if at + 9 + size > len(data):
            return
        yield data[at], data[at + 9 : at + 9 + size]
        at += 9 + size


def _text(data: memoryview, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", data, at)
    return bytes(data[at + 4 : at + 4 + size]).decode(errors="replace"), at + 4 + size


class _Mcap:
    """One MCAP file, read from its beginning without its index."""

    def __init__(self, path: Path) -> None:
        self.loss = Loss(path.name)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.span_ns: tuple[int, int] | None = None
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}
        # Where records with messages begin, and how long they are (a last one is cut off).
        self._parts: list[tuple[int, int, int]] = []
        self._file: BinaryIO = path.open("rb")
        self._size = path.stat().st_size
        self._scan()

    def _scan(self) -> None:
        if self._file.read(8) != _MAGIC:
            self._lose(self._size, "it does not begin as an MCAP file")
            return
        at, ended = 8, False
        while at + 9 <= self._size and not ended:
            self._file.seek(at)
            opcode, size = struct.unpack("<BQ", self._file.read(9))
            whole = at + 9 + size <= self._size
            if opcode in (_SCHEMA, _CHANNEL) and whole:
                self._define(opcode, memoryview(self._file.read(size)))
            elif opcode == _MESSAGE and whole:
                self._parts.append((at, opcode, size))
            elif opcode == _CHUNK:
                self._parts.append((at, opcode, min(size, self._size - at - 9)))
            ended = opcode == _DATA_END
            if not whole:
                self._lose(self._size - at, f"cut off at byte {self._size}")
                break
            at += 9 + size
        else:
            if not ended:
                self._lose(self._size - at, "it ends without its index")
        self._file.seek(max(0, self._size - len(_MAGIC)))
        if ended and self._file.read() != _MAGIC:
            self._lose(0, "its index is cut off, no message is")
        self._parts = [part for part in self._parts if self._count(part)]

    def _lose(self, count: int, where: str) -> None:
        self.loss.bytes += count
        self.loss.places.append(where)

    def _count(self, part: tuple[int, int, int]) -> bool:
        times = []
        for key, log_time_ns, _ in self._messages_of(part, first=True):
            self.counts[key] += 1
            times.append(log_time_ns)
        if times:
            start, end = self.span_ns or (times[0], times[0])
            self.span_ns = min(start, *times), max(end, *times)
        return bool(times)

    def _define(self, opcode: int, data: memoryview) -> None:
        try:
            number, second = struct.unpack_from("<HH", data, 0)
            if opcode == _SCHEMA:
                self._schemas[number] = _text(data, 2)[0]
            else:
                self._channels[number] = _text(data, 4)[0], self._schemas.get(second, "")
        except struct.error:
            self._lose(len(data), "a damaged list of topics")

    def messages(
        self, wanted: set[tuple[str, str]]
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]:
        for part in self._parts:
            found = [item for item in self._messages_of(part) if item[0] in wanted]
            for key, log_time_ns, data in sorted(found, key=lambda item: item[1]):
                yield key, log_time_ns, bytes(data)

    def _messages_of(
        self, part: tuple[int, int, int], first: bool = False
    ) -> Iterator[tuple[tuple[str, str], int, memoryview]]:
        at, opcode, size = part
        self._file.seek(at + 9)
        data = memoryview(self._file.read(size))
        records = [(_MESSAGE, data)] if opcode == _MESSAGE else self._unpacked(at, data, first)
        for kind, content in records:
            if kind in (_SCHEMA, _CHANNEL) and first:
                self._define(kind, content)
            if kind == _MESSAGE and len(content) >= 22:
                channel, _, log_time_ns = struct.unpack_from("<HIQ", content, 0)
                if channel in self._channels:
                    yield self._channels[channel], log_time_ns, content[22:]

    def _unpacked(self, at: int, data: memoryview, first: bool) -> Iterator[tuple[int, memoryview]]:
        """The whole records of a chunk, of which only the beginning may be there."""
        try:
            start_ns, end_ns, size, crc = struct.unpack_from("<QQQI", data, 0)
            compression, begin = _text(data, 28)
            (packed,) = struct.unpack_from("<Q", data, begin)
            body = data[begin + 8 : begin + 8 + packed]
            raw = _decompress(body, compression, min(size, _MOST_CHUNK_BYTES))
            if len(body) == packed and crc and crc32(raw) != crc:
                raise ValueError("its checksum is another")
        except (struct.error, ValueError, RuntimeError, EOFError, zstd.ZstdError) as error:
            if first:
                reason = " ".join(str(error).split())
                seconds = ""
                if len(data) >= 16 and 0 <= (lost_ns := end_ns - start_ns) < 3600 * 10**9:
                    seconds = f" of {lost_ns / 1e9:.2f} s"
                self._lose(len(data), f"a damaged chunk{seconds} at byte {at}: {reason}")
            return
        yield from _records(memoryview(raw))

    def close(self) -> None:
        self._file.close()


def _decompress(data: memoryview, compression: str, most: int) -> bytes:
    """As much of a chunk as its bytes give."""
    if compression == "":
        return bytes(data)
    if compression == "lz4":
        return bytes(LZ4FrameDecompressor().decompress(bytes(data), max_length=most))
    if compression == "zstd":
        return bytes(zstd.ZstdDecompressor().decompress(bytes(data), max_length=most))
    raise ValueError(f"compression {compression[:40]!r} is unknown")


class _Sqlite:
    """One SQLite file, of which pages may be missing."""

    def __init__(self, path: Path) -> None:
        self.loss = Loss(path.name)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.span_ns: tuple[int, int] | None = None
        self._topics: dict[int, tuple[str, str]] = {}
        # What a killed recorder has not moved from its log yet is read, too, where that can be.
        self._database = _open_database(path, has_log(path))
        try:
            rows = self._database.execute("SELECT id, name, type FROM topics").fetchall()
            self._topics = {int(number): (str(name), str(kind)) for number, name, kind in rows}
        except (sqlite3.Error, TypeError, ValueError) as error:
            self.loss.places.append(f"its topics: {error}")
        self.loss.bytes = _missing_bytes(path)
        lost_rows, previous = 0, 0
        for row, topic, log_time_ns in self._rows("topic_id, timestamp"):
            lost_rows += row - previous - 1
            previous = row
            self.counts[topic] += 1
            start, end = self.span_ns or (log_time_ns, log_time_ns)
            self.span_ns = min(start, log_time_ns), max(end, log_time_ns)
        if lost_rows:
            self.loss.places.append(f"{lost_rows} messages between others")
        if self.loss.bytes:
            self.loss.places.append("cut off; the messages at its end are missing")

    def messages(
        self, wanted: set[tuple[str, str]]
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]:
        for _, topic, log_time_ns, data in self._rows("topic_id, timestamp, data"):
            if topic in wanted and isinstance(data, bytes):
                yield topic, log_time_ns, data

    def _rows(self, columns: str) -> Iterator[Any]:
        """(id, topic, log time, ...) of each row that can be read, in the order of ids."""
        last, step = 0, 1
        while step <= _FARTHEST_ROW and self._topics:
            query = f"SELECT id, {columns} FROM messages WHERE id >= ? ORDER BY id"
            try:
                for row, topic, log_time_ns, *rest in self._database.execute(query, (last + step,)):
                    last, step = row, 1
                    if topic in self._topics and isinstance(log_time_ns, int):
                        yield row, self._topics[topic], log_time_ns, *rest
                return
            except sqlite3.Error:
                step *= 2

    def close(self) -> None:
        self._database.close()


def has_log(path: Path) -> bool:
    """Whether SQLite's log lies beside a database: the recorder has not closed it."""
    log = path.with_name(path.name + "-wal")
    return log.is_file() and log.stat().st_size > 0


def _open_database(path: Path, with_log: bool) -> sqlite3.Connection:
    mode = "mode=ro" if with_log else "mode=ro&immutable=1"
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
        # SQLite then goes on where the file is shorter than its header says; it is read only.
        database.execute("PRAGMA writable_schema=ON")
        return database
    except sqlite3.Error as error:
        raise BagError(f"{path}: cannot be opened ({error}); check its permissions") from error


def _missing_bytes(path: Path) -> int:
    """By how much a database is shorter than its header says."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100:
        return 0
    page, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    return max(0, (65536 if page == 1 else page) * pages - path.stat().st_size)
