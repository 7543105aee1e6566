# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn <command>``: parses, calls one function per command, turns errors into one line.

The functions live in mspn_ros/commands/; each imports what it needs when it is called, so that
``mspn --help`` is quick and nothing but ``localize`` and live replay needs ROS.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mspn_ros import __version__
from mspn_ros.commands import (
    add_scene,
    bench,
    data,
    from_bag,
    from_video,
    inspect,
    learn,
    reproduce,
    run,
    scenes,
)
from mspn_ros.commands.models import add_model_arguments
from mspn_ros.records import ConfigError, MspnError


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line and exit code 1, as every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see '{self.prog} --help'")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``command`` holds the function to call."""
    parser = _Parser(prog="mspn", description="Multi-Scene PoseNet camera localization for ROS 2.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, function: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    demo = add("demo", "Run the packaged model in a real node on a packaged bag.", run.demo)
    _output(demo, "runs/demo")
    _add_train(add("train", "Learn a backbone and a scene bank.", learn.train))
    text = "Add a scene to a model, on its frozen backbone."
    adding = add("add-scene", text, add_scene.add_scene)
    add_scene.add_scene_arguments(adding)
    _set(adding, "head=linear views=4000; with --mode full, settings of training")
    _add_evaluate(add("evaluate", "Judge a model on a dataset's split.", learn.evaluate))
    _add_explain(add("explain", "Draw what answers to images are made of.", learn.explain))
    _add_replay(add("replay", "Run a bag through a model, offline or live over DDS.", run.replay))
    paper = "Run the paper's experiments and print its tables."
    _add_reproduce(add("reproduce", paper, reproduce.reproduce))
    params = add("params", "Count parameters: shared, per scene, against PoseNets.", learn.params)
    params.add_argument(
        "--backbone", default="resnet34", help="torchvision name (default resnet34)"
    )
    params.add_argument("--feature-size", type=int, metavar="F", help="default: the backbone's own")
    _json(params)
    text = "Show what a reader finds in datasets, and what is wrong with them before training."
    _add_inspect(add("inspect", text, inspect.inspect))
    _add_dataset(commands)
    scenes.add_scenes_arguments(commands)
    bench.add_bench_arguments(commands)
    localize = add("localize", "Start the ROS 2 node.", run.localize)
    run.add_localize_arguments(localize)
    return parser


def _output(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path(default), help=f"folder for results (default {default})"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="SCENES",
        help="scene set: name=path, a folder, or a YAML file",
    )


def _split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="test", help="which frames (default test)")


