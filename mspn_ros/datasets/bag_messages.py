# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What bags hold: the types of messages that are read, and images and cameras as recorded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from mspn_ros.images import decode_compressed, decode_raw
from mspn_ros.records import ImageError, ImageHW3, Intrinsics

RAW_IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (RAW_IMAGE, COMPRESSED_IMAGE)
POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/TransformStamped",
)


@cache
def ros2_types() -> Any:
    """The typestore of ROS 2 Jazzy (made once: it takes a tenth of a second)."""
    return get_typestore(Stores.ROS2_JAZZY)


@dataclass(frozen=True, slots=True)
class BagImage:
    """One image message as recorded.

    ``stamp_ns`` is the header's stamp, or the log time where the header has none (0) or cannot
    be read. ``cdr`` is the serialized ROS 2 message of type ``msgtype``, which an rclpy
    publisher sends as it is; images of ROS 1 bags are converted.
    """

    stamp_ns: int
    log_time_ns: int
    msgtype: str
    cdr: bytes
    frame_id: str

    def decode(self) -> ImageHW3:
        """Decode to (H, W, 3) uint8 RGB.

        Raises:
            ImageError: the message is damaged, or its image is (see mspn_ros.images).
        """
        try:
            message = ros2_types().deserialize_cdr(self.cdr, self.msgtype)
        except SerdeError as error:
            raise ImageError(
                f"{self.msgtype} logged at {self.log_time_ns} ns is damaged ({error}); "
                "it is left out"
            ) from error
        if self.msgtype == COMPRESSED_IMAGE:
            return decode_compressed(message.data, f"compressed image of stamp {self.stamp_ns} ns")
        return decode_raw(
            message.data,
            message.height,
            message.width,
            message.encoding,
            message.step,
            bool(message.is_bigendian),
        )


@dataclass(frozen=True, slots=True)
class BagCamera:
    """What a bag says of the camera from ``log_time_ns`` on, and the message that says it."""

    log_time_ns: int
    intrinsics: Intrinsics
    cdr: bytes


def camera_at(cameras: Sequence[BagCamera], log_time_ns: int) -> BagCamera | None:
    """The last of ``cameras`` (in order) that was logged by then, else the first; None of none."""
    after = bisect_right(cameras, log_time_ns, key=lambda camera: camera.log_time_ns)
    return cameras[max(0, after - 1)] if cameras else None


def stamp_ns_of(header: Any) -> int:
    """A header's stamp in ns, 0 where none is set."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def pose_numbers(message: Any, msgtype: str) -> tuple[float, ...]:
    """x, y, z, qx, qy, qz, qw of a message of POSE_TYPES."""
    if msgtype == "geometry_msgs/msg/TransformStamped":
        position, rotation = message.transform.translation, message.transform.rotation
    else:
        pose = message.pose if msgtype == "geometry_msgs/msg/PoseStamped" else message.pose.pose
        position, rotation = pose.position, pose.orientation
    return (position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w)
