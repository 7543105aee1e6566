# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TF by tf2_ros. A full ROS installation has it, the wheels do not: it is imported on demand."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from mspn_ros.node.mounting import RigidTransform
from mspn_ros.records import ConfigError, RosError

# How long an answer waits for a transform that is not there yet. Odometry comes some milliseconds
# after the image; by the time of the answer it is usually there.
_PATIENCE_S = 0.1


def require_tf2(parameter: str, value: str, remedy: str) -> Any:
    """The module tf2_ros.

    Raises:
        ConfigError: it cannot be imported; names the parameter that asks for it and its value.
    """
    try:
        import tf2_ros
    # One that was compiled for another Python or rclpy raises what it likes.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"parameter {parameter}: {value!r} needs tf2_ros, which cannot be imported ({reason}); "
            "install it (apt install ros-$ROS_DISTRO-tf2-ros-py; it is not on the Python package "
            f"index) and source that ROS installation, or {remedy}"
        ) from error
    return tf2_ros


class Transforms:
    """Looks up what others publish on /tf and /tf_static; close it when done.

    Made on the executor's thread, asked on any other.
    """

    def __init__(self, node: Any, tf2_ros: Any) -> None:
        self._node = node
        self._error = tf2_ros.TransformException
        # With the node it has the node's clock: it forgets all when simulated time jumps back.
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._found: set[tuple[str, str]] = set()

    def parent_from_child(self, parent: str, child: str, stamp: Any) -> RigidTransform:
        """Where ``child`` was in ``parent`` at ``stamp`` (``builtin_interfaces/Time``).

        It is waited for, 0.1 s at most, if it was there for the last stamp: an answer must not be
        late each time for what nobody publishes. Moving joints are why nothing is remembered here.

        Raises:
            RosError: it is not known; names both frames, and why.
        """
        patience = _PATIENCE_S if (parent, child) in self._found else 0.0
        try:
            found = self._buffer.lookup_transform(
                parent, child, Time.from_msg(stamp), Duration(seconds=patience)
            )
        except self._error as error:
            self._found.discard((parent, child))
            reason = str(error).partition("\n")[0].rstrip(". ")
            raise RosError(f"no transform {parent} -> {child} in TF: {reason}") from error
        self._found.add((parent, child))
        return rigid_transform(found.transform)

    def close(self) -> None:
        """Take the subscriptions and the buffer's service away."""
        self._listener.unregister()
        self._buffer.jump_handle.unregister()
        self._node.destroy_service(self._buffer.srv)


def rigid_transform(message: Any) -> RigidTransform:
    """``geometry_msgs/Transform`` -> parent_from_child."""
    move, turn = message.translation, message.rotation
    return RigidTransform(
        np.array([move.x, move.y, move.z]), Rotation.from_quat([turn.x, turn.y, turn.z, turn.w])
    )


def transform_stamped(
    stamp: Any, parent: str, child: str, parent_from_child: RigidTransform
) -> TransformStamped:
    """parent_from_child as the message that TF broadcasts."""
    message = TransformStamped(header=Header(stamp=stamp, frame_id=parent), child_frame_id=child)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = (float(v) for v in parent_from_child.translation)
    turn.x, turn.y, turn.z, turn.w = (float(v) for v in parent_from_child.rotation.as_quat())
    return message
