# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn dataset``: rooms and bags."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from mspn_ros.records import ConfigError
from mspn_ros.terminal import progress_bar, say


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
    say(f"{len(folders)} rooms: {arguments.out / 'scenes.yaml'}")
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
    say(f"{len(frames)} frames: {path}")
    return 0
