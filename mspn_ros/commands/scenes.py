# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn scenes``: look into a model's scene bank and change it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.records import ConfigError, ModelError, SceneRow
from mspn_ros.terminal import note, print_table, say

# Estimated shares of confused frames from which on a person is told, and how many lines of them.
_NOTABLE = 0.005
_MOST_LINES = 10


def add_scenes_arguments(commands: Any) -> None:
    """The parsers of all actions."""
    text = "Look into a model's scene bank and change it; a running node follows."
    scenes = commands.add_parser("scenes", help=text, description=text)
    actions = scenes.add_subparsers(title="actions", required=True, metavar="ACTION")

    def add(name: str, text: str, function: Any, scene: bool = True) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=text, description=text)
        parser.set_defaults(command=function)
        if scene:
            parser.add_argument("scene", metavar="SCENE", help="name of the scene")
        parser.add_argument("--model", type=Path, required=True, help="model directory")
        return parser  # type: ignore[no-any-return]

    listing = add("list", "List the scenes.", list_scenes, scene=False)
    show = add("show", "All that is known of one scene, but its weights.", show_scene)
    for parser in (listing, show):
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    add("remove", "Delete a scene; the others stay as they are.", remove_scene)
    rename = add("rename", "Give a scene another name.", rename_scene)
    rename.add_argument("new_name", metavar="NEW")
    place = add("place", "Say where a scene lies in a map that others share.", place_scene)
    _add_place_arguments(place)
    export = add("export", "Write one scene into one file.", export_scene)
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors")
    taking = add("import", "Add the scene of a file by export.", import_scene, scene=False)
    taking.add_argument("file", type=Path, metavar="FILE")
    taking.add_argument("--name", help="instead of the one that it was exported with")
    merge = add("merge", "Add all scenes of another model.", merge_scenes, scene=False)
    merge.add_argument("other", type=Path, metavar="OTHER", help="its model directory")


def _add_place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map-frame", metavar="FRAME", help="frame_id of the map")
    parser.add_argument(
        "--translation", type=float, nargs=3, default=(0, 0, 0), metavar=("X", "Y", "Z"),
        help="of the scene's origin in the map, in metres",
    )  # fmt: skip
    parser.add_argument(
        "--rotation", type=float, nargs=4, default=(0, 0, 0, 1), metavar=("X", "Y", "Z", "W"),
        help="quaternion of the scene's axes in the map",
    )  # fmt: skip
    parser.add_argument("--scale", type=float, help="metres per unit of the scene")
    parser.add_argument("--clear", action="store_true", help="publish in the scene's frame again")


def list_scenes(arguments: argparse.Namespace) -> int:
    """The bank's scenes as a table, or JSON; damaged rows are named."""
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.inference.catalogue import scene_info
    from mspn_ros.store.scene_bank import SceneBank

    with SceneBank(arguments.model) as bank:
        content = bank.read()
    scenes = [asdict(scene_info(row)) for row in content.rows]
    if arguments.json:
        write_json(arguments.json, scenes)
    header = ("scene", "id", "frames", "bytes", "frame_id", "map_frame", "head", "backbone")
    rows = [
        (*(str(s[name]) for name in ("name", *header[1:5])), s["map_frame"] or "", row.head,
         row.backbone_id[:8])
        for s, row in zip(scenes, content.rows, strict=True)
    ]  # fmt: skip
    print_table(str(arguments.model), header, rows)
    for reason in content.refused.values():
        note(f"left out: {reason}", style="yellow")
    return 0


def show_scene(arguments: argparse.Namespace) -> int:
    """One row's columns; of its tensors the shapes."""
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.inference.catalogue import scene_info
    from mspn_ros.store.scene_bank import SceneBank

    with SceneBank(arguments.model) as bank:
        row = bank.row(arguments.scene)
    shown: dict[str, Any] = asdict(scene_info(row))
    arrays = ("position_offset", "reference_rotation", "box_low", "box_high", "map_from_scene")
    for name in arrays:
        value = getattr(row, name)
        shown[name] = None if value is None else [float(v) for v in value]
    for name in ("position_scale", "acceptance_threshold", "s_t", "s_q", "created", "provenance"):
        shown[name] = getattr(row, name)
    shown["held_out"] = row.held_out and asdict(row.held_out)
    shown["intrinsics"] = row.intrinsics and asdict(row.intrinsics)
    shown["head"] = row.head
    shown["head_tensors"] = {
        name: f"{array.dtype} {list(array.shape)}" for name, array in row.head_tensors.items()
    }
    if arguments.json:
        write_json(arguments.json, shown)
    for name, value in shown.items():
        say(f"{name.replace('_', ' '):>20}  {_text(value)}")
    return 0


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def remove_scene(arguments: argparse.Namespace) -> int:
    """Delete a row."""
    from mspn_ros.store.scene_bank import SceneBank

    _require_bank(arguments.model)
    with SceneBank(arguments.model, read_only=False) as bank:
        bank.remove(arguments.scene)
    say(f"{arguments.scene}: removed")
    return 0


