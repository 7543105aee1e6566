# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Environment variables that decide how ROS 2 messages travel; to be set before rclpy starts."""

from __future__ import annotations

import os

from mspn_ros.paths import config_file
from mspn_ros.records import ConfigError

# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted) the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_TRANSPORT_VARIABLES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")


def profile_environment() -> dict[str, str]:
    """The Fast DDS profile for large images; nothing where the user has chosen transports.

    Raises:
        ConfigError: the profile is not installed.
    """
    if any(os.environ.get(name) for name in _TRANSPORT_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(config_file("fastdds.xml")))


def loopback_environment() -> dict[str, str]:
    """The profile, and what keeps ROS traffic on this machine where the user has set nothing.

    Raises:
        ConfigError: the profile is not installed.
    """
    if "ROS_AUTOMATIC_DISCOVERY_RANGE" in os.environ:
        return profile_environment()
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **profile_environment()}


def process_environment(profile: bool) -> dict[str, str]:
    """This process's environment for another one.

    With the Fast DDS transports that are set here, or with those that Fast DDS takes by itself.
    """
    left_out = () if profile else _TRANSPORT_VARIABLES
    return {name: value for name, value in os.environ.items() if name not in left_out}


def profile_hint() -> str:
    """The line to run before the camera driver, so that Fast DDS delivers large frames."""
    try:
        profile = str(config_file("fastdds.xml"))
    except ConfigError:
        profile = "<mspn_ros>/config/fastdds.xml"
    return "export " + " ".join(f"{name}={profile}" for name in PROFILE_VARIABLES)
