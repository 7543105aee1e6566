# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn bench node``: the node under load, through DDS."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from typing import Any

from mspn_ros.commands.models import add_bench_model_arguments, bench_model
from mspn_ros.node import require_ros
from mspn_ros.records import ConfigError
from mspn_ros.terminal import note, print_table, progress_bar, say

_COUNTS_HEADER = (
    "load", "asked Hz", "offered Hz", "published", "received", "answered", "overtaken", "rejected",
    "lost", "answered Hz", "MB start", "MB end",
)  # fmt: skip
_TIMES_HEADER = (
    "load", "offered Hz", "age p50", "p95", "p99", "latency p50", "p95", "p99", "waiting", "decode",
    "localize", "publish", "ROS adds", "age ratio", "latency ratio",
)  # fmt: skip


def add_bench_node_arguments(kinds: Any) -> None:
    """The parser of ``mspn bench node``."""
    text = (
        "Start a real node, publish camera-like images to it from another process at each rate, "
        "and tell what became of every frame, how old its pose was when it was received, and "
        "what the node spent its time on. Needs ROS 2."
    )
    node = kinds.add_parser("node", help="The node, through DDS.", description=text)
    node.set_defaults(command=bench_node)
    add_bench_model_arguments(node)
    node.add_argument(
        "--rates",
        nargs="+",
        metavar="HZ",
        help="offered frames a second by each camera; max: three times what the node answers "
        "(default 30 60 120 max)",
    )
    node.add_argument(
        "--sizes", nargs="+", metavar="WxH", help="of the images (default 640x480 1920x1080)"
    )
    node.add_argument("--transports", nargs="+", metavar="T", help="raw, compressed (default both)")
    node.add_argument(
        "--cameras", nargs="+", type=int, metavar="N", help="cameras at once (default 1)"
    )
    node.add_argument(
        "--profiles",
        nargs="+",
        metavar="WHO",
        help="who has the Fast DDS profile for large images: none, camera, node or both (default "
        "both)",
    )
    node.add_argument("--seconds", type=float, help="of each load (default 10)")


def bench_node(arguments: argparse.Namespace) -> int:
    """Two tables, what became of the frames and where the time went, or JSON."""
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.node_loads import OVERLOAD, Plan

    given: dict[str, Any] = {
        "transports": tuple(arguments.transports or ()),
        "sizes": tuple(_size(text) for text in arguments.sizes or ()),
        "rates": tuple(arguments.rates or ()),
        "seconds": arguments.seconds,
        "cameras": tuple(arguments.cameras or ()),
        "profiles": tuple(arguments.profiles or ()),
    }
    plan = Plan(**{key: value for key, value in given.items() if value not in ((), None)})
    require_ros()
    from mspn_ros.node.bench_node import bench_node

    with bench_model(arguments) as model, progress_bar("node") as update:
        results = bench_node(model, plan, arguments.device, arguments.engine, update)
    if arguments.json:
        write_json(arguments.json, [asdict(result) for result in results])
    what = arguments.model or "resnet34, random weights"
    title = f"{what}: {results[0].engine} on {results[0].device}"
    print_table(title, _COUNTS_HEADER, [_counts(result) for result in results])
    print_table("milliseconds", _TIMES_HEADER, [_times(result) for result in results])
    note(
        "age: from publishing an image to receiving its pose; latency: in the node, from the "
        "image's arrival to its published answer; stages and what ROS adds to localize are "
        f"medians; ratios: p50 over the median of localize; max offers {OVERLOAD:g} times what the "
        "node can answer",
    )
    if arguments.json:
        say(f"written: {arguments.json}")
    return 0


def _size(text: str) -> tuple[int, int]:
    """``640x480`` -> (640, 480)."""
    if not re.fullmatch(r"\d{1,5}x\d{1,5}", text):
        raise ConfigError(f"--sizes: {text!r} is not a width and a height, as in 640x480")
    width, height = text.split("x")
    return int(width), int(height)


def _name(result: Any) -> str:
    several = f"{result.cameras} x " if result.cameras > 1 else ""
    profile = f", profile: {result.profile}" if result.profile != "both" else ""
    return f"{several}{result.transport} {result.width}x{result.height}, {result.rate}{profile}"


def _counts(result: Any) -> tuple[str, ...]:
    counts = (
        result.published, result.received, result.answered, result.overtaken, result.rejected,
        result.lost,
    )  # fmt: skip
    rates = (f"{result.asked_hz:.1f}", f"{result.offered_hz:.1f}")
    memory = (f"{result.memory_start_mb:.0f}", f"{result.memory_end_mb:.0f}")
    return (_name(result), *rates, *map(str, counts), f"{result.answered_hz:.1f}", *memory)


def _times(result: Any) -> tuple[str, ...]:
    cells = [_name(result), f"{result.offered_hz:.1f}"]
    for times in (result.age_ms, result.latency_ms):
        cells += [_cell(times, p) for p in ("p50", "p95", "p99")]
    stages = (
        result.waiting_ms, result.decode_ms, result.localize_ms, result.publish_ms,
        result.ros_adds_ms, result.age_ratio, result.latency_ratio,
    )  # fmt: skip
    return (*cells, *(_cell(times, "p50") for times in stages))


def _cell(times: dict[str, float] | None, key: str) -> str:
    return "-" if times is None else f"{times[key]:.2f}"
