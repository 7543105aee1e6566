# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scene sets: which folders are learned or evaluated together, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mspn_ros.datasets import ReaderOptions, SceneData, read_scene
from mspn_ros.datasets.base import read_text
from mspn_ros.records import DatasetError

_YAML_SUFFIXES = (".yaml", ".yml")
_MAX_YAML_BYTES = 1_000_000
# What PyYAML raises for a wrong value under an explicit tag is not always its own error.
_YAML_ERRORS = (
    yaml.YAMLError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
_KEYS: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "format": (str,),
    "focal_px": (int, float),
    "metres_per_unit": (int, float),
}


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key given twice is an error: PyYAML would keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


@dataclass(frozen=True, slots=True)
class _Spec:
    path: Path
    name: str | None = None
    format: str | None = None
    focal_px: float | None = None
    metres_per_unit: float | None = None

    def load(self) -> SceneData:
        scene = read_scene(self.path, self.name, self.format, ReaderOptions(self.focal_px))
        if self.metres_per_unit is None:
            return scene
        return replace(scene, metres_per_unit=self.metres_per_unit)


def load_scene_set(specs: Sequence[str]) -> list[SceneData]:
    """Read all scenes of ``specs``, in their order.

    A spec is ``name=path``, a folder (the scene has its name), or a YAML file::

        scenes:
          kitchen: recordings/kitchen            # relative to the YAML file
          roof: {path: roof, format: colmap, metres_per_unit: 0.31}

    Entries take ``path``, ``format``, ``focal_px`` (see ReaderOptions) and ``metres_per_unit``.

    Raises:
        DatasetError: no spec, an unknown key, two scenes of one name, or a scene is unreadable.
    """
    if not specs:
        raise DatasetError("no scene is named; give folders, name=folder, or a YAML file")
    parsed = [spec for text in specs for spec in _parse(text)]
    scenes: dict[str, SceneData] = {}
    for spec in parsed:
        scene = spec.load()
        if scene.name in scenes:
            raise DatasetError(
                f"{spec.path}: a scene {scene.name!r} is there already, from "
                f"{scenes[scene.name].root}; name it otherwise: NAME={spec.path}"
            )
        scenes[scene.name] = scene
    return list(scenes.values())


def _parse(text: str) -> list[_Spec]:
    path = Path(text)
    if path.suffix in _YAML_SUFFIXES and not path.is_dir():
        return _read_yaml(path)
    name, equals, folder = text.partition("=")
    # A folder whose own name has a "=" stays one.
    if equals and not path.exists():
        return [_Spec(Path(folder), name)]
    return [_Spec(path)]


def _read_yaml(path: Path) -> list[_Spec]:
    try:
        content = yaml.load(read_text(path, _MAX_YAML_BYTES), _Loader)
    except _YAML_ERRORS as error:
        summary = " ".join(str(error).split())
        raise DatasetError(f"{path}: no valid YAML ({summary}); mend that line") from error
    if not isinstance(content, dict) or not isinstance(content.get("scenes"), dict):
        raise DatasetError(f"{path}: no mapping 'scenes'; write 'scenes: {{kitchen: folder}}'")
    surplus = content.keys() - {"scenes"}
    if surplus:
        raise DatasetError(f"{path}: unknown key {_join(surplus)}; only 'scenes' is known")
    if not content["scenes"]:
        raise DatasetError(f"{path}: 'scenes' is empty; write 'scenes: {{kitchen: folder}}'")
    return [_parse_entry(path, name, entry) for name, entry in content["scenes"].items()]


def _parse_entry(file: Path, name: object, entry: Any) -> _Spec:
    place = f"{file}: scene {name!r}"
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(name, str) or not isinstance(entry, dict):
        raise DatasetError(f"{place}: write 'name: folder' or 'name: {{path: folder, ...}}'")
    surplus = entry.keys() - _KEYS.keys()
    if surplus:
        raise DatasetError(f"{place}: unknown key {_join(surplus)}; known are {', '.join(_KEYS)}")
    for key, value in entry.items():
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            wanted = "a text" if _KEYS[key] == (str,) else "a number"
            raise DatasetError(f"{place}: {key} is no {wanted[2:]}; give {wanted}")
    if "path" not in entry:
        raise DatasetError(f"{place}: no 'path'; name its folder")
    metres_per_unit = entry.get("metres_per_unit")
    if metres_per_unit is not None and not 0 < metres_per_unit < float("inf"):
        raise DatasetError(f"{place}: metres_per_unit {metres_per_unit} must be above zero")
    folder = file.parent / Path(entry["path"]).expanduser()
    return _Spec(folder, name, entry.get("format"), entry.get("focal_px"), metres_per_unit)


def _join(keys: set[Any]) -> str:
    return ", ".join(sorted(map(repr, keys)))
