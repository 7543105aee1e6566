# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images and ground truth from rosbags without ROS: ROS 2 (mcap, db3) and ROS 1 (.bag).

Messages are read by the definitions that rosbags ships, never by those inside the bag: reading
the latter would run code generated from a stranger's text, and the types used here have been the
same in every ROS 2 release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.serde import SerdeError

from mspn_ros.datasets.bag_messages import (
    IMAGE_TYPES,
    POSE_TYPES,
    BagCamera,
    BagImage,
    pose_numbers,
    ros2_types,
    stamp_ns_of,
)
from mspn_ros.datasets.bag_salvage import Loss, SalvagedBag, has_log
from mspn_ros.datasets.base import natural_key
from mspn_ros.datasets.camera_info import (
    CAMERA_INFO,
    camera_info_topic,
    intrinsics_of,
    is_rectified,
)
from mspn_ros.datasets.trajectory import Trajectory
from mspn_ros.records import BagError

# What to pass as pose topic where a bag has several and none is ground truth.
NO_POSE_TOPIC = "none"

_STORAGE_SUFFIXES = (".mcap", ".db3")


class BagReader:
    """A bag opened for its images and ground truth; a context manager.

    ``path`` is a ROS 2 bag folder, one .mcap or .db3 file, or a ROS 1 .bag. A folder that lost
    its metadata.yaml (the recorder was killed) is read by its one storage file.

    Without ``image_topic`` the bag must have one topic with images. Without ``pose_topic``,
    its one topic of POSE_TYPES is taken; with none of them, or ``pose_topic="none"``, the
    attribute is None and there is no ground truth.

    With ``salvage``, what can be read of a damaged ROS 2 bag is read, and ``losses`` says what
    could not; damage in the midst of a file is found when it is read, and passed over where
    ``damaged`` says that it is there.

    Attributes: ``image_topic``, ``pose_topic``, ``image_count``, ``message_count``, ``duration_s``,
    ``losses``.

    Raises:
        BagError: no such bag, unreadable, no images, unknown or ambiguous topic.
    """

    def __init__(
        self,
        path: Path,
        image_topic: str | None = None,
        pose_topic: str | None = None,
        *,
        salvage: bool = False,
        damaged: bool = False,
    ) -> None:
        self.path = path
        self.losses: list[Loss] = []
        self._ros1 = False
        self._reader: Any = self._open(salvage, damaged)
        try:
            with _readable(path):
                images = self._topics(IMAGE_TYPES)
                poses = self._topics(POSE_TYPES)
                self.duration_s = self._reader.duration / 1e9
            self.image_topic = self._choose_image_topic(images, image_topic)
            self.pose_topic = self._choose_pose_topic(poses, pose_topic)
        except BagError:
            self.close()
            raise
        self._images = images[self.image_topic]
        self._poses = poses[self.pose_topic] if self.pose_topic else []
        self.message_count: int = sum(c.msgcount for c in self._reader.connections)
        self.image_count: int = sum(connection.msgcount for connection in self._images)

    def _open(self, salvage: bool, damaged: bool) -> Any:
        files = _storage_files(self.path) if salvage else []
        try:
            with _readable(self.path):
                source = _find_source(self.path)
                self._ros1 = source.suffix == ".bag"
                reader: Any = Ros1Reader(source) if self._ros1 else Ros2Reader(source)
                reader.open()
            # rosbags passes over SQLite's log and does not look at chunks before they are read.
            if not (files and damaged) and not any(map(has_log, files)):
                return reader
            reader.close()
        except BagError:
            if not files:
                raise
        with _readable(self.path):
            salvaged = SalvagedBag(self.path, files)
        self.losses = salvaged.losses
        return salvaged

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def images(self) -> Iterator[BagImage]:
        """Yield the image messages in the order they were logged, one chunk of them in memory.

        A message that cannot be read is yielded too, so that it is counted; its ``decode``
        raises.

        Raises:
            BagError: the file is damaged.
        """
        for msgtype, log_time_ns, cdr in self._messages(self._images):
            try:
                header = ros2_types().deserialize_cdr(cdr, msgtype).header
            except SerdeError:
                yield BagImage(log_time_ns, log_time_ns, msgtype, cdr, "")
                continue
            yield BagImage(
                stamp_ns_of(header) or log_time_ns, log_time_ns, msgtype, cdr, header.frame_id
            )

    def cameras(self) -> list[BagCamera]:
        """What the topic ``camera_info`` beside the images says, once for each change.

        A message that makes no usable camera is left out.

        Raises:
            BagError: the file is damaged.
        """
        topic = camera_info_topic("auto", self.image_topic)
        rectified, found = is_rectified(self.image_topic), list[BagCamera]()
        connections = self._topics((CAMERA_INFO,)).get(topic, [])
        for msgtype, log_time_ns, cdr in self._messages(connections):
            try:
                camera = intrinsics_of(ros2_types().deserialize_cdr(cdr, msgtype), rectified)
            except (SerdeError, ValueError):
                continue
            if not found or found[-1].intrinsics != camera:
                found.append(BagCamera(log_time_ns, camera, cdr))
        return found

    def ground_truth(self) -> dict[str, Trajectory]:
        """The pose topic's trajectories by header.frame_id; empty without a pose topic.

        Stamps are the headers', or the log times where a header has none (0).

        Raises:
            BagError: the file or a pose message is damaged.
        """
        samples: dict[str, list[tuple[int, tuple[float, ...]]]] = {}
        for msgtype, log_time_ns, cdr in self._messages(self._poses):
            with _readable(self.path):
                message = ros2_types().deserialize_cdr(cdr, msgtype)
            stamp_ns = stamp_ns_of(message.header) or log_time_ns
            samples.setdefault(message.header.frame_id, []).append(
                (stamp_ns, pose_numbers(message, msgtype))
            )
        trajectories = {}
        for frame_id, rows in samples.items():
            numbers_N7 = np.array([numbers for _, numbers in rows])
            with _readable(self.path):  # a forged log time may not fit
                stamps = np.array([stamp_ns for stamp_ns, _ in rows], np.int64)
            trajectories[frame_id] = Trajectory.from_samples(
                stamps, numbers_N7[:, :3], numbers_N7[:, 3:]
            )
        return trajectories

    def topics(self, msgtypes: Iterable[str]) -> dict[str, str]:
        """Topic -> type of the topics of these types that have messages."""
        return {name: found[0].msgtype for name, found in self._topics(msgtypes).items()}

    def messages(self, topics: Iterable[str]) -> Iterator[tuple[str, str, int, bytes]]:
        """(topic, ROS 2 type name, log time in ns, CDR) of each message on ``topics``.

        In the order of log times, topics together: one walk through the file.

        Raises:
            BagError: the file is damaged.
        """
        wanted = set(topics)
        chosen = [c for c in self._reader.connections if c.topic in wanted and c.msgcount]
        yield from self._walk(chosen)

    def _topics(self, msgtypes: Iterable[str]) -> dict[str, list[Any]]:
        """Connections (a topic may have several publishers) by topic, those with messages."""
        topics: dict[str, list[Any]] = {}
        for connection in self._reader.connections:
            if connection.msgtype in msgtypes and connection.msgcount:
                topics.setdefault(connection.topic, []).append(connection)
        return dict(sorted(topics.items()))

    def _choose_image_topic(self, images: dict[str, list[Any]], named: str | None) -> str:
        if not images:
            raise BagError(
                f"{self.path}: no images; its topics are {self._list_all()}. Record a topic of "
                f"type {' or '.join(IMAGE_TYPES)}."
            )
        if named is None and len(images) > 1:
            raise BagError(
                f"{self.path}: images are on several topics, {_list(images)}. Pass --image-topic."
            )
        return self._choose(images, named, "images are", "--image-topic")

    def _choose_pose_topic(self, poses: dict[str, list[Any]], named: str | None) -> str | None:
        if named == NO_POSE_TOPIC or (named is None and not poses):
            return None
        if named is None and len(poses) > 1:
            raise BagError(
                f"{self.path}: poses are on several topics, {_list(poses)}. Pass --pose-topic "
                f"with the one that is ground truth, or '{NO_POSE_TOPIC}'."
            )
        return self._choose(poses, named, "poses are", "--pose-topic")

    def _choose(
        self, topics: dict[str, list[Any]], named: str | None, what: str, option: str
    ) -> str:
        if named is None:
            return next(iter(topics))
        if named in topics:
            return named
        types = {c.msgtype for c in self._reader.connections if c.topic == named}
        problem = f"topic {named!r} is {', '.join(types)}" if types else f"no topic {named!r}"
        if types & {*IMAGE_TYPES, *POSE_TYPES}:
            problem += " and has no such messages"
        raise BagError(f"{self.path}: {problem}; {what} on {_list(topics)}. Pass {option}.")

    def _list_all(self) -> str:
        topics = {c.topic: [c] for c in self._reader.connections if c.msgcount}
        return _list(topics)

    def _messages(self, connections: list[Any]) -> Iterator[tuple[str, int, bytes]]:
        """(ROS 2 type name, log time in ns, CDR) of each message, in the order of log times."""
        for _, msgtype, log_time_ns, cdr in self._walk(connections):
            yield msgtype, log_time_ns, cdr

    def _walk(self, connections: list[Any]) -> Iterator[tuple[str, str, int, bytes]]:
        if not connections:
            return
        messages = self._reader.messages(connections)
        while True:
            with _readable(self.path):
                item = next(messages, None)
                if item is None:
                    return
                connection, log_time_ns, data = item
                if self._ros1:
                    data = _ros1_to_cdr(data, connection.msgtype)
            yield connection.topic, connection.msgtype, log_time_ns, bytes(data)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever reading a strange file raises into one BagError.

    Exception, since rosbags parses damaged bytes with bare struct, assert, ord and dictionaries;
    little but calls of rosbags stands under this.
    """
    try:
        yield
    except BagError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BagError(
            f"{path}: cannot be read as a bag ({reason}); it is damaged, cut off or of an "
            "unsupported kind. Copy it anew, or repair it with 'ros2 bag reindex', "
            "'mcap recover' or 'rosbag reindex'."
        ) from error


def _storage_files(path: Path) -> list[Path]:
    """The MCAP or SQLite files of a ROS 2 bag, in the order in which they were written."""
    if path.is_file() and path.suffix in _STORAGE_SUFFIXES:
        return [path]
    if not path.is_dir():
        return []
    found = [p for p in path.iterdir() if p.suffix in _STORAGE_SUFFIXES and p.is_file()]
    return sorted(found, key=lambda p: natural_key(p.name))


def _find_source(path: Path) -> Path:
    """What rosbags opens for a user's path."""
    if not path.exists():
        raise BagError(f"{path}: no such file or folder; check the path of the bag")
    if path.is_dir():
        if (path / "metadata.yaml").exists():
            return path
        files = sorted(p for p in path.iterdir() if p.suffix in _STORAGE_SUFFIXES)
        if len(files) == 1:
            return files[0]
        raise BagError(
            f"{path}: no ROS 2 bag (no metadata.yaml, and {len(files)} .mcap or .db3 files). "
            "Name a bag folder or one file, or run 'ros2 bag reindex'."
        )
    if path.suffix not in (*_STORAGE_SUFFIXES, ".bag"):
        raise BagError(
            f"{path}: {path.suffix or 'no suffix'} is no bag; name a ROS 2 bag folder, an .mcap, "
            "a .db3 or a ROS 1 .bag file"
        )
    return path


def _list(topics: dict[str, list[Any]]) -> str:
    # repr, since names in a strange bag may hold line breaks and terminal codes.
    names = [f"{topic!r} ({connections[0].msgtype})" for topic, connections in topics.items()]
    return f"[{', '.join(names)}]"


def _ros1_to_cdr(data: bytes, msgtype: str) -> bytes:
    """ROS 2's bytes of a ROS 1 message; none of a damaged one, which then fails like any other."""
    try:
        return bytes(ros2_types().ros1_to_cdr(data, msgtype))
    except SerdeError:
        return b""
