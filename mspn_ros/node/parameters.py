"""The node's parameters: one table that declarations, checks and the README are made from."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from mspn_ros.inference.engine_names import AUTO, ENGINES
from mspn_ros.records import MOST_CAMERAS, ConfigError

Value = str | bool | int | float


@dataclass(frozen=True, slots=True)
class NodeParameter:
    """One parameter of the localizer node.

    ``bounds`` (inclusive) holds for numbers, ``choices`` or ``pattern`` (the whole value) for
    strings; ``changeable`` parameters may be set while the node runs. ``per_camera`` parameters
    exist for each of the named cameras as well, as ``<camera>.<name>``, by default as without.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    changeable: bool = False
    per_camera: bool = False

    @property
    def type_name(self) -> str:
        """The ROS type: ``string``, ``bool``, ``integer`` or ``double``."""
        names = {str: "string", bool: "bool", int: "integer", float: "double"}
        return names[type(self.default)]

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
        }
        return words.get(self.name.rpartition(".")[2], f"any {self.type_name}")


PARAMETERS = (
    NodeParameter(
        "model",
        "",
        "Model directory (backbone.safetensors and scenes.db); empty runs the packaged demo model.",
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
        pattern=r"(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*",
        per_camera=True,
    ),
    NodeParameter(
        "transport",
        "auto",
        "Message type on the image topic: sensor_msgs/Image or CompressedImage; auto takes "
        "compressed where the topic's name ends in /compressed.",
        choices=("auto", "raw", "compressed"),
        per_camera=True,
    ),
    NodeParameter(
        "image_qos",
        "best_effort",
        "Reliability of the image subscription (depth 1); best_effort matches every publisher.",
        choices=("best_effort", "reliable"),
        per_camera=True,
    ),
    NodeParameter(
        "camera_info_topic",
        "auto",
        "Topic of the camera's sensor_msgs/CameraInfo, which models with landmarks or cells read; "
        "auto takes camera_info beside the images, none the camera of the training frames.",
        pattern=r"auto|none|(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*",
        per_camera=True,
    ),
    NodeParameter(
        "mounting",
        "",
        "Where the camera (x forward, z up) is in base_frame, in metres and radians; poses are "
        "then those of base_frame. tf asks TF; empty: unknown, poses are the camera's.",
        per_camera=True,
    ),
    NodeParameter(
        "base_frame",
        "base_link",
        "The robot's frame, for mountings.",
        pattern=r"[A-Za-z_][\w/]*",
    ),
    NodeParameter(
        "publish_tf",
        "none",
        "Transform to broadcast with each pose; needs tf2_ros, a mounting, and nobody else who "
        "broadcasts it: the frame_id of poses to base_frame, or to odom_frame.",
        choices=("none", "map_to_base", "map_to_odom"),
    ),
    NodeParameter(
        "odom_frame",
        "odom",
        "Frame of the odometry, for map_to_odom.",
        pattern=r"[A-Za-z_][\w/]*",
    ),
    NodeParameter(
        "transform_tolerance",
        0.2,
        "Seconds by which map_to_odom is dated ahead, as it holds for longer than the image.",
        bounds=(0.0, 10.0),
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
    ),
    NodeParameter(
        "engine",
        AUTO,
        "What runs the backbone; auto takes the fastest that is as good as exact on the device.",
        choices=(AUTO, *ENGINES),
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
    ),
    NodeParameter(
        "scene",
        "",
        "Name of the scene to localize in; empty lets the network decide.",
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
        default = default or "''"
        allowed = row.allowed.replace("|", "\\|")
        lines.append(
            f"| `{row.name}` | {row.type_name} | `{default}` | {allowed} | "
            f"{'yes' if row.changeable else 'no'} | {row.description} |"
        )
    return "\n".join(lines) + "\n"


def refusal(row: NodeParameter, value: Value) -> str:
    """Why ``value`` (of the right type) is refused for ``row``; empty when it is accepted."""
    wrong = isinstance(value, str) and (
        (bool(row.choices) and value not in row.choices)
        or (bool(row.pattern) and re.fullmatch(row.pattern, value) is None)
    )
    if not wrong:
        return ""
    return f"parameter {row.name}: {value!r} is not accepted; use {row.allowed}"


def declare_parameters(node: Any) -> None:
    """Declare the table's parameters on an rclpy node, with descriptors and checks.

    Raises:
        ConfigError: a value given at start has the wrong type or is out of range.
    """
    from rcl_interfaces.msg import SetParametersResult
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    rows: dict[str, NodeParameter] = {}

    def check(parameters: list[Any]) -> Any:
        for parameter in parameters:
            row = rows.get(parameter.name)
            reason = refusal(row, parameter.value) if row is not None else ""
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)

    def declare(row: NodeParameter) -> None:
        rows[row.name] = row
        try:
            node.declare_parameter(row.name, row.default, _descriptor(row))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(_refused_at_start(row, _overrides(node)[row.name].value)) from error

    for row in PARAMETERS:
        declare(row)
    names = camera_names(node)
    if len(names) > MOST_CAMERAS or len(set(names)) < len(names):
        raise ConfigError(
            f"parameter cameras: {' '.join(names)!r} is not accepted; name each camera once, "
            f"at most {MOST_CAMERAS}"
        )
    for name in names:
        for row in PARAMETERS:
            if row.per_camera:
                declare(_of_camera(row, name, read_parameter(node, row.name)))


def _refused_at_start(row: NodeParameter, value: Any) -> str:
    example = row.default
    if type(value) is int and isinstance(row.default, float):
        example = float(value)
    elif isinstance(row.default, str):
        # Quotes for the shell around those for YAML, which would read 1 or on as no text.
        example = f"'\"{value if not isinstance(value, str) else row.default}\"'"
    return (
        f"parameter {row.name}: {value!r} ({type(value).__name__}) is not accepted; it takes "
        f"{row.allowed} ({row.type_name}), as in -p {row.name}:={example}"
    )


def _overrides(node: Any) -> Any:
    # rclpy has no public way to ask for the values given at start.
    return node._parameter_overrides


def read_parameter(node: Any, name: str) -> Any:
    """The value of a declared parameter, in force now."""
    return node.get_parameter(name).value


def camera_names(node: Any) -> tuple[str, ...]:
    """The names of a node's cameras; none where it has one without a name."""
    return tuple(read_parameter(node, "cameras").split())


def read_camera_parameter(node: Any, camera: str, name: str) -> Any:
    """The value of a ``per_camera`` parameter for the camera of that name; "" has none."""
    return read_parameter(node, camera_parameter(camera, name))


def camera_parameter(camera: str, name: str) -> str:
    """What a ``per_camera`` parameter is called for the camera of that name."""
    return f"{camera}.{name}" if camera else name


def _of_camera(row: NodeParameter, camera: str, value: Value) -> NodeParameter:
    """The same parameter for one camera; ``value`` is in force for those without their own."""
    default = f"/{camera}/image_raw" if row.name == "image_topic" else value
    return replace(row, name=f"{camera}.{row.name}", default=default)


def warn_of_unknown_parameters(node: Any) -> None:
    """Log the names given at start that the node does not have, since ROS ignores them silently.

    A warning and no error: a parameter file with ``/**`` carries those of other nodes too.
    """
    unknown = [name for name in _overrides(node) if not node.has_parameter(name)]
    unknown = [name for name in unknown if not name.startswith("qos_overrides.")]
    if unknown:
        known = ", ".join(row.name for row in PARAMETERS)
        node.get_logger().warning(
            f"unknown parameters are ignored: {', '.join(unknown)}; known are {known}"
        )


def _descriptor(row: NodeParameter) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(
        description=row.description,
        additional_constraints=row.allowed,
        read_only=not row.changeable,
    )
    if row.bounds is not None:
        low, high = row.bounds
        if isinstance(row.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor
