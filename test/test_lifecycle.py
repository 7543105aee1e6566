# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node that a manager drives: states, signals, run-time parameters, time and quality of service.

One node for all, from which each test takes over in the state that the one before left.
"""

import contextlib
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from models import make_tiny_model
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_tools import RosClient, Statuses, raw_image
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from test_node import assert_same_pose, end_by, picture

from mspn_ros.commands.run import _as_yaml
from mspn_ros.inference.localizer import Localizer
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.worker import Milestones, NewestFrameWorker

MANAGED, NODE, TOPIC = "/managed", "/managed/localizer", "/managed/camera/image"
OVERRIDES = {
    "qos_overrides./managed/scene.publisher.reliability": "best_effort",
    "qos_overrides./managed/elsewhere.publisher.depth": 3,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("lifecycle") / "model")


@pytest.fixture(scope="module")
def localizer(model):
    return Localizer.load(model, "cpu")


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The folder of a vision_msgs that was built for another Python, as it happens."""
    folder = tmp_path_factory.mktemp("broken") / "site"
    (folder / "vision_msgs").mkdir(parents=True)
    (folder / "vision_msgs" / "__init__.py").write_text("")
    (folder / "vision_msgs" / "msg.py").write_text('raise RuntimeError("a broken build")\n')
    return folder


@pytest.fixture(scope="module")
def processes(broken):
    """All nodes of this module, started side by side."""
    common = {"autostart": False, "device": "cpu", "diagnostics_period": 0.2}
    managed = {**common, "model": "/no/such model", "image_topic": "camera/image", **OVERRIDES}
    keeping = {"qos_overrides./waiting/pose.publisher.history": "keep_all"}
    before = os.environ.get("PYTHONPATH", "")
    with contextlib.ExitStack() as stack:
        os.environ["PYTHONPATH"] = f"{broken}{os.pathsep}{before}"
        try:
            process = stack.enter_context(LocalizerProcess(MANAGED, managed))
        finally:
            os.environ["PYTHONPATH"] = before
        found = {MANAGED: process}
        for namespace, parameters in (("/waiting", keeping), ("/loading", {})):
            parameters = {**common, **parameters}
            found[namespace] = stack.enter_context(LocalizerProcess(namespace, parameters))
        yield found


class Manager(RosClient):
    """A client that does what nav2's lifecycle manager does, and sets parameters."""

    def change(self, transition):
        """Of the managed node; whether it succeeded."""
        return self.change_state(NODE, transition)

    def state(self):
        return self.call(GetState, f"{NODE}/get_state", GetState.Request()).current_state.id

    def transitions(self):
        request, name = GetAvailableTransitions.Request(), f"{NODE}/get_available_transitions"
        found = self.call(GetAvailableTransitions, name, request).available_transitions
        return {one.transition.label for one in found}

    def set(self, **parameters):
        """Empty, or why they are refused."""
        request = SetParameters.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in parameters.items()]
        )
        results = self.call(SetParameters, f"{NODE}/set_parameters", request).results
        return "; ".join(result.reason for result in results if not result.successful)

    def matched(self):
        """Wait until the node takes images again."""
        assert self.collector.wait_for(lambda: self._publisher.get_subscription_count() > 0, 10)
        time.sleep(0.5)

    def at(self, stamp_ns):
        """The next image has this stamp."""
        self._stamp_ns = stamp_ns - 33_333_333


@pytest.fixture(scope="module")
def manager(processes):
    with ros_tools.ros_context() as context:
        client = Manager(context, MANAGED, TOPIC)
        assert client.diagnostics(timeout_s=60)["state"] == "unconfigured"
        yield client
        client.close()


@pytest.fixture(scope="module")
def statuses(manager):
    return Statuses(manager)


def test_a_signal_while_python_imports_ends_the_node_without_traceback():
    with LocalizerProcess("/early", {}) as process:
        time.sleep(0.6)
        start_s = time.monotonic()
        assert process.stop(signal.SIGINT) == 0, process.output()
        assert time.monotonic() - start_s < 4.0  # of a busy machine
        assert "Traceback" not in process.output()


def test_a_transition_that_the_state_does_not_have_is_refused_and_nothing_ends(manager, processes):
    """rclpy hands on what rcl raises: `ros2 lifecycle set ... activate` ended the process."""
    assert manager.transitions() == {"configure", "shutdown"}
    for transition in (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CLEANUP, 200, "fly"):
        assert not manager.change(transition)
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    output = processes[MANAGED].output()
    assert "no transition 3 from unconfigured, which has configure, shutdown" in output
    assert "no transition 'fly' from unconfigured" in output


