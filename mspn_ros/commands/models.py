# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Opening the model that a command names."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mspn_ros.inference.engine_names import AUTO, ENGINES
from mspn_ros.terminal import note

if TYPE_CHECKING:
    from mspn_ros.inference.localizer import Localizer


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, where it runs, and by what."""
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    add_device_arguments(parser)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a model runs, and by what."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--engine",
        choices=(AUTO, *ENGINES),
        default=AUTO,
        metavar="NAME",
        help=f"what runs the backbone: {AUTO}, {', '.join(ENGINES)} (default {AUTO})",
    )


def add_bench_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The same for benchmarks, which make a model where none is named; and where results go."""
    parser.add_argument(
        "--model", type=Path, help="model directory (default: resnet34 with random weights)"
    )
    add_device_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


@contextmanager
def bench_model(arguments: argparse.Namespace) -> Iterator[Path]:
    """The model that is named, or one with random weights for as long as it is needed."""
    from mspn_ros.evaluation.bench_frames import write_random_model

    if arguments.model:
        yield arguments.model
        return
    with tempfile.TemporaryDirectory(prefix="mspn_bench_") as name:
        yield write_random_model(Path(name), "resnet34")


def open_localizer(arguments: argparse.Namespace) -> Localizer:
    """The model of ``--model``, ``--device`` and ``--engine``; names scenes that cannot be served.

    Raises:
        ModelError, ConfigError: see ``Localizer.load``.
    """
    from mspn_ros.inference.localizer import Localizer

    localizer = Localizer.load(arguments.model, arguments.device, engine=arguments.engine)
    for reason in localizer.refused.values():
        note(f"left out: {reason}", style="yellow")
    return localizer
