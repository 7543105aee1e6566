# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The localizer node: camera images in, the topics of the ROS interface out.

    mspn localize --model M
    ros2 run mspn_ros localize --ros-args -p model:=M -p image_topic:=/camera/image_raw

A lifecycle node, ``localizer`` in namespace ``mspn`` unless remapped, that brings itself up unless
``autostart`` is false.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from std_srvs.srv import Trigger

from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.model_watch import ModelWatch
from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.cameras import Camera, read_cameras
from mspn_ros.node.declared_parameters import (
    allowed_scenes,
    declare_parameters,
    read_parameter,
    warn_of_unknown_parameters,
)
from mspn_ros.node.diagnostics import CameraStatus, DiagnosticsReport, NodeStatus, image_source
from mspn_ros.node.frames import Frames
from mspn_ros.node.interface import DIAGNOSTICS, PUBLISH_INITIALPOSE, RELOAD
from mspn_ros.node.managed import ManagedNode
from mspn_ros.node.outputs import Outputs
from mspn_ros.node.qos import Mismatches
from mspn_ros.node.reloading import Reloading
from mspn_ros.node.robot_pose import RobotPose
from mspn_ros.node.stamps import JUMP_S
from mspn_ros.node.worker import Milestones, NewestFrameWorker
from mspn_ros.paths import package_file
from mspn_ros.records import (
    ConfigError,
    listing,
)

# Seconds between two log lines about the same trouble.
_THROTTLE_S = 10.0


