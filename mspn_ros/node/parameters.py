# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: one table that declarations, checks and the README are made from.

Needs no ROS; node/declared_parameters.py declares and reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from mspn_ros.inference.engine_names import AUTO, ENGINES

Value = str | bool | int | float | tuple[str, ...]
# A name that ROS takes, ASCII and not longer than DDS has room for.
_TOPIC = r"(?=.{1,200}$)(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*"


@dataclass(frozen=True, slots=True)
class NodeParameter:
    """One parameter of the localizer node.

    ``bounds`` (inclusive) holds for numbers, ``choices`` or ``pattern`` (the whole value) for
    strings; ``changeable`` parameters may be set at any time, others until they are read: once, at
    the node's start, or whenever it is configured or activated. ``per_camera`` parameters exist for
    each of the named cameras as well, as ``<camera>.<name>``, by default as without.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    changeable: bool = False
    read_at: Literal["start", "configure", "activate"] = "start"
    per_camera: bool = False

    @property
    def type_name(self) -> str:
        """The ROS type: ``string``, ``bool``, ``integer``, ``double`` or ``string_array``."""
        kinds = {str: "string", bool: "bool", int: "integer", float: "double"}
        kinds[tuple] = "string_array"
        return kinds[type(self.default)]

    @property
    def at_run_time(self) -> str:
        """When it may be set, in words."""
        if self.changeable:
            return "yes"
        states = {"configure": "while unconfigured", "activate": "while inactive"}
        return states.get(self.read_at, "no")

    @property
    def allowed(self) -> str:
        """What values are accepted, in words."""
        if self.choices:
            return " | ".join(self.choices)
        if self.bounds is not None:
            return f"{self.bounds[0]:g} to {self.bounds[1]:g}"
        words = {
            "device": "auto | cpu | cuda | cuda:N",
            "cameras": "names with spaces between",
            "mounting": "x y z roll pitch yaw | x y z qx qy qz qw | tf",
            "allowed_scenes": "names of scenes: ['hall', 'lab']",
        }
        return words.get(self.name.rpartition(".")[2], f"any {self.type_name}")


PARAMETERS = (
    NodeParameter(
        "model",
        "",
        "Model directory (backbone.safetensors and scenes.db); empty runs the packaged demo model.",
        read_at="configure",
    ),
    NodeParameter(
        "cameras",
        "",
        "Names of several cameras, each with parameters of its own; empty: one without a name.",
        pattern=r" *([A-Za-z]\w*( +[A-Za-z]\w*)* *)?",
    ),
    NodeParameter(
        "image_topic",
        "/camera/image_raw",
        "Topic of the camera images; of a named camera by default /<camera>/image_raw.",
        pattern=_TOPIC,
        read_at="activate",
        per_camera=True,
    ),
    NodeParameter(
        "transport",
        "auto",
        "Message type on the image topic: sensor_msgs/Image or CompressedImage; auto takes "
        "compressed where the topic's name ends in /compressed.",
        choices=("auto", "raw", "compressed"),
        read_at="activate",
        per_camera=True,
    ),
    NodeParameter(
        "image_qos",
        "best_effort",
        "Reliability of the image subscription (depth 1); best_effort matches every publisher. "
        "qos_overrides of the topic come before it.",
        choices=("best_effort", "reliable"),
        read_at="activate",
        per_camera=True,
    ),
    NodeParameter(
        "camera_info_topic",
        "auto",
        "Topic of the camera's sensor_msgs/CameraInfo, which models with landmarks or cells read, "
        "and by which images of a wider camera than in training are cut; "
        "auto takes camera_info beside the images, none the camera of the training frames.",
        pattern=rf"auto|none|{_TOPIC}",
        read_at="activate",
        per_camera=True,
    ),
    NodeParameter(
        "mounting",
        "",
        "Where the camera (x forward, z up) is in base_frame, in metres and radians; poses are "
        "then those of base_frame. tf asks TF; empty: unknown, poses are the camera's.",
        per_camera=True,
        read_at="configure",
    ),
    NodeParameter(
        "base_frame",
        "base_link",
        "The robot's frame, for mountings.",
        pattern=r"[A-Za-z_][\w/]*",
        read_at="configure",
    ),
    NodeParameter(
        "publish_tf",
        "none",
        "Transform to broadcast with each pose; needs tf2_ros, a mounting, and nobody else who "
        "broadcasts it: the frame_id of poses to base_frame, or to odom_frame.",
        choices=("none", "map_to_base", "map_to_odom"),
        read_at="configure",
    ),
    NodeParameter(
        "odom_frame",
        "odom",
        "Frame of the odometry, for map_to_odom.",
        pattern=r"[A-Za-z_][\w/]*",
        read_at="configure",
    ),
    NodeParameter(
        "transform_tolerance",
        0.2,
        "Seconds by which map_to_odom is dated ahead, as it holds for longer than the image.",
        bounds=(0.0, 10.0),
        read_at="configure",
    ),
    NodeParameter(
        "initialpose_answers",
        5,
        "Answers that have to agree before ~/publish_initialpose sends their pose.",
        bounds=(1, 50),
        changeable=True,
    ),
    NodeParameter(
        "initialpose_timeout",
        10.0,
        "Seconds after which ~/publish_initialpose gives up.",
        bounds=(0.1, 600.0),
        changeable=True,
    ),
    NodeParameter(
        "initialpose_max_distance",
        1.0,
        "Metres that two agreeing answers may be apart, whatever their covariances say.",
        bounds=(0.01, 1000.0),
        changeable=True,
    ),
    NodeParameter(
        "initialpose_max_angle",
        0.35,
        "Radians that two agreeing answers may be turned from each other.",
        bounds=(0.01, 3.15),
        changeable=True,
    ),
    NodeParameter(
        "device",
        "auto",
        "Where the network runs; auto takes CUDA when present.",
        pattern=r"auto|cpu|cuda(:\d{1,3})?",
        read_at="configure",
    ),
    NodeParameter(
        "engine",
        AUTO,
        "What runs the backbone; auto takes the fastest that is as good as exact on the device.",
        choices=(AUTO, *ENGINES),
        read_at="configure",
    ),
    NodeParameter(
        "autostart",
        True,
        "Configure and activate at start; false leaves both to a lifecycle manager.",
    ),
    NodeParameter(
        "pose_axes",
        "optical",
        "Axes of the published camera pose: optical (z forward, y down) or body (x forward, z up).",
        choices=("optical", "body"),
        read_at="activate",
    ),
    NodeParameter(
        "scene",
        "",
        "Name of the scene to localize in; empty lets the network decide.",
        changeable=True,
    ),
    NodeParameter(
        "allowed_scenes",
        ("",),
        "Only these scenes may answer, as if there were no others; empty: all.",
        changeable=True,
    ),
    NodeParameter(
        "min_confidence",
        -1.0,
        "Least confidence for a pose to be given; negative takes each scene's own threshold.",
        bounds=(-1.0, 1.0),
        changeable=True,
    ),
    NodeParameter(
        "min_margin",
        0.0,
        "Least lead in probability of the most likely scene over the second, for look-alike ones.",
        bounds=(0.0, 1.0),
        changeable=True,
    ),
    NodeParameter(
        "scene_filter",
        0.0,
        "Mean stay in one scene in seconds, to judge scenes over frames; 0 judges each alone.",
        bounds=(0.0, 3600.0),
        changeable=True,
    ),
    NodeParameter(
        "max_rate",
        0.0,
        "Most frames a second that are answered of each camera; what comes quicker is left out at "
        "once. 0: no limit.",
        bounds=(0.0, 1000.0),
        changeable=True,
    ),
    NodeParameter(
        "max_age",
        0.0,
        "Age in seconds above which an image is rejected, its stamp held against the node's clock; "
        "needs synchronised clocks. 0: no limit.",
        bounds=(0.0, 3600.0),
        changeable=True,
    ),
    NodeParameter(
        "no_frames_timeout",
        5.0,
        "Seconds without an image after which /diagnostics warns.",
        bounds=(0.1, 3600.0),
        changeable=True,
    ),
    NodeParameter(
        "diagnostics_period", 1.0, "Seconds between /diagnostics messages.", bounds=(0.1, 60.0)
    ),
)


def parameter_table_markdown() -> str:
    """The table of all parameters as README.md shows it, one row each, in Markdown."""
    lines = [
        "| parameter | type | default | values | at run time | what |",
        "|---|---|---|---|---|---|",
    ]
    for row in PARAMETERS:
        default = str(row.default).lower() if isinstance(row.default, bool) else str(row.default)
        default = str(list(row.default)) if isinstance(row.default, tuple) else default or "''"
        allowed = row.allowed.replace("|", "\\|")
        lines.append(
            f"| `{row.name}` | {row.type_name} | `{default}` | {allowed} | "
            f"{row.at_run_time} | {row.description} |"
        )
    return "\n".join(lines) + "\n"


def refusal(row: NodeParameter, value: Any) -> str:
    """Why ``value`` (of the right type, but for arrays) is refused; empty when it is accepted."""
    if isinstance(row.default, tuple):
        # An empty array has no type, and may be no value at all.
        if not value or (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            return ""
        return f"parameter {row.name}: {value!r} is not accepted; use an array of strings"
    wrong = isinstance(value, str) and (
        (bool(row.choices) and value not in row.choices)
        or (bool(row.pattern) and re.fullmatch(row.pattern, value, re.ASCII) is None)
    )
    if not wrong:
        return ""
    return f"parameter {row.name}: {value!r} is not accepted; use {row.allowed}"
