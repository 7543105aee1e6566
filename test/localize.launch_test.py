# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node as users start it: launched, seen to be active, asked, and ended by its launch file.

    launch_test test/localize.launch_test.py

in a workspace where mspn_ros is installed; test/test_launch.py runs it from the checkout.
"""

import json
import time
import unittest
from pathlib import Path

import launch_testing.actions
import launch_testing.asserts
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import String

from mspn_ros.datasets.bags import BagReader
from mspn_ros.paths import package_file

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch/localize.launch.py"
NAMESPACE, TOPIC = "/launched", "/launched_camera/image_raw"
# Importing torch takes seconds, on a busy machine many.
PATIENCE_S = 90.0


def generate_test_description():
    """The package's own launch file, with the demo's model, beside nothing else."""
    arguments = {"namespace": NAMESPACE, "image_topic": TOPIC, "device": "cpu"}
    node = IncludeLaunchDescription(str(LAUNCH_FILE), launch_arguments=arguments.items())
    return LaunchDescription([node, launch_testing.actions.ReadyToTest()])


class TestRunningNode(unittest.TestCase):
    """From outside, over DDS."""

    @classmethod
    def setUpClass(cls):
        """A node of the test's own."""
        cls.context = rclpy.Context()
        rclpy.init(context=cls.context, args=[])
        cls.node = rclpy.create_node("launch_test_client", context=cls.context)
        cls.executor = rclpy.executors.SingleThreadedExecutor(context=cls.context)
        cls.executor.add_node(cls.node)

    @classmethod
    def tearDownClass(cls):
        """Leave ROS."""
        cls.executor.shutdown()
        cls.node.destroy_node()
        rclpy.shutdown(context=cls.context)

    def _until(self, condition, what):
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"{what}: not in {PATIENCE_S:.0f} s"
            self.executor.spin_once(timeout_sec=0.1)

    def _state(self, client):
        future = client.call_async(GetState.Request())
        self._until(future.done, "get_state responds")
        return future.result().current_state.id

    def test_it_becomes_active_by_itself_and_answers_an_image_of_the_demo(self):
        """One test, since launch_testing gives tests no order."""
        client = self.node.create_client(GetState, f"{NAMESPACE}/localizer/get_state")
        self._until(client.service_is_ready, "get_state is there")
        self._until(lambda: self._state(client) == State.PRIMARY_STATE_ACTIVE, "active")
        answers = []
        self.node.create_subscription(
            String, f"{NAMESPACE}/answer", lambda m: answers.append(json.loads(m.data)), 10
        )
        publisher = self.node.create_publisher(Image, TOPIC, qos_profile_sensor_data)
        with BagReader(package_file("demo", "walk.mcap")) as bag:
            image = _raw(next(iter(bag.images())))
        self._until(lambda: publisher.get_subscription_count() > 0, "the node subscribes")
        self._until(
            lambda: self.node.count_publishers(f"{NAMESPACE}/answer") > 0, "answers are offered"
        )

        def answered():
            publisher.publish(image)
            return bool(answers)

        self._until(answered, "an answer")
        assert answers[0]["rejected"] is None, answers[0]
        assert answers[0]["camera"] == TOPIC


@launch_testing.post_shutdown_test()
class TestEndedNode(unittest.TestCase):
    """After the launch system has ended it by SIGINT."""

    def test_it_ends_clean(self, proc_info, proc_output):
        """By itself, with exit code 0 and without a traceback."""
        assert len(proc_info.process_names()) == 1
        launch_testing.asserts.assertExitCodes(proc_info, [launch_testing.asserts.EXIT_OK])
        text = "".join(output.text.decode() for output in proc_output)
        assert "Traceback" not in text
        assert "no model named: running the demo" in text
        assert f"active: takes Image {TOPIC}" in text


def _raw(recorded):
    """What a camera driver would publish of a recorded image."""
    if recorded.msgtype == "sensor_msgs/msg/Image":
        return deserialize_message(recorded.cdr, Image)
    pixels = recorded.decode()
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = pixels.tobytes()
    return message
