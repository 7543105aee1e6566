# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn reproduce``: the paper's tables and figures, and our own, on any scene set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mspn_ros.commands.learn import preset_file, run_with_progress
from mspn_ros.records import ConfigError
from mspn_ros.terminal import note, print_table, progress_bar, say

if TYPE_CHECKING:
    from mspn_ros.evaluation.paper.tables import PaperTable, Tables

TABLE_NAMES = tuple(f"table{number}" for number in range(1, 9))
FIGURE_NAMES = ("figure2", "figure3")
SETTINGS = "settings"
NEW_SCENES = "new-scenes"
FROM_VIDEO = "from-video"
WHAT = (*TABLE_NAMES, *FIGURE_NAMES, SETTINGS, NEW_SCENES, FROM_VIDEO)


def reproduce(arguments: argparse.Namespace) -> int:
    """Run what is missing, print each table beside the paper's, draw the figures."""
    from mspn_ros.datasets.scene_set import load_scene_set
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.paper.runs import Experiment
    from mspn_ros.evaluation.paper.settings import settings_tables
    from mspn_ros.evaluation.paper.tables import Tables
    from mspn_ros.store.files import write_whole

    if arguments.epochs is not None and arguments.epochs < 1:
        raise ConfigError(f"--epochs {arguments.epochs} is not at least 1")
    scenes = load_scene_set(arguments.data)
    more = load_scene_set(arguments.more_data) if arguments.more_data else []
    every = {scene.name: scene for scene in [*scenes, *more]}
    if len(every) < len(scenes) + len(more):
        raise ConfigError("--more-data names a scene of --data again; give each another name")
    experiment = Experiment(
        every,
        arguments.output,
        preset_file(arguments.preset),
        tuple(arguments.set),
        arguments.epochs,
        arguments.device,
        begin=lambda title: note(f"training {title}"),
        train=run_with_progress,
    )
    experiment.check()
    tables = Tables(experiment, [scene.name for scene in scenes], arguments.seeds)
    results: dict[str, Any] = {}
    text: list[str] = []
    for what in arguments.what:
        if what in TABLE_NAMES:
            table = tables.table(int(what.removeprefix("table")))
            text.append(show_table(table))
            results[what] = table.to_json()
        elif what == SETTINGS:
            both = settings_tables(tables)
            text += [show_table(both.held_out), show_table(both.test)]
            results[what] = both.to_json()
        elif what == NEW_SCENES:
            results[what] = _new_scenes(tables, text)
        elif what == FROM_VIDEO:
            results[what] = _from_video(scenes, arguments.output, text)
        else:
            results[what] = _figure(tables, what, [scene.name for scene in more], arguments.output)
    write_json(arguments.json or arguments.output / "reproduce.json", results)
    write_whole(arguments.output / "reproduce.md", "\n".join(text).encode())
    note(f"tables as Markdown and JSON: {arguments.output}")
    return 0


def _figure(tables: Tables, what: str, more: list[str], output: Path) -> dict[str, Any]:
    from mspn_ros.evaluation.paper.figures import figure2, figure3

    path = output / f"{what}.png"
    values = figure2(tables, path) if what == "figure2" else figure3(tables, more, path)
    say(f"{what}: {path}")
    return values


def _new_scenes(tables: Tables, text: list[str]) -> list[dict[str, Any]]:
    from mspn_ros.evaluation.new_scenes import HEADER, NewScenes, plot_new_scenes, table_cells
    from mspn_ros.evaluation.report import markdown_table

    result = []
    for seed in tables.seeds:
        told = NewScenes(
            tables.experiment,
            tables.names,
            seed,
            lambda text: note(f"adding {text}"),
        )
        found = told.run()
        title = f"each scene added to a model of the others; seed {seed}"
        print_table(title, HEADER, table_cells(found))
        text.append(f"### {title}\n\n{markdown_table(HEADER, table_cells(found))}")
        picture = plot_new_scenes(found, tables.experiment.root / f"new_scenes_seed{seed}.png")
        say(f"{NEW_SCENES}: {picture}")
        result += [{"seed": seed, **asdict(entry)} for entry in found]
    return result


def _from_video(scenes: Sequence[Any], output: Path, text: list[str]) -> list[dict[str, Any]]:
    from mspn_ros.datasets.from_video import FromVideoConfig
    from mspn_ros.evaluation.report import markdown_table
    from mspn_ros.evaluation.sfm_accuracy import HEADER, measure_sfm

    # Every image, so that all given poses are compared.
    config = FromVideoConfig(min_motion=0, max_frames=5000, min_registered=0)
    found = []
    for scene in scenes:
        with progress_bar(scene.name) as update:
            found.append(
                measure_sfm(
                    scene,
                    output / FROM_VIDEO,
                    config,
                    lambda step, done, total, update=update: update(done, total, step),  # type: ignore[misc]
                )
            )
    rows = [one.cells() for one in found]
    title = "poses of from-video against the given ones, after one similarity transform"
    print_table(title, HEADER, rows)
    for one in found:
        if one.refused:
            text_of = f"{one.scene}: {one.refused}"
            say(text_of)
    text.append(f"### {title}\n\n{markdown_table(HEADER, rows)}")
    return [one.to_json() for one in found]


def show_table(table: PaperTable) -> str:
    """Print ours, the paper's, and the ratios of both; returns them as Markdown."""
    from mspn_ros.evaluation.paper.show import blocks, markdown, ratio_lines

    for title, header, rows in blocks(table):
        print_table(title, header, rows)
    for line in ratio_lines(table):
        say(line)
    return markdown(table)
