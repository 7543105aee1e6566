# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of a robot that drives through a textured place, with poses told in every way there is."""

from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from scipy.spatial.transform import Rotation

from mspn_ros.datasets.bag_messages import ros2_types
from mspn_ros.mounting import RigidTransform

S = 10**9
START = 1_700_000_000 * S
TYPES = ros2_types().types
WIDTH, HEIGHT = 96, 72
TOPICS = {
    "/cam/image_raw": "sensor_msgs/msg/Image",
    "/cam/camera_info": "sensor_msgs/msg/CameraInfo",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
    "/odom": "nav_msgs/msg/Odometry",
    "/pose": "geometry_msgs/msg/PoseStamped",
    "/amcl": "geometry_msgs/msg/PoseWithCovarianceStamped",
    "/vicon": "geometry_msgs/msg/TransformStamped",
}
# Optical axes in body axes, written down anew: columns are optical x, y, z.
OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
BASE_FROM_LINK = RigidTransform(
    np.array([0.2, -0.1, 0.5]), Rotation.from_euler("xyz", (0, 0.2, 0.4))
)
BASE_FROM_OPTICAL = BASE_FROM_LINK @ RigidTransform(np.zeros(3), OPTICAL)
MOUNTING = "0.2 -0.1 0.5 0 0.2 0.4"


def map_from_odom(t):
    """Constant speed and turn, so that interpolation is exact."""
    return RigidTransform(np.array([0.1 * t, 0.3, 0]), Rotation.identity())


def odom_from_base(t):
    return RigidTransform(np.array([0.5 * t, 0.2 * t, 0]), Rotation.from_euler("z", 0.1 * t))


def map_from_optical(t):
    return map_from_odom(t) @ odom_from_base(t) @ BASE_FROM_OPTICAL


def stamp_of(t):
    return START + round(t * S)


def header(t, frame_id):
    time = TYPES["builtin_interfaces/msg/Time"](*divmod(stamp_of(t), S))
    return TYPES["std_msgs/msg/Header"](time, frame_id)


def _vector(kind, values):
    return TYPES[f"geometry_msgs/msg/{kind}"](*map(float, values))


def ros_pose(transform):
    return TYPES["geometry_msgs/msg/Pose"](
        _vector("Point", transform.translation), _vector("Quaternion", transform.rotation.as_quat())
    )


def transform_stamped(t, parent, child, transform):
    turn = _vector("Quaternion", transform.rotation.as_quat())
    return TYPES["geometry_msgs/msg/TransformStamped"](
        header(t, parent),
        child,
        TYPES["geometry_msgs/msg/Transform"](_vector("Vector3", transform.translation), turn),
    )


def tf(t, parent, child, transform):
    return TYPES["tf2_msgs/msg/TFMessage"]([transform_stamped(t, parent, child, transform)])


def pose_stamped(t, frame_id, transform):
    return TYPES["geometry_msgs/msg/PoseStamped"](header(t, frame_id), ros_pose(transform))


def with_covariance(t, frame_id, transform):
    pose = TYPES["geometry_msgs/msg/PoseWithCovariance"](ros_pose(transform), np.zeros(36))
    return TYPES["geometry_msgs/msg/PoseWithCovarianceStamped"](header(t, frame_id), pose)


def odometry(t, frame_id, child, transform):
    still = TYPES["geometry_msgs/msg/Twist"](
        _vector("Vector3", (0,) * 3), _vector("Vector3", (0,) * 3)
    )
    twist = TYPES["geometry_msgs/msg/TwistWithCovariance"](still, np.zeros(36))
    pose = TYPES["geometry_msgs/msg/PoseWithCovariance"](ros_pose(transform), np.zeros(36))
    return TYPES["nav_msgs/msg/Odometry"](header(t, frame_id), child, pose, twist)


def camera_info(t, width=WIDTH, model="plumb_bob", focal=80.0):
    matrix = np.array([focal, 0, 47.0, 0, focal + 1, 36.0, 0, 0, 1])
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header(t, "cam_optical"),
        HEIGHT,
        width,
        model,
        np.array([-0.2, 0.1, 0.001, 0.002, 0.0]),
        matrix,
        np.eye(3).ravel(),
        np.zeros(12),
        0,
        0,
        region,
    )


def picture(t):
    """Edges that move on, as a camera sees them."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (24, 64), np.uint8)
    wide = np.array(Image.fromarray(small).resize((512, 192), Image.Resampling.NEAREST))
    left = int(20 * t) % 300
    return np.repeat(wide[60 : 60 + HEIGHT, left : left + WIDTH, None], 3, axis=2).clip(12, 240)


def blurred(pixels):
    return cv2.blur(pixels, (9, 9))


def image(t, pixels=None, frame_id="cam_optical"):
    pixels = picture(t) if pixels is None else pixels
    return TYPES["sensor_msgs/msg/Image"](
        header(t, frame_id),
        HEIGHT,
        WIDTH,
        "rgb8",
        0,
        3 * WIDTH,
        np.ascontiguousarray(pixels).ravel(),
    )


@contextmanager
def bag_of(path, topics, plugin=StoragePlugin.MCAP, compression=None):
    """Yields write(topic, log_time_ns, message or bytes); ``topics`` maps topic to type."""
    writer = Ros2Writer(path, version=9, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=ros2_types())
            for topic, kind in topics.items()
        }

        def put(topic, log_time_ns, message):
            if not isinstance(message, bytes):
                message = ros2_types().serialize_cdr(message, topics[topic])
            writer.write(connections[topic], log_time_ns, message)

        yield put


@contextmanager
def recording(path, topics=TOPICS, plugin=StoragePlugin.MCAP, compression=None):
    """Yields put(topic, t, message or bytes): logged at START + t seconds."""
    with bag_of(path, topics, plugin, compression) as write:
        yield lambda topic, t, message: write(topic, stamp_of(t), message)


TIMES = np.arange(0, 3.01, 0.1)


def drive(put, images=TIMES + 0.03, info=True, static=True, pixels=None):
    """Images, camera_info and TF of a drive; images lie between the poses' stamps."""
    if static:
        put("/tf_static", 0, tf(0, "base_link", "cam_link", BASE_FROM_LINK))
        put("/tf_static", 0, tf(0, "cam_link", "cam_optical", RigidTransform(np.zeros(3), OPTICAL)))
    for t in TIMES:
        put("/tf", t, tf(t, "odom", "base_link", odom_from_base(t)))
    for t in TIMES[::3]:
        put("/tf", t, tf(t, "map", "odom", map_from_odom(t)))
    see(put, images, info, pixels)


def see(put, images=TIMES + 0.03, info=True, pixels=None):
    for number, t in enumerate(images):
        if info:
            put("/cam/camera_info", t, camera_info(t))
        put("/cam/image_raw", t, image(t, pixels(number, t) if pixels else None))


def drive_bag(path, plugin=StoragePlugin.MCAP, compression=None, **how):
    with recording(path, plugin=plugin, compression=compression) as put:
        drive(put, **how)
    return path
