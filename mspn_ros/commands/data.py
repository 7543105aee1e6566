# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn inspect`` and ``mspn dataset``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from mspn_ros.paths import make_folder
from mspn_ros.records import ConfigError
from mspn_ros.terminal import console, notes, progress_bar


def inspect(arguments: argparse.Namespace) -> int:
    """What a reader found, as a table, JSON and a top view."""
    from mspn_ros.datasets import verify_images
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.inspection import draw_top_view, inspect_scene

    output = make_folder(arguments.output)
    scenes = _read(arguments)
    if not arguments.headers_only:
        with progress_bar("decoding images") as update:
            scenes = [verify_images(scene, update) for scene in scenes]
    found = [inspect_scene(scene) for scene in scenes]
    for inspection in found:
        _show_scene(inspection.to_json())
    picture = output / "top_view.png"
    draw_top_view(scenes, picture)
    write_json(
        arguments.json or output / "inspect.json",
        [inspection.to_json() for inspection in found],
    )
    notes.print(f"top view: {picture}")
    return 0


def _read(arguments: argparse.Namespace) -> list[Any]:
    from mspn_ros.datasets import ReaderOptions, read_scene
    from mspn_ros.datasets.scene_set import load_scene_set

    if arguments.format is None and arguments.focal_px is None:
        return list(load_scene_set(arguments.paths))
    scenes = []
    for text in arguments.paths:
        name, _, path = text.rpartition("=")
        options = ReaderOptions(arguments.focal_px)
        scenes.append(read_scene(Path(path), name or None, arguments.format, options))
    return scenes


def _show_scene(scene: dict[str, Any]) -> None:
    console.rule(scene["scene"], align="left")
    for key, value in scene.items():
        if key not in ("scene", "bad", "notes"):
            console.print(f"{key.replace('_', ' '):>16}  {_text(value)}", highlight=False)
    for note in scene["notes"]:
        console.print(f"{'note':>16}  {note}", highlight=False)
    for group in scene["bad"]:
        names = group["names"]
        listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        text = f"{len(names)}: {group['reason']}: {listed}"
        console.print(f"{'bad frames':>16}  {text}", style="yellow", highlight=False)
    if not scene["bad"]:
        console.print(f"{'bad frames':>16}  none", highlight=False)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_text(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def add_synthetic_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for SyntheticConfig; its defaults hold where none is given."""
    parser.add_argument("--out", type=Path, required=True, help="new folder for the rooms")
    parser.add_argument("--rooms", type=int, help="number of rooms; each two look alike")
    parser.add_argument("--train-frames", type=int, help="per room")
    parser.add_argument("--test-frames", type=int, help="per room")
    parser.add_argument("--width", type=int, help="of the images in pixels")
    parser.add_argument("--height", type=int, help="of the images in pixels")
    parser.add_argument("--seed", type=int, help="of rooms and walks")
    parser.add_argument("--jpeg-quality", type=int, help="1 to 95")


def synthetic(arguments: argparse.Namespace) -> int:
    """Render rooms."""
    from mspn_ros.datasets.synthetic import SyntheticConfig, generate

    given = {field.name: getattr(arguments, field.name) for field in fields(SyntheticConfig)}
    config = SyntheticConfig(**{name: v for name, v in given.items() if v is not None})
    with progress_bar("rendering") as update:
        folders = generate(arguments.out, config, update)
    console.print(f"{len(folders)} rooms: {arguments.out / 'scenes.yaml'}")
    return 0


def to_bag(arguments: argparse.Namespace) -> int:
    """Frames of a split as a bag with ground truth."""
    from mspn_ros.datasets.bag_writer import write_bag
    from mspn_ros.datasets.scene_set import load_scene_set
    from mspn_ros.evaluation.evaluate import evaluation_frames

    if arguments.every < 1:
        raise ConfigError(f"--every {arguments.every} is not at least 1")
    if not 0.1 <= arguments.rate <= 1000:
        raise ConfigError(f"--rate {arguments.rate} is not within 0.1 to 1000 frames per second")
    scenes = load_scene_set(arguments.data)
    frames = evaluation_frames(scenes, arguments.split)[:: arguments.every]
    with progress_bar("writing") as update:
        path = write_bag(
            arguments.out, frames, rate_hz=arguments.rate, raw=arguments.raw, progress=update
        )
    console.print(f"{len(frames)} frames: {path}")
    return 0
