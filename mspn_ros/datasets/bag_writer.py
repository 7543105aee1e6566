# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write posed images as a rosbag without ROS: for the demo, for live replay, for sharing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_typestore

from mspn_ros.datasets.bag_messages import COMPRESSED_IMAGE, RAW_IMAGE, ros2_types
from mspn_ros.datasets.camera_info import CAMERA_INFO, camera_info_topic
from mspn_ros.images import read_image
from mspn_ros.records import BagError, Frame, ImageHW3, Intrinsics, Pose

IMAGE_TOPIC = "/camera/image_raw/compressed"
POSE_TOPIC = "/ground_truth/pose"
POSE_STAMPED = "geometry_msgs/msg/PoseStamped"
CAMERA_FRAME_ID = "camera_optical_frame"
START_NS = 1_700_000_000 * 10**9

Storage = Literal["mcap", "sqlite3"]

_STORAGE_OF_SUFFIX: dict[str, Storage] = {".mcap": "mcap", ".db3": "sqlite3"}
_FORMAT_OF_MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}


def write_bag(
    path: Path,
    frames: Sequence[Frame],
    *,
    rate_hz: float = 10.0,
    image_topic: str = IMAGE_TOPIC,
    pose_topic: str = POSE_TOPIC,
    start_ns: int = START_NS,
    scene_gap_s: float = 1.0,
    storage: Storage = "mcap",
    raw: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``frames``, in their order, as images, CameraInfo and PoseStamped ground truth.

    The kind follows ``path``: ``.bag`` is a ROS 1 bag, ``.mcap`` and ``.db3`` one ROS 2 storage
    file, anything else a ROS 2 bag folder of ``storage``. Images are CompressedImage with the
    file's JPEG or PNG bytes unchanged, or rgb8 Image if ``raw`` (``image_topic`` then loses
    image_transport's ending ``/compressed``); their frame_id is ``camera_optical_frame``. The
    camera goes to ``camera_info`` beside the images, where the dataset knows it. A pose has its
    image's stamp and its scene's name as frame_id. Stamps are those of
    :func:`frame_stamps_ns` and don't use ``Frame.stamp_s``. The same input gives the same bytes.
    ``progress(done, total)`` is called after each frame. Returns ``path``.

    Raises:
        BagError: ``path`` exists or cannot be written, no frames, a file is no JPEG or PNG.
        ImageError: with ``raw``, an image cannot be decoded.
    """
    if path.exists():
        raise BagError(f"{path}: exists already; name another path or remove it")
    if not frames:
        raise BagError(f"{path}: no frames to write; check the dataset and its split")
    stamps_ns = frame_stamps_ns(frames, rate_hz, start_ns, scene_gap_s)
    if image_topic == pose_topic:
        raise BagError(f"{path}: images and poses both on {pose_topic!r}; name two topics")
    if raw:
        image_topic = image_topic.removesuffix("/compressed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that a bag that broke off half-way never stands under its name.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bag-") as temporary:
            with _Recorder(Path(temporary), path, storage, image_topic, pose_topic, raw) as bag:
                for i, (frame, stamp_ns) in enumerate(zip(frames, stamps_ns, strict=True)):
                    bag.write(frame, stamp_ns)
                    if progress is not None:
                        progress(i + 1, len(frames))
            bag.written.rename(path)
    except OSError as error:
        raise BagError(f"{path}: cannot be written ({error}); check the folder") from error
    return path


def frame_stamps_ns(
    frames: Sequence[Frame],
    rate_hz: float = 10.0,
    start_ns: int = START_NS,
    scene_gap_s: float = 1.0,
) -> list[int]:
    """The stamp of each frame in ns.

    It is 1 / ``rate_hz`` after the last, or ``scene_gap_s`` after it where the scene changes.

    Raises:
        BagError: a rate, gap or start that makes no sense.
    """
    if not (0 < rate_hz <= 1e6 and 0 < scene_gap_s <= 1e6 and start_ns >= 0):
        raise BagError(
            f"rate {rate_hz} Hz, scene gap {scene_gap_s} s, start {start_ns} ns: rate and gap "
            "must be above 0 and at most 1e6, the start not negative"
        )
    stamps = []
    stamp_ns = start_ns
    for i, frame in enumerate(frames):
        if i > 0:
            same = frame.scene == frames[i - 1].scene
            stamp_ns += round(1e9 / rate_hz if same else scene_gap_s * 1e9)
        stamps.append(stamp_ns)
    return stamps


class _Recorder:
    """One open bag of either ROS; ``written`` is the file or folder to move to ``target``."""

    def __init__(
        self,
        folder: Path,
        target: Path,
        storage: Storage,
        image_topic: str,
        pose_topic: str,
        raw: bool,
    ) -> None:
        self._ros1 = target.suffix == ".bag"
        self._raw = raw
        self._topics = {
            image_topic: RAW_IMAGE if raw else COMPRESSED_IMAGE,
            pose_topic: POSE_STAMPED,
            camera_info_topic("auto", image_topic): CAMERA_INFO,
        }
        self._writer: Any
        if self._ros1:
            self.written = folder / target.name
            self._writer = Ros1Writer(self.written)
            return
        single = target.suffix in _STORAGE_OF_SUFFIX
        plugin = StoragePlugin[_STORAGE_OF_SUFFIX.get(target.suffix, storage).upper()]
        # Version 8 and not 9: Humble does not read the QoS lists of version 9.
        bag_folder = folder / (target.stem if single else target.name)
        self._writer = Ros2Writer(bag_folder, version=8, storage_plugin=plugin)
        self.written = bag_folder / target.name if single else bag_folder

    def __enter__(self) -> _Recorder:
        self._writer.open()
        types = get_typestore(Stores.ROS1_NOETIC) if self._ros1 else ros2_types()
        self._image, self._pose, self._camera = (
            self._writer.add_connection(topic, msgtype, typestore=types)
            for topic, msgtype in self._topics.items()
        )
        return self

    def __exit__(self, *exception: Any) -> None:
        self._writer.__exit__(*exception)

    def write(self, frame: Frame, stamp_ns: int) -> None:
        """Write one frame's camera, image and pose, all logged at ``stamp_ns``."""
        if self._raw:
            image = _raw_image(read_image(frame.image_path), stamp_ns)
        else:
            image = _compressed_image(frame.image_path, stamp_ns)
        pose = _pose_stamped(frame.pose, frame.scene, stamp_ns)
        messages = [(self._image, image), (self._pose, pose)]
        # An assumed focal length is no measurement: nobody should take it for one.
        if frame.intrinsics is not None and not frame.intrinsics.assumed:
            messages.insert(0, (self._camera, _camera_info(frame.intrinsics, stamp_ns)))
        for connection, message in messages:
            data = ros2_types().serialize_cdr(message, connection.msgtype)
            if self._ros1:
                data = ros2_types().cdr_to_ros1(data, connection.msgtype)
            self._writer.write(connection, stamp_ns, data)


def _make(msgtype: str, **fields: Any) -> Any:
    return ros2_types().types[msgtype](**fields)


def _header(frame_id: str, stamp_ns: int) -> Any:
    sec, nanosec = divmod(stamp_ns, 10**9)
    stamp = _make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return _make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def _raw_image(image: ImageHW3, stamp_ns: int) -> Any:
    height, width = image.shape[:2]
    return _make(
        RAW_IMAGE,
        header=_header(CAMERA_FRAME_ID, stamp_ns),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=image.reshape(-1),
    )


def _compressed_image(path: Path, stamp_ns: int) -> Any:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise BagError(f"{path}: cannot be read ({error.strerror}); check the dataset") from error
    image_format = next(
        (name for magic, name in _FORMAT_OF_MAGIC.items() if encoded.startswith(magic)), None
    )
    if image_format is None:
        raise BagError(f"{path}: neither JPEG nor PNG, so it cannot go unchanged; write raw")
    return _make(
        COMPRESSED_IMAGE,
        header=_header(CAMERA_FRAME_ID, stamp_ns),
        format=image_format,
        data=np.frombuffer(encoded, np.uint8),
    )


def _camera_info(camera: Intrinsics, stamp_ns: int) -> Any:
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    terms = [*camera.distortion, *(0.0,) * 5]
    plain = len(camera.distortion) <= 5
    return _make(
        CAMERA_INFO,
        header=_header(CAMERA_FRAME_ID, stamp_ns),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob" if plain else "rational_polynomial",
        d=np.array(terms[:5] if plain else [*camera.distortion, *(0.0,) * 8][:8]),
        k=np.array([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]),
        r=np.eye(3).ravel(),
        p=np.array([fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
        binning_x=0,
        binning_y=0,
        roi=_make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def _pose_stamped(pose: Pose, scene: str, stamp_ns: int) -> Any:
    x, y, z = (float(value) for value in pose.position)
    qx, qy, qz, qw = (float(value) for value in pose.quaternion)
    return _make(
        POSE_STAMPED,
        header=_header(scene, stamp_ns),
        pose=_make(
            "geometry_msgs/msg/Pose",
            position=_make("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=_make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )
