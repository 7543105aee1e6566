# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several cameras: one node, one batch, a pose of each and the best one for the robot."""

import importlib.util
import re
import time
import uuid
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from models import make_tiny_model
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from ros_tools import raw_image
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
from test_node import jpeg, picture

from mspn_ros.inference.localizer import Localizer
from mspn_ros.node.best_answer import Answered, BestAnswer
from mspn_ros.node.collector import Collector
from mspn_ros.node.interface import (
    DIAGNOSTIC_VALUES,
    IMAGES,
    LIFECYCLE_SERVICES,
    PUBLISHERS,
    SERVICES,
    TRANSITION_EVENT,
)
from mspn_ros.node.messages import stamp_to_ns
from mspn_ros.node.mounting import base_estimate, parse_mounting
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.session import with_stamp
from mspn_ros.records import PoseEstimate
from mspn_ros.store.scene_bank import SceneBank

SECOND = 10**9


def estimate(scene_id=1, confidence=0.9, variance=0.01):
    covariance = None if variance is None else np.eye(6) * variance
    pose = (np.zeros(3), np.array([0.0, 0, 0, 1])) if scene_id > 0 else (None, None)
    return PoseEstimate(scene_id, f"scene {scene_id}", confidence, "map", *pose, covariance)


class Robot:
    """Calls ``BestAnswer`` and remembers the time."""

    def __init__(self):
        self.best, self.now_s, self.stamp_ns = BestAnswer(), 100.0, 5 * SECOND

    def answers(self, *answers, later_s=0.033, stamp_ns=None):
        """(camera, estimate) of one turn; the camera whose answer is published, or None."""
        self.now_s += later_s
        self.stamp_ns = self.stamp_ns + round(later_s * SECOND) if stamp_ns is None else stamp_ns
        turn = [Answered(camera, self.stamp_ns, one) for camera, one in answers]
        chosen = self.best.choose(turn, self.now_s)
        return None if chosen is None else chosen.camera


def test_the_best_answer_of_a_turn_is_known_in_the_surest_scene_and_has_the_least_covariance():
    assert Robot().answers((0, estimate(-1, 0.99)), (1, estimate(1, 0.5))) == 1
    assert Robot().answers((0, estimate(1, 0.9, 0.02)), (1, estimate(1, 0.8, 0.01))) == 1
    # The smaller ellipsoid in a scene that is less sure does not count.
    assert Robot().answers((0, estimate(1, 0.9, 0.02)), (1, estimate(2, 0.8, 0.01))) == 0
    assert Robot().answers((0, estimate(1, 0.9, None)), (1, estimate(1, 0.8, 5.0))) == 1
    assert Robot().answers((0, estimate(1, 0.8, None)), (1, estimate(1, 0.9, None))) == 1
    assert Robot().answers((0, estimate(-1, 0.2)), (1, estimate(-1, 0.3))) == 1


def test_an_answer_waits_while_another_camera_knows_better():
    robot = Robot()
    good, bad, lost = estimate(variance=0.01), estimate(variance=0.02), estimate(-1, 0.1)
    assert robot.answers((0, good)) == 0
    assert robot.answers((1, bad)) is None
    assert robot.answers((1, lost)) is None
    assert robot.answers((0, good)) == 0
    # Camera 0 looks at a wall: the other speaks at once.
    assert robot.answers((0, lost)) == 0
    assert robot.answers((1, bad)) == 1
    # Camera 0 comes back, then falls silent.
    assert robot.answers((0, good)) == 0
    assert robot.answers((1, bad)) is None
    assert robot.answers((1, bad), later_s=0.6) == 1


