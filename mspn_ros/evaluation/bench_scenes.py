# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How answer time, opening and size grow with the number of scenes, on banks made for it.

Weights are random: how long an answer takes does not depend on what they say.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from mspn_ros.evaluation.timing import Progress
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.read_out import MOST_LIKELY
from mspn_ros.network.backbone import Architecture, Backbone
from mspn_ros.network.heads import make_head
from mspn_ros.records import ConfigError, HeldOutErrors, ImageHW3, SceneRow
from mspn_ros.store.backbone_file import BACKBONE_FILE, save_backbone
from mspn_ros.store.bank_file import BANK_FILE
from mspn_ros.store.row_format import row_bytes
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.feature_statistics import feature_statistics

DEFAULT_SCENES = (1, 10, 1000, 10_000, 100_000)
DEFAULT_ROUNDS = 40
# Rows in one transaction; so many are in memory at once.
_CHUNK = 500
# SQLite's pages are not full: a row of 26 KB takes 28.
_PAGES = 1.15
# Free space that is left to others.
_SPARE_BYTES = 200_000_000
# Different images, as a camera gives them.
_FRAMES, _HEIGHT, _WIDTH = 8, 480, 640
# Answers of scenes that were not asked before.
_FIRST_ANSWERS = 9


@dataclass(frozen=True, slots=True)
class ScenesResult:
    """Of one size of bank; the keys of ``mspn bench scenes --json``.

    ``answer_ms``: median from a raw 640 x 480 frame to its pose; ``ratio``: median, over rounds in
    which every size answers the same frame, to the smallest bank's. ``classifier_ms``: of that the
    search for the likeliest scenes, in the arithmetic that ``classifier`` names.
    ``first_answer_ms``: of a scene that was not asked before, whose head may have to be read.
    ``load_s``: from files to a warm localizer; ``bank_s``: of that the bank.
    """

    scenes: int
    answer_ms: float
    load_s: float
    bytes: int
    ratio: float
    classifier_ms: float
    first_answer_ms: float
    bank_s: float
    whole: bool
    classifier: str
    engine: str
    device: str


