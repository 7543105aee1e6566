# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn train``, ``mspn evaluate``, ``mspn explain`` and ``mspn params``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mspn_ros.commands.models import open_localizer
from mspn_ros.paths import config_file, make_folder
from mspn_ros.records import ConfigError
from mspn_ros.terminal import note, print_table, progress_bar, say

if TYPE_CHECKING:
    from mspn_ros.datasets.base import SceneData
    from mspn_ros.evaluation.answers import Table
    from mspn_ros.inference.localizer import Localizer
    from mspn_ros.metrics import CovarianceScore
    from mspn_ros.training.loop import Trainer
    from mspn_ros.training.watch import Step

PRESETS = ("default", "paper")


def train(arguments: argparse.Namespace) -> int:
    """Train, with progress; ends with ``<output>/model`` and what is to be seen of the run."""
    from mspn_ros.datasets.scene_set import load_scene_set
    from mspn_ros.evaluation.run_report import write_run_report
    from mspn_ros.training.config import load_config
    from mspn_ros.training.distributed import joined_world
    from mspn_ros.training.finish import write_model
    from mspn_ros.training.loop import Trainer
    from mspn_ros.training.methods import check_scene_count, method_file
    from mspn_ros.training.watch import Watch

    path = preset_file(arguments.config)
    overrides = list(arguments.set)
    if arguments.scenes:
        overrides.append("scenes=" + str(arguments.scenes))
    if arguments.output:
        overrides.append(f"output={arguments.output}")
    overlay = method_file(arguments.method) if arguments.method else None
    config = load_config(path, overrides, overlay)
    if not config.scenes:
        raise ConfigError(f"{path}: names no scenes; pass --scenes name=path ...")
    make_folder(Path(config.output))
    scenes = load_scene_set(config.scenes)
    if arguments.method:
        check_scene_count(arguments.method, len(scenes))
    with joined_world(config.device) as (world, device):
        with progress_bar("reading images", world.leads) as update:
            watch = Watch(loading=update, landmarks=partial(update, note="for landmarks"))
            trainer = Trainer(config, scenes, watch, world, device)
        if world.leads:
            _tell_start(trainer)
        if arguments.resume:
            resumed = trainer.resume()
            if world.leads:
                note(_resumed(trainer) if resumed else "nothing to resume yet")
        run_with_progress(trainer)
        if world.leads:
            model = write_model(trainer)
            write_run_report(trainer, model)
            note(f"curves, errors and settings: {config.output}")
            say(f"model: {model}")
    return 0


def preset_file(name: str) -> Path:
    """A preset's name, or a path, as the path of a configuration."""
    return config_file(f"{name}.yaml") if name in PRESETS else Path(name)


def run_with_progress(trainer: Trainer) -> None:
    """``trainer.run()`` with a progress bar, and a line per epoch on stderr."""
    from mspn_ros.training.watch import Watch

    with progress_bar("training", trainer.world.leads) as update:

        def show(step: Step) -> None:
            done = step.epoch * step.steps + step.step
            update(done, step.epochs * step.steps, _step_note(step))

        trainer.watch = Watch(step=show, epoch=lambda entry: note(_epoch_line(entry)))
        trainer.run()


def _step_note(step: Step) -> str:
    return (
        f"loss {step.loss:.3f}, {step.percent_of_extent:.1f} % of extent, "
        f"{step.rotation_deg:.1f} deg, {step.images_per_second:.0f} images/s, "
        f"{100 * step.data_wait:.1f} % waiting for data"
    )


def _resumed(trainer: Trainer) -> str:
    progress = trainer.progress
    steps = f" and {progress.step} steps" if progress.step else ""
    return f"resumed after epoch {progress.epoch}{steps}"


