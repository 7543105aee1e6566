"""Where the data shipped with the package lies: in a checkout, a pip or a colcon installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mspn_ros.records import ConfigError

PACKAGE = Path(__file__).resolve().parent


def package_file(*parts: str) -> Path:
    """Path of data inside the Python package, such as ``package_file("demo", "model")``.

    Nothing is said about whether it exists: the reader names what is missing.
    """
    return PACKAGE.joinpath(*parts)


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
    """Path of an installed configuration file, such as ``config_file("fastdds.xml")``.

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
