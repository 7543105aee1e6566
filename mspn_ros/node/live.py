# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Live replay: a bag played over DDS into a real localizer, and what it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mspn_ros.datasets.bag_messages import (
    COMPRESSED_IMAGE,
    IMAGE_TYPES,
    RAW_IMAGE,
    BagCamera,
    BagImage,
    camera_at,
)
from mspn_ros.datasets.bags import BagReader
from mspn_ros.datasets.camera_info import camera_info_topic
from mspn_ros.inference.engine_names import AUTO
from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.collector import Collector, LiveRecord
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.session import (
    MATCH_SLACK_S,
    FrameCounts,
    ros_node,
    settled_status,
    wait_for_catalogue,
    with_stamp,
)
from mspn_ros.node.transport import loopback_environment
from mspn_ros.records import RosError
from mspn_ros.store.backbone_file import load_backbone

_MESSAGES = {RAW_IMAGE: Image, COMPRESSED_IMAGE: CompressedImage}
# Seconds to find a running node.
_FIND_S = 5.0
# How long a node is given to listen to the camera that the bag names.
_CAMERA_S = 2.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What a live replay found: a record for each published frame, and the node's own counts.

    published = received + lost, and received = answered + overtaken + rejected. ``rejected`` is
    by cause. ``started`` tells whether the replay started the node itself or found one running;
    ``device`` and ``engine`` are the node's.
    """

    records: tuple[LiveRecord, ...]
    published: int
    received: int
    answered: int
    overtaken: int
    rejected: dict[str, int]
    lost: int
    started: bool
    image_topic: str
    device: str
    engine: str


class BagPlayer:
    """Publishes a bag's images as they were recorded, at the rate of their log times.

    ``cameras``: what the bag says of the camera; published beside each image, before it.
    """

    def __init__(
        self, node: Any, topic: str, msgtype: str, cameras: Sequence[BagCamera] = ()
    ) -> None:
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = node.create_publisher(_MESSAGES[msgtype], topic, qos)
        self._cameras = cameras
        beside = camera_info_topic("auto", topic)
        self._camera_publisher = node.create_publisher(CameraInfo, beside, qos)

    def show_camera(self, log_time_ns: int) -> None:
        """Publish what the bag says of the camera at that time, if it does."""
        if camera := camera_at(self._cameras, log_time_ns):
            self._camera_publisher.publish(camera.cdr)

    @property
    def matched(self) -> bool:
        """Whether a subscription has been found."""
        return bool(self._publisher.get_subscription_count() > 0)

    @property
    def camera_matched(self) -> bool:
        """Whether somebody listens to what is said of the camera, if anything is."""
        return not self._cameras or bool(self._camera_publisher.get_subscription_count() > 0)

    def play(self, images: Iterator[BagImage]) -> Iterator[tuple[int, float]]:
        """Publish each image when it is due and yield (stamp in ns, ``time.monotonic`` then)."""
        start: tuple[float, int] | None = None
        for image in images:
            cdr = _with_stamp(image)
            now_s = time.monotonic()
            if start is None:
                start = (now_s, image.log_time_ns)
            time.sleep(max(0.0, start[0] + (image.log_time_ns - start[1]) / 1e9 - now_s))
            self.show_camera(image.log_time_ns)
            published_s = time.monotonic()
            self._publisher.publish(cdr)
            yield image.stamp_ns, published_s


def replay_live(
    bag: Path,
    model_dir: Path,
    *,
    image_topic: str | None = None,
    namespace: str = NAMESPACE,
    device: str = "auto",
    engine: str = AUTO,
    progress: Progress | None = None,
) -> LiveResult:
    """Play ``bag`` over DDS at its own rate into a localizer and collect what it publishes.

    A localizer that runs in ``namespace`` is used, provided it serves ``model_dir``'s backbone;
    otherwise one is started for ``model_dir`` on ``device`` with ``engine`` and ended by SIGINT
    afterwards.
    ``image_topic`` picks the bag's topic; a running node gets the images on the topic it listens
    to. ``progress(done, total)`` is called after each published frame. The environment gets what
    ``loopback_environment`` returns.

    Raises:
        BagError: the bag cannot be read.
        ModelError: the model cannot be loaded.
        RosError: the node does not start, listens to another type, stops answering, or a running
            one serves another backbone.
    """
    os.environ.update(loopback_environment())
    namespace = "/" + namespace.strip("/")
    with ExitStack() as stack:
        reader = stack.enter_context(BagReader(bag, image_topic))
        backbone_id = load_backbone(model_dir)[1]
        msgtype = next(reader.images()).msgtype
        node = stack.enter_context(ros_node("mspn_replay"))
        collector = Collector(node, namespace, NODE_NAME, node.context)
        stack.callback(collector.close)
        process = None
        if not _find_running(node, collector, namespace):
            options = {
                "model": str(model_dir.resolve()),
                "image_topic": reader.image_topic,
                "transport": "compressed" if msgtype == COMPRESSED_IMAGE else "raw",
                "device": device,
                "engine": engine,
            }
            process = stack.enter_context(LocalizerProcess(namespace, options))
            wait_for_catalogue(collector, process)
        _check_backbone(collector, namespace, model_dir, backbone_id)
        topic = _image_subscription(node, collector, namespace, msgtype)
        player = BagPlayer(node, topic, msgtype, reader.cameras())
        before = _ready(node, collector, player, topic)
        # A node that reads no camera_info is none the worse; another has it before the images.
        collector.wait_for(lambda: player.camera_matched, _CAMERA_S)
        player.show_camera(0)
        published = []
        for frame in player.play(reader.images()):
            published.append(frame)
            if progress is not None:
                progress(len(published), reader.image_count)
            if process is not None:
                process.check()
        after = settled_status(collector, published[-1][1])
        return _result(collector, published, before, after, process is not None, topic)


def _find_running(node: Any, collector: Collector, namespace: str) -> bool:
    if collector.wait_for(lambda: collector.catalogue is not None, _FIND_S):
        return True
    # Its name without a catalogue: it is loading its model, or it died lately.
    if (NODE_NAME, namespace) not in node.get_node_names_and_namespaces():
        return False
    return collector.wait_for(lambda: collector.catalogue is not None, 20.0)


def _check_backbone(
    collector: Collector, namespace: str, model_dir: Path, backbone_id: str
) -> None:
    served = {scene["backbone_id"] for scene in collector.catalogue or ()}
    if served != {backbone_id}:
        raise RosError(
            f"the localizer that runs in {namespace} serves backbone "
            f"{', '.join(sorted(b[:12] for b in served)) or 'none'}, {model_dir} has "
            f"{backbone_id[:12]}; stop it, or name its model"
        )


def _image_subscription(node: Any, collector: Collector, namespace: str, msgtype: str) -> str:
    """The topic on which the localizer takes images of type ``msgtype``."""
    found: dict[str, str] = {}

    def look() -> bool:
        if (NODE_NAME, namespace) not in node.get_node_names_and_namespaces():
            return False
        topics = node.get_subscriber_names_and_types_by_node(NODE_NAME, namespace)
        found.update({name: t for name, types in topics for t in types if t in IMAGE_TYPES})
        return bool(found)

    if not collector.wait_for(look, 10.0):
        raise RosError(f"{namespace}/{NODE_NAME} takes no images; is it active?")
    for topic, found_type in found.items():
        if found_type == msgtype:
            return topic
    raise RosError(
        f"{namespace}/{NODE_NAME} takes {found}, the bag has {msgtype}; restart it with "
        f"transport:={'compressed' if msgtype == COMPRESSED_IMAGE else 'raw'}, or stop it"
    )


def _ready(node: Any, collector: Collector, player: BagPlayer, topic: str) -> dict[str, str]:
    """Wait until both directions are connected; the node's counts before the first frame."""
    since_s = time.monotonic() + MATCH_SLACK_S
    if not collector.wait_for(lambda: player.matched and collector.diagnostics_s > since_s, 60.0):
        raise RosError(f"no subscription on {topic}, or no /diagnostics from it, within 60 s")
    if node.count_publishers(topic) > 1:
        raise RosError(f"{topic} has another publisher; stop it, or its frames are counted too")
    assert collector.diagnostics is not None
    if collector.diagnostics.get("pose_axes") != "optical":
        raise RosError(
            f"the localizer publishes poses in {collector.diagnostics.get('pose_axes')} axes, "
            "ground truth is in optical ones; restart it with pose_axes:=optical"
        )
    return collector.diagnostics


def _result(
    collector: Collector,
    published: list[tuple[int, float]],
    before: dict[str, str],
    after: dict[str, str],
    started: bool,
    topic: str,
) -> LiveResult:
    counts = FrameCounts.between(before, after)
    return LiveResult(
        records=collector.records(published),
        published=len(published),
        received=counts.received,
        answered=counts.answered,
        overtaken=counts.overtaken,
        rejected=counts.rejected,
        lost=len(published) - counts.received,
        started=started,
        image_topic=topic,
        device=after["device"],
        engine=after["engine"],
    )


def _with_stamp(image: BagImage) -> bytes:
    """The message, given its stamp where the header has none, so that answers can be told apart."""
    cdr = image.cdr
    return cdr if len(cdr) < 12 or any(cdr[4:12]) else with_stamp(cdr, image.stamp_ns)
