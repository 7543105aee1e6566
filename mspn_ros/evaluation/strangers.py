# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Places that no row is of: whether a model says "unknown" of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros import metrics
from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.answers import Answer, by_scene
from mspn_ros.evaluation.evaluate import answer_frames, evaluation_frames
from mspn_ros.evaluation.plots import new_figure, save_figure
from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import Array, BadFrame, ConfigError

HEADER = (
    "stranger",
    "frames",
    "AUROC",
    "false accepts at 95 % true accepts",
    "false accepts at the rows' thresholds",
)


@dataclass(frozen=True, slots=True)
class Strangers:
    """Confidences of frames of known places and of strangers', by name, and the scores.

    ``true_accepts`` is the share of own frames that were answered as the scene that they are of,
    at the rows' own thresholds.
    """

    own: Array
    strange: dict[str, Array]
    true_accepts: float
    scores: tuple[metrics.StrangerScore, ...]

    @property
    def mean(self) -> metrics.StrangerScore:
        """Over strangers; their frames in all."""
        return metrics.StrangerScore(
            "mean",
            sum(score.frames for score in self.scores),
            float(np.mean([score.auroc for score in self.scores])),
            float(np.mean([score.false_accepts_at_95 for score in self.scores])),
            float(np.mean([score.false_accepts for score in self.scores])),
        )

    def cells(self) -> list[tuple[str, ...]]:
        """The rows of a table under HEADER, the mean last."""
        return [
            (
                score.stranger,
                str(score.frames),
                f"{score.auroc:.4f}",
                f"{100 * score.false_accepts_at_95:.1f} %",
                f"{100 * score.false_accepts:.1f} %",
            )
            for score in (*self.scores, self.mean)
        ]

    def to_json(self) -> dict[str, Any]:
        """``true_accepts``, ``scenes`` by stranger, and their ``mean``."""
        scores = {score.stranger: asdict(score) for score in (*self.scores, self.mean)}
        for fields in scores.values():
            del fields["stranger"]
        mean = scores.pop("mean")
        return {"true_accepts": self.true_accepts, "scenes": scores, "mean": mean}


def check_strangers(localizer: Localizer, strangers: Sequence[SceneData]) -> None:
    """See whether they are strangers.

    Raises:
        ConfigError: the model has a scene of that name, or the name is that of the mean.
    """
    known = {scene.name for scene in localizer.scenes}
    for scene in strangers:
        if scene.name in known or scene.name == "mean":
            raise ConfigError(
                f"--strangers: {scene.name!r} is a scene of the model or a table's row, no "
                "stranger; leave it out, or name it otherwise: name=path"
            )


def ask_strangers(
    localizer: Localizer,
    own: Sequence[Answer],
    strangers: Sequence[SceneData],
    split: str,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Strangers, list[BadFrame]]:
    """Answers to strangers' frames held against ``own``, which are of known scenes, end to end.

    Frames whose image is broken are left out.

    Raises:
        DatasetError: a stranger without that split.
    """
    frames = evaluation_frames(strangers, split)
    answers, bad = answer_frames(localizer, frames, progress=progress)
    broken = {frame.name for frame in bad}
    own_N = np.array([answer.estimate.confidence for answer in own])
    right = [a.estimate.known and a.estimate.scene == a.scene for a in own]
    strange, scores = {}, []
    for name, group in by_scene(answers).items():
        heard = [answer.estimate for answer in group if answer.name not in broken]
        strange[name] = np.array([estimate.confidence for estimate in heard])
        answered = np.array([estimate.known for estimate in heard], bool)
        scores.append(metrics.score_stranger(name, own_N, strange[name], answered))
    return Strangers(own_N, strange, float(np.mean(right)), tuple(scores)), bad


def plot_strangers(found: Strangers, path: Path) -> Path:
    """Left: share of frames by confidence. Right: own frames let in, by strangers let in."""
    figure, axes = new_figure(2, 1, 5.0)
    edges = np.linspace(0, 1, 41)
    for name, confidence_N in {"own": found.own, **found.strange}.items():
        style = {"color": "k", "lw": 2} if name == "own" else {}
        weights = np.full(len(confidence_N), 1 / max(1, len(confidence_N)))
        axes[0, 0].hist(confidence_N, edges, weights=weights, histtype="step", label=name, **style)
    axes[0, 0].set(xlabel="confidence", ylabel="share of frames", yscale="log", ylim=(1e-3, 1.1))
    axes[0, 0].legend(fontsize=8)
    for name, confidence_N in found.strange.items():
        limits = np.unique(np.concatenate((found.own, confidence_N, [np.inf])))[::-1]
        let_in = [(confidence_N[:, None] >= limits).mean(0), (found.own[:, None] >= limits).mean(0)]
        axes[0, 1].step(*let_in, where="post", label=name)
    axes[0, 1].axhline(0.95, color="k", lw=0.5, ls=":")
    axes[0, 1].set(xlabel="strangers' frames let in", ylabel="own frames let in", ylim=(0, 1.02))
    axes[0, 1].legend(fontsize=8)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return save_figure(figure, path)
