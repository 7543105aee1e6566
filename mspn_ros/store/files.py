# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writing files so that a crash or a full disk leaves the old or the new one, never a torn one."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mspn_ros.records import ModelError

# Seconds without a write after which a temporary file that nobody holds was left by one killed.
_LEFT_S = 60.0


def write_whole(path: Path, content: bytes) -> None:
    """Write to a temporary file beside ``path``, sync it, rename it over ``path``, sync the folder.

    A writer that is killed leaves its temporary file; the next one removes it.

    Raises:
        ModelError: the disk is full or the folder cannot be written; ``path`` is as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        _remove_leftovers(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from error


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of writers of ``path`` that were killed.

    A writer holds its file; one that has just made it may not yet.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), part.open("rb") as file:
            if time.time() - part.stat().st_mtime > _LEFT_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """What differs once a file has been replaced or written to; None where there is none.

    Device, inode, time of the last change of its content in ns, and size.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` against other processes, waiting for it first.

    The system lets go of it when this process ends, however it ends; the empty file stays.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_tensors(path: Path, tensors: dict[str, Tensor], fields: dict[str, Any]) -> None:
    """A safetensors file with ``fields`` as JSON in its metadata, written whole.

    Raises:
        ModelError: see ``write_whole``.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(contiguous, metadata={"mspn": json.dumps(fields)})
    write_whole(path, content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and fields of a file by ``write_tensors``.

    Raises:
        ModelError: missing, truncated, or without our metadata.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; name a model directory made by 'mspn train'")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            fields = json.loads((file.metadata() or {})["mspn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: truncated or not written by mspn_ros ({error}); copy it anew"
        ) from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: its metadata is no JSON object; copy it anew")
    return tensors, fields
