# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn localize``, ``mspn replay`` and ``mspn demo``: what runs a model on images in time."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspn_ros.commands.models import open_localizer
from mspn_ros.node import require_ros
from mspn_ros.node.parameters import PARAMETERS
from mspn_ros.paths import make_folder
from mspn_ros.records import ConfigError
from mspn_ros.terminal import note, print_table, progress_bar, say


def add_localize_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each of the node's parameters, and ROS arguments as they are."""
    for row in PARAMETERS:
        option = "--" + row.name.replace("_", "-")
        default = row.default if not isinstance(row.default, tuple) else list(row.default)
        text = f"{row.description} ({row.allowed}; default {default!r})"
        parser.add_argument(option, dest=f"p_{row.name}", metavar="VALUE", help=text)
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], help="handed to ROS as they are"
    )


def localize(arguments: argparse.Namespace) -> int:
    """Start the node in this process."""
    require_ros()
    from mspn_ros.node.main import main
    from mspn_ros.node.transport import profile_environment

    os.environ.update(profile_environment())
    given: list[str] = []
    for row in PARAMETERS:
        value = getattr(arguments, f"p_{row.name}")
        if value is not None:
            given += ["-p", f"{row.name}:={_as_yaml(value, row.default)}"]
    return main(["--ros-args", *given, *arguments.ros_args])


def _as_yaml(value: str, default: object) -> str:
    """A value as rcl reads it: quoted where text is meant ("on"), with a point in a double.

    Names are separated by commas; those that hold one are given as a YAML list.
    """
    if isinstance(default, str):
        return json.dumps(value)
    if isinstance(default, tuple) and not value.startswith("["):
        return json.dumps([name.strip() for name in value.split(",")])
    if isinstance(default, float) and value.lstrip("-").isdigit():
        return f"{value}.0"
    return value


@dataclass(frozen=True)
class Replayed:
    """Answers of a replay with their table, and facts for the report."""

    answers: list[Any]
    table: Any
    facts: dict[str, str]


def replay(arguments: argparse.Namespace) -> int:
    """Table, JSON, plots, TUM files and an HTML report of a bag's replay."""
    from mspn_ros.datasets.bags import BagReader
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.evaluate import camera_note
    from mspn_ros.evaluation.replay import ground_truth

    if arguments.live and (arguments.scene_filter or arguments.min_margin):
        raise ConfigError(
            "--scene-filter and --min-margin are for offline replay; live, set them at the node"
        )
    make_folder(arguments.output)
    localizer = open_localizer(arguments)
    with BagReader(arguments.bag, arguments.image_topic, arguments.pose_topic) as bag:
        truth = ground_truth(bag, localizer.rows, arguments.scene)
        taken_by = ((camera.intrinsics, None) for camera in bag.cameras())
        if text := camera_note(localizer, taken_by, "cameras"):
            note(text, style="yellow")
        if arguments.live:
            done = replay_live(
                arguments.bag, localizer, truth, arguments.namespace, arguments.image_topic
            )
        else:
            done = replay_offline(
                bag, localizer, truth, arguments.scene_filter, arguments.min_margin
            )
        mode = "live" if arguments.live else "offline"
        show_table(f"{arguments.bag.name}, {mode}", done)
        write_results(arguments.output, f"Replay of {arguments.bag.name}, {mode}", done, localizer)
        content = done.table.to_json() | {"facts": done.facts}
        write_json(arguments.json or arguments.output / "result.json", content)
    return 0