def test_configure_says_why_it_fails_and_succeeds_once_the_parameter_is_right(
    manager, statuses, processes, model
):
    assert not manager.change(Transition.TRANSITION_CONFIGURE)
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    said = statuses.wait_for(NODE, "/no/such model", DiagnosticStatus.ERROR)
    assert said.startswith("configure: ")
    assert said in processes[MANAGED].output()
    assert manager.set(model=str(model)) == ""
    assert "while the node is unconfigured: it is read when the node starts" in manager.set(
        diagnostics_period=1.0
    )


def test_a_bug_in_a_transition_is_logged_and_the_node_can_be_configured_again(
    manager, statuses, processes, broken
):
    """rclpy swallows the exception, and topics that were made before it stayed."""
    before = set(topics(manager))
    assert not manager.change(Transition.TRANSITION_CONFIGURE)
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert "RuntimeError: a broken build" in statuses.wait_for(NODE, "", DiagnosticStatus.ERROR)
    output = processes[MANAGED].output()
    assert "configure failed by a bug:\nTraceback" in output
    assert set(topics(manager)) == before
    shutil.rmtree(broken)
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    assert manager.state() == State.PRIMARY_STATE_INACTIVE
    assert manager.transitions() == {"activate", "cleanup", "shutdown"}
    assert set(topics(manager)) > before
    statuses.wait_for(NODE, "inactive", DiagnosticStatus.OK)


def topics(manager):
    return [n for n, _ in manager.node.get_publisher_names_and_types_by_node("localizer", MANAGED)]


def test_parameters_that_are_read_at_activation_may_be_set_while_inactive(manager, model):
    assert manager.set(image_topic="elsewhere") == ""
    assert manager.set(image_topic="camera/image") == ""
    assert manager.set(pose_axes="body") == manager.set(pose_axes="optical") == ""
    assert manager.set(model=str(model)) == (
        "parameter model cannot be changed while the node is inactive: it is read when the node is "
        "configured; clean up the node first, or restart it with -p model:=VALUE"
    )
    assert "'bad topic!' is not accepted" in manager.set(image_topic="bad topic!")
    assert "not accepted" in manager.set(image_topic="/kamera_ä")


def test_images_that_are_sent_while_inactive_are_not_answered_later(manager, localizer):
    assert manager.change("activate")
    assert manager.state() == State.PRIMARY_STATE_ACTIVE
    manager.matched()
    image = raw_image(picture(1), "rgb8")
    assert_same_pose(manager.ask(image), localizer.localize([picture(1)])[0])
    assert manager.change("deactivate")
    missed = [manager.publish(image) for _ in range(3)]
    assert manager.change("activate")
    manager.matched()
    assert manager.ask(image).pose is not None
    assert not any(record.processed for record in manager.collector.records(missed))
    assert manager.diagnostics()["received"] == "2"


def test_frames_above_max_rate_are_left_out_at_once_and_counted(manager):
    assert manager.set(max_rate=10.0) == ""
    before = manager.diagnostics(lambda status: status["in_progress"] == "0")
    image, start_s = raw_image(picture(2), "rgb8"), time.monotonic()
    while time.monotonic() < start_s + 1.0:
        manager.publish(image)
        time.sleep(0.01)
    seconds = time.monotonic() - start_s
    after = manager.diagnostics(lambda s: s["in_progress"] == "0" and float(s["idle_s"]) > 0.3)
    assert manager.set(max_rate=0.0) == ""
    keys = ("received", "answered", "overtaken", "skipped")
    received, answered, overtaken, skipped = (int(after[k]) - int(before[k]) for k in keys)
    assert received == answered + overtaken
    assert 0 < answered <= 10 * seconds + 2
    assert overtaken >= skipped > answered


def test_what_frames_before_said_does_not_outlive_a_jump_back_in_time(manager, localizer):
    """A bag that begins anew: judged by the filter of its end, its first frames would be wrong."""
    start_ns = 1_800_000_000 * 10**9
    assert manager.set(scene_filter=30.0) == ""
    manager.at(start_ns)
    alone = {seed: localizer.localize([picture(seed)])[0] for seed in range(30)}
    first = alone[9]
    other = next(seed for seed, one in alone.items() if one.scene != first.scene)
    for _ in range(5):
        record = manager.ask(raw_image(picture(9), "rgb8"))
    # 50 ms back is a frame that was overtaken on its way, and its pose would be stale.
    manager.at(record.stamp_ns - 50_000_000)
    late = manager.ask(raw_image(picture(other), "rgb8"))
    assert (late.rejected, late.pose) == ("late", None)
    # Far back is another beginning: judged alone, as the first of all.
    manager.at(start_ns - 60 * 10**9)
    anew = manager.ask(raw_image(picture(other), "rgb8"))
    assert_same_pose(anew, alone[other])
    assert anew.confidence == pytest.approx(alone[other].confidence, abs=1e-6)
    assert manager.set(scene_filter=0.0) == ""
    # The next follows that one, however old it is.
    assert manager.ask(raw_image(picture(9), "rgb8")).scene == first.scene