def test_what_is_published_of_different_cameras_does_not_go_back_in_time():
    robot = Robot()
    good, better = estimate(variance=0.02), estimate(variance=0.01)
    assert robot.answers((0, good), stamp_ns=9 * SECOND) == 0
    assert robot.answers((1, better), stamp_ns=9 * SECOND - 1) is None
    assert robot.answers((1, better), stamp_ns=9 * SECOND) == 1
    # Seconds earlier is a bag that began anew, or a camera with another clock.
    assert robot.answers((0, replace(better, confidence=1.0)), stamp_ns=2 * SECOND) == 0
    # One camera's stamps are its own affair: a driver may not set them at all.
    assert robot.answers((0, better), stamp_ns=SECOND) == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of three scenes: hall, lab, and a cellar of unknown scale that no image is taken for."""
    path = make_tiny_model(tmp_path_factory.mktemp("cameras") / "model")
    with SceneBank(path, read_only=False) as bank:
        row = bank.read().rows[0]
        bank.add(
            replace(
                row,
                id=0,
                name="cellar",
                uuid=str(uuid.uuid4()),
                classifier_bias=-100.0,
                metres_per_unit=None,
            )
        )
    return path


MOUNTINGS = {
    "front": "0.2 0 0.3 0 0 0",
    "left": "0 0.1 0.3 0 0.2 1.57",
    "rear": "-0.2 0 0.4 0 0 1 0",
}
CAMERAS = {"front": Image, "left": CompressedImage, "rear": Image}


@pytest.fixture(scope="module")
def robot(model):
    """(collector, publishers, poses, node): a localizer with three cameras and who talks to it."""
    parameters = {
        "model": str(model),
        "device": "cpu",
        "diagnostics_period": 0.2,
        "cameras": "front left  rear",
        "left.image_topic": "/side/image/compressed",
        "rear.image_topic": "rear/image",
        "min_confidence": 0.0,
        **{f"{name}.mounting": mounting for name, mounting in MOUNTINGS.items()},
    }
    topics = {
        "front": "/front/image_raw",
        "left": "/side/image/compressed",
        "rear": "/three/rear/image",
    }
    with (
        ros_tools.ros_context() as context,
        LocalizerProcess("/three", parameters) as process,
    ):
        node = Node("client_of_three", context=context, use_global_arguments=False)
        poses = {name: [] for name in CAMERAS}
        for name in CAMERAS:
            node.create_subscription(PoseStamped, f"/three/{name}/pose", poses[name].append, 10)
        publishers = {
            name: node.create_publisher(kind, topics[name], 10) for name, kind in CAMERAS.items()
        }
        collector = Collector(node, "/three", "localizer", context)

        def up():
            process.check()
            return collector.catalogue is not None and all(
                publisher.get_subscription_count() for publisher in publishers.values()
            )

        assert collector.wait_for(up, 120)
        time.sleep(0.5)
        yield collector, publishers, poses, node
        collector.close()
        node.destroy_node()


def test_each_camera_gets_its_own_pose_and_the_best_is_the_robots(robot, model):
    collector, publishers, poses, _ = robot
    localizer = Localizer.load(model, "cpu")
    images = {name: picture(seed) for seed, name in enumerate(CAMERAS)}
    messages = {
        "front": serialize_message(raw_image(images["front"], "rgb8")),
        "rear": serialize_message(raw_image(images["rear"], "rgb8")),
    }
    images["left"], encoded = _compressed(images["left"])
    messages["left"] = serialize_message(ros_tools.compressed_image(encoded))
    expected = {name: localizer.localize([image])[0] for name, image in images.items()}
    now_ns = time.time_ns()
    sent = []
    for place, (name, cdr) in enumerate(messages.items()):
        sent.append((now_ns + place, time.monotonic()))
        publishers[name].publish(with_stamp(cdr, sent[-1][0]))
    assert collector.wait_for(lambda: all(r.processed for r in collector.records(sent)), 20)
    assert collector.wait_for(lambda: all(poses.values()), 10)
    for place, name in enumerate(messages):
        [pose] = poses[name]
        assert stamp_to_ns(pose.header.stamp) == now_ns + place
        position = pose.pose.position
        np.testing.assert_allclose(
            [position.x, position.y, position.z], expected[name].position, atol=1e-5
        )
        assert collector.records(sent)[place].scene == expected[name].scene
    # Whichever frames shared a turn: the last word is that of the camera that is best of all.
    of_base = {
        name: base_estimate(one, parse_mounting(name, MOUNTINGS[name]))
        for name, one in expected.items()
    }
    best = _best(of_base)
    records = dict(zip(messages, collector.records(sent), strict=True))
    assert collector.wait_for(
        lambda: dict(zip(messages, collector.records(sent), strict=True))[best].pose is not None, 5
    ), records
    pose = collector.records(sent)[list(messages).index(best)].pose
    np.testing.assert_allclose(pose.position, of_base[best].position, atol=1e-5)
    np.testing.assert_allclose(np.abs(pose.quaternion @ of_base[best].quaternion), 1.0, atol=1e-9)
    assert collector.diagnostics["pose_of"] == "base_link"


def test_initialpose_is_of_base_frame_whichever_cameras_agree(robot, model):
    collector, publishers, _, node = robot
    sent = []
    node.create_subscription(PoseWithCovarianceStamped, "/initialpose", sent.append, 10)
    client = node.create_client(Trigger, "/three/localizer/publish_initialpose")
    assert client.wait_for_service(10)
    assert collector.wait_for(lambda: node.count_publishers("/initialpose") > 0, 10)
    future = client.call_async(Trigger.Request())
    cdr = serialize_message(raw_image(picture(1), "rgb8"))
    for step in range(200):
        publishers["front"].publish(with_stamp(cdr, time.time_ns()))
        # What another camera sees of elsewhere, once, stops nobody.
        if step == 1:
            publishers["rear"].publish(
                with_stamp(serialize_message(raw_image(picture(8), "rgb8")), time.time_ns())
            )
        if collector.wait_for(future.done, 0.1):
            break
    response = future.result()
    assert response.success, response.message
    assert response.message.startswith("sent to /initialpose: base_link at x ")
    assert collector.wait_for(lambda: sent, 10)
    seen = Localizer.load(model, "cpu").localize([picture(1)])[0]
    expected = base_estimate(seen, parse_mounting("front", MOUNTINGS["front"]))
    pose = sent[0].pose.pose
    found = [pose.position.x, pose.position.y, pose.position.z]
    np.testing.assert_allclose(found, expected.position, atol=1e-5)
    np.testing.assert_allclose(sent[0].pose.covariance, expected.covariance.ravel(), atol=1e-6)


def test_no_pose_of_the_robot_is_made_up_where_metres_mean_nothing(robot):
    collector, publishers, poses, node = robot
    client = node.create_client(SetParameters, "/three/localizer/set_parameters")
    assert client.wait_for_service(10)

    def force(scene):
        parameter = Parameter("scene", value=scene).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        assert collector.wait_for(future.done, 10)
        assert future.result().results[0].successful

    cdr, sent = serialize_message(raw_image(picture(1), "rgb8")), (time.time_ns(), 0.0)
    count = len(poses["front"])
    force("cellar")
    try:
        publishers["front"].publish(with_stamp(cdr, sent[0]))
        # The camera's own pose is published; the robot's would be right after it.
        assert collector.wait_for(lambda: len(poses["front"]) > count, 10)
        assert collector.wait_for(lambda: collector.records([sent])[0].processed, 10)
        [record] = collector.records([sent])
        assert record.scene == "cellar"
        assert record.reason.startswith("no pose of base_link: scene 'cellar' has no known scale")
        assert collector.wait_for(lambda: collector.diagnostics["scene"] == "cellar", 10)
        assert collector.records([sent])[0].pose is None
    finally:
        force("")


def _compressed(image):
    from mspn_ros.images import decode_compressed

    encoded = jpeg(image)
    return decode_compressed(encoded), encoded


def _best(expected):
    surest = max(expected.values(), key=lambda one: one.confidence).scene
    inside = {name: one for name, one in expected.items() if one.scene == surest}
    return min(
        inside,
        key=lambda name: (
            np.linalg.slogdet(inside[name].covariance)[1],
            -inside[name].confidence,
        ),
    )


def test_diagnostics_tell_of_each_camera(robot):
    collector, publishers, _, _ = robot
    cdr = serialize_message(raw_image(picture(1), "rgb8"))
    before = int(collector.cameras["rear"]["received"])
    publishers["rear"].publish(cdr)
    publishers["front"].publish(cdr[:50])

    def counted():
        cameras = collector.cameras
        return (
            int(cameras["rear"]["received"]) > before
            and "rejected.malformed_message" in (cameras["front"])
        )

    assert collector.wait_for(counted, 10), collector.cameras
    assert collector.cameras["left"]["image_topic"] == "/side/image/compressed"
    total = collector.diagnostics
    for key in ("received", "answered", "overtaken", "rejected"):
        assert int(total[key]) == sum(int(one[key]) for one in collector.cameras.values())


def test_the_graph_has_what_the_interface_page_says_and_nothing_else(robot):
    node = robot[-1]
    whose = ("localizer", "/three")
    everywhere = {"/rosout", "/parameter_events"}
    expected = {"/three/localizer/transition_event": TRANSITION_EVENT}
    for topic in PUBLISHERS:
        if importlib.util.find_spec(topic.type_name.split("/")[0]):
            for camera in CAMERAS if "{camera}" in topic.name else [""]:
                expected[topic.resolved("/three", camera)] = topic.type_name
                seen = [
                    info
                    for info in node.get_publishers_info_by_topic(topic.resolved("/three", camera))
                    if (info.node_name, info.node_namespace) == whose
                ]
                assert [info.topic_type for info in seen] == [topic.type_name]
                # DDS does not tell the depth.
                offered, declared = seen[0].qos_profile, topic.qos.profile()
                assert offered.reliability == declared.reliability, topic
                assert offered.durability == declared.durability, topic
    published = node.get_publisher_names_and_types_by_node(*whose)
    assert {name: types for name, types in published if name not in everywhere} == {
        name: [type_name] for name, type_name in expected.items()
    }
    for name, kind in (("/front/image_raw", IMAGES), ("/three/rear/image", IMAGES)):
        [seen] = node.get_subscriptions_info_by_topic(name)
        assert (seen.topic_type, seen.node_name) == (kind.type_name, "localizer")
        assert seen.qos_profile.reliability == kind.qos.profile().reliability
    heard = {name for name, _ in node.get_subscriber_names_and_types_by_node(*whose)}
    assert heard - everywhere == {"/front/image_raw", "/side/image/compressed", "/three/rear/image"}
    served = dict(node.get_service_names_and_types_by_node(*whose))
    expected = {s.resolved("/three"): [s.type_name] for s in SERVICES}
    expected |= {f"/three/localizer/{n}": [t] for n, t in LIFECYCLE_SERVICES.items()}
    of_every_node = ("rcl_interfaces/", "type_description_interfaces/")
    own = {name: types for name, types in served.items() if not types[0].startswith(of_every_node)}
    assert own == expected


def test_diagnostics_have_the_values_that_the_interface_page_lists_and_no_others(robot):
    collector = robot[0]
    stands_for = {
        "percentile": "p[59][059]",
        "stage": "waiting|decode|localize|publish|ros_adds",
        "cause": r"\w+",
        "row": ".+",
    }
    names = {
        key: re.sub(r"{(\w+)}", lambda found: f"({stands_for[found[1]]})", key)
        for key in DIAGNOSTIC_VALUES
    }
    assert collector.wait_for(lambda: "latency_p50_ms" in collector.diagnostics, 10)
    values = {*collector.diagnostics, *collector.cameras["front"]}
    for value in values:
        assert any(re.fullmatch(name, value) for name in names.values()), value
    for key, name in names.items():
        if "{row}" not in key:
            assert any(re.fullmatch(name, value) for value in values), key


def test_names_that_cameras_cannot_have_are_refused():
    with (
        LocalizerProcess("/twice", {"cameras": "front front"}) as twice,
        LocalizerProcess("/path", {"cameras": "front/left"}) as path,
    ):
        for process, name in ((twice, "front front"), (path, "front/left")):
            assert process.process.wait(60) == 1
            assert f"parameter cameras: '{name}'" in process.output()
            assert "Traceback" not in process.output()
