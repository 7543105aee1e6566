# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Parameter files for nav2 and robot_localization, held against what the node declares."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

from geometry_msgs.msg import PoseWithCovarianceStamped
from test_tf import robot_with

from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.declared_parameters import read_parameter
from mspn_ros.node.outputs import Outputs
from mspn_ros.node.qos import Mismatches

REPO = Path(__file__).resolve().parent.parent
FILES = {"nav2_amcl.yaml": "amcl", "robot_localization.yaml": "ekf_filter_node_map"}
# x, y, z, roll, pitch, yaw and their velocities, then accelerations, as robot_localization has it.
STATE = ("x", "y", "z", "roll", "pitch", "yaw", "vx", "vy", "vz", "vroll", "vpitch", "vyaw")


def sections(name):
    """(the localizer's parameters, those of who takes its poses)."""
    stored = yaml.safe_load((REPO / "config" / name).read_text())
    localizer = stored.pop(f"/{NAMESPACE}/{NODE_NAME}")
    [(node, others)] = stored.items()
    assert node == FILES[name]
    return localizer["ros__parameters"], others["ros__parameters"]


def used(config):
    assert len(config) == len(STATE) + 3
    return [name for name, used in zip(STATE, config, strict=False) if used]


@pytest.mark.parametrize("name", FILES)
def test_the_node_takes_the_file_and_publishes_what_it_says(name):
    ours, others = sections(name)
    with robot_with(REPO / "config" / name) as (node, robot, _):
        for key, value in ours.items():
            assert read_parameter(node, key) == value
        outputs = Outputs(node, Mismatches(node, lambda key, text: None))
        topics = {publisher.topic_name: publisher.msg_type for publisher in node.publishers}
        assert topics["/initialpose"] is PoseWithCovarianceStamped
        if "pose0" in others:
            assert topics[others["pose0"]] is PoseWithCovarianceStamped
        assert robot.mounted
        assert robot.base_frame == others.get("base_frame_id", others.get("base_link_frame"))
        odom = others.get("odom_frame_id", others.get("odom_frame"))
        assert read_parameter(node, "odom_frame") == odom
        outputs.destroy()


@pytest.mark.parametrize("name", FILES)
def test_exactly_one_node_broadcasts_map_to_odom(name):
    ours, others = sections(name)
    assert ours["publish_tf"] == "none"
    assert others.get("tf_broadcast", others.get("publish_tf")) is True


def test_the_filter_takes_absolute_planar_poses_and_relative_motion():
    _, ekf = sections("robot_localization.yaml")
    assert used(ekf["pose0_config"]) == ["x", "y", "yaw"]
    assert used(ekf["odom0_config"]) == ["vx", "vy", "vyaw"]
    assert (ekf["pose0_differential"], ekf["pose0_relative"]) == (False, False)
    assert ekf["two_d_mode"]
    # Absolute poses belong into the map; the odometry's frame must stay continuous (REP-105).
    assert ekf["world_frame"] == ekf["map_frame"] == "map"


def test_the_documentation_names_the_files_and_the_service():
    text = (REPO / "docs/navigation.md").read_text()
    assert all(f"(../config/{name})" in text for name in FILES)
    assert f"/{NAMESPACE}/{NODE_NAME}/publish_initialpose" in text