class LocalizerNode(ManagedNode):
    """See the module.

    Raises:
        ConfigError: a parameter's value is refused.
    """

    def __init__(self) -> None:
        super().__init__(NODE_NAME, NAMESPACE)
        self._localizer: Localizer | None = None
        self._reloading: Reloading | None = None
        self._outputs: Outputs | None = None
        self._cameras: tuple[Camera, ...] = ()
        self._robot: RobotPose | None = None
        self._frames: Frames | None = None
        self._logged_at_s: dict[str, float] = {}
        self._report = DiagnosticsReport()
        declare_parameters(self, lambda: self.state)
        warn_of_unknown_parameters(self)
        self._configs = read_cameras(self)
        self._worker = NewestFrameWorker(
            self._process,
            self._log_bug,
            len(self._configs),
            lambda: float(read_parameter(self, "max_rate")),
        )
        self._qos = Mismatches(self, self._log_throttled)
        # Of /clock, or where it is taken for the time or not any more.
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(seconds=-JUMP_S)),
            post_callback=self._on_time_jump,
        )
        self.add_on_set_parameters_callback(self._check_scenes)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, DIAGNOSTICS.name, DIAGNOSTICS.qos.profile()
        )
        # Steady, so that the node speaks while simulated time stands still.
        self.create_timer(
            read_parameter(self, "diagnostics_period"),
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        # A group of their own: the node's lets no frame in while a service awaits.
        for service, answer in (
            (RELOAD, self._on_reload),
            (PUBLISH_INITIALPOSE, self._on_publish_initialpose),
        ):
            group = ReentrantCallbackGroup()
            self.create_service(Trigger, f"~/{service.name}", answer, callback_group=group)

    def release(self) -> None:
        """Stop taking frames and let the model and the topics go; safe in any state."""
        if self._reloading is not None:
            self._reloading.stop()
        self.deactivate()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._robot is not None:
            self._robot.close()
        self._outputs = self._localizer = self._reloading = self._frames = self._robot = None

    # What the transitions do, see ManagedNode.

    def configure(self) -> None:
        """Load the model and make the topics."""
        # Before the model is read: what changes meanwhile shows at the first look.
        watch = ModelWatch(self._model_dir())
        try:
            self._robot = RobotPose(self, read_cameras(self), self._log_throttled)
            localizer = Localizer.load(
                self._model_dir(),
                read_parameter(self, "device"),
                engine=read_parameter(self, "engine"),
            )
            _require_scenes(
                localizer.scenes, read_parameter(self, "scene"), allowed_scenes(self) or ()
            )
            self._outputs = Outputs(
                self, self._qos, (config.name for config in self._configs if config.name)
            )
        except BaseException:
            watch.close()
            self.release()
            raise
        # A full collection goes through all that torch and ROS have imported, half a second in
        # which every thread stands still; a reload would set it off while frames come.
        gc.collect()
        gc.freeze()
        self._localizer = localizer
        self._frames = Frames(self, localizer, self._outputs, self._robot, self._log_throttled)
        self._reloading = Reloading(self, localizer, watch, self._take_in)
        self.get_logger().info(
            f"{self._model_text()}: {len(localizer.scenes)} scenes, engine={localizer.engine} "
            f"({localizer.engine_reason})"
        )

    def activate(self) -> None:
        """Subscribe and start to answer."""
        assert self._outputs is not None
        assert self._localizer is not None
        assert self._frames is not None
        self._configs = read_cameras(self)
        self._worker.start()
        for number, config in enumerate(self._configs):
            submit = partial(self._worker.submit, camera=number)
            # One after the other, so that a failure leaves those that deactivate takes away.
            self._cameras += (Camera(self, self._qos, config, submit),)
        self._frames.begin(self._cameras)
        self._qos.warn_of_unknown_overrides()
        self._outputs.publish_catalogue(self._localizer.scenes)
        topics = [f"{camera.message_type.__name__} {camera.topic}" for camera in self._cameras]
        self.get_logger().info(f"active: takes {', '.join(topics)}")

    def _take_in(self) -> None:
        """Tell of the scenes that a reload has left in service.

        On the reload's thread, since a catalogue may be long. One that is not active tells when it
        is activated.
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

    def deactivate(self) -> None:
        """Unsubscribe; the model stays loaded."""
        cameras, self._cameras = self._cameras, ()
        for camera in cameras:
            camera.close()
        self._worker.stop()
        if self._frames is not None:
            self._frames.end()
        if self._robot is not None:
            self._robot.stop("the node was deactivated")

    def _on_time_jump(self, jump: Any) -> None:
        if self._frames is not None:
            self._frames.restart()
        self.get_logger().info(
            f"time jumped by {jump.delta.nanoseconds / 1e9:.1f} s: what frames before said of the "
            "scene is forgotten"
        )

    # Frames, on the worker's thread.

    def _process(self, taken: Sequence[tuple[int, bytes]]) -> Sequence[Milestones | str]:
        frames = self._frames
        return frames.process(taken) if frames is not None else ["inactive"] * len(taken)

    def _log_throttled(self, key: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_at_s.get(key, float("-inf")) >= _THROTTLE_S:
            self._logged_at_s[key] = now_s
            self.get_logger().warning(text)

    def log_unhandled(self, error: Exception) -> None:
        """A callback of the executor has raised this."""
        self._log_throttled(
            "unhandled", f"a message was not handled: {type(error).__name__}: {error}"
        )

    def _log_bug(self, error: Exception) -> None:
        self._log_throttled("bug", f"a bug in mspn_ros: {type(error).__name__}: {error}")

    # Parameters, services, diagnostics.

    def _model_dir(self) -> Path:
        model = read_parameter(self, "model")
        return Path(model).expanduser() if model else package_file("demo", "model")

    def _model_text(self) -> str:
        what = "model" if read_parameter(self, "model") else "no model named: running the demo"
        return f"{what} {self._model_dir()}"

    def _check_scenes(self, parameters: Sequence[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        asked = {parameter.name: parameter.value for parameter in parameters}
        if self._localizer is None or not asked.keys() & {"scene", "allowed_scenes"}:
            return SetParametersResult(successful=True)
        scene = asked.get("scene", read_parameter(self, "scene"))
        allowed = asked.get("allowed_scenes", read_parameter(self, "allowed_scenes")) or ()
        try:
            _require_scenes(self._localizer.scenes, scene, tuple(filter(None, allowed)))
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
        warnings += self._trouble_with_scenes() + self._trouble_with_time()
        if localizer is not None and localizer.engine_trouble:
            warnings.append(localizer.engine_trouble)
        status = NodeStatus(
            name=self.get_fully_qualified_name(),
            state=self.state,
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
        mismatches = self._qos.found
        status.cameras = tuple(self._camera_statuses(mismatches))
        images = {camera.topic for camera in self._cameras}
        others = [text for topic in mismatches.keys() - images for text in mismatches[topic]]
        status.warnings += tuple(sorted(others))
        if self._robot is not None:
            status.pose_of = self._robot.base_frame if self._robot.mounted else "camera"
        message = self._report.message(status, time.monotonic())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _trouble_with_scenes(self) -> list[str]:
        allowed = allowed_scenes(self) if self._localizer is not None else None
        if self._localizer is None or allowed is None:
            return []
        gone = sorted(allowed - {info.name for info in self._localizer.scenes})
        return [f"allowed_scenes: {name!r} is not in the bank; set it anew" for name in gone]

    def _trouble_with_time(self) -> list[str]:
        if self.get_clock().now().nanoseconds:
            return []
        return [
            "use_sim_time is set, but /clock says nothing: play the bag with --clock, start the "
            "simulator, or set use_sim_time to false"
        ]

    def _camera_statuses(self, mismatches: Mapping[str, Sequence[str]]) -> Iterator[CameraStatus]:
        counts = self._worker.counts()
        for number, config in enumerate(self._configs):
            status = CameraStatus(config.name, counts[number])
            if self._cameras:
                camera = self._cameras[number]
                status.source = image_source(self, camera.topic, camera.message_type)
                status.camera_info = camera.camera_in_use
                status.mismatches = tuple(mismatches.get(camera.topic, ()))
                if self._frames is not None:
                    status.clock = self._frames.clock(number)
            yield status


def _require_scenes(scenes: Sequence[SceneInfo], scene: str, allowed: Collection[str]) -> None:
    names = {info.name: None for info in scenes}
    for parameter, name in (("scene", scene), *(("allowed_scenes", one) for one in allowed)):
        if name and name not in names:
            has = listing(list(names))
            raise ConfigError(f"parameter {parameter}: {name!r} is not in the bank; it has {has}")
    if scene and allowed and scene not in allowed:
        raise ConfigError(
            f"parameter scene: {scene!r} is none of allowed_scenes ({listing(sorted(allowed))}); "
            "allow it as well, or leave the other parameter empty"
        )
