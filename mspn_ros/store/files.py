"""Writing files so that a crash or a full disk leaves the old or the new one, never a torn one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mspn_ros.records import ModelError


def write_whole(path: Path, content: bytes) -> None:
    """Write to a temporary file beside ``path``, sync it, rename it over ``path``, sync the folder.

    Raises:
        ModelError: the disk is full or the folder cannot be written; ``path`` is as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
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
