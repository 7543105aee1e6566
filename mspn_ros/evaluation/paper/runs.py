# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The training runs behind the tables: each is done once, then recognized by its configuration."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.answers import make_table, write_json
from mspn_ros.evaluation.evaluate import evaluate, evaluation_frames
from mspn_ros.evaluation.run_report import write_run_report
from mspn_ros.inference.localizer import Localizer
from mspn_ros.network.pretrained import describe_weights
from mspn_ros.paths import make_folder
from mspn_ros.records import ConfigError, MspnError
from mspn_ros.store.backbone_file import BACKBONE_FILE
from mspn_ros.store.files import locked
from mspn_ros.training.checkpoint import CHECKPOINT_FILE, run_identity
from mspn_ros.training.config import TrainConfig, load_config
from mspn_ros.training.finish import source_version, write_model
from mspn_ros.training.loop import Trainer
from mspn_ros.training.methods import check_scene_count, method_file, method_settings

RESULT_FILE = "result.json"
# The method of a run that is the preset's own network, not one of the paper's.
PRESET = "preset"


@dataclass(frozen=True)
class Run:
    """One training run of an experiment.

    ``start`` is the run whose backbone it begins with (None: the preset's weights).
    ``transfer_epochs`` makes it one of section 5.4: a constant learning rate, and errors on the
    test split after every epoch. ``settings`` come after those of the experiment.
    """

    method: str
    scenes: tuple[str, ...]
    seed: int = 0
    start: Run | None = None
    transfer_epochs: int | None = None
    settings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For people and folder names."""
        parts = [self.method, "+".join(self.scenes) if len(self.scenes) < 3 else "many"]
        if self.transfer_epochs is not None:
            parts.append("from-mspn" if self.start else "from-weights")
        return "-".join([*parts, f"seed{self.seed}"])


@dataclass(frozen=True)
class Experiment:
    """Scenes and settings that all runs share.

    ``begin`` is called before a run that is not done yet; ``train`` does ``Trainer.run``, with
    progress where somebody looks.
    """

    scenes: dict[str, SceneData]
    root: Path
    preset: Path
    settings: tuple[str, ...] = ()
    epochs: int | None = None
    device: str = "auto"
    begin: Callable[[str], None] = lambda title: None
    train: Callable[[Trainer], None] = Trainer.run

    def check(self) -> None:
        """Find out before the first run what would spoil the last.

        Raises:
            MspnError: a setting that each run sets for itself, a preset that teaches no
                classifier, or a scene without test frames.
        """
        own = {"seed", "epochs", "device", "scenes", "output", *method_settings()}
        for setting in self.settings:
            if setting.partition("=")[0] in own:
                raise ConfigError(
                    f"--set {setting}: every run sets this for itself; leave it out (--seeds, "
                    "--epochs and --device are options of their own)"
                )
        if not self.config(Run("mspn", tuple(self.scenes))).loss.scene_weight:
            raise ConfigError(
                f"{self.preset}: loss.scene_weight is 0, so that MSPN learns no scene classifier; "
                "set it above 0 (the tables without classifier leave it out themselves)"
            )
        evaluation_frames(list(self.scenes.values()), "test")

    def config(self, run: Run) -> TrainConfig:
        """The configuration of a run, complete but for its output folder."""
        overrides = [*self.settings, f"seed={run.seed}", f"device={self.device}"]
        if self.epochs is not None:
            overrides.append(f"epochs={self.epochs}")
        if run.transfer_epochs is not None:
            overrides += [
                f"epochs={run.transfer_epochs}",
                "optimizer.schedule=constant",
                "optimizer.warmup_epochs=0",
                "validation.every=1",
                "validation.track_test=true",
            ]
        overrides += run.settings
        overlay = None if run.method == PRESET else method_file(run.method)
        config = load_config(self.preset, overrides, overlay)
        scenes = tuple(f"{name}={self.scenes[name].root}" for name in run.scenes)
        config = replace(config, scenes=scenes)
        if run.start is not None:
            config = replace(config, weights=str(self.folder(run.start) / "model"))
        return config

    def identity(self, run: Run) -> dict[str, Any]:
        """What decides the result of a run; of a run it starts from, its digest."""
        config = self.config(run)
        model = Path(config.weights).expanduser() / BACKBONE_FILE
        source = str(model) if model.is_file() else config.weights
        weights = describe_weights(source, config.architecture.backbone)
        if run.start is not None:
            weights = f"run {self.digest(run.start)}"
        fields = run_identity(config, [self.scenes[name] for name in run.scenes], weights)
        if run.transfer_epochs is None:
            fields["epochs"] = config.epochs
        return fields

    def digest(self, run: Run) -> str:
        """Eight digits that tell runs apart: of all settings that are not the dataclass's own.

        A setting that a later version adds leaves it as it is.
        """
        fields = _without_defaults(self.identity(run), TrainConfig().to_json())
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def folder(self, run: Run) -> Path:
        """Where the run lies or will lie."""
        return self.root / f"{run.title}-{self.digest(run)}"

    def result(self, run: Run) -> dict[str, Any]:
        """The finished run's result; trains and evaluates first if it is missing.

        Keys: "config", "version", "weights", "device", "seconds", "oracle" and "end_to_end" (as
        of ``mspn evaluate``; null without a classifier), "history".

        Raises:
            MspnError: training or evaluation fails.
        """
        if run.method != PRESET:
            check_scene_count(run.method, len(run.scenes))
        folder = make_folder(self.folder(run))
        with locked(folder / ".lock"):
            done = _read_result(folder, self.identity(run), run.transfer_epochs)
            if done is None:
                if run.start is not None:
                    self.result(run.start)
                self.begin(" ".join((run.title, *run.settings)))
                done = self._do(run, folder)
        return done

    def _do(self, run: Run, folder: Path) -> dict[str, Any]:
        started = time.monotonic()
        scenes = [self.scenes[name] for name in run.scenes]
        trainer = Trainer(replace(self.config(run), output=str(folder)), scenes)
        resumed = trainer.resume()
        self.train(trainer)
        model = write_model(trainer)
        write_run_report(trainer, model)
        localizer = Localizer.load(model, self.device)
        tables: dict[str, Any] = {"oracle": _judge(localizer, scenes, True), "end_to_end": None}
        if trainer.config.loss.scene_weight:
            tables["end_to_end"] = _judge(localizer, scenes, False)
        result = {
            "config": self.identity(run),
            "version": source_version(),
            "weights": trainer.learner.weights,
            "device": str(trainer.device),
            # Of a resumed run the time before is not known any more.
            "seconds": None if resumed else time.monotonic() - started,
            **tables,
            "history": trainer.history,
        }
        write_json(folder / RESULT_FILE, result)
        # Only a run at a constant rate can be prolonged; of all others the model is enough.
        if run.transfer_epochs is None:
            (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        return result


def _without_defaults(fields: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in fields.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            value, default = _without_defaults(value, default), {}
        if key not in defaults or value != default:
            kept[key] = value
    return kept


def _filled(
    stored: dict[str, Any], identity: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    """Settings that are younger than a stored run had the defaults they came with."""
    filled = dict(stored)
    for key, value in identity.items():
        if isinstance(value, dict):
            filled[key] = _filled(stored.get(key, {}), value, defaults.get(key, {}))
        elif key in defaults:
            filled.setdefault(key, defaults[key])
    return filled


def _judge(localizer: Localizer, scenes: Sequence[SceneData], oracle: bool) -> dict[str, Any]:
    # As the paper: the most likely scene answers always, and raw numbers are compared.
    answers, bad = evaluate(localizer, scenes, "test", oracle, min_confidence=0.0)
    counts = {"rejected": len(bad)}
    table = make_table(answers, localizer.rows, "", oracle, paper=True, counts=counts)
    return table.to_json()


def _read_result(
    folder: Path, identity: dict[str, Any], epochs: int | None
) -> dict[str, Any] | None:
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        enough = epochs is None or len(result["history"]) >= epochs
    except (ValueError, KeyError, TypeError) as error:
        raise MspnError(f"{path}: damaged ({error}); delete its folder to run it anew") from error
    # The folder's name covers what is set; a default that has changed since shows here.
    stored = _filled(result["config"], identity, TrainConfig().to_json())
    if stored != identity:
        changed = sorted(k for k in identity | stored if identity.get(k) != stored.get(k))
        raise ConfigError(
            f"{path}: made by other defaults of {', '.join(changed)}; choose another --output"
        )
    return result if enough else None
