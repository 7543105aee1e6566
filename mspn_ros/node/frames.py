"""One frame after the other: from serialized images to published answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from mspn_ros.datasets.camera_info import camera_info_topic
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.scene_filter import SceneFilter
from mspn_ros.node.camera_info import CameraListener
from mspn_ros.node.messages import (
    decode_image,
    pose_is_finite,
    read_message,
    rejection_cause,
    stamp_to_ns,
)
from mspn_ros.node.outputs import Outputs, image_qos
from mspn_ros.node.parameters import read_parameter
from mspn_ros.node.worker import Milestones
from mspn_ros.records import ImageHW3, Intrinsics, MspnError, PoseEstimate, RosError


class Frames:
    """Answers the frames of one image topic, on the worker's thread.

    ``scene`` is the last answer's. ``log`` gets warnings, with a key for each kind of trouble.
    """

    def __init__(
        self, node: Any, localizer: Localizer, outputs: Outputs, log: Callable[[str, str], None]
    ) -> None:
        self._node, self._localizer, self._outputs, self._log = node, localizer, outputs, log
        self._message_type: Any = None
        self._camera = ""
        self._listener: CameraListener | None = None
        self._filter = SceneFilter(0.0)
        self._unscaled: set[str] = set()
        self.scene = ""

    def begin(self, message_type: Any, camera: str) -> None:
        """Frames are of this type and come from the topic ``camera`` from now on."""
        self._message_type, self._camera = message_type, camera
        self._filter = SceneFilter(0.0)
        # The first message of a type takes 0.2 s to read: let it be this one.
        read_message(serialize_message(message_type()), message_type)
        self.renew()

    def end(self) -> None:
        """Listen to no camera any more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def renew(self) -> None:
        """Other scenes are in service; for the thread that makes subscriptions."""
        self._unscaled = set()
        # A model that does not read cameras neither listens nor complains of what they say.
        if self._listener is None and self._localizer.reads_cameras:
            topic = read_parameter(self._node, "image_topic")
            beside = camera_info_topic(read_parameter(self._node, "camera_info_topic"), topic)
            self._listener = CameraListener(self._node, beside, topic, image_qos("best_effort"))

    @property
    def camera_in_use(self) -> str:
        """For diagnostics; empty where cameras are not read."""
        listener = self._listener
        return listener.in_use if listener is not None else ""

    @property
    def warnings(self) -> list[str]:
        """What is to be said as long as it is so."""
        texts = [_unscaled_text(name) for name in sorted(self._unscaled)]
        listener = self._listener
        if listener is not None and listener.trouble:
            texts.append(_camera_trouble(listener))
        return texts

    def process(self, serialized: bytes) -> Milestones | str:
        """Answer one frame; its milestones, or the cause why it was rejected."""
        header, cause = Header(), "malformed_message"
        try:
            message = read_message(serialized, self._message_type)
            header, cause = message.header, rejection_cause(message)
            image = decode_image(message, self._localizer.least_size)
            decoded_s, cause = time.monotonic(), "inference_error"
            estimate = self._localize(image, stamp_to_ns(header.stamp) / 1e9)
            localized_s = time.monotonic()
            if estimate.known and not pose_is_finite(estimate):
                cause = "non_finite_pose"
                raise RosError(f"scene {estimate.scene!r} gave a pose with NaN; train it anew")
        # Everything, since a driver may raise anything (out of GPU memory): the node goes on.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            if not isinstance(error, MspnError):
                reason = f"{type(error).__name__}: {reason}"
            self._outputs.publish_rejection(header, self._camera, cause, reason)
            self._log(cause, f"frame on {self._camera} rejected ({cause}): {reason}")
            return cause
        self.scene = estimate.scene
        scale = self._metres_per_unit(estimate)
        axes = read_parameter(self._node, "pose_axes")
        self._outputs.publish_estimate(header, self._camera, estimate, scale, axes)
        return Milestones(decoded_s, localized_s)

    def _localize(self, image: ImageHW3, stamp_s: float) -> PoseEstimate:
        scene = read_parameter(self._node, "scene")
        minimum = read_parameter(self._node, "min_confidence")
        stay_s = read_parameter(self._node, "scene_filter")
        if stay_s != self._filter.stay_s or scene:
            self._filter = SceneFilter(stay_s)
        [estimate] = self._localizer.localize(
            [image],
            scene=scene or None,
            min_confidence=minimum if minimum >= 0 else None,
            cameras=[self._intrinsics(image)],
            prior=self._filter.prior(stamp_s, len(self._localizer.rows)),
            min_margin=read_parameter(self._node, "min_margin"),
        )
        self._filter.take(stamp_s, estimate.probabilities)
        return estimate

    def _intrinsics(self, image: ImageHW3) -> Intrinsics | None:
        listener = self._listener
        if listener is None:
            return None
        camera = listener.camera(image.shape[0], image.shape[1])
        if listener.trouble:
            self._log("camera_info", _camera_trouble(listener))
        return camera

    def _metres_per_unit(self, estimate: PoseEstimate) -> float:
        if estimate.metres_per_unit is not None:
            return estimate.metres_per_unit
        if estimate.scene not in self._unscaled:
            self._unscaled.add(estimate.scene)
            self._log(f"unscaled {estimate.scene}", _unscaled_text(estimate.scene))
        return 1.0


def _camera_trouble(listener: CameraListener) -> str:
    return (
        f"{listener.topic} is not used: {listener.trouble}; the camera of the training frames "
        "stands in"
    )


def _unscaled_text(scene: str) -> str:
    return (
        f"scene {scene!r} has no known scale: its positions are in its own unit, not metres; "
        "set metres_per_unit when training it"
    )
