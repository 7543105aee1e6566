# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The table of parameters on a node: declared, checked when set, and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mspn_ros.node.parameters import PARAMETERS, NodeParameter, Value, refusal
from mspn_ros.records import MOST_CAMERAS, ConfigError

# In which states a parameter may be set that is read at that time.
_SETTABLE = {"configure": ("unconfigured",), "activate": ("unconfigured", "inactive"), "start": ()}


def declare_parameters(node: Any, state: Callable[[], str]) -> None:
    """Declare the table's parameters on an rclpy node, with descriptors and checks.

    ``state`` tells that of its lifecycle, which decides what may be changed.

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
            default = list(row.default) if isinstance(row.default, tuple) else row.default
            node.declare_parameter(row.name, default, _descriptor(row))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(
                _refused_at_start(row, given_at_start(node)[row.name].value)
            ) from error

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

    def in_time(parameters: list[Any]) -> Any:
        reasons = (too_late(rows, parameter, state()) for parameter in parameters)
        reason = next(filter(None, reasons), "")
        return SetParametersResult(successful=not reason, reason=reason)

    # From now on only: declaring sets as well.
    node.add_on_set_parameters_callback(in_time)


def too_late(rows: Mapping[str, NodeParameter], parameter: Any, state: str) -> str:
    """Why a parameter cannot be set in that state of the lifecycle; empty if it can."""
    row = rows.get(parameter.name)
    if row is None or row.changeable or state in _SETTABLE[row.read_at]:
        return ""
    start = f"parameter {row.name} cannot be changed while the node is {state}"
    restart = f"restart it with -p {row.name}:=VALUE"
    if row.read_at == "start":
        return f"{start}: it is read when the node starts; {restart}"
    ways = ["deactivate"] if state == "active" else []
    if row.read_at == "configure":
        ways.append("clean up")
    back = f"{' and '.join(ways)} the node first, or " if state in ("active", "inactive") else ""
    verb = {"configure": "configured", "activate": "activated"}[row.read_at]
    return f"{start}: it is read when the node is {verb}; {back}{restart}"


def _refused_at_start(row: NodeParameter, value: Any) -> str:
    example = row.default
    if type(value) is int and isinstance(row.default, float):
        example = float(value)
    elif isinstance(row.default, str):
        # Quotes for the shell around those for YAML, which would read 1 or on as no text.
        example = f"'\"{value if not isinstance(value, str) else row.default}\"'"
    elif isinstance(row.default, tuple):
        example = f"\"['{value}']\""
    return (
        f"parameter {row.name}: {value!r} ({type(value).__name__}) is not accepted; it takes "
        f"{row.allowed} ({row.type_name}), as in -p {row.name}:={example}"
    )


def given_at_start(node: Any) -> Any:
    """The parameters that an rclpy node was started with, by name."""
    # rclpy has no public way to ask for them.
    return node._parameter_overrides


def read_parameter(node: Any, name: str) -> Any:
    """The value of a declared parameter, in force now."""
    return node.get_parameter(name).value


def allowed_scenes(node: Any) -> frozenset[str] | None:
    """The scenes that may answer; None where all may."""
    return frozenset(filter(None, read_parameter(node, "allowed_scenes") or ())) or None


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
    unknown = [name for name in given_at_start(node) if not node.has_parameter(name)]
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
        additional_constraints=f"{row.allowed}; may be set at run time: {row.at_run_time}",
        # Not read_only, which rclpy refuses without saying what else to do: see too_late.
        dynamic_typing=isinstance(row.default, tuple),
    )
    if row.bounds is not None:
        low, high = row.bounds
        if isinstance(row.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor
