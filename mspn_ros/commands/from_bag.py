# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn dataset from-bag``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mspn_ros.terminal import note, print_table, progress_bar, say

if TYPE_CHECKING:
    from mspn_ros.datasets.bag_pass import FromBagOptions

_MOUNTING_REMEDY = (
    "give 'x y z roll pitch yaw' (metres and radians, of the camera's body axes, x forward and z "
    "up, in the frame that the poses are of) or 'x y z qx qy qz qw'"
)


def add_from_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of FromBagOptions, PoseOptions and ChoiceOptions; their defaults hold."""
    parser.add_argument(
        "bags",
        nargs="+",
        type=Path,
        metavar="BAG",
        help="ROS 2 folder, .mcap, .db3 or ROS 1 .bag; several of one place are several passes",
    )
    parser.add_argument(
        "--test",
        nargs="+",
        type=Path,
        default=[],
        metavar="BAG",
        help="passes to test on (without: blocks of each bag, see --test-share)",
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder of the dataset")
    topics = parser.add_argument_group("what to read")
    topics.add_argument("--image-topic", metavar="T", help="needed where a bag has several")
    topics.add_argument(
        "--pose-topic",
        metavar="T",
        help="PoseStamped, PoseWithCovarianceStamped, "
        "Odometry or TransformStamped, or 'tf' for /tf and /tf_static",
    )
    topics.add_argument("--camera-info-topic", metavar="T", help="default: beside the images")
    topics.add_argument(
        "--focal-px", type=float, metavar="F", help="focal length in pixels, instead of camera_info"
    )
    topics.add_argument(
        "--stamps",
        choices=("header", "receive"),
        help="times of receipt where clocks differ (default header)",
    )
    frames = parser.add_argument_group("what the poses are of")
    frames.add_argument(
        "--pose-of",
        metavar="WHAT",
        help="camera-optical (z forward), camera-body "
        "(x forward, z up), or a frame of TF; default: the messages' child_frame_id",
    )
    frames.add_argument(
        "--mounting",
        metavar="POSE",
        help="where the camera is on what the poses "
        "are of: 'x y z roll pitch yaw', as the node's parameter",
    )
    frames.add_argument("--world-frame", metavar="F", help="default: the poses' frame; of TF, map")
    frames.add_argument("--image-frame", metavar="F", help="instead of the images' frame_id")
    frames.add_argument(
        "--image-axes",
        choices=("optical", "body"),
        help="body: the images' frame has x forward, against REP-103",
    )
    frames.add_argument(
        "--max-gap",
        type=float,
        metavar="S",
        help="images between poses farther apart have none (default 0.5)",
    )
    frames.add_argument(
        "--metres-per-unit", type=float, metavar="M", help="of the poses (default 1)"
    )
    frames.add_argument(
        "--unknown-scale", action="store_true", help="the poses are of monocular SLAM or the like"
    )
    _add_choice_arguments(parser)
    parser.add_argument(
        "--png", action="store_true", help="raw images as PNG instead of JPEG of quality 95"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def _add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_argument_group("which frames")
    choice.add_argument(
        "--min-metres",
        type=float,
        metavar="M",
        help="take the next frame after so far (default 0.03) ...",
    )
    choice.add_argument("--min-degrees", type=float, metavar="D", help="... or a turn (default 2)")
    choice.add_argument(
        "--min-sharpness",
        type=float,
        metavar="S",
        help="of the neighbours' sharpness, or it is left out (default 0.7; 0: all)",
    )
    choice.add_argument(
        "--max-clipped",
        type=float,
        metavar="S",
        help="share of black or white pixels beyond the neighbours' (default 0.3; 1: all)",
    )
    choice.add_argument(
        "--test-share",
        type=float,
        metavar="S",
        help="of frames, in blocks, for testing (default 0.2; with --test 0)",
    )


def options_of(arguments: argparse.Namespace) -> FromBagOptions:
    """What the command line says of how to read bags."""
    from mspn_ros.datasets.bag_pass import FromBagOptions
    from mspn_ros.datasets.bag_poses import PoseOptions
    from mspn_ros.datasets.frame_choice import ChoiceOptions
    from mspn_ros.mounting import mounting_of

    given = {name: value for name, value in vars(arguments).items() if value is not None}

    def of(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if name in given}

    poses = of("pose_of", "world_frame", "image_frame", "image_axes")
    if "mounting" in given:
        poses["mounting"] = mounting_of("--mounting", given["mounting"], _MOUNTING_REMEDY)
    read = of("image_topic", "pose_topic", "camera_info_topic", "focal_px", "stamps")
    read |= of("metres_per_unit", "test_share", "png")
    if "max_gap" in given:
        read["max_gap_s"] = given["max_gap"]
    if arguments.unknown_scale:
        read["metres_per_unit"] = None
    choice = of("min_metres", "min_degrees", "min_sharpness", "max_clipped")
    return FromBagOptions(poses=PoseOptions(**poses), choice=ChoiceOptions(**choice), **read)


def from_bag(arguments: argparse.Namespace) -> int:
    """Recordings to a dataset, with a table, a picture and a record."""
    from mspn_ros.datasets.from_bag import PICTURE, dataset_from_bags
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.passes_plot import draw_passes

    options = options_of(arguments)
    said = {
        name: [str(v) for v in value] if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name not in ("command", "json", "out") and value is not None
    }
    with progress_bar("reading") as update:
        reports = dataset_from_bags(
            arguments.out, arguments.bags, arguments.test, options, said, update, draw_passes
        )
    if arguments.json is not None:
        write_json(arguments.json, [report.to_json() for report in reports])
    _show(reports)
    say(f"dataset: {arguments.out} (see {PICTURE}; next: mspn inspect {arguments.out})")
    return 0


def _show(reports: Sequence[Any]) -> None:
    reasons = list(dict.fromkeys(reason for report in reports for reason in report.left_out))
    header = ["", *(report.name for report in reports)]
    rows = [["images", *(str(report.images) for report in reports)]]
    for split in ("train", "test"):
        rows.append([split, *(str(report.frames.get(split, 0)) for report in reports)])
    for reason in reasons:
        rows.append([reason, *(str(report.left_out.get(reason, 0)) for report in reports)])
    print_table("frames taken and left out", header, rows)
    for report in reports:
        note(f"{report.name}: {report.source}")
        for text in [*_gaps(report), *_jumps(report), *report.notes]:
            note(f"{report.name}: {text}", style="yellow")


def _gaps(report: Any) -> list[str]:
    if not report.gaps:
        return []
    longest = max(report.gaps, key=lambda gap: gap.seconds)
    return [
        f"{len(report.gaps)} gaps in the poses; the longest at {longest.at_s:.1f} s: "
        f"{longest.seconds:.1f} s and {longest.distance:.2f} {report.unit} of {longest.where}"
    ]


def _jumps(report: Any) -> list[str]:
    if not report.jumps:
        return []
    listed = ", ".join(
        f"{jump.distance:.2f} {report.unit} {jump.degrees:.1f} deg at {at_s:.1f} s ({where})"
        for at_s, jump, where in report.jumps[:5]
    )
    more = f" and {len(report.jumps) - 5} more" if len(report.jumps) > 5 else ""
    return [
        f"{len(report.jumps)} jumps of the poses: {listed}{more}; frames before and behind one do "
        "not agree on where things are: localize against the finished map and record again"
    ]