def replay_offline(
    bag: Any, localizer: Any, truth: Any, scene_filter: float = 0.0, min_margin: float = 0.0
) -> Replayed:
    """Every frame of the bag through the Localizer in this process."""
    from mspn_ros.evaluation.answers import make_table
    from mspn_ros.evaluation.replay import replay_offline as run

    with progress_bar("offline") as update:
        answers, counts = run(bag, localizer, truth, update, scene_filter, min_margin)
    table = make_table(answers, localizer.rows, str(localizer.model_dir), counts=counts)
    facts = {
        "mode": "offline, every frame",
        "scene filter": f"mean stay {scene_filter:g} s" if scene_filter else "off",
        "least margin": f"{min_margin:g}",
        "frames": str(len(answers)),
        "device": str(localizer.device),
        "engine": f"{localizer.engine} ({localizer.engine_reason})",
        "latency": "decoding and localizing, in process",
    }
    return Replayed(answers, table, facts)


def replay_live(
    bag: Path, localizer: Any, truth: Any, namespace: str, image_topic: str | None = None
) -> Replayed:
    """The bag over DDS into a node of ``localizer``'s model, which is started if none runs."""
    require_ros()
    from mspn_ros.evaluation.answers import make_table
    from mspn_ros.node.live import replay_live as run
    from mspn_ros.node.live_answers import live_answers

    with progress_bar("live, at the bag's own rate") as update:
        result = run(
            bag,
            localizer.model_dir,
            image_topic=image_topic,
            namespace=namespace,
            device=str(localizer.device),
            engine=localizer.engine,
            progress=update,
        )
    answers, counts = live_answers(result, truth, localizer.rows)
    table = make_table(answers, localizer.rows, str(localizer.model_dir), counts=counts)
    facts = {
        "mode": "live over DDS, " + ("own node" if result.started else "the running node"),
        "published": str(result.published),
        "received": str(result.received),
        "answered": str(result.answered),
        "overtaken": str(result.overtaken),
        "rejected": str(sum(result.rejected.values())),
        "lost": str(result.lost),
        "device": result.device,
        "engine": result.engine,
        "latency": "from publishing the image to receiving the pose",
    }
    return Replayed(answers, table, facts)


def show_table(title: str, done: Replayed) -> None:
    """The table, what was dropped, and the latency."""
    from mspn_ros.evaluation.report import HEADER, table_cells

    table = done.table
    if table.scores:
        print_table(title, HEADER, table_cells(table))
    else:
        say(f"{title}: no ground truth; answers by scene: {_named(done.answers)}")
    counts = ", ".join(f"{name} {count}" for name, count in table.counts.items())
    say(f"frames {len(done.answers)}, dropped {table.dropped} ({counts})")
    if table.latency_ms:
        values = ", ".join(f"{name} {value:.1f} ms" for name, value in table.latency_ms.items())
        say(f"latency {values} ({done.facts['latency']})")


def _named(answers: Sequence[Any]) -> str:
    names = [answer.estimate.scene for answer in answers]
    return ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names))


def write_results(
    output: Path, title: str, done: Replayed, localizer: Any, frames: Sequence[Any] = ()
) -> None:
    """Plots, trajectories and report into ``output``; ``frames`` are further report pictures."""
    from mspn_ros.evaluation.answers import write_trajectories
    from mspn_ros.evaluation.plots import plot_errors, plot_tracks
    from mspn_ros.evaluation.report import Picture, write_report

    rows = localizer.rows
    pictures = list(frames)
    if done.table.scores:
        write_trajectories(done.answers, output / "trajectories")
        tracks = plot_tracks(done.answers, rows, output / "tracks.png")
        errors = plot_errors(done.answers, rows, output / "errors.png")
        pictures = [
            Picture(tracks.read_bytes(), "True positions and answers, seen from above."),
            Picture(errors.read_bytes(), "Share of frames below an error."),
            *pictures,
        ]
    facts = {"model": str(localizer.model_dir), **done.facts}
    report = write_report(output / "report.html", title, facts, {title: done.table}, pictures)
    note(f"report: {report}")


def demo(arguments: argparse.Namespace) -> int:
    """The packaged model and bag through a real node; 0 only if it does what it should."""
    require_ros()
    from mspn_ros.demo import run_demo

    return run_demo(arguments.output)