def bench_scenes(
    sizes: Sequence[int], backbone: str, device: str, rounds: int, progress: Progress
) -> list[ScenesResult]:
    """Make a bank of each size in a temporary folder, measure, and remove it again.

    Raises:
        ConfigError: sizes or rounds below 1, no such backbone or device, or too little disk.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 1 or rounds < 1:
        raise ConfigError("--scenes and --rounds are at least 1")
    torch.manual_seed(0)
    network = Backbone(Architecture(backbone)).eval()
    with tempfile.TemporaryDirectory(prefix="mspn_bench_") as name:
        folder = Path(name)
        identity = save_backbone(folder, network, {"weights": "none"})
        _check_space(folder, sizes, next(random_rows(network, identity)))
        models = [folder / str(size) for size in sizes]
        for size, model in zip(sizes, models, strict=True):
            model.mkdir()
            os.link(folder / BACKBONE_FILE, model / BACKBONE_FILE)
            _write_bank(model, random_rows(network, identity), size, progress)
        return _measured(models, sizes, device, rounds, progress)


def random_rows(network: Backbone, identity: str) -> Iterator[SceneRow]:
    """Any number of different linear rows, as large as trained ones."""
    random, size = np.random.default_rng(0), network.feature_size
    head = make_head("linear", 1, network.architecture, size)
    shapes = {name: tensor.shape for name, tensor in head.row(0).items()}
    statistics = feature_statistics(torch.tensor(random.normal(size=(32, size))))
    variances = (0.04, 0.04, 0.04), (0.01, 0.01, 0.01)
    first = SceneRow(
        name="",
        uuid="",
        frame_id="",
        backbone_id=identity,
        position_offset=np.zeros(3),
        position_scale=1.0,
        reference_rotation=np.array([0.0, 0.0, 0.0, 1.0]),
        head="linear",
        head_tensors={},
        classifier_weight=np.zeros(size, np.float32),
        classifier_bias=0.0,
        s_t=0.0,
        s_q=-3.0,
        **statistics._asdict(),
        acceptance_threshold=0.0,
        held_out=HeldOutErrors(10, 0.2, 4.0, *variances),
        frames=1000,
        box_low=np.full(3, -1.0),
        box_high=np.full(3, 1.0),
        metres_per_unit=1.0,
        created="2026-01-01T00:00:00+00:00",
    )
    number = 0
    while True:
        number += 1
        name = f"scene_{number:06d}"
        yield replace(
            first,
            name=name,
            frame_id=name,
            uuid=str(uuid.UUID(int=number)),
            position_offset=random.normal(size=3),
            head_tensors={
                name: random.normal(0, size**-0.5, shape).astype(np.float32)
                for name, shape in shapes.items()
            },
            classifier_weight=random.normal(0, size**-0.5, size).astype(np.float32),
        )


def _check_space(folder: Path, sizes: Sequence[int], row: SceneRow) -> None:
    needed = int(sum(sizes) * row_bytes(row) * _PAGES) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder.parent}: {free / 1e9:.1f} GB are free, banks of {sum(sizes)} scenes need "
            f"{needed / 1e9:.1f} GB; choose fewer --scenes or another folder by TMPDIR"
        )


def _write_bank(model: Path, rows: Iterator[SceneRow], size: int, progress: Progress) -> None:
    with SceneBank(model, read_only=False) as bank:
        for done in range(0, size, _CHUNK):
            bank.add_all(list(islice(rows, min(_CHUNK, size - done))))
            progress(min(done + _CHUNK, size), size, "rows written")


def _measured(
    models: Sequence[Path], sizes: Sequence[int], device: str, rounds: int, progress: Progress
) -> list[ScenesResult]:
    localizers, load_s, bank_s = [], [], []
    for i, model in enumerate(models):
        progress(i, len(models), "banks opened")
        start = time.perf_counter()
        localizers.append(Localizer.load(model, device))
        load_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        localizers[-1].reload()
        bank_s.append(time.perf_counter() - start)
    frames = _frames()
    for i, localizer in enumerate(localizers):
        progress(i, len(localizers), "banks warmed up")
        for frame in frames:
            localizer.localize([frame])
    answer_ms, classifier_ms = _answer_times(localizers, frames, rounds, progress)
    results = []
    for i, (localizer, size) in enumerate(zip(localizers, sizes, strict=True)):
        classifier = localizer.classifier
        assert classifier is not None
        ratio = median(t / one for t, one in zip(answer_ms[i], answer_ms[0], strict=True))
        results.append(
            ScenesResult(
                scenes=size,
                answer_ms=median(answer_ms[i]),
                load_s=load_s[i],
                bytes=(models[i] / BANK_FILE).stat().st_size,
                ratio=ratio,
                classifier_ms=median(classifier_ms[i]),
                first_answer_ms=_first_answer_ms(localizer, frames[0]),
                bank_s=bank_s[i],
                whole=localizer.reads_whole,
                classifier=classifier.arithmetic,
                engine=localizer.engine,
                device=str(localizer.device),
            )
        )
    return results


def _frames() -> list[ImageHW3]:
    random = np.random.default_rng(1)
    return list(random.integers(0, 255, (_FRAMES, _HEIGHT, _WIDTH, 3), dtype=np.uint8))


def _answer_times(
    localizers: Sequence[Localizer], frames: Sequence[ImageHW3], rounds: int, progress: Progress
) -> tuple[list[list[float]], list[list[float]]]:
    """Milliseconds of every bank in every round: of answers, and of logits alone.

    Rounds go through all banks, beginning with another one each time, so that what else the
    machine does falls on all alike.
    """
    answers: list[list[float]] = [[] for _ in localizers]
    logits: list[list[float]] = [[] for _ in localizers]
    for done in range(rounds):
        progress(done, rounds, "rounds measured")
        frame = frames[done % len(frames)]
        for step in range(len(localizers)):
            i = (done + step) % len(localizers)
            start = time.perf_counter()
            localizers[i].localize([frame])
            answers[i].append((time.perf_counter() - start) * 1000)
            classifier = localizers[i].classifier
            assert classifier is not None
            logits[i].append(classifier.seconds(MOST_LIKELY) * 1000)
    return answers, logits


def _first_answer_ms(localizer: Localizer, frame: ImageHW3) -> float:
    times = []
    names = [scene.name for scene in localizer.scenes]
    for name in names[:: -(-len(names) // _FIRST_ANSWERS)]:
        start = time.perf_counter()
        localizer.localize([frame], name)
        times.append((time.perf_counter() - start) * 1000)
    return median(times)
