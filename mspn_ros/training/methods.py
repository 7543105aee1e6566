# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The networks that the paper compares, all under one loop: a registry with one config each.

A method is a small YAML file laid over a preset: ``mspn train paper --method naive ...``. F = 2048
and the fixed loss of equation 2 are settings of any of them: ``architecture.feature_size=2048``,
``loss.kind=fixed``.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from mspn_ros.paths import config_file
from mspn_ros.records import ConfigError

# Method -> whether it learns one scene a network.
METHODS: dict[str, bool] = {
    "posenet": True,
    "mapnet": True,
    "naive": False,
    "mspn_oracle": False,
    "mspn": False,
}


def check_scene_count(name: str, scenes: int) -> None:
    """Refuse several scenes for a method that learns one a network.

    Raises:
        ConfigError: too many scenes.
    """
    if METHODS[name] and scenes > 1:
        raise ConfigError(
            f"{name} learns one scene a network, not {scenes}; train them one by one, or take "
            "--method naive"
        )


def method_settings() -> set[str]:
    """Dotted names of the settings that make the methods differ.

    Without the feature size: F = 512 and 2048 are variants of each.
    """
    names: set[str] = set()
    for method in METHODS:
        for key, value in yaml.safe_load(method_file(method).read_text()).items():
            inner = value if isinstance(value, dict) else {}
            names |= {f"{key}.{name}" for name in inner} or {key}
    return names - {"architecture.feature_size"}


def method_file(name: str) -> Path:
    """The YAML file of a method.

    Raises:
        ConfigError: no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"method {name!r} is unknown; known are {', '.join(METHODS)}")
    return config_file(f"methods/{name}.yaml")
