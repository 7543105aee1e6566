# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One walk through a bag for all but its pixels: when images were taken, cameras, poses, TF."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.serde import SerdeError

from mspn_ros.datasets.bag_messages import (
    POSE_TYPES,
    BagCamera,
    pose_numbers,
    ros2_types,
    stamp_ns_of,
)
from mspn_ros.datasets.bag_poses import Edge, FrameGraph, PoseTopic
from mspn_ros.datasets.bags import BagReader
from mspn_ros.datasets.camera_info import (
    CAMERA_INFO,
    camera_info_topic,
    intrinsics_of,
    is_rectified,
)
from mspn_ros.datasets.trajectory import Trajectory
from mspn_ros.mounting import RigidTransform
from mspn_ros.records import BagError, Pose, listing

TF_MESSAGE = "tf2_msgs/msg/TFMessage"
# What --pose-topic takes for poses by TF alone.
TF = "tf"
_MOST_METADATA = 1_000_000


@dataclass(slots=True)
class Samples:
    """Poses as they come: 16 numbers' worth of memory a sample, not a list of objects."""

    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    delays_s: array[float] = field(default_factory=lambda: array("d"))

    def add(self, stamp_ns: int, log_time_ns: int, numbers: Sequence[float]) -> None:
        """One pose: x, y, z, qx, qy, qz, qw."""
        self.stamps_ns.append(stamp_ns)
        self.numbers.extend(numbers)
        self.delays_s.append((log_time_ns - stamp_ns) / 1e9)

    def trajectory(self) -> Trajectory:
        """In the order of time, without what is unusable."""
        rows_N7 = np.frombuffer(self.numbers, np.float64).reshape(-1, 7)
        stamps = np.frombuffer(self.stamps_ns, np.int64)
        return Trajectory.from_samples(stamps, rows_N7[:, :3], rows_N7[:, 3:])


@dataclass(slots=True)
class BagScan:
    """What a bag has; images in the order in which they were logged."""

    image_stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    image_times_ns: array[int] = field(default_factory=lambda: array("q"))
    image_frames: Counter[str] = field(default_factory=Counter)
    unstamped: int = 0
    damaged: Counter[str] = field(default_factory=Counter)
    cameras: list[BagCamera] = field(default_factory=list)
    camera_trouble: str = ""
    # (parent, child) -> samples; of the pose topic and of TF.
    poses: dict[tuple[str, str], Samples] = field(default_factory=dict)
    moving: dict[tuple[str, str], Samples] = field(default_factory=dict)
    fixed: dict[tuple[str, str], Samples] = field(default_factory=dict)

    def graph(self) -> FrameGraph:
        """The frames that TF connects; transforms without one usable sample are none."""
        graph = FrameGraph()
        for (parent, child), samples in self.fixed.items():
            found = samples.trajectory()
            if len(found.stamps_ns):
                pose = Pose(found.positions[-1], found.quaternions[-1])
                graph.add(Edge(parent, child, fixed=RigidTransform.of_pose(pose)))
        for (parent, child), samples in self.moving.items():
            graph.add(Edge(parent, child, moving=samples.trajectory()))
        return graph

    def delay_s(self, samples: Sequence[Samples]) -> tuple[float, float] | None:
        """Medians of how long after their stamps images and poses were received."""
        delays = [np.frombuffer(one.delays_s, np.float64) for one in samples if one.delays_s]
        if not delays or not self.image_times_ns:
            return None
        stamps, times = np.array(self.image_stamps_ns), np.array(self.image_times_ns)
        return float(np.median(times - stamps)) / 1e9, float(np.median(np.concatenate(delays)))


def choose_pose_topic(bag: BagReader, named: str | None) -> str | None:
    """The topic of the poses; None where TF alone has them.

    Raises:
        BagError: there is none, or it could be several.
    """
    found, tf = bag.topics(POSE_TYPES), bag.topics((TF_MESSAGE,))
    moving = [topic for topic in tf if not topic.endswith("tf_static")]
    choices = [*map(repr, found), *(["'tf' (TF)"] if moving else [])]
    if named == TF:
        if moving:
            return None
        raise BagError(f"{bag.path}: no messages on /tf; poses are on {listing(choices)}")
    if named is not None and named not in found:
        raise BagError(
            f"{bag.path}: no poses on {named!r}; they are on {listing(choices)}. Pass --pose-topic."
        )
    if named is None and not choices:
        raise BagError(
            f"{bag.path}: no poses: neither a topic of {', '.join(POSE_TYPES)} nor /tf. Record one"
        )
    if named is None and len(choices) > 1:
        raise BagError(
            f"{bag.path}: poses are on {listing(choices)}; pass --pose-topic with the one that "
            "says where the robot is in its map (odometry drifts)"
        )
    return named or next(iter(found), None)


