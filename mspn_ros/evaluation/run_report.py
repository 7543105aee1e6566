# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves to be seen: settings, curves, errors on the held-out blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from mspn_ros.evaluation.answers import make_table, write_json
from mspn_ros.evaluation.evaluate import evaluate
from mspn_ros.evaluation.plots import plot_errors, plot_history, plot_tracks
from mspn_ros.inference.localizer import Localizer
from mspn_ros.store.files import write_whole
from mspn_ros.training.loop import Trainer

CONFIG_FILE = "config.yaml"


def write_run_report(trainer: Trainer, model: Path) -> None:
    """Write config.yaml, history.png, and where frames were held out metrics.json and plots.

    config.yaml repeats the run: ``mspn train <output>/config.yaml``. metrics.json, errors.png and
    tracks.png are of the held-out blocks, through the finished model; the test split stays unseen.

    Raises:
        MspnError: a file cannot be written.
    """
    output = Path(trainer.config.output)
    settings = yaml.safe_dump(trainer.config.to_json(), sort_keys=False)
    write_whole(output / CONFIG_FILE, settings.encode())
    plot_history(trainer.history, output / "history.png")
    if trainer.val_samples is None:
        return
    held = {scene.name: set[str]() for scene in trainer.scenes}
    for frame in trainer.val_samples.frames:
        held[frame.scene].add(frame.name)
    scenes = [
        replace(
            scene,
            frames=tuple(
                replace(frame, split="val")
                for frame in scene.split("train")
                if frame.name in held[scene.name]
            ),
        )
        for scene in trainer.scenes
        if held[scene.name]
    ]
    localizer = Localizer.load(model, str(trainer.device))
    # Without a classifier only the oracle's answers mean something.
    oracle = not trainer.config.loss.scene_weight
    answers, _ = evaluate(localizer, scenes, "val", oracle)
    table = make_table(answers, localizer.rows, str(model), oracle)
    write_json(output / "metrics.json", table.to_json() | {"split": "val"})
    plot_errors(answers, localizer.rows, output / "errors.png")
    plot_tracks(answers, localizer.rows, output / "tracks.png")
