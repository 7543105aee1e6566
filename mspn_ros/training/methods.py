"""The networks that the paper compares, all under one loop: a registry with one config each.

A method is a small YAML file laid over a preset: ``mspn train paper --method naive ...``. F = 2048
and the fixed loss of equation 2 are settings of any of them: ``architecture.feature_size=2048``,
``loss.kind=fixed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from mspn_ros.paths import config_file
from mspn_ros.records import ConfigError


@dataclass(frozen=True)
class Method:
    """One column of the paper's tables.

    Attributes:
        title: as tables write it.
        single_scene: one network a scene, so that a run takes just one scene.
    """

    title: str
    single_scene: bool = False


METHODS: dict[str, Method] = {
    "posenet": Method("PoseNet (single)", single_scene=True),
    "mapnet": Method("MapNet (single)", single_scene=True),
    "naive": Method("Naive (multiple)"),
    "mspn_oracle": Method("MSPN (multiple), scene known"),
    "mspn": Method("MSPN (multiple), end to end"),
}


def check_scene_count(name: str, scenes: int) -> None:
    """Refuse several scenes for a method that learns one a network.

    Raises:
        ConfigError: too many scenes.
    """
    if METHODS[name].single_scene and scenes > 1:
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