def scan_bag(
    bag: BagReader, pose_topic: str | None, camera_topic: str | None, by_receipt: bool
) -> BagScan:
    """Read all but the pixels; with ``by_receipt`` times of receipt stand for headers' stamps.

    Raises:
        BagError: the file is damaged.
    """
    camera_topic = camera_topic or camera_info_topic("auto", bag.image_topic)
    tf = bag.topics((TF_MESSAGE,))
    topics = {bag.image_topic, camera_topic, *tf} | ({pose_topic} if pose_topic else set())
    scan = BagScan()
    rectified = is_rectified(bag.image_topic)
    for topic, msgtype, log_time_ns, cdr in bag.messages(topics):
        try:
            message = ros2_types().deserialize_cdr(cdr, msgtype)
        except (SerdeError, KeyError) as error:
            scan.damaged[topic] += 1
            if topic == bag.image_topic:
                # It keeps its place, since images are found again by their order.
                scan.image_stamps_ns.append(-1)
                scan.image_times_ns.append(log_time_ns)
            elif topic == camera_topic:
                scan.camera_trouble = str(error)
            continue
        if topic == bag.image_topic:
            _take_image(scan, message, log_time_ns, by_receipt)
        elif topic == camera_topic and msgtype == CAMERA_INFO:
            _take_camera(scan, message, log_time_ns, cdr, rectified)
        elif topic == pose_topic:
            child = str(getattr(message, "child_frame_id", ""))
            numbers = pose_numbers(message, msgtype)
            _take_pose(scan.poses, message.header, child, numbers, log_time_ns, by_receipt)
        elif topic in tf:
            edges = scan.fixed if topic.endswith("tf_static") else scan.moving
            for one in message.transforms:
                numbers = pose_numbers(one, "geometry_msgs/msg/TransformStamped")
                child = str(one.child_frame_id)
                _take_pose(edges, one.header, child, numbers, log_time_ns, by_receipt)
    return scan


def _take_image(scan: BagScan, message: Any, log_time_ns: int, by_receipt: bool) -> None:
    stamp_ns = stamp_ns_of(message.header)
    scan.unstamped += stamp_ns == 0
    scan.image_stamps_ns.append(log_time_ns if by_receipt or stamp_ns == 0 else stamp_ns)
    scan.image_times_ns.append(log_time_ns)
    scan.image_frames[_frame(message.header.frame_id)] += 1


def _take_camera(
    scan: BagScan, message: Any, log_time_ns: int, cdr: bytes, rectified: bool
) -> None:
    try:
        camera = intrinsics_of(message, rectified)
    except ValueError as error:
        scan.camera_trouble = str(error)
        return
    if not scan.cameras or scan.cameras[-1].intrinsics != camera:
        scan.cameras.append(BagCamera(log_time_ns, camera, cdr))


def _take_pose(
    edges: dict[tuple[str, str], Samples],
    header: Any,
    child: str,
    numbers: Sequence[float],
    log_time_ns: int,
    by_receipt: bool,
) -> None:
    stamp_ns = log_time_ns if by_receipt else stamp_ns_of(header) or log_time_ns
    key = _frame(header.frame_id), _frame(child)
    edges.setdefault(key, Samples()).add(stamp_ns, log_time_ns, numbers)


def _frame(name: str) -> str:
    """A frame's name; ROS 1 began them with a slash."""
    return str(name).removeprefix("/")


def pose_topic_of(place: Path, topic: str, scan: BagScan, world: str | None) -> PoseTopic:
    """The trajectory on a pose topic.

    Raises:
        BagError: its poses are in several frames, or of several bodies.
    """
    found = scan.poses
    if len(found) > 1 and world is not None:
        found = {key: samples for key, samples in found.items() if key[0] == world} or found
    if not found:
        raise BagError(f"{place}: no pose on {topic!r} can be read; check what was recorded")
    if len(found) > 1:
        names = listing([f"{child!r} in {parent!r}" for parent, child in found])
        raise BagError(
            f"{place}: {topic!r} has poses of {names}; pass --world-frame with one of these "
            "frames, or record one body on a topic of its own"
        )
    (parent, child), samples = next(iter(found.items()))
    return PoseTopic(topic, parent, child, samples.trajectory())


def what_was_recorded(bag: Path) -> str:
    """What metadata.yaml says a damaged bag had, in words; "" where there is none."""
    path = bag / "metadata.yaml"
    try:
        text = path.read_text(errors="replace")[:_MOST_METADATA]
    except OSError:
        return ""
    count = re.search(r"^ +message_count: ([0-9]{1,12})$", text, re.MULTILINE)
    length = re.search(r"duration:\s+nanoseconds: ([0-9]{1,19})\b", text)
    if count is None or length is None:
        return ""
    return f" of {count[1]} messages and {int(length[1]) / 1e9:.1f} s recorded"