def _tell_start(trainer: Trainer) -> None:
    held = len(trainer.val_samples or ())
    note(
        f"{len(trainer.scenes)} scenes, {len(trainer.train_samples)} training frames, "
        f"{held} held out, weights {trainer.learner.weights}, device {trainer.device}, "
        f"processes {trainer.world.size}"
    )
    for name in trainer.scenes_without_held_out:
        note(f"{name}: too few frames to hold some out; its covariance will be a guess")
    if trainer.landmarks is not None:
        counts = zip(trainer.scenes, trainer.landmarks.count_N.tolist(), strict=True)
        found = ", ".join(f"{scene.name} {count}" for scene, count in counts)
        note(f"landmarks: {found} (at most {trainer.config.landmarks})")
    for frame in trainer.bad:
        note(f"left out: {frame.reason}", style="yellow")


def _epoch_line(entry: dict[str, Any]) -> str:
    parts = [
        f"epoch {entry['epoch']}: loss {entry['loss']:.3f}, "
        f"{entry['images_per_second']:.0f} images/s, {100 * entry['data_wait']:.1f} % waiting"
    ]
    parts += [_held_out_note(score) for score in entry.get("validation", ())]
    return "; ".join(parts)


def _held_out_note(score: dict[str, Any]) -> str:
    errors = f"{score['median_position']:.3f} / {score['median_rotation_deg']:.1f} deg"
    named = f", {100 * score['scene_accuracy']:.0f} % named" if "scene_accuracy" in score else ""
    return f"{score['scene']} {errors}{named}"


def evaluate(arguments: argparse.Namespace) -> int:
    """Table, JSON, plots and TUM files of a model on a split."""
    from mspn_ros.datasets.scene_set import load_scene_set
    from mspn_ros.evaluation.answers import (
        covariance_scores,
        make_table,
        write_json,
        write_trajectories,
    )
    from mspn_ros.evaluation.baselines import TITLES
    from mspn_ros.evaluation.evaluate import camera_note, evaluation_frames
    from mspn_ros.evaluation.evaluate import evaluate as run
    from mspn_ros.evaluation.plots import plot_errors, plot_tracks
    from mspn_ros.evaluation.report import HEADER, comparison_cells, markdown_table, table_cells
    from mspn_ros.evaluation.strangers import HEADER as STRANGER_HEADER
    from mspn_ros.evaluation.strangers import ask_strangers, check_strangers, plot_strangers

    if arguments.strangers and arguments.oracle:
        raise ConfigError("--strangers asks whether the model knows a place: leave --oracle out")
    output = make_folder(arguments.output)
    localizer = open_localizer(arguments)
    scenes = load_scene_set(arguments.data)
    strangers = load_scene_set(arguments.strangers) if arguments.strangers else []
    check_strangers(localizer, strangers)
    baselines = _baselines(arguments, localizer, scenes)
    with progress_bar("evaluating") as update:
        answers, bad = run(localizer, scenes, arguments.split, arguments.oracle, update)
    for frame in bad:
        note(f"unanswered: {frame.reason}", style="yellow")
    frames = evaluation_frames(scenes, arguments.split)
    taken_by = ((f.intrinsics, f.scene if arguments.oracle else None) for f in frames)
    if text := camera_note(localizer, taken_by, "frames"):
        note(text, style="yellow")
    counts = {"rejected": len(bad)}
    rows, model = localizer.rows, str(arguments.model)
    table = make_table(answers, rows, model, arguments.oracle, arguments.paper, counts)
    title = f"{model} on {arguments.split}, " + ("scene known" if table.oracle else "end to end")
    print_table(title, HEADER, table_cells(table))
    result = table.to_json()
    markdown = {title: markdown_table(HEADER, table_cells(table))}
    _covariance_table(covariance_scores(answers, rows), result, markdown)
    if strangers:
        with progress_bar("strangers") as update:
            found, unread = ask_strangers(localizer, answers, strangers, arguments.split, update)
        for frame in unread:
            note(f"left out: {frame.reason}", style="yellow")
        heading = f"strangers, with {100 * found.true_accepts:.1f} % of own frames let in"
        print_table(heading, STRANGER_HEADER, found.cells())
        result["strangers"] = found.to_json()
        markdown[heading] = markdown_table(STRANGER_HEADER, found.cells())
        plot_strangers(found, output / "strangers.png")
    if baselines:
        result["baselines"] = {name: table.to_json() for name, table in baselines.items()}
        titled = {TITLES[name]: table for name, table in baselines.items()}
        header, cells = comparison_cells({"this model": table, **titled})
        heading = "this model beside baselines, which are told the scene"
        print_table(heading, header, cells)
        markdown[heading] = markdown_table(header, cells)
    write_json(arguments.json or output / "result.json", result)
    (output / "tables.md").write_text("\n".join(f"### {k}\n\n{v}" for k, v in markdown.items()))
    plot_tracks(answers, rows, output / "tracks.png")
    plot_errors(answers, rows, output / "errors.png")
    write_trajectories(answers, output / "trajectories")
    note(f"plots, tables and trajectories: {output}")
    return 0


