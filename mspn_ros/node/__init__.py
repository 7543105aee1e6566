# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Everything ROS: parameters, messages, the localizer node, the live bag player and collector."""

from __future__ import annotations

import importlib

from mspn_ros.records import RosError

NODE_NAME = "localizer"
NAMESPACE = "mspn"

_REQUIRED = (
    "rclpy",
    "sensor_msgs.msg",
    "geometry_msgs.msg",
    "std_msgs.msg",
    "std_srvs.srv",
    "diagnostic_msgs.msg",
    "lifecycle_msgs.msg",
)


def require_ros() -> None:
    """Check that ROS 2 can be imported, before any other module of this room is.

    Raises:
        RosError: a package is missing or broken; the message names it and the remedy.
    """
    for name in _REQUIRED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RosError(
                f"{name.partition('.')[0]} cannot be imported ({error}); install the ROS 2 wheels "
                'with pip install "mspn_ros[ros]", or source a ROS 2 installation '
                "(source /opt/ros/jazzy/setup.bash) for the same Python"
            ) from error