def test_old_images_are_rejected_by_max_age_and_other_clocks_are_hinted_at(
    manager, statuses, processes
):
    image = raw_image(picture(9), "rgb8")
    manager.at(time.time_ns() - 312 * 10**9)
    for _ in range(31):
        manager.ask(image)
    said = statuses.wait_for(NODE, "312 s behind this node's clock", DiagnosticStatus.OK)
    assert "synchronise the clocks" in said
    assert manager.set(max_age=2.0) == ""
    record = manager.ask(image)
    assert (record.rejected, record.pose) == ("stale", None)
    assert "31" in record.reason
    assert "max_age is 2 s" in record.reason
    manager.at(time.time_ns())
    assert manager.ask(image).pose is not None
    # One that waited in DDS while the node could not run.
    assert manager.set(max_age=0.5) == ""
    processes[MANAGED].process.send_signal(signal.SIGSTOP)
    manager.at(time.time_ns())
    sent = manager.publish(image)
    time.sleep(0.8)
    processes[MANAGED].process.send_signal(signal.SIGCONT)
    assert manager.collector.wait_for(lambda: manager.record(sent).processed, 10)
    assert manager.record(sent).rejected == "stale"
    manager.at(time.time_ns() + 10 * 10**9)
    assert "ahead of this node's clock" in manager.ask(image).reason
    assert manager.set(max_age=0.0) == ""


def test_simulated_time_is_the_nodes_clock_and_a_jump_of_it_begins_anew(
    manager, statuses, processes
):
    clock = manager.node.create_publisher(Clock, "/clock", 10)
    image, now_ns = raw_image(picture(9), "rgb8"), 1_000 * 10**9

    def say(stamp_ns):
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp_ns, 10**9)
        clock.publish(message)
        time.sleep(0.2)

    assert manager.set(use_sim_time=True) == ""
    # The node goes on to speak though its clock stands.
    statuses.wait_for(NODE, "use_sim_time is set, but /clock says nothing", DiagnosticStatus.WARN)
    assert manager.collector.wait_for(lambda: clock.get_subscription_count() > 0, 10)
    time.sleep(0.3)
    # rclpy raises over such a time, which ended the node.
    say(-5 * 10**9)
    say(now_ns)
    assert "a message was not handled: ValueError" in processes[MANAGED].output()
    assert manager.set(max_age=1.0) == ""
    manager.at(now_ns)
    assert manager.ask(image).pose is not None
    say(now_ns + 5 * 10**9)
    assert manager.ask(image).rejected == "stale"
    # The clock begins anew; so do the stamps, but only half a second back.
    say(now_ns - 10 * 10**9)
    assert "time jumped by -15.0 s" in processes[MANAGED].output()
    say(now_ns)
    manager.at(now_ns - 400_000_000)
    assert manager.ask(image).pose is not None
    assert manager.set(max_age=0.0) == manager.set(use_sim_time=False) == ""
    manager.node.destroy_publisher(clock)


def test_images_without_stamps_are_answered_and_complained_of(manager, statuses):
    manager.at(0)
    manager._stamp_ns = -33_333_333
    assert manager.ask(raw_image(picture(9), "rgb8")).pose is not None
    statuses.wait_for(NODE, f"images on {TOPIC} have no stamps", DiagnosticStatus.WARN)
    manager.at(time.time_ns())
    assert manager.ask(raw_image(picture(9), "rgb8")).pose is not None


def test_who_does_not_go_with_the_nodes_qos_is_named_with_the_remedy(manager, statuses, processes):
    output = processes[MANAGED].output()
    assert "unknown parameters are ignored: qos_overrides./managed/elsewhere.publisher" in output
    assert "qos_overrides./managed/camera/image.subscription" in output
    kept = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    heard = []
    readers = [
        manager.node.create_subscription(String, f"{MANAGED}/scene", heard.append, 10),
        manager.node.create_subscription(String, f"{MANAGED}/answer", heard.append, kept),
    ]
    who = "/client_of_managed asks for"
    said = statuses.wait_for(NODE, f"{who} transient_local", DiagnosticStatus.WARN)
    assert f"{who} transient_local /managed/answer, which is volatile" in said
    by = "qos_overrides./managed/scene.publisher.reliability"
    assert f"{who} reliable /managed/scene, which is best effort by {by}" in said
    manager.ask(raw_image(picture(9), "rgb8"))
    assert not heard
    for reader in readers:
        manager.node.destroy_subscription(reader)
    statuses.wait_for(NODE, "Hz", DiagnosticStatus.OK)
    # The other way round: a node that wants every frame, and a camera that does not keep them.
    assert manager.change("deactivate")
    assert manager.set(image_qos="reliable", no_frames_timeout=0.5) == ""
    assert manager.change("activate")
    sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    camera = manager.node.create_publisher(Image, TOPIC, sensor)
    text = "/client_of_managed publishes /managed/camera/image best effort, this node asks for"
    said = statuses.wait_for(NODE, text, DiagnosticStatus.WARN)
    assert "set image_qos (or qos_overrides./managed/camera/image.subscription" in said
    output = processes[MANAGED].output()
    assert text in output
    assert f"{who} transient_local" in output
    manager.node.destroy_publisher(camera)
    assert manager.change("deactivate")
    assert manager.set(image_qos="best_effort") == ""
    assert manager.change("cleanup")


