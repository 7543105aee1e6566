# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start the localizer: ``ros2 launch mspn_ros localize.launch.py model:=/path/to/model``.

An argument that is left empty is not passed on: the parameter file's value holds, then the node's
own default.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted) the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
PROFILE = Path(__file__).parent.parent / "config" / "fastdds.xml"

# Node parameters that are launch arguments of the same name, and their types.
PARAMETERS = {
    "model": str,
    "cameras": str,
    "image_topic": str,
    "transport": str,
    "device": str,
    "engine": str,
    "use_sim_time": bool,
}


def profile_environment(environment: dict[str, str]) -> dict[str, str]:
    """What to add to the node's environment: nothing where the user has chosen transports."""
    if any(environment.get(name) for name in (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(PROFILE))


def start_localizer(context: LaunchContext) -> list[LogInfo | Node]:
    """The node with the arguments that were given, and what the camera driver needs."""
    given = {
        name: context.perform_substitution(LaunchConfiguration(name))
        for name in (*PARAMETERS, "namespace", "params_file", "log_level")
    }
    parameters: list[str | dict[str, ParameterValue]] = []
    if given["params_file"]:
        # launch_ros only warns of a missing file, and the node would run without it.
        if not Path(given["params_file"]).is_file():
            raise RuntimeError(
                f"params_file: {given['params_file']} is no file; pass the path of a ROS 2 "
                "parameter file"
            )
        parameters.append(given["params_file"])
    values = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in PARAMETERS.items()
        if given[name]
    }
    if values:
        parameters.append(values)
    added = profile_environment(context.environment)
    exports = " ".join(f"{name}={PROFILE}" for name in PROFILE_VARIABLES)
    node = Node(
        package="mspn_ros",
        executable="localize",
        name="localizer",
        namespace=given["namespace"],
        parameters=parameters,
        ros_arguments=["--log-level", given["log_level"]],
        additional_env=added,
        output="screen",
    )
    hint = "Camera driver: before it starts, so that large images arrive:  export " + exports
    kept = "Fast DDS transports are set in the environment already: the node keeps them."
    return [LogInfo(msg=hint if added else kept), node]


def argument(
    name: str, description: str, default: str = "", choices: tuple[str, ...] | None = None
) -> DeclareLaunchArgument:
    """A launch argument; empty stands for the parameter file's value or the node's default."""
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=choices
    )


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    transports = ("", "auto", "raw", "compressed")
    flags = ("", "true", "false", "True", "False")
    levels = ("debug", "info", "warn", "error", "fatal")
    return LaunchDescription(
        [
            argument("model", "Model directory; empty runs the packaged demo model."),
            argument("cameras", "Names of several cameras; what they need: params_file."),
            argument("image_topic", "Topic of the camera images; empty: /camera/image_raw."),
            argument("transport", "Type of the image messages; empty: auto.", "", transports),
            argument("device", "auto | cpu | cuda | cuda:N; empty: auto."),
            argument("engine", "What runs the backbone, see README.md; empty: auto."),
            argument("namespace", "Namespace of the node and its topics.", "mspn"),
            argument("params_file", "ROS 2 parameter file; other arguments come before it."),
            argument("use_sim_time", "Take the time from /clock; empty: false.", "", flags),
            argument("log_level", "Least severity that is logged.", "info", levels),
            OpaqueFunction(function=start_localizer),
        ]
    )
