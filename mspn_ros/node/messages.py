# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the project's plain records. Nothing here knows a node."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.serialization import deserialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mspn_ros.datasets.bag_messages import ros2_types
from mspn_ros.images import (
    RAW_ENCODINGS,
    LeastSize,
    check_size,
    decode_compressed,
    decode_raw,
)
from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.mounting import BODY_TO_OPTICAL
from mspn_ros.records import (
    UNKNOWN_SCENE,
    UNKNOWN_SCENE_ID,
    Array,
    ImageError,
    ImageHW3,
    PoseEstimate,
)


def stamp_to_ns(stamp: Any) -> int:
    """``builtin_interfaces/Time`` -> nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Time:
    """Nanoseconds -> ``builtin_interfaces/Time``."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


@dataclass(frozen=True, slots=True)
class RawImage:
    """The fields of a ``sensor_msgs/Image``; ``data`` is a view of the bytes that DDS gave."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def read_message(serialized: bytes, message_type: Any) -> Any:
    """Read a serialized ``sensor_msgs/Image`` or ``CompressedImage``, without copying raw pixels.

    An Image in one of RAW_ENCODINGS comes as ``RawImage``, read by rosbags: rclpy would copy the
    pixels twice. What rosbags cannot read is left for rclpy to read or refuse.

    Raises:
        Exception: whatever rclpy raises of bytes that are no such message.
    """
    image = _read_raw(serialized) if message_type is Image else None
    return image if image is not None else deserialize_message(serialized, message_type)


def _read_raw(serialized: bytes) -> RawImage | None:
    try:
        read: Any = ros2_types().deserialize_cdr(memoryview(serialized), "sensor_msgs/msg/Image")
        if read.encoding not in RAW_ENCODINGS:
            return None
        stamp = Time(sec=int(read.header.stamp.sec), nanosec=int(read.header.stamp.nanosec))
        # To rclpy a string ends with its first NUL.
        header = Header(stamp=stamp, frame_id=read.header.frame_id.partition("\0")[0])
        return RawImage(
            header,
            read.height,
            read.width,
            read.encoding,
            read.is_bigendian,
            read.step,
            read.data,
        )
    # rosbags parses damaged bytes with bare struct, assert and slices, see datasets/bags.py.
    except Exception:
        return None


def decode_image(message: Any, least: LeastSize | None = None) -> ImageHW3:
    """Decode a ``sensor_msgs/Image``, ``CompressedImage`` or ``RawImage`` -> (H, W, 3) uint8 RGB.

    ``least`` lets a JPEG be scaled down while it is decoded, see ``decode_compressed``.

    Raises:
        ImageError: truncated, empty, mislabelled, corrupt, or an encoding that neither this
            package nor cv_bridge converts.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, least=least)
    if message.encoding in RAW_ENCODINGS:
        return decode_raw(
            message.data,
            message.height,
            message.width,
            message.encoding,
            message.step,
            bool(message.is_bigendian),
        )
    return _decode_by_cv_bridge(message)


def rejection_cause(message: Any) -> str:
    """A short key for counting why an image message could not be decoded."""
    if isinstance(message, CompressedImage):
        return "corrupt_compressed_image"
    if message.height == 0 or message.width == 0:
        return "empty_image"
    if message.encoding not in RAW_ENCODINGS:
        return "unsupported_encoding"
    return "malformed_raw_image"


@functools.cache
def _cv_bridge() -> Any:
    # A cv_bridge compiled against another NumPy raises ImportError, AttributeError or SystemError.
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception as error:
        return str(error).partition("\n")[0] or type(error).__name__


def _decode_by_cv_bridge(message: Any) -> ImageHW3:
    check_size(message.height, message.width)
    bridge, encoding = _cv_bridge(), message.encoding
    known = f"have the driver publish one of {', '.join(RAW_ENCODINGS)}"
    if isinstance(bridge, str):
        raise ImageError(
            f"encoding {encoding!r} needs cv_bridge, which cannot be imported ({bridge}); install "
            f"one built for this NumPy (apt: ros-$ROS_DISTRO-cv-bridge with numpy<2), or {known}"
        )
    # The converters raise whatever they come across (KeyError, TypeError, cv2.error,
    # RuntimeError from C++): all of it says that this message has no picture for us.
    try:
        image = bridge.imgmsg_to_cv2(_without_row_padding(bridge, message), "rgb8")
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"encoding {encoding!r} is not supported, nor converted by cv_bridge "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); {known}"
        ) from error
    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"cv_bridge made {image.shape} {image.dtype} of encoding {encoding!r}; {known}"
        )
    return image


