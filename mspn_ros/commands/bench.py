"""``mspn bench``: measure on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mspn_ros.commands.bench_node import add_bench_node_arguments
from mspn_ros.terminal import console, notes, print_table, progress_bar


def add_bench_arguments(commands: Any) -> None:
    """The parsers of all benchmarks."""
    text = "Measure on this machine."
    bench = commands.add_parser("bench", help=text, description=text)
    kinds = bench.add_subparsers(title="benchmarks", required=True, metavar="WHAT")
    add_bench_node_arguments(kinds)
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
    notes.print(
        f"medians of {rounds} raw 640x480 frames; ratios are to the smallest bank, round by round",
        highlight=False,
    )
    if arguments.json:
        console.print(f"written: {arguments.json}", highlight=False)
    return 0