def _set(
    parser: argparse.ArgumentParser, example: str = "epochs=10 optimizer.head_lr=1e-3"
) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"override settings, as in {example}",
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML file, or a preset: default, paper")
    parser.add_argument("--scenes", nargs="+", metavar="SCENES", help="name=path or YAML files")
    parser.add_argument(
        "--method",
        help="a network of the paper's tables, laid over the config: posenet, mapnet, naive, "
        "mspn_oracle, mspn (the usual one)",
    )
    parser.add_argument("--output", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    _set(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    _data(parser)
    _split(parser)
    parser.add_argument("--oracle", action="store_true", help="tell the model the true scene")
    parser.add_argument(
        "--paper", action="store_true", help="compare raw numbers of wrong scenes as well"
    )
    parser.add_argument(
        "--baselines",
        nargs="?",
        const="",
        metavar="BACKBONE=WEIGHTS",
        help="also print what the mean training pose, perfect retrieval, retrieval and ridge "
        "regression reach; features of BACKBONE, frozen (default: the model's, ImageNet weights)",
    )
    parser.add_argument(
        "--strangers",
        nargs="+",
        default=[],
        metavar="SCENES",
        help="places that the model does not know: how many of their frames it takes for a scene",
    )
    _json(parser)
    _output(parser, "runs/evaluate")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    add_model_arguments(parser)
    parser.add_argument("--scene", help="that the images are of (default: let the network decide)")
    _output(parser, "runs/explain")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="ROS 2 bag folder, .mcap, .db3, or ROS 1 .bag")
    add_model_arguments(parser)
    parser.add_argument("--image-topic", help="needed where the bag has several")
    parser.add_argument("--pose-topic", help="ground truth; 'none' ignores it")
    parser.add_argument("--scene", help="scene that the ground truth belongs to")
    for option, unit in (("--scene-filter", "S"), ("--min-margin", "P")):
        parser.add_argument(
            option, type=float, default=0.0, metavar=unit, help="as the node's parameter; offline"
        )
    parser.add_argument("--live", action="store_true", help="play over DDS into the running node")
    parser.add_argument("--namespace", default="mspn", help="of the live node (default mspn)")
    _json(parser)
    _output(parser, "runs/replay")


def _add_reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="+",
        choices=reproduce.WHAT,
        metavar="WHAT",
        help="table1 to table8, figure2, figure3 (all of the paper); settings: what the preset "
        "gains over the paper's recipe, setting by setting; new-scenes: each scene added to a "
        "model of the others; from-video: poses that 'dataset from-video' finds against given ones",
    )
    _data(parser)
    parser.add_argument(
        "--more-data", nargs="+", metavar="SCENES", help="the second dataset of figure 3"
    )
    parser.add_argument("--preset", default="paper", help="preset or YAML file (default paper)")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="cells are means over them (default 0)"
    )
    _set(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    _json(parser)
    _output(parser, "runs/paper")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folder, name=path or YAML file")
    parser.add_argument("--format", help="instead of detecting it")
    parser.add_argument("--focal-px", type=float, help="instead of an assumed focal length")
    parser.add_argument(
        "--headers-only",
        action="store_true",
        help="do not decode images: no check of conventions, copies, blur and exposure",
    )
    parser.epilog = (
        "Writes report.html, top_view.png and inspect.json. Findings are problems (a model would "
        "be wrong, or its errors meaningless), warnings and notes. The exit code is 0 whatever is "
        "found, and 1 only where a dataset cannot be read; scripts look at 'findings' in the JSON."
    )
    _json(parser)
    _output(parser, "runs/inspect")


def _add_dataset(commands: Any) -> None:
    dataset = commands.add_parser("dataset", help="Make datasets and bags.")
    kinds = dataset.add_subparsers(title="kinds", required=True, metavar="KIND")
    synthetic = kinds.add_parser("synthetic", help="Render furnished rooms with exact poses.")
    synthetic.set_defaults(command=data.synthetic)
    data.add_synthetic_arguments(synthetic)
    text = "Make a dataset of recordings: bags with images and poses, or TF."
    recorded = kinds.add_parser("from-bag", help=text, description=text)
    recorded.set_defaults(command=from_bag.from_bag)
    from_bag.add_from_bag_arguments(recorded)
    video = kinds.add_parser(
        "from-video", help="Find the poses of videos or photos.", description=from_video.TEXT
    )
    video.set_defaults(command=from_video.from_video)
    from_video.add_arguments(video)
    bag = kinds.add_parser("to-bag", help="Write frames and true poses as a rosbag.")
    bag.set_defaults(command=data.to_bag)
    _data(bag)
    _split(bag)
    bag.add_argument(
        "--out", type=Path, required=True, help="folder (mcap), or a .mcap, .db3 or .bag file"
    )
    bag.add_argument("--rate", type=float, default=10.0, help="frames per second (default 10)")
    bag.add_argument("--every", type=int, default=1, help="take every n-th frame")
    bag.add_argument("--raw", action="store_true", help="decoded images instead of JPEG")


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code: 0, or 1 with one line on stderr."""
    # As Ctrl-C does, SIGTERM shall leave by way of every "finally": a replay ends its node there.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        arguments = build_parser().parse_args(argv)
        return int(arguments.command(arguments))
    except MspnError as error:
        print(f"mspn: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("mspn: interrupted", file=sys.stderr)
        return 130


def train_main() -> int:
    """``ros2 run mspn_ros train``: the same as ``mspn train``."""
    return main(["train", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
