# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The frames of one turn after the other: from serialized images to published answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from mspn_ros.inference.engine_recovery import reason_of
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.scene_filter import SceneFilter
from mspn_ros.node.best_answer import Answered, BestAnswer
from mspn_ros.node.camera_info import CameraListener
from mspn_ros.node.cameras import Camera
from mspn_ros.node.declared_parameters import allowed_scenes, read_parameter
from mspn_ros.node.messages import (
    decode_image,
    pose_is_finite,
    read_message,
    rejection_cause,
    stamp_to_ns,
)
from mspn_ros.node.outputs import Outputs
from mspn_ros.node.robot_pose import RobotPose
from mspn_ros.node.stamps import JUMP_S, ClockOffset, StampOrder, staleness
from mspn_ros.node.worker import Milestones
from mspn_ros.records import ImageHW3, Intrinsics, PoseEstimate, RosError


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A frame of camera number ``camera``; its place in the turn."""

    place: int
    camera: int
    header: Any
    image: ImageHW3

    @property
    def stamp_ns(self) -> int:
        return stamp_to_ns(self.header.stamp)


class StaleError(RosError):
    """A frame that would give a stale pose; ``cause`` is the one under which it is counted."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class Frames:
    """Answers the frames of a node's cameras, on the worker's thread.

    ``scene`` is that of the last answer which spoke for the robot. ``log`` gets warnings, with a
    key for each kind of trouble.
    """

    def __init__(
        self,
        node: Any,
        localizer: Localizer,
        outputs: Outputs,
        robot: RobotPose,
        log: Callable[[str, str], None],
    ) -> None:
        self._node, self._localizer, self._outputs, self._log = node, localizer, outputs, log
        self._robot = robot
        self._cameras: Sequence[Camera] = ()
        self._best = BestAnswer()
        self._filter, self._filtered_s = SceneFilter(0.0), 0.0
        self._unscaled: set[str] = set()
        self._orders: tuple[StampOrder, ...] = ()
        self._offsets: tuple[ClockOffset, ...] = ()
        # Counts the times that frames were taken from cameras; changes when that ends.
        self._term, self._anew = 0, True
        self.scene = ""

    def begin(self, cameras: Sequence[Camera]) -> None:
        """Frames come from these cameras from now on; the worker knows them by number."""
        self._cameras = tuple(cameras)
        self._offsets = tuple(ClockOffset() for _ in cameras)
        self.restart()
        # The first message of a type takes 0.2 s to read: let it be this one.
        for message_type in {camera.message_type for camera in cameras}:
            read_message(serialize_message(message_type()), message_type)
        self.renew()

    def end(self) -> None:
        """What is in progress is not published any more."""
        self._term += 1

    def restart(self) -> None:
        """Frames of before say nothing of those to come: time has jumped. From any thread."""
        self._anew = True

    def renew(self) -> None:
        """Other scenes are in service; for the thread that makes subscriptions."""
        self._unscaled = set()
        # A model that does not read cameras neither listens nor complains of what they say.
        if self._localizer.reads_cameras:
            for camera in self._cameras:
                camera.listen()

    def clock(self, camera: int) -> ClockOffset:
        """Of the camera of that number: what its stamps say of its clock."""
        return self._offsets[camera]

    @property
    def warnings(self) -> list[str]:
        """What is to be said as long as it is so."""
        texts = [_unscaled_text(name) for name in sorted(self._unscaled)]
        listeners = [camera.listener for camera in self._cameras if camera.listener is not None]
        texts += [_camera_trouble(one) for one in listeners if one.trouble]
        return texts + self._robot.warnings

    def process(self, taken: Sequence[tuple[int, bytes]]) -> list[Milestones | str]:
        """Answer one frame of each of some cameras: (camera, serialized message).

        Of each, in order: its milestones, or the cause why it was rejected.
        """
        term = self._term
        if self._anew:
            self._begin_anew()
        done: dict[int, Milestones | str] = {}
        decoded = []
        for place, (camera, serialized) in enumerate(taken):
            frame = self._decode(place, camera, serialized)
            if isinstance(frame, str):
                done[place] = frame
            else:
                decoded.append(frame)
        decoded_s = time.monotonic()
        estimates = self._estimates(decoded, done)
        localized_s = time.monotonic()
        if term != self._term:
            # The node was deactivated meanwhile; active again, it would give an old answer as new.
            return ["inactive"] * len(taken)
        self._drop_stale([frame for frame in decoded if frame.place in estimates], estimates, done)
        self._publish([frame for frame in decoded if frame.place in estimates], estimates)
        for place in estimates:
            done[place] = Milestones(decoded_s, localized_s)
        return [done[place] for place in range(len(taken))]

    def _decode(self, place: int, number: int, serialized: bytes) -> _Decoded | str:
        camera = self._cameras[number]
        header, cause = Header(), "malformed_message"
        try:
            message = read_message(serialized, camera.message_type)
            header = message.header
            self._check_time(number, stamp_to_ns(header.stamp))
            cause = rejection_cause(message)
            image = decode_image(message, partial(self._least_size, camera))
        except StaleError as error:
            return self._reject(camera, header, error.cause, error)
        except MemoryError:
            trouble = RosError(
                "no memory is left to decode it; give the node more, or smaller images"
            )
            return self._reject(camera, header, "out_of_memory", trouble)
        # Everything, since whatever a stranger sends must not end the node.
        except Exception as error:
            return self._reject(camera, header, cause, error)
        return _Decoded(place, number, header, image)

    def _begin_anew(self) -> None:
        self._anew = False
        self._forget()
        self._orders = tuple(StampOrder() for _ in self._cameras)

    def _forget(self) -> None:
        """What answers of before say of those to come."""
        self._best, self._filter, self._filtered_s = BestAnswer(), SceneFilter(0.0), 0.0

    def _check_time(self, number: int, stamp_ns: int) -> None:
        """Raise StaleError for a frame that would give a stale pose."""
        now_ns = self._node.get_clock().now().nanoseconds
        self._offsets[number].take(stamp_ns, now_ns)
        order = self._orders[number].judge(stamp_ns, time.monotonic())
        if order == "late":
            raise StaleError("late", "a newer image of this camera came before it")
        if order == "anew":
            self._forget()
        if stale := staleness(stamp_ns, now_ns, read_parameter(self._node, "max_age")):
            raise StaleError("stale", stale)

    def _drop_stale(
        self,
        decoded: Sequence[_Decoded],
        estimates: dict[int, PoseEstimate],
        done: dict[int, Milestones | str],
    ) -> None:
        """Take out what has become too old while it was localized."""
        now_ns = self._node.get_clock().now().nanoseconds
        most_s = read_parameter(self._node, "max_age")
        for frame in decoded:
            if stale := staleness(frame.stamp_ns, now_ns, most_s):
                camera, trouble = self._cameras[frame.camera], StaleError("stale", stale)
                done[frame.place] = self._reject(camera, frame.header, trouble.cause, trouble)
                del estimates[frame.place]

    def _estimates(
        self, decoded: Sequence[_Decoded], done: dict[int, Milestones | str]
    ) -> dict[int, PoseEstimate]:
        """By place in the turn; what fails goes into ``done``."""
        try:
            estimates = self._localize(decoded) if decoded else []
        # Everything, since a driver may raise anything (out of GPU memory): the node goes on.
        except Exception as error:
            if len(decoded) > 1:
                # One image must not cost the others their answers.
                alone: dict[int, PoseEstimate] = {}
                for frame in decoded:
                    alone |= self._estimates([frame], done)
                return alone
            [frame] = decoded
            camera = self._cameras[frame.camera]
            done[frame.place] = self._reject(camera, frame.header, "inference_error", error)
            return {}
        found = {}
        for frame, estimate in zip(decoded, estimates, strict=True):
            if estimate.known and not pose_is_finite(estimate):
                trouble = RosError(f"scene {estimate.scene!r} gave a pose with NaN; train it anew")
                camera = self._cameras[frame.camera]
                done[frame.place] = self._reject(camera, frame.header, "non_finite_pose", trouble)
            else:
                found[frame.place] = estimate
        return found

    def _localize(self, decoded: Sequence[_Decoded]) -> list[PoseEstimate]:
        scene = read_parameter(self._node, "scene")
        minimum = read_parameter(self._node, "min_confidence")
        stay_s = read_parameter(self._node, "scene_filter")
        allowed = allowed_scenes(self._node)
        if stay_s != self._filter.stay_s or scene:
            self._filter = SceneFilter(stay_s)
        scenes = len(self._localizer.rows) if allowed is None else len(allowed)
        stamp_s = self._turn_stamp_s(decoded)
        estimates = self._localizer.localize(
            [frame.image for frame in decoded],
            scene=scene or None,
            min_confidence=minimum if minimum >= 0 else None,
            cameras=[self._intrinsics(frame, scene or None) for frame in decoded],
            prior=self._filter.prior(stamp_s, scenes),
            min_margin=read_parameter(self._node, "min_margin"),
            allowed=allowed,
        )
        # The robot is in one place: the camera that is surest of it speaks for the turn.
        surest = max(estimates, key=lambda estimate: estimate.confidence)
        self._filter.take(stamp_s, surest.probabilities)
        self._filtered_s = stamp_s
        return estimates

    def _turn_stamp_s(self, decoded: Sequence[_Decoded]) -> float:
        """For the filter: of the newest frame.

        And later than the turn's before, if that was of other cameras.
        """
        stamp_s = max(frame.stamp_ns for frame in decoded) / 1e9
        if len(self._cameras) > 1 and 0 <= self._filtered_s - stamp_s < JUMP_S:
            return self._filtered_s + 1e-3
        return stamp_s

    def _publish(self, decoded: Sequence[_Decoded], estimates: dict[int, PoseEstimate]) -> None:
        axes = read_parameter(self._node, "pose_axes")
        answered = []
        for frame in decoded:
            camera, estimate = self._cameras[frame.camera], estimates[frame.place]
            scale = self._metres_per_unit(estimate)
            robot = self._robot.estimate(frame.camera, frame.header, estimate)
            self._outputs.publish_answer(
                frame.header, camera.label, estimate, scale, axes, robot.reason
            )
            self._robot.hear(camera.label, frame.header, robot)
            answered.append(Answered(frame.camera, frame.stamp_ns, robot))
        best = self._best.choose(answered, time.monotonic())
        if best is not None:
            header = next(frame.header for frame in decoded if frame.camera == best.camera)
            scale = self._metres_per_unit(best.estimate)
            self.scene = best.estimate.scene
            # base_frame's axes are its own.
            axes = "optical" if self._robot.mounted else axes
            self._outputs.publish_best(header, best.estimate, scale, axes)
            self._robot.broadcast(header, best.estimate)

    def _least_size(self, camera: Camera, height: int, width: int) -> tuple[int, int]:
        """In which an encoded image of this size is needed."""
        listener = camera.listener
        intrinsics = listener.camera(height, width) if listener is not None else None
        scene = read_parameter(self._node, "scene") or None
        return self._localizer.least_size(height, width, intrinsics, scene)

    def _intrinsics(self, frame: _Decoded, scene: str | None) -> Intrinsics | None:
        camera = self._cameras[frame.camera]
        listener, (height, width) = camera.listener, frame.image.shape[:2]
        intrinsics = listener.camera(height, width) if listener is not None else None
        if listener is not None and listener.trouble:
            self._log(f"camera_info {listener.topic}", _camera_trouble(listener))
        found = self._localizer.field_of_view(intrinsics, height, width, scene)
        if found.text != camera.field_of_view:
            camera.field_of_view = found.text
            if found.differs:
                self._log(f"field of view {camera.label}", f"{camera.label}: {found.text}")
        return intrinsics

    def _metres_per_unit(self, estimate: PoseEstimate) -> float:
        if estimate.metres_per_unit is not None:
            return estimate.metres_per_unit
        if estimate.scene not in self._unscaled:
            self._unscaled.add(estimate.scene)
            self._log(f"unscaled {estimate.scene}", _unscaled_text(estimate.scene))
        return 1.0

    def _reject(self, camera: Camera, header: Any, cause: str, error: Exception) -> str:
        reason = reason_of(error)
        self._outputs.publish_rejection(header, camera.label, cause, reason)
        self._log(cause, f"frame on {camera.topic} rejected ({cause}): {reason}")
        return cause


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
