"""The localizer node: camera images in, the topics of the ROS interface out.

    mspn localize --model M
    ros2 run mspn_ros localize --ros-args -p model:=M -p image_topic:=/camera/image_raw

A lifecycle node, ``localizer`` in namespace ``mspn`` unless remapped, that brings itself up unless
``autostart`` is false.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from mspn_ros.datasets.camera_info import camera_info_topic
from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.model_watch import ModelWatch
from mspn_ros.inference.scene_filter import SceneFilter
from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.camera_info import CameraListener
from mspn_ros.node.diagnostics import DiagnosticsReport, NodeStatus, image_source
from mspn_ros.node.messages import decode_image, pose_is_finite, rejection_cause, stamp_to_ns
from mspn_ros.node.outputs import Outputs, image_qos
from mspn_ros.node.parameters import declare_parameters, read_parameter, warn_of_unknown_parameters
from mspn_ros.node.reloading import Reloading
from mspn_ros.node.worker import NewestFrameWorker
from mspn_ros.paths import package_file
from mspn_ros.records import (
    ConfigError,
    ImageHW3,
    Intrinsics,
    MspnError,
    PoseEstimate,
    RosError,
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
        self._subscription: Any = None
        self._message_type: Any = Image
        self._camera = ""
        self._cameras: CameraListener | None = None
        self._scene = ""
        self._filter = SceneFilter(0.0)
        self._unscaled: set[str] = set()
        self._logged_at_s: dict[str, float] = {}
        self._worker = NewestFrameWorker(self._process, self._log_bug)
        self._report = DiagnosticsReport()
        declare_parameters(self)
        warn_of_unknown_parameters(self)
        self.add_on_set_parameters_callback(self._check_scene)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady, so that the node speaks while simulated time stands still.
        self.create_timer(
            read_parameter(self, "diagnostics_period"),
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self.create_service(Trigger, "~/reload", self._on_reload)

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
        self._outputs = self._localizer = self._reloading = None

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
            localizer = Localizer.load(self._model_dir(), read_parameter(self, "device"))
            _require_scene(localizer.scenes, read_parameter(self, "scene"))
        except BaseException:
            watch.close()
            raise
        self._localizer = localizer
        self._outputs = Outputs(self)
        self._reloading = Reloading(self, localizer, watch, self._take_in)
        self.get_logger().info(
            f"{self._model_text()}: {len(localizer.scenes)} scenes, engine={localizer.engine} "
            f"({localizer.engine_reason})"
        )

    def _activate(self) -> None:
        assert self._outputs is not None
        assert self._localizer is not None
        topic, transport = read_parameter(self, "image_topic"), read_parameter(self, "transport")
        if transport == "auto":
            transport = "compressed" if topic.endswith("/compressed") else "raw"
        self._message_type = CompressedImage if transport == "compressed" else Image
        self._filter = SceneFilter(0.0)
        self._worker.start()
        # raw: rclpy would end the node over a message that cannot be deserialized, and an
        # overtaken frame need not be deserialized at all.
        self._subscription = self.create_subscription(
            self._message_type,
            topic,
            self._worker.submit,
            image_qos(read_parameter(self, "image_qos")),
            raw=True,
        )
        self._camera = self._subscription.topic_name
        self._listen_to_cameras()
        self._outputs.publish_catalogue(self._localizer.scenes)
        self.get_logger().info(f"active: {transport} images from {self._camera}")

    def _listen_to_cameras(self) -> None:
        """A model that does not read cameras neither listens nor complains of what they say."""
        reads = self._localizer is not None and self._localizer.reads_cameras
        if reads and self._cameras is None and self._subscription is not None:
            topic = read_parameter(self, "image_topic")
            beside = camera_info_topic(read_parameter(self, "camera_info_topic"), topic)
            self._cameras = CameraListener(self, beside, topic, image_qos("best_effort"))

    def _take_in(self) -> None:
        """Tell of the scenes that a reload has left in service; on the reload's thread, since a
        catalogue may be long. One that is not active tells when it is activated.
        """
        outputs, localizer, executor = self._outputs, self._localizer, self.executor
        if outputs is not None and localizer is not None and self._subscription is not None:
            outputs.publish_catalogue(localizer.scenes)
            if localizer.reads_cameras and self._cameras is None and executor is not None:
                # Subscriptions are the executor's.
                executor.create_task(self._listen_to_cameras)

    def _stop_frames(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._cameras is not None:
            self._cameras.close()
            self._cameras = None
        self._worker.stop()

    # Frames, on the worker's thread.

    def _process(self, serialized: bytes) -> str | None:
        localizer, outputs = self._localizer, self._outputs
        if localizer is None or outputs is None:
            return "inactive"
        header, cause = Header(), "malformed_message"
        try:
            message = deserialize_message(serialized, self._message_type)
            header, cause = message.header, rejection_cause(message)
            image = decode_image(message)
            cause = "inference_error"
            estimate = self._localize(localizer, image, stamp_to_ns(header.stamp) / 1e9)
            if estimate.known and not pose_is_finite(estimate):
                cause = "non_finite_pose"
                raise RosError(f"scene {estimate.scene!r} gave a pose with NaN; train it anew")
        # Everything, since a driver may raise anything (out of GPU memory): the node goes on.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            if not isinstance(error, MspnError):
                reason = f"{type(error).__name__}: {reason}"
            outputs.publish_rejection(header, self._camera, cause, reason)
            self._log_throttled(cause, f"frame on {self._camera} rejected ({cause}): {reason}")
            return cause
        self._scene = estimate.scene
        scale = self._metres_per_unit(estimate)
        axes = read_parameter(self, "pose_axes")
        outputs.publish_estimate(header, self._camera, estimate, scale, axes)
        return None

    def _localize(self, localizer: Localizer, image: ImageHW3, stamp_s: float) -> PoseEstimate:
        scene, minimum = read_parameter(self, "scene"), read_parameter(self, "min_confidence")
        stay_s = read_parameter(self, "scene_filter")
        if stay_s != self._filter.stay_s or scene:
            self._filter = SceneFilter(stay_s)
        [estimate] = localizer.localize(
            [image],
            scene=scene or None,
            min_confidence=minimum if minimum >= 0 else None,
            cameras=[self._intrinsics(image)],
            prior=self._filter.prior(stamp_s, len(localizer.rows)),
            min_margin=read_parameter(self, "min_margin"),
        )
        self._filter.take(stamp_s, estimate.probabilities)
        return estimate

    def _intrinsics(self, image: ImageHW3) -> Intrinsics | None:
        listener = self._cameras
        if listener is None:
            return None
        camera = listener.camera(image.shape[0], image.shape[1])
        if listener.trouble:
            self._log_throttled("camera_info", self._camera_trouble(listener))
        return camera

    def _camera_trouble(self, listener: CameraListener) -> str:
        return (
            f"{listener.topic} is not used: {listener.trouble}; the camera of the training frames "
            "stands in"
        )

    def _metres_per_unit(self, estimate: PoseEstimate) -> float:
        if estimate.metres_per_unit is not None:
            return estimate.metres_per_unit
        if estimate.scene not in self._unscaled:
            self._unscaled.add(estimate.scene)
            self.get_logger().warning(_unscaled_text(estimate.scene))
        return 1.0

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

    def _publish_diagnostics(self) -> None:
        localizer = self._localizer
        warnings = [_unscaled_text(name) for name in sorted(self._unscaled)]
        if localizer is not None and not read_parameter(self, "model"):
            warnings.append(f"{self._model_text()}; set the parameter model")
            self._log_throttled("demo", warnings[-1])
        listener = self._cameras
        if listener is not None and listener.trouble:
            warnings.append(self._camera_trouble(listener))
        status = NodeStatus(
            name=self.get_fully_qualified_name(),
            state=self._state_machine.current_state[1],
            model=str(self._model_dir()),
            scene=self._scene,
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
        if listener is not None:
            status.camera_info = listener.in_use
        if self._subscription is not None:
            reliable = read_parameter(self, "image_qos") == "reliable"
            status.source = image_source(self, self._camera, self._message_type, reliable)
        message = self._report.message(status, self._worker.counts(), time.monotonic())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _require_scene(scenes: Sequence[SceneInfo], name: str) -> None:
    names = [scene.name for scene in scenes]
    if name and name not in names:
        raise ConfigError(f"parameter scene: {name!r} is not in the bank; it has {listing(names)}")


def _unscaled_text(scene: str) -> str:
    return (
        f"scene {scene!r} has no known scale: its positions are in its own unit, not metres; "
        "set metres_per_unit when training it"
    )
