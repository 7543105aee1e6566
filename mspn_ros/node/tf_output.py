# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robot's pose as a transform: map -> base_frame, or map -> odom; off unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import TransformStamped
from scipy.spatial.transform import Rotation

from mspn_ros.node.messages import ns_to_stamp, stamp_to_ns
from mspn_ros.node.mounting import RigidTransform
from mspn_ros.node.stamps import JUMP_NS
from mspn_ros.node.transforms import transform_stamped
from mspn_ros.records import ConfigError, PoseEstimate, RosError

NO_TF, MAP_TO_BASE, MAP_TO_ODOM = "none", "map_to_base", "map_to_odom"


class Lookup(Protocol):
    """``Transforms``, as far as it is needed here."""

    def parent_from_child(self, parent: str, child: str, stamp: Any) -> RigidTransform:
        """See ``Transforms.parent_from_child``."""


def require_tf_frames(mode: str, mounted: bool, base_frame: str, odom_frame: str) -> None:
    """Hold the parameters of the TF output against each other.

    Raises:
        ConfigError: no mounting tells where base_frame is, or both frames are one.
    """
    if mode == NO_TF:
        return
    if not mounted:
        raise ConfigError(
            f"parameter publish_tf: {mode!r} needs to know where the camera is on the robot; set "
            "the parameter mounting (of each camera), or publish_tf to none"
        )
    if mode == MAP_TO_ODOM and base_frame == odom_frame:
        raise ConfigError(
            f"parameter odom_frame: {odom_frame!r} is base_frame as well; name the frame that "
            "odometry is published in"
        )


class TfOutput:
    """Sends one transform for each pose of base_frame; exactly one of the two kinds.

    map -> odom is the pose in the map after the motion that odometry has seen is taken off:
    map_from_base @ odom_from_base^-1, both at the image's stamp. It holds for as long as odometry
    does, so it is dated ``tolerance_s`` ahead, as AMCL does, for those who ask between two
    images; map -> base holds at the image's stamp only. ``trouble`` says why the last pose gave
    no transform, empty if it gave one.
    """

    def __init__(
        self,
        send: Callable[[TransformStamped], None],
        lookup: Lookup | None,
        base_frame: str,
        odom_frame: str,
        tolerance_s: float,
    ) -> None:
        """With ``lookup`` map -> odom is sent, without it map -> base."""
        self._send, self._lookup = send, lookup
        self._base_frame, self._odom_frame = base_frame, odom_frame
        self._ahead_ns = round(tolerance_s * 1e9) if lookup is not None else 0
        self._last_ns = 0
        self.trouble = ""

    def reset(self) -> None:
        """Stamps begin anew."""
        self._last_ns, self.trouble = 0, ""

    def publish(self, stamp: Any, estimate: PoseEstimate) -> None:
        """Send what follows from a pose of base_frame in metres, of the image with this ``stamp``.

        Nothing where it is not newer than the last (TF would warn of repeated data, and a filter
        would go back), or odometry is not known at that time.
        """
        assert estimate.position is not None
        assert estimate.quaternion is not None
        stamp_ns = stamp_to_ns(stamp)
        if stamp_ns <= 0:
            # To TF, zero means whatever is newest.
            self.trouble = "publish_tf: the images have no stamp"
            return
        if 0 <= self._last_ns - stamp_ns < JUMP_NS:
            return
        parent_from_child = RigidTransform(
            np.asarray(estimate.position), Rotation.from_quat(estimate.quaternion)
        )
        child = self._base_frame
        if self._lookup is not None:
            child = self._odom_frame
            try:
                odom_from_base = self._lookup.parent_from_child(child, self._base_frame, stamp)
            except RosError as error:
                self.trouble = f"publish_tf: {error}; odometry has to publish it"
                return
            parent_from_child = map_from_odom(parent_from_child, odom_from_base)
        dated = ns_to_stamp(stamp_ns + self._ahead_ns)
        self._send(transform_stamped(dated, estimate.frame_id, child, parent_from_child))
        self._last_ns, self.trouble = stamp_ns, ""


def map_from_odom(map_from_base: RigidTransform, odom_from_base: RigidTransform) -> RigidTransform:
    """What has to stand between map and odom for base to be where it was seen."""
    return map_from_base @ odom_from_base.inverse()