def test_a_publisher_that_dies_leaves_nothing_to_repeat(manager, statuses):
    assert manager.change("configure")
    assert manager.change("activate")
    manager.matched()
    manager.ask(raw_image(picture(9), "rgb8"))
    answers = sum(map(len, manager.collector._answers.values()))
    manager.node.destroy_publisher(manager._publisher)
    statuses.wait_for(NODE, "no frames for", DiagnosticStatus.WARN)
    said = statuses.wait_for(NODE, "nobody publishes there", DiagnosticStatus.WARN)
    assert f"on '{TOPIC}'" in said
    assert sum(map(len, manager.collector._answers.values())) == answers
    manager._publisher = manager.node.create_publisher(Image, TOPIC, 10)
    manager.matched()
    assert manager.ask(raw_image(picture(9), "rgb8")).pose is not None
    statuses.wait_for(NODE, "Hz", DiagnosticStatus.OK)
    assert manager.change("deactivate")
    assert manager.change("cleanup")


# What nav2's lifecycle manager asks for, and the state that it then expects (docs/lifecycle.md).
STARTUP = [(Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)]
STARTUP += [(Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)]
PAUSE = [(Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE)]
RESUME = [(Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)]
RESET = [*PAUSE, (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED)]
SHUTDOWN = [
    *RESET,
    (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),
]


def test_nav2s_manager_starts_pauses_resumes_resets_and_shuts_down(manager, statuses, processes):
    for transition, state in (*STARTUP, *PAUSE, *RESUME, *RESET, *STARTUP):
        assert manager.change(transition), transition
        assert manager.state() == state
    manager.matched()
    assert manager.ask(raw_image(picture(9), "rgb8")).pose is not None
    for transition, state in SHUTDOWN:
        assert manager.change(transition), transition
        assert manager.state() == state
    statuses.wait_for(NODE, "finalized", DiagnosticStatus.OK)
    assert not [name for name in topics(manager) if name.startswith("/managed/pose")]
    assert not manager.change("configure")
    assert "from finalized, which has none" in processes[MANAGED].output()
    assert "cannot be changed while the node is finalized" in manager.set(model="x")
    end_by(processes[MANAGED], signal.SIGTERM)


def test_an_override_that_does_not_go_is_told_and_sigint_ends_an_unconfigured_node(
    manager, processes
):
    assert not manager.change_state("/waiting/localizer", "configure")
    output = processes["/waiting"].output()
    assert "qos_overrides./waiting/pose: " in output
    assert "history can only be keep_last" in output
    end_by(processes["/waiting"], signal.SIGINT)


def test_sigterm_ends_a_node_that_is_loading_its_model(manager, processes):
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_CONFIGURE
    states = manager.node.create_client(ChangeState, "/loading/localizer/change_state")
    assert states.wait_for_service(10)
    asked = states.call_async(request)
    time.sleep(0.3)
    assert not asked.done()
    end_by(processes["/loading"], signal.SIGTERM)


@pytest.mark.parametrize(
    ("given", "yaml"),
    [("hall", '["hall"]'), ("hall, the lab", '["hall", "the lab"]'), ("['a, b']", "['a, b']")],
)
def test_the_command_line_takes_scenes_with_commas_between(given, yaml):
    assert _as_yaml(given, ("",)) == yaml


def test_the_worker_leaves_out_frames_that_come_too_quickly():
    """Decided when they come: one that were kept until it is due would be answered late."""
    answered, go = [], threading.Event()

    def process(taken):
        answered.extend(message for _, message in taken)
        go.set()
        return [Milestones(time.monotonic(), time.monotonic()) for _ in taken]

    worker = NewestFrameWorker(process, pytest.fail, most_hz=lambda: 0.5)
    worker.start()
    worker.submit("first")
    assert go.wait(10)
    for number in range(5):
        worker.submit(number)
    worker.stop()
    [counts] = worker.counts()
    assert answered == ["first"]
    assert (counts.received, counts.answered, counts.overtaken, counts.skipped) == (6, 1, 5, 5)
    np.testing.assert_equal(counts.in_progress, 0)
