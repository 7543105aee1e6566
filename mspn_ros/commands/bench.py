# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn bench``: measure on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mspn_ros.commands.bench_node import add_bench_node_arguments
from mspn_ros.commands.models import add_bench_model_arguments, bench_model
from mspn_ros.inference.engine_names import ENGINES
from mspn_ros.terminal import note, print_table, progress_bar, say


def add_bench_arguments(commands: Any) -> None:
    """The parsers of all benchmarks."""
    text = "Measure on this machine."
    bench = commands.add_parser("bench", help=text, description=text)
    kinds = bench.add_subparsers(title="benchmarks", required=True, metavar="WHAT")
    _add_latency(kinds)
    _add_throughput(kinds)
    add_bench_node_arguments(kinds)
    _add_engines(kinds)
    _add_scenes(kinds)


def _add_scenes(kinds: Any) -> None:
    text = (
        "Answer time, opening and size by the number of scenes, on generated banks of linear rows. "
        "They are made in a temporary folder (TMPDIR) and removed; the default sizes need about "
        "3.5 GB there."
    )
    scenes = kinds.add_parser("scenes", help="By the number of scenes.", description=text)
    scenes.set_defaults(command=bench_scenes)
    scenes.add_argument(
        "--scenes",
        type=int,
        nargs="+",
        metavar="N",
        help="sizes of banks (default 1 10 1000 10000 100000); ratios are to the smallest",
    )
    scenes.add_argument(
        "--backbone", default="resnet34", help="torchvision name, random weights (default resnet34)"
    )
    scenes.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    scenes.add_argument("--rounds", type=int, help="answers of each size (default 40)")
    scenes.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def _add_latency(kinds: Any) -> None:
    text = (
        "Milliseconds from a frame's bytes to its pose and of the network alone, by an engine and "
        "by the plain path in turn: raw and JPEG frames of 640x480 and 1920x1080, and several "
        "cameras. In this process, without ROS."
    )
    latency = kinds.add_parser("latency", help="From a frame to its pose.", description=text)
    latency.set_defaults(command=bench_latency)
    add_bench_model_arguments(latency)
    latency.add_argument("--rounds", type=int, help="default 60")
    latency.add_argument("--plot", type=Path, metavar="FILE", help="draw the result as PNG")


def _add_throughput(kinds: Any) -> None:
    text = (
        "Images a second by batch, by an engine and by the plain path in turn, and what share of "
        "the processor's rate of matrix products that is."
    )
    throughput = kinds.add_parser("throughput", help="Images a second.", description=text)
    throughput.set_defaults(command=bench_throughput)
    add_bench_model_arguments(throughput)
    throughput.add_argument("--batches", type=int, nargs="+", metavar="N", help="default 1 4 16")
    throughput.add_argument("--rounds", type=int, help="default 10")


def _add_engines(kinds: Any) -> None:
    text = (
        "How far the poses of other engines are from the plain path's on frames of the model's "
        "scenes, and whether that is within the bounds for half precision: 5 % of the scene's "
        "median error at the median, medians worse by at most 1 %, the same scene for 99.9 %."
    )
    engines = kinds.add_parser("engines", help="What engines change.", description=text)
    engines.set_defaults(command=bench_engines)
    engines.add_argument("--model", type=Path, required=True, help="model directory")
    engines.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    engines.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="SCENES",
        help="scene set: name=path, a folder, or a YAML file",
    )
    engines.add_argument("--split", default="test", help="which frames (default test)")
    engines.add_argument(
        "--engines",
        nargs="+",
        default=[],
        choices=ENGINES,
        metavar="NAME",
        help="which (default: all that run here)",
    )
    engines.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def bench_latency(arguments: argparse.Namespace) -> int:
    """A table of medians and tails, or JSON."""
    from mspn_ros.evaluation.bench_latency import DEFAULT_ROUNDS, bench_latency
    from mspn_ros.evaluation.latency_plot import plot_latency

    rounds = DEFAULT_ROUNDS if arguments.rounds is None else arguments.rounds
    with bench_model(arguments) as model, progress_bar("bench latency") as update:
        result = bench_latency(model, arguments.device, arguments.engine, rounds, update)
    rows = [
        (name, *(f"{time:.2f}" for time in (*times.values(), times["p50"] / result.network_ms)))
        for name, times in result.times_ms.items()
    ]
    title = f"{result.model}, {result.scenes} scenes: {result.engine} on {result.device}"
    print_table(title, ("ms", "p50", "p95", "p99", "over network"), rows)
    note(
        f"frame to pose is {result.speedup:.2f} times as fast as the plain path, the network alone "
        f"{result.network_speedup:.2f} times; frame to pose takes {result.overhead:.2f} times the "
        f"network alone (medians of {result.rounds} rounds' ratios); the first frame took "
        f"{result.first_ms:.2f} ms",
    )
    _tell(result, arguments.json)
    if arguments.plot:
        say(f"drawn: {plot_latency(result, arguments.plot)}")
    return 0


