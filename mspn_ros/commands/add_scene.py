# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn add-scene``: a new place for a model that is there already."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mspn_ros.commands.learn import run_with_progress
from mspn_ros.commands.scenes import tell_confusions
from mspn_ros.records import ConfigError
from mspn_ros.terminal import note, progress_bar, say

if TYPE_CHECKING:
    from mspn_ros.datasets.base import SceneData
    from mspn_ros.training.new_scene import Epoch, NewSceneConfig


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``mspn add-scene``."""
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument(
        "--scene",
        nargs="+",
        required=True,
        metavar="SCENES",
        help="name=path or YAML files; several are added one after the other",
    )
    parser.add_argument(
        "--mode",
        choices=("row", "full"),
        default="row",
        help="row: learn a row on the frozen backbone, all else stays as it is (default). full: "
        "fine-tune the backbone as well, as the paper does, into a new model of this scene alone",
    )
    parser.add_argument("--output", type=Path, help="folder of the run of --mode full")


def add_scene(arguments: argparse.Namespace) -> int:
    """Learn each scene, store it, and say how good it is and what it may be confused with."""
    from mspn_ros.datasets.scene_set import load_scene_set
    from mspn_ros.training.config import parse_settings
    from mspn_ros.training.new_scene import NewSceneConfig

    full = arguments.mode == "full"
    if full != (arguments.output is not None):
        raise ConfigError(
            "--mode full writes a new model: name its folder by --output"
            if full
            else "--output goes with --mode full; a row is added to --model itself"
        )
    scenes = load_scene_set(arguments.scene)
    if full:
        return _fine_tune(arguments, scenes)
    fields = parse_settings(NewSceneConfig, arguments.set, "--set")
    for scene in scenes:
        _add(arguments.model, scene, NewSceneConfig(**fields))
    return 0


def _add(model: Path, scene: SceneData, settings: NewSceneConfig) -> None:
    from mspn_ros.store.row_format import row_bytes
    from mspn_ros.training.new_scene import SceneAdder
    from mspn_ros.training.watch import Watch

    started_s = time.monotonic()
    with progress_bar(f"{scene.name}: reading images") as update:
        watch = Watch(loading=update, landmarks=partial(update, note="for landmarks"))
        adder = SceneAdder(model, scene, settings, watch)
    for frame in adder.trainer.bad:
        note(f"left out: {frame.reason}", style="yellow")
    with progress_bar(f"{scene.name}: features") as seen, progress_bar("learning") as learning:
        learning(0, settings.epochs)

        def tell(epoch: Epoch) -> None:
            learning(epoch.epoch, epoch.epochs, f"loss {epoch.loss:.3f}")
            note(_epoch_line(epoch))

        row = adder.learn(seen, tell)
    row = adder.add(row)
    errors = row.held_out
    known = "nothing was held out: its errors are not known"
    if errors is not None:
        known = (
            f"{errors.median_position:.3g} {row.unit} / {errors.median_rotation_deg:.2g} deg on "
            f"{errors.frames} held-out frames"
        )
    say(
        f"{row.name}: scene {row.id} of {model}, head {row.head}, {row_bytes(row)} bytes, {known}, "
        f"{time.monotonic() - started_s:.0f} s",
    )
    tell_confusions([row], adder.rivals)


def _epoch_line(epoch: Epoch) -> str:
    line = f"pass {epoch.epoch} of {epoch.epochs}: loss {epoch.loss:.3f}"
    if epoch.held_out is None:
        return line
    errors = epoch.held_out.errors
    return f"{line}; held out {errors.median_position:.3g} / {errors.median_rotation_deg:.2g} deg"


def _fine_tune(arguments: argparse.Namespace, scenes: list[SceneData]) -> int:
    from mspn_ros.training.finish import write_model
    from mspn_ros.training.loop import Trainer
    from mspn_ros.training.new_scene import one_scene_config
    from mspn_ros.training.watch import Watch

    if len(scenes) > 1:
        raise ConfigError(f"--mode full takes one scene, not {len(scenes)}; add them one by one")
    config = one_scene_config(arguments.model, [*arguments.set, f"output={arguments.output}"])
    with progress_bar("reading images") as update:
        watch = Watch(loading=update, landmarks=partial(update, note="for landmarks"))
        trainer = Trainer(config, scenes, watch)
    run_with_progress(trainer)
    model = write_model(trainer)
    note(
        f"the other scenes of {arguments.model} belong to its backbone and are not in the new "
        "model; --mode row adds a scene beside them"
    )
    say(f"model: {model}")
    return 0
