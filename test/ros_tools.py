# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A client for tests of the node: real messages over DDS, readiness by answers, never by logs."""

import os
import time
from contextlib import contextmanager

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image

from mspn_ros.node.collector import Collector
from mspn_ros.node.session import with_stamp
from mspn_ros.node.transport import loopback_environment

# A domain of this process's own, so that tests that run side by side do not hear each other.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.update(loopback_environment())

FIRST_STAMP_NS = 1_700_000_000 * 10**9


class RosClient:
    """Publishes images to one localizer and records what comes back."""

    def __init__(self, context, namespace, topic, message_type=Image):
        self.node = Node(
            "client_of_" + namespace.strip("/").replace("/", "_"),
            context=context,
            use_global_arguments=False,
        )
        self.namespace, self._clients = namespace, {}
        self._stamp_ns = FIRST_STAMP_NS
        self._publisher = self.node.create_publisher(message_type, topic, QoSProfile(depth=10))
        self.collector = Collector(self.node, namespace, "localizer", context)

    def close(self):
        self.collector.close()
        self.node.destroy_node()

    def wait_until_ready(self, process, timeout_s=120.0):
        """Until the catalogue is here and an image gets through."""

        def up():
            process.check()
            return self.collector.catalogue is not None

        assert self.collector.wait_for(up, timeout_s)
        matched = self._publisher.get_subscription_count
        assert self.collector.wait_for(lambda: matched() > 0, 10)
        time.sleep(0.5)

    def publish(self, message):
        """Give the message the next stamp (33 ms later), publish it; (stamp in ns, time)."""
        self._stamp_ns += 33_333_333
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp_ns, 10**9)
        message.header.frame_id = "camera_optical_frame"
        self._publisher.publish(message)
        return self._stamp_ns, time.monotonic()

    def burst(self, message, count):
        """Publish it a thousand times a second, with a stamp each; a list as of publish."""
        cdr, sent = serialize_message(message), []
        for _ in range(count):
            self._stamp_ns += 33_333_333
            sent.append((self._stamp_ns, time.monotonic()))
            self._publisher.publish(with_stamp(cdr, self._stamp_ns))
            time.sleep(0.001)
        return sent

    def publish_bytes(self, cdr):
        """Publish serialized bytes as they are."""
        self._publisher.publish(cdr)

    def record(self, sent):
        """What has come back so far for what ``publish`` returned."""
        return self.collector.records([sent])[0]

    def ask(self, message, timeout_s=20.0):
        """Publish one image and wait for its answer, and its pose where the answer has one."""
        sent = self.publish(message)

        def answered():
            record = self.record(sent)
            return record.processed and (record.scene_id < 0 or record.pose is not None)

        assert self.collector.wait_for(answered, timeout_s), f"no answer to {sent}"
        return self.record(sent)

    def diagnostics(self, condition=lambda status: True, timeout_s=10.0):
        """A diagnostics status that comes from now on and meets ``condition``."""
        since_s = time.monotonic()

        def fresh():
            return self.collector.diagnostics_s > since_s and condition(self.collector.diagnostics)

        assert self.collector.wait_for(fresh, timeout_s), self.collector.diagnostics
        return self.collector.diagnostics

    def call(self, service_type, name, request, timeout_s=20.0):
        """Call a service and return its response."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(service_type, name)
        assert client.wait_for_service(timeout_s), f"no service {name}"
        future = client.call_async(request)
        assert self.collector.wait_for(future.done, timeout_s), f"{name} did not respond"
        return future.result()

    def change_state(self, node, transition):
        """By id, or by label; whether it succeeded."""
        request = ChangeState.Request()
        if isinstance(transition, str):
            request.transition.label = transition
        else:
            request.transition.id = transition
        return self.call(ChangeState, f"{node}/change_state", request).success


@contextmanager
def ros_context():
    """An rclpy context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    yield context
    rclpy.try_shutdown(context=context)


def rotation_matrix(quaternion):
    """(4,) xyzw -> (3, 3)."""
    return Rotation.from_quat(quaternion).as_matrix()


def raw_image(pixels, encoding, padding=0):
    """(H, W[, C]) array of any dtype -> sensor_msgs/Image, ``padding`` surplus bytes a row."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.data = rows.tobytes()
    return message


def compressed_image(encoded, image_format="jpeg"):
    """Encoded bytes -> sensor_msgs/CompressedImage."""
    message = CompressedImage(format=image_format)
    message.data = encoded
    return message


class Statuses:
    """What /diagnostics last said, by the status' name."""

    def __init__(self, client):
        self._client, self._last, self._at_s = client, {}, {}
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message):
        for status in message.status:
            self._last[status.name] = status
            self._at_s[status.name] = time.monotonic()

    def wait_for(self, name, words, level=None, timeout_s=10.0):
        """The message of a status that comes from now on and has the words (and that level)."""
        since_s = time.monotonic()

        def said():
            status = self._last.get(name)
            return (
                status is not None
                and self._at_s[name] > since_s
                and words in status.message
                and level in (None, status.level)
            )

        assert self._client.collector.wait_for(said, timeout_s), self._last.get(name)
        return self._last[name].message