def bench_throughput(arguments: argparse.Namespace) -> int:
    """A table of batches, or JSON."""
    from mspn_ros.evaluation.bench_throughput import (
        DEFAULT_BATCHES,
        DEFAULT_ROUNDS,
        bench_throughput,
    )

    with bench_model(arguments) as model, progress_bar("bench throughput") as update:
        result = bench_throughput(
            model,
            arguments.device,
            arguments.engine,
            DEFAULT_BATCHES if arguments.batches is None else arguments.batches,
            DEFAULT_ROUNDS if arguments.rounds is None else arguments.rounds,
            update,
        )
    rows = [
        (
            str(b.batch), f"{b.network_per_s:.1f}", f"{b.plain_network_per_s:.1f}",
            f"{b.speedup:.2f}", f"{b.localized_per_s:.1f}", f"{100 * b.share:.0f} %",
        )
        for b in result.batches
    ]  # fmt: skip
    header = ("batch", "network/s", "plain network/s", "ratio", "localized/s", "of matrix rate")
    print_table(f"{result.model}: {result.engine} on {result.device}", header, rows)
    note(
        f"an image is {result.operations / 1e9:.2f} GFLOP; matrix products in {result.precision} "
        f"run at {result.matrix_per_s / 1e9:.0f} GFLOP/s",
    )
    _tell(result, arguments.json)
    return 0


def _tell(result: Any, path: Path | None) -> None:
    """On what it was measured, and the result as JSON where it is asked for."""
    from mspn_ros.evaluation.answers import write_json

    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    note(f"measured on: {facts}")
    if path:
        write_json(path, asdict(result))
        say(f"written: {path}")


def bench_engines(arguments: argparse.Namespace) -> int:
    """A table of engines and scenes, or JSON."""
    from mspn_ros.datasets.scene_set import load_scene_set
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.bench_engines import bench_engines

    scenes = load_scene_set(arguments.data)
    with progress_bar("bench engines") as update:
        results, left_out = bench_engines(
            arguments.model,
            arguments.device,
            arguments.engines,
            scenes,
            arguments.split,
            lambda engine, done, total: update(done, total, engine),
        )
    rows = [
        (
            f"{r.engine}, {r.scene}", str(r.frames), _percent(r.position_apart),
            _percent(r.rotation_apart), f"{r.farthest_position:.1e}",
            _times(r.position_change), _times(r.rotation_change),
            _percent(r.same_scene), "yes" if r.within else "no",
        )
        for r in results
    ]  # fmt: skip
    header = (
        "engine, scene", "frames", "position apart", "rotation apart", "farthest / extent",
        "position", "rotation", "same scene", "within",
    )  # fmt: skip
    print_table(f"against torch_float32, split {arguments.split}", header, rows)
    for name, reason in left_out.items():
        note(f"left out: {name}: {reason}", style="yellow")
    if arguments.json:
        write_json(arguments.json, [asdict(result) for result in results])
        say(f"written: {arguments.json}")
    return 0


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"x{ratio:.3f}"


def bench_scenes(arguments: argparse.Namespace) -> int:
    """A table of sizes, or JSON."""
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.bench_scenes import DEFAULT_ROUNDS, DEFAULT_SCENES, bench_scenes

    rounds = DEFAULT_ROUNDS if arguments.rounds is None else arguments.rounds
    with progress_bar("bench scenes") as update:
        results = bench_scenes(
            arguments.scenes or DEFAULT_SCENES,
            arguments.backbone,
            arguments.device,
            rounds,
            update,
        )
    if arguments.json:
        write_json(arguments.json, [asdict(result) for result in results])
    header = (
        "scenes", "answer ms", "ratio", "classifier ms", "first answer ms", "load s", "bank s",
        "MB", "read", "classifier",
    )  # fmt: skip
    rows = [
        (
            f"{r.scenes:,}", f"{r.answer_ms:.2f}", f"{r.ratio:.3f}", f"{r.classifier_ms:.2f}",
            f"{r.first_answer_ms:.2f}", f"{r.load_s:.2f}", f"{r.bank_s:.2f}",
            f"{r.bytes / 1e6:.1f}", "whole" if r.whole else "on demand", r.classifier,
        )
        for r in results
    ]  # fmt: skip
    print_table(f"{arguments.backbone}, {results[0].engine} on {results[0].device}", header, rows)
    note(
        f"medians of {rounds} raw 640x480 frames; ratios are to the smallest bank, round by round",
    )
    if arguments.json:
        say(f"written: {arguments.json}")
    return 0