def _without_row_padding(bridge: Any, message: Any) -> Any:
    """The same message with tight little-endian rows: cv_bridge minds neither step nor order."""
    kind, channels = bridge.encoding_to_dtype_with_channels(message.encoding)
    dtype = np.dtype(kind)
    row_bytes = message.width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if message.step < row_bytes or data.size != message.step * message.height:
        raise ImageError(
            f"{data.size} bytes of data with step {message.step} do not hold "
            f"{message.width}x{message.height} {message.encoding}; the message is mislabelled"
        )
    rows = np.ascontiguousarray(data.reshape(message.height, message.step)[:, :row_bytes])
    pixels = rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<"))
    tight = type(message)(
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=0,
        step=row_bytes,
    )
    tight.data = pixels.astype(dtype.newbyteorder("<")).tobytes()
    return tight


def answer_json(
    header: Any, camera: str, estimate: PoseEstimate | None, reason: str, rejected: str | None
) -> str:
    """The text of one ``answer``: JSON without NaN or Infinity.

    Keys: stamp {sec, nanosec} (the image's), camera (its topic), scene_id, scene, confidence
    (null where there is none), reason (why there is no pose, else empty), rejected (the cause
    under which a frame that could not be processed is counted, else null).
    """
    confidence = estimate.confidence if estimate is not None else math.nan
    return json.dumps(
        {
            "stamp": {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec},
            "camera": camera,
            "scene_id": estimate.scene_id if estimate is not None else UNKNOWN_SCENE_ID,
            "scene": estimate.scene if estimate is not None else UNKNOWN_SCENE,
            "confidence": float(confidence) if math.isfinite(confidence) else None,
            "reason": reason,
            "rejected": rejected,
        },
        allow_nan=False,
    )


def catalogue_json(scenes: Iterable[SceneInfo]) -> str:
    """The scene catalogue: a JSON list with the keys of ``mspn scenes list``."""
    keys = ("id", "uuid", "name", "frame_id", "frames", "bytes", "backbone_id")
    return json.dumps([{key: getattr(scene, key) for key in keys} for scene in scenes])


def pose_is_finite(estimate: PoseEstimate) -> bool:
    """Whether position and quaternion are all finite numbers and the quaternion is no zero."""
    if estimate.position is None or estimate.quaternion is None:
        return False
    finite = np.isfinite(estimate.position).all() and np.isfinite(estimate.quaternion).all()
    return bool(finite) and float(np.linalg.norm(estimate.quaternion)) > 0.5


def pose_stamped(stamp: Any, estimate: PoseEstimate, scale: float, axes: str) -> PoseStamped:
    """The estimate as a message, its position times ``scale`` (metres per unit of the scene).

    ``axes``: ``optical`` leaves the camera's axes (z forward), ``body`` turns them so that x is
    forward and z up. The position is the camera centre either way. ``estimate`` has a pose.
    """
    assert estimate.position is not None
    assert estimate.quaternion is not None
    rotation = Rotation.from_quat(estimate.quaternion)
    if axes == "body":
        rotation = rotation * BODY_TO_OPTICAL
    pose = PoseMessage()
    position = pose.position
    position.x, position.y, position.z = (float(v) * scale for v in estimate.position)
    turn = pose.orientation
    turn.x, turn.y, turn.z, turn.w = (float(v) for v in rotation.as_quat())
    return PoseStamped(header=Header(stamp=stamp, frame_id=estimate.frame_id), pose=pose)


def pose_with_covariance(
    pose: PoseStamped, estimate: PoseEstimate, scale: float
) -> PoseWithCovarianceStamped | None:
    """``pose`` with the estimate's covariance, scaled like its position; None where it has none.

    6x6 row-major in m^2 and rad^2 about the fixed axes of the frame (REP-103), hence the same
    for both choices of camera axes.
    """
    covariance = covariance_in_metres(estimate, scale)
    if covariance is None:
        return None
    message = PoseWithCovarianceStamped(header=pose.header)
    message.pose.pose = pose.pose
    message.pose.covariance = covariance.ravel()
    return message


def covariance_in_metres(estimate: PoseEstimate, scale: float) -> Array | None:
    """The estimate's (6, 6) covariance, its position times ``scale``; None where it has none.

    Zeros, negative variances and NaN are none: a filter would take zeros for perfect certainty.
    """
    if estimate.covariance is None:
        return None
    units = np.array([scale, scale, scale, 1.0, 1.0, 1.0])
    covariance = np.asarray(estimate.covariance, np.float64) * np.outer(units, units)
    usable = np.isfinite(covariance).all() and (np.diag(covariance) > 0).all()
    return covariance if usable else None
