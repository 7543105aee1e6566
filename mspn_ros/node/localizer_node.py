"""The localizer node: camera images in, the topics of the ROS interface out.

    mspn localize --model M
    ros2 run mspn_ros localize --ros-args -p model:=M -p image_topic:=/camera/image_raw

A lifecycle node, ``localizer`` in namespace ``mspn`` unless remapped, that brings itself up unless
``autostart`` is false.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.model_watch import ModelWatch
from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.cameras import Camera, read_cameras
from mspn_ros.node.diagnostics import CameraStatus, DiagnosticsReport, NodeStatus, image_source
from mspn_ros.node.frames import Frames
from mspn_ros.node.outputs import Outputs
from mspn_ros.node.parameters import declare_parameters, read_parameter, warn_of_unknown_parameters
from mspn_ros.node.reloading import Reloading
from mspn_ros.node.robot_pose import RobotPose
from mspn_ros.node.worker import Milestones, NewestFrameWorker
from mspn_ros.paths import package_file
from mspn_ros.records import (
    ConfigError,
    MspnError,
    listing,
)

# Seconds between two log lines about the same trouble.
_THROTTLE_S = 10.0


class LocalizerNode(LifecycleNode):
    """See the module. ``failure`` says why the last transition failed, empty if it did not.

    Raises:
        ConfigError: a parameter's value is refused.
    """

    def __init__(self) -> None:
        super().__init__(NODE_NAME, namespace=NAMESPACE)
        self.failure = ""
        self._localizer: Localizer | None = None
        self._reloading: Reloading | None = None
        self._outputs: Outputs | None = None
        self._cameras: tuple[Camera, ...] = ()
        self._robot: RobotPose | None = None
        self._frames: Frames | None = None
        self._logged_at_s: dict[str, float] = {}
        self._report = DiagnosticsReport()
        declare_parameters(self)
        warn_of_unknown_parameters(self)
        self._configs = read_cameras(self)
        self._worker = NewestFrameWorker(self._process, self._log_bug, len(self._configs))
        self.add_on_set_parameters_callback(self._check_scene)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady, so that the node speaks while simulated time stands still.
        self.create_timer(
            read_parameter(self, "diagnostics_period"),
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        # A group of their own: the node's lets no frame in while a service awaits.
        for name, answer in (
            ("reload", self._on_reload),
            ("publish_initialpose", self._on_publish_initialpose),
        ):
            group = ReentrantCallbackGroup()
            self.create_service(Trigger, f"~/{name}", answer, callback_group=group)

    def bring_up(self) -> bool:
        """Configure and activate; False, with ``failure`` set and logged, if either fails."""
        done = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == done and self.trigger_activate() == done

    def release(self) -> None:
        """Stop taking frames and let the model and the topics go; safe in any state."""
        if self._reloading is not None:
            self._reloading.stop()
        self._stop_frames()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._robot is not None:
            self._robot.close()
        self._outputs = self._localizer = self._reloading = self._frames = self._robot = None

    # Transitions. rclpy swallows their exceptions, hence _guarded.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and make the topics."""
        return self._guarded("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start to answer."""
        super().on_activate(state)
        return self._guarded("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the model stays loaded."""
        result = self._guarded("deactivate", self._stop_frames)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the model and the topics go."""
        return self._guarded("cleanup", self.release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        return self._guarded("shutdown", self.release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a bug in a transition: back to unconfigured."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def _guarded(self, name: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except MspnError as error:
            self.failure = f"{name}: {error}"
            self.get_logger().error(self.failure)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.failure = f"{name}: {type(error).__name__}: {error}"
            self.get_logger().error(f"{name} failed by a bug:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self.failure = ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        # Before the model is read: what changes meanwhile shows at the first look.
        watch = ModelWatch(self._model_dir())
        try:
            self._robot = RobotPose(self, self._configs, self._log_throttled)
            localizer = Localizer.load(
                self._model_dir(),
                read_parameter(self, "device"),
                engine=read_parameter(self, "engine"),
            )
            _require_scene(localizer.scenes, read_parameter(self, "scene"))
        except BaseException:
            watch.close()
            self.release()
            raise
        # A full collection goes through all that torch and ROS have imported, half a second in
        # which every thread stands still; a reload would set it off while frames come.
        gc.collect()
        gc.freeze()
        self._localizer = localizer
        self._outputs = Outputs(self, (config.name for config in self._configs if config.name))
        self._frames = Frames(self, localizer, self._outputs, self._robot, self._log_throttled)
        self._reloading = Reloading(self, localizer, watch, self._take_in)
        self.get_logger().info(
            f"{self._model_text()}: {len(localizer.scenes)} scenes, engine={localizer.engine} "
            f"({localizer.engine_reason})"
        )

    def _activate(self) -> None:
        assert self._outputs is not None
        assert self._localizer is not None
        assert self._frames is not None
        self._worker.start()
        self._cameras = tuple(
            Camera(self, config, partial(self._worker.submit, camera=number))
            for number, config in enumerate(self._configs)
        )
        self._frames.begin(self._cameras)
        self._outputs.publish_catalogue(self._localizer.scenes)
        topics = [f"{camera.message_type.__name__} {camera.topic}" for camera in self._cameras]
        self.get_logger().info(f"active: takes {', '.join(topics)}")

    def _take_in(self) -> None:
        """Tell of the scenes that a reload has left in service; on the reload's thread, since a
        catalogue may be long. One that is not active tells when it is activated.
        """
        outputs, localizer, executor = self._outputs, self._localizer, self.executor
        if outputs is not None and localizer is not None and self._cameras:
            outputs.publish_catalogue(localizer.scenes)
            if executor is not None:
                # Subscriptions are the executor's.
                executor.create_task(self._renew_frames)

    def _renew_frames(self) -> None:
        if self._frames is not None and self._cameras:
            self._frames.renew()

    def _stop_frames(self) -> None:
        cameras, self._cameras = self._cameras, ()
        for camera in cameras:
            camera.close()
        self._worker.stop()
        if self._robot is not None:
            self._robot.stop("the node was deactivated")

    # Frames, on the worker's thread.

    def _process(self, taken: Sequence[tuple[int, bytes]]) -> Sequence[Milestones | str]:
        frames = self._frames
        return frames.process(taken) if frames is not None else ["inactive"] * len(taken)

    def _log_throttled(self, key: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_at_s.get(key, float("-inf")) >= _THROTTLE_S:
            self._logged_at_s[key] = now_s
            self.get_logger().warning(text)

    def _log_bug(self, error: Exception) -> None:
        self._log_throttled("bug", f"a bug in mspn_ros: {type(error).__name__}: {error}")

    # Parameters, services, diagnostics.

    def _model_dir(self) -> Path:
        model = read_parameter(self, "model")
        return Path(model).expanduser() if model else package_file("demo", "model")

    def _model_text(self) -> str:
        what = "model" if read_parameter(self, "model") else "no model named: running the demo"
        return f"{what} {self._model_dir()}"

    def _check_scene(self, parameters: Sequence[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        for parameter in parameters:
            if parameter.name == "scene" and self._localizer is not None:
                try:
                    _require_scene(self._localizer.scenes, parameter.value)
                except ConfigError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    async def _on_reload(self, request: Any, response: Any) -> Any:
        if self._reloading is None:
            response.message = "no model is loaded; configure the node first"
        else:
            # Awaited, not waited for: the executor goes on to take frames.
            response.success, response.message = await self._reloading.now()
        return response

    async def _on_publish_initialpose(self, request: Any, response: Any) -> Any:
        if self._robot is None or not self._cameras:
            response.message = "the node takes no frames; configure and activate it first"
            return response
        return await self._robot.initial_pose.answer(response)

    def _publish_diagnostics(self) -> None:
        localizer, frames = self._localizer, self._frames
        warnings = frames.warnings if frames is not None else []
        if localizer is not None and not read_parameter(self, "model"):
            warnings.append(f"{self._model_text()}; set the parameter model")
            self._log_throttled("demo", warnings[-1])
        status = NodeStatus(
            name=self.get_fully_qualified_name(),
            state=self._state_machine.current_state[1],
            model=str(self._model_dir()),
            scene=frames.scene if frames is not None else "",
            pose_axes=read_parameter(self, "pose_axes"),
            failure=self.failure,
            warnings=tuple(warnings),
            no_frames_timeout_s=read_parameter(self, "no_frames_timeout"),
        )
        if localizer is not None:
            status.device = str(localizer.device)
            status.engine, status.engine_reason = localizer.engine, localizer.engine_reason
            status.bank_version, status.scenes = localizer.bank_version, len(localizer.rows)
            status.refused = localizer.refused
        if self._reloading is not None:
            status.reload_trouble = self._reloading.trouble
        if self._robot is not None:
            status.pose_of = self._robot.base_frame if self._robot.mounted else "camera"
        status.cameras = tuple(self._camera_statuses())
        message = self._report.message(status, time.monotonic())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _camera_statuses(self) -> Iterator[CameraStatus]:
        counts = self._worker.counts()
        for number, config in enumerate(self._configs):
            status = CameraStatus(config.name, counts[number])
            if self._cameras:
                camera = self._cameras[number]
                status.source = image_source(
                    self, camera.topic, camera.message_type, camera.reliable
                )
                status.camera_info = camera.camera_in_use
            yield status


def _require_scene(scenes: Sequence[SceneInfo], name: str) -> None:
    names = [scene.name for scene in scenes]
    if name and name not in names:
        raise ConfigError(f"parameter scene: {name!r} is not in the bank; it has {listing(names)}")