def _covariance_table(
    scores: list[CovarianceScore], result: dict[str, Any], markdown: dict[str, str]
) -> None:
    """Printed, and put into the result and the tables; nothing without an answer."""
    from mspn_ros.evaluation.report import COVARIANCE_HEADER, covariance_cells, markdown_table

    result["covariance"] = {}
    for score in scores:
        fields = asdict(score)
        result["covariance"][fields.pop("scene")] = fields
    if scores:
        heading = "covariances; squared errors are normalized, 2.37 and 3 if they are as said"
        print_table(heading, COVARIANCE_HEADER, covariance_cells(scores))
        markdown[heading] = markdown_table(COVARIANCE_HEADER, covariance_cells(scores))


def _baselines(
    arguments: argparse.Namespace, localizer: Localizer, scenes: list[SceneData]
) -> dict[str, Table]:
    """Tables of the asked-for baselines by method; none if nobody asked."""
    from mspn_ros.evaluation.answers import make_table
    from mspn_ros.evaluation.baselines import baseline_answers
    from mspn_ros.network.backbone import Architecture

    if arguments.baselines is None:
        return {}
    backbone, _, weights = arguments.baselines.partition("=")
    architecture = Architecture(backbone or localizer.architecture.backbone)
    with progress_bar("baselines") as update:
        found = baseline_answers(
            scenes, arguments.split, architecture, weights or "imagenet", update
        )
    return {
        name: make_table(answers, localizer.rows, name, oracle=True)
        for name, answers in found.items()
    }


def explain(arguments: argparse.Namespace) -> int:
    """A picture for each image: what was seen where, and where that puts the camera."""
    from mspn_ros.evaluation.evidence_plot import plot_evidence
    from mspn_ros.images import read_image

    output = make_folder(arguments.output)
    localizer = open_localizer(arguments)
    rows = {row.name: row for row in localizer.rows}
    for number, path in enumerate(arguments.images):
        image = read_image(path)
        evidence = localizer.evidence(image, arguments.scene)
        picture = output / f"{number:03d}_{path.stem}.png"
        plot_evidence(image, evidence, rows[evidence.scene], picture)
        say(f"{path}: {evidence.scene}, {picture}")
    return 0


def params(arguments: argparse.Namespace) -> int:
    """The parameter account: what scenes share, what each adds, and what PoseNets would cost."""
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.network.account import parameter_account
    from mspn_ros.network.backbone import Architecture

    architecture = Architecture(arguments.backbone, arguments.feature_size)
    account = parameter_account(architecture)
    rows = [
        ("backbone", f"{account.backbone:,}"),
        ("projection to F", f"{account.projection:,}"),
        ("shared by all scenes", f"{account.shared:,}"),
        ("pose head", f"{account.head:,}"),
        ("classifier row", f"{account.classifier_row:,}"),
        ("added by each scene", f"{account.per_scene:,}"),
        ("one PoseNet (FC 2048, ReLU)", f"{account.posenet:,}"),
    ]
    rows += [
        (f"MSPN / PoseNets, {count} scenes", f"{100 * account.ratio(count):.2f} %")
        for count in (1, 10, 100, 1000)
    ]
    feature_size = arguments.feature_size or "the backbone's own"
    print_table(f"{arguments.backbone}, F = {feature_size}", ("part", "parameters"), rows)
    if arguments.json:
        write_json(arguments.json, account.to_json())
    return 0
