# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn dataset from-video``: videos or photos become a dataset with poses."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from mspn_ros.terminal import note, progress_bar, say

TEXT = (
    "Make a dataset of videos or photos of a place: frames are chosen, their poses found by "
    "structure from motion (extra sfm), scaled, and written in nerfstudio's format."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for FromVideoConfig; its defaults hold where none is given."""
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="VIDEO|FOLDER", help="passes to learn from"
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the dataset")
    parser.add_argument(
        "--test",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="VIDEO|FOLDER",
        help="passes to test with, posed in the same reconstruction (default: held-out blocks)",
    )
    parser.add_argument(
        "--test-share",
        type=float,
        help="share of each pass held out in blocks where there is no --test (default 0.2)",
    )
    scale = parser.add_argument_group("scale and frame (default: an arbitrary unit, +z up)")
    scale.add_argument(
        "--known-distance",
        nargs=3,
        action="append",
        default=[],
        metavar=("FRAME", "FRAME", "METRES"),
        help="between the camera at two frames, by file name, or by time in the first video as "
        "12.5s; may be given several times",
    )
    scale.add_argument(
        "--camera-positions",
        type=Path,
        metavar="FILE",
        help="lines 'file x y z' (blanks or commas), or a TUM trajectory of the first video: "
        "'stamp x y z qx qy qz qw'; metres; poses come into its frame",
    )
    scale.add_argument(
        "--first-stamp",
        dest="first_stamp_s",
        type=float,
        metavar="SECONDS",
        help="stamp in --camera-positions at which the first video starts (default 0)",
    )
    _add_choice(parser)
    parser.add_argument(
        "--work", type=Path, help="folder for what may be used again (default: OUT.sfm)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary as JSON")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    frames = parser.add_argument_group("frames and cameras")
    frames.add_argument("--max-frames", type=int, help="at most, of each pass (default 300)")
    frames.add_argument(
        "--min-motion",
        type=float,
        help="least motion between chosen frames, as a share of the image's longer side; 0 takes "
        "every frame (default 0.02)",
    )
    frames.add_argument(
        "--max-side", type=int, metavar="PX", help="longer images are shrunk to it (default 1600)"
    )
    frames.add_argument(
        "--focal-px",
        type=float,
        help="of the images as they are in the source, to begin with (default: EXIF, or a guess)",
    )
    frames.add_argument(
        "--camera-model",
        help="SIMPLE_RADIAL (default), RADIAL, or OPENCV for lenses that need more terms",
    )
    frames.add_argument(
        "--separate-cameras",
        action="store_true",
        default=None,
        help="each pass was taken by a camera of its own; else images of one size "
        "(and one EXIF focal length) share one",
    )
    frames.add_argument(
        "--features", type=int, help="SIFT keypoints of an image, at most (default 4096)"
    )
    frames.add_argument(
        "--min-registered",
        type=float,
        metavar="SHARE",
        help="refuse a reconstruction of less of the frames (default 0.5)",
    )
    frames.add_argument("--threads", type=int, help="of pycolmap (default: all cores)")


def from_video(arguments: argparse.Namespace) -> int:
    """Choose frames, find their poses, write them; a summary on stdout."""
    from mspn_ros.datasets.from_video import FromVideoConfig, make_dataset
    from mspn_ros.datasets.sfm import require_pycolmap
    from mspn_ros.datasets.sfm_scale import KnownDistance
    from mspn_ros.datasets.video_frames import Sources
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.reconstruction_plot import draw_reconstruction

    given: dict[str, Any] = {
        field.name: getattr(arguments, field.name, None) for field in fields(FromVideoConfig)
    }
    given["known_distances"] = tuple(KnownDistance.parse(*d) for d in arguments.known_distance)
    config = FromVideoConfig(**{name: v for name, v in given.items() if v is not None})
    require_pycolmap()
    sources = Sources.open(arguments.sources, arguments.test)
    with progress_bar("from video") as update:
        result = make_dataset(
            sources,
            arguments.out,
            config,
            work=arguments.work,
            progress=lambda step, done, total: update(done, total, step),
            draw=draw_reconstruction,
        )
    show_summary(result.summary, result.notes)
    if arguments.json is not None:
        write_json(arguments.json, result.summary)
    note(f"kept for another try with other options: {result.work}")
    say(f"dataset: {result.out}")
    return 0


def show_summary(summary: dict[str, Any], remarks: tuple[str, ...]) -> None:
    """Print what a user should know before training on it."""
    width, height = summary["image_size"]
    rows = [(p["name"], f"{p['posed']} of {p['frames']} frames posed") for p in summary["passes"]]
    rows += [
        (
            "posed",
            f"{summary['posed']} of {summary['frames']} frames "
            f"({summary['posed'] / summary['frames']:.0%})",
        ),
        (
            "agreement",
            f"two of {summary['reconstructions']} reconstructions differ by "
            f"{summary['difference_percent']:.2f} % of the extent and "
            f"{summary['difference_deg']:.2f} degrees (medians)",
        ),
        ("splits", f"{summary['train']} train, {summary['test']} test"),
        ("reprojection", f"{summary['reprojection_error_px']:.2f} px (mean)"),
        (
            "points",
            f"{summary['points']}, each seen by {summary['track_length']:.1f} frames, "
            f"under {summary['angle_deg']:.1f} degrees (median)",
        ),
        (
            "cameras",
            f"{summary['cameras']}; focal length {summary['focal_px']:.1f} px at {width}x{height}",
        ),
        ("scale", summary["scale"]),
        ("seconds", f"{summary['seconds']['all']:.0f}"),
    ]
    for key, value in [*rows, *(("note", remark) for remark in remarks)]:
        say(f"{key:>16}  {value}")
