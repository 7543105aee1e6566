# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TF output and input: the mathematics, and what is asked of tf2_ros where it is installed."""

import importlib.util
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from mspn_ros.node.cameras import read_cameras
from mspn_ros.node.declared_parameters import declare_parameters
from mspn_ros.node.messages import ns_to_stamp, stamp_to_ns
from mspn_ros.node.mounting import RigidTransform
from mspn_ros.node.robot_pose import RobotPose
from mspn_ros.node.tf_output import TfOutput, map_from_odom, require_tf_frames
from mspn_ros.node.transforms import rigid_transform, transform_stamped
from mspn_ros.records import ConfigError, PoseEstimate, RosError

HAS_TF2 = importlib.util.find_spec("tf2_ros") is not None
START_NS = 1_700_000_000_000_000_000
IDENTITY = RigidTransform(np.zeros(3), Rotation.identity())


def stamp_at(seconds):
    return ns_to_stamp(START_NS + round(seconds * 1e9))


def pose_of(transform, frame_id="map"):
    return PoseEstimate(
        1,
        "hall",
        0.9,
        frame_id=frame_id,
        position=transform.translation,
        quaternion=transform.rotation.as_quat(),
        covariance=np.eye(6) * 0.01,
    )


def robot_at(x, y, yaw):
    return RigidTransform(np.array([x, y, 0.0]), Rotation.from_euler("z", yaw))


def close(a, b):
    np.testing.assert_allclose(a.translation, b.translation, atol=1e-9)
    assert (a.rotation * b.rotation.inv()).magnitude() < 1e-9
    return True


class Odometry:
    """odom -> base_link of a robot that drives in a circle; unknown after ``until_s``."""

    def __init__(self, until_s=100.0):
        self.until_s = until_s

    def at(self, seconds):
        return robot_at(2 * np.cos(seconds), 2 * np.sin(seconds), seconds + np.pi / 2)

    def parent_from_child(self, parent, child, stamp):
        assert (parent, child) == ("odom", "base_link")
        seconds = (stamp_to_ns(stamp) - START_NS) / 1e9
        if seconds > self.until_s:
            raise RosError("no transform odom -> base_link in TF: extrapolation")
        return self.at(seconds)


def output(sent, lookup=None, tolerance_s=0.2):
    return TfOutput(sent.append, lookup, "base_link", "odom", tolerance_s)


def test_map_to_odom_and_odometry_lead_to_where_the_robot_was_seen():
    drift = robot_at(10, -4, 0.7)
    sent, odometry = [], Odometry()
    tf = output(sent, odometry)
    for seconds in (0.5, 1.0, 2.5):
        tf.publish(stamp_at(seconds), pose_of(drift @ odometry.at(seconds)))
        message = sent[-1]
        # As long as odometry is right, map -> odom stands still though the robot drives.
        close(rigid_transform(message.transform), drift)
        assert (message.header.frame_id, message.child_frame_id) == ("map", "odom")
        # Dated ahead, for those who ask before the next image.
        assert message.header.stamp == stamp_at(seconds + 0.2)
    assert len(sent) == 3
    seen = robot_at(3, 4, 1)
    close(map_from_odom(seen, odometry.at(1)) @ odometry.at(1), seen)


def test_map_to_base_is_the_pose_at_the_images_stamp():
    sent, seen = [], robot_at(3, 4, 1)
    output(sent).publish(stamp_at(1), pose_of(seen, "hall"))
    [message] = sent
    close(rigid_transform(message.transform), seen)
    assert (message.header.frame_id, message.child_frame_id) == ("hall", "base_link")
    assert message.header.stamp == stamp_at(1)


def test_no_transform_is_older_than_the_last_until_the_clock_is_set_back():
    sent = []
    tf = output(sent)
    for seconds in (5.0, 5.0, 4.9, 5.1, 1.0, 0.9):
        tf.publish(stamp_at(seconds), pose_of(IDENTITY))
    assert [m.header.stamp for m in sent] == [stamp_at(5.0), stamp_at(5.1), stamp_at(1.0)]
    tf.publish(ns_to_stamp(0), pose_of(IDENTITY))
    assert len(sent) == 3
    assert "no stamp" in tf.trouble


def test_without_odometry_at_that_time_nothing_is_sent_and_the_reason_is_told():
    sent = []
    tf = output(sent, Odometry(until_s=1.0))
    tf.publish(stamp_at(1.5), pose_of(IDENTITY))
    assert sent == []
    assert "odom -> base_link" in tf.trouble
    tf.publish(stamp_at(0.9), pose_of(IDENTITY))
    assert len(sent) == 1
    assert tf.trouble == ""


def test_transforms_survive_the_message():
    rng = np.random.default_rng(0)
    transform = RigidTransform(rng.normal(size=3), Rotation.random(random_state=rng))
    message = transform_stamped(stamp_at(1), "map", "base_link", transform)
    close(rigid_transform(message.transform), transform)


@pytest.mark.parametrize("mode", ["map_to_base", "map_to_odom"])
def test_raises_on_tf_output_without_a_mounting_or_with_one_frame_for_two(mode):
    require_tf_frames("none", False, "base_link", "base_link")
    with pytest.raises(ConfigError, match=f"publish_tf: '{mode}'.*mounting"):
        require_tf_frames(mode, False, "base_link", "odom")
    with pytest.raises(ConfigError, match="odom_frame: 'base_link' is base_frame"):
        require_tf_frames("map_to_odom", True, "base_link", "base_link")


@contextmanager
def robot_with(parameter_file=None, **parameters):
    """(node, RobotPose, log) of a real node with these parameters."""
    overrides = [Parameter(name.replace("__", "."), value=v) for name, v in parameters.items()]
    arguments = ["--ros-args", "--params-file", str(parameter_file)] if parameter_file else None
    with ros_tools.ros_context() as context:
        node = LifecycleNode(
            "localizer",
            namespace="mspn",
            context=context,
            parameter_overrides=overrides,
            cli_args=arguments,
            use_global_arguments=False,
        )
        try:
            declare_parameters(node, lambda: "unconfigured")
            log = {}
            robot = RobotPose(node, read_cameras(node), log.__setitem__)
            yield node, robot, log
            robot.close()
        finally:
            node._state_machine.destroy_when_not_in_use()
            node.destroy_node()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"mounting": "1 2 3"}, ["parameter mounting: '1 2 3'", "3 numbers"]),
        (
            {"cameras": "a b", "b__mounting": "0 0 0 0 0 0"},
            ["parameter a.mounting: no mounting, while b.mounting has one"],
        ),
        (
            {"cameras": "a b", "mounting": "0 0 0 0 0 0"},
            ["parameter mounting: '0 0 0 0 0 0'", "2 cameras", "set a.mounting, b.mounting"],
        ),
        ({"publish_tf": "map_to_base"}, ["publish_tf: 'map_to_base'", "parameter mounting"]),
    ],
)
def test_raises_on_parameters_that_say_nothing_of_the_robot(parameters, words):
    with pytest.raises(ConfigError) as raised, robot_with(**parameters):
        pass
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.skipif(HAS_TF2, reason="tf2_ros is installed here")
@pytest.mark.parametrize(
    ("parameters", "start"),
    [
        ({"mounting": "tf"}, "parameter mounting: 'tf' needs tf2_ros"),
        ({"cameras": "a", "a__mounting": "tf"}, "parameter a.mounting: 'tf' needs tf2_ros"),
        (
            {"mounting": "0 0 0 0 0 0", "publish_tf": "map_to_odom"},
            "parameter publish_tf: 'map_to_odom' needs tf2_ros",
        ),
    ],
)
def test_raises_where_tf_is_asked_for_and_not_installed(parameters, start):
    with pytest.raises(ConfigError) as raised, robot_with(**parameters):
        pass
    assert str(raised.value).startswith(start)
    assert "ros-$ROS_DISTRO-tf2-ros-py" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_scene_without_scale_says_nothing_of_the_robot_and_one_with_scale_does():
    with robot_with(mounting="0.2 0 0.3 0 0 0") as (_, robot, log):
        seen = pose_of(robot_at(3, 4, 1))
        unscaled = PoseEstimate(
            2, "cellar", 0.9, "cellar", seen.position, seen.quaternion, metres_per_unit=None
        )
        found = robot.estimate(0, Header(), unscaled)
        assert (found.known, found.scene, found.covariance) == (False, "cellar", None)
        [trouble] = robot.warnings
        assert "'cellar' has no known scale" in trouble
        assert trouble in log.values()
        assert robot.estimate(0, Header(), seen).known
        assert robot.warnings == []


@pytest.mark.skipif(not HAS_TF2, reason="tf2_ros is not installed: it comes with ROS 2 only")
def test_a_mounting_from_tf_is_that_of_the_images_frame_at_its_stamp():
    from rclpy.executors import SingleThreadedExecutor
    from tf2_ros import StaticTransformBroadcaster

    with robot_with(mounting="tf") as (node, robot, _):
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        header = Header(stamp=stamp_at(1), frame_id="eye")
        seen = pose_of(robot_at(3, 4, 1))
        assert not robot.estimate(0, header, seen).known
        assert "no transform base_link -> eye" in robot.warnings[0]
        assert "frame_id" in robot.estimate(0, Header(), seen).reason
        mounting = RigidTransform(np.array([0.2, 0.1, 0.3]), Rotation.from_euler("z", 0.5))
        broadcaster = StaticTransformBroadcaster(node)
        broadcaster.sendTransform(transform_stamped(stamp_at(0), "base_link", "eye", mounting))
        for _ in range(100):
            executor.spin_once(timeout_sec=0.1)
            found = robot.estimate(0, header, seen)
            if found.known:
                break
        base = RigidTransform(found.position, Rotation.from_quat(found.quaternion))
        close(base @ mounting, robot_at(3, 4, 1))
        executor.shutdown()


@pytest.mark.skipif(not HAS_TF2, reason="tf2_ros is not installed: it comes with ROS 2 only")
def test_map_to_odom_is_broadcast_for_other_nodes():
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.time import Time
    from tf2_ros import Buffer, TransformBroadcaster, TransformListener

    parameters = {"mounting": "0 0 0 0 0 0", "publish_tf": "map_to_odom"}
    with robot_with(**parameters) as (node, robot, _):
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        buffer = Buffer()
        listener = TransformListener(buffer, node)
        broadcaster = TransformBroadcaster(node)
        odometry, drift = Odometry(), robot_at(10, -4, 0.7)
        for step in range(100):
            seconds = 1 + step * 0.01
            broadcaster.sendTransform(
                transform_stamped(stamp_at(seconds), "odom", "base_link", odometry.at(seconds))
            )
            for _ in range(5):
                executor.spin_once(timeout_sec=0.02)
            header = Header(stamp=stamp_at(seconds))
            robot.broadcast(header, pose_of(drift @ odometry.at(seconds)))
            if buffer.can_transform("map", "base_link", Time.from_msg(stamp_at(seconds))):
                break
        found = buffer.lookup_transform("map", "base_link", Time.from_msg(stamp_at(seconds)))
        close(rigid_transform(found.transform), drift @ odometry.at(seconds))
        listener.unregister()
        executor.shutdown()
