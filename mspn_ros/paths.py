# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where shipped files lie (in a checkout, a pip or a colcon installation), and what files hold."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from pathlib import Path

from mspn_ros.records import ConfigError

PACKAGE = Path(__file__).resolve().parent


def package_file(*parts: str) -> Path:
    """Path of data inside the Python package.

    ``package_file("demo", "model")`` is the demo's model. Nothing is said about whether it exists:
    the reader names what is missing.
    """
    return PACKAGE.joinpath(*parts)


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content, 32 bytes; zeros for a file that cannot be read.

    A file is read once per process, unless its size or time stamp changes.
    """
    try:
        status = path.stat()
        return _digest_of(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return bytes(32)


@cache
def _digest_of(path: Path, size: int, mtime_ns: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def make_folder(path: Path) -> Path:
    """Make a folder for results, its parents too, or take the one that is there.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be made ({error.strerror}); choose another --output"
        ) from error
    return path


def config_file(name: str) -> Path:
    """Path of an installed configuration file, ``fastdds.xml`` for one.

    The checkout comes first, then ``share/`` of this Python, then those of the sourced ROS 2
    workspaces (``AMENT_PREFIX_PATH``): plain pip has no ament index to ask.

    Raises:
        ConfigError: the file is in none of these folders.
    """
    prefixes = [sys.prefix, *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":"))]
    folders = [PACKAGE.parent / "config"]
    folders += [Path(prefix) / "share" / "mspn_ros" / "config" for prefix in prefixes]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"{name} is in none of {', '.join(map(str, folders))}; reinstall mspn_ros, or source the "
        "workspace that it was built in"
    )