def rename_scene(arguments: argparse.Namespace) -> int:
    """Change a row's name, and its frame where that was called alike."""
    from mspn_ros.store.scene_bank import SceneBank

    _require_bank(arguments.model)
    with SceneBank(arguments.model, read_only=False) as bank:
        row = bank.rename(arguments.scene, arguments.new_name)
    say(
        f"{arguments.scene}: now {row.name}, publishes in {row.map_frame or row.frame_id}",
    )
    return 0


def place_scene(arguments: argparse.Namespace) -> int:
    """Store the similarity from the scene's frame into a map's."""
    from mspn_ros.store.scene_bank import SceneBank

    _require_bank(arguments.model)
    if arguments.clear == bool(arguments.map_frame):
        raise ConfigError("name --map-frame FRAME, or --clear to publish in the scene's own frame")
    with SceneBank(arguments.model, read_only=False) as bank:
        if arguments.clear:
            row = bank.change(arguments.scene, map_frame=None, map_from_scene=None)
        else:
            packed = _similarity(arguments, bank.row(arguments.scene))
            row = bank.change(arguments.scene, map_frame=arguments.map_frame, map_from_scene=packed)
    frame = row.map_frame or row.frame_id
    say(f"{row.name}: publishes in {frame}")
    return 0


def _similarity(arguments: argparse.Namespace, row: SceneRow) -> Any:
    scale = row.metres_per_unit if arguments.scale is None else arguments.scale
    if scale is None:
        raise ConfigError(
            f"scene {row.name!r} has no known scale; give --scale, in metres per unit of the scene"
        )
    norm = float(np.linalg.norm(arguments.rotation))
    if not abs(norm - 1) < 0.1:
        raise ConfigError(f"--rotation has the norm {norm:.3g}, not 1; give a quaternion x y z w")
    rotation = np.asarray(arguments.rotation) / norm
    return np.array([*arguments.translation, *rotation, scale], np.float64)


def export_scene(arguments: argparse.Namespace) -> int:
    """Write a scene file."""
    from mspn_ros.store.scene_bank import SceneBank
    from mspn_ros.store.scene_file import write_scene_file

    with SceneBank(arguments.model) as bank:
        row = bank.row(arguments.scene)
    write_scene_file(arguments.out, row)
    size = arguments.out.stat().st_size
    say(f"{row.name}: {arguments.out} ({size} bytes)")
    return 0


def import_scene(arguments: argparse.Namespace) -> int:
    """Add a scene file's row, if it fits."""
    from mspn_ros.store.scene_file import read_scene_file

    row = read_scene_file(arguments.file)
    if arguments.name:
        row = row.renamed(arguments.name)
    _take_in(arguments.model, [row])
    return 0


def merge_scenes(arguments: argparse.Namespace) -> int:
    """Add another bank's rows, all or none; those that are here already are passed over."""
    from mspn_ros.store.scene_bank import SceneBank

    with SceneBank(arguments.other) as bank:
        rows = bank.rows()
    with SceneBank(arguments.model) as bank:
        present = {row.uuid: row.name for row in bank.rows()}
    for row in rows:
        if row.uuid in present:
            note(f"{row.name}: is here already, as {present[row.uuid]}")
    new = [row for row in rows if row.uuid not in present]
    if new:
        _take_in(arguments.model, new)
    else:
        say("nothing new")
    return 0


def _take_in(model: Path, rows: Sequence[SceneRow]) -> None:
    """Check rows against the model, store them, and say which scenes may be confused."""
    from mspn_ros.inference.confusion import likeliest_rivals
    from mspn_ros.inference.fit import RowFit
    from mspn_ros.store.backbone_file import load_backbone
    from mspn_ros.store.scene_bank import SceneBank

    backbone, identity, _ = load_backbone(model)
    fit = RowFit(backbone, identity)
    for row in rows:
        fit.check(row)
    _require_bank(model)
    present: dict[int, SceneRow] = {}
    with SceneBank(model, read_only=False) as bank:
        for row in rows:
            rivals = likeliest_rivals(bank, identity, row.feature_mean.astype(float))
            present |= {rival.id: rival for rival in rivals}
        stored = bank.add_all(rows)
    for row in stored:
        say(f"{row.name}: scene {row.id} of {model}")
    tell_confusions(stored, list(present.values()))


def tell_confusions(new: Sequence[SceneRow], present: Sequence[SceneRow]) -> None:
    """Print which scenes are expected to be taken for each other, by what is stored of them."""
    from mspn_ros.inference.confusion import confusions

    found = [c for c in confusions(new, present) if c.share > _NOTABLE]
    if not found:
        say(f"no frames of one scene are expected to be named like another ({_NOTABLE:.1%})")
    for c in found[:_MOST_LINES]:
        say(
            f"{c.scene}: {c.share:.1%} of its frames are expected to be named {c.taken_for}",
            style="yellow",
        )


def _require_bank(model: Path) -> None:
    """A writer makes the bank where there is none: a mistyped path must not get one."""
    from mspn_ros.store.bank_file import BANK_FILE

    if not (model / BANK_FILE).is_file():
        raise ModelError(f"{model / BANK_FILE}: no scene bank; check --model")
