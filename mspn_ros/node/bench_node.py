# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node makes of a camera's frames: through DDS, at given rates and far above capacity."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, product
from operator import itemgetter
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from mspn_ros.evaluation.answers import latency_percentiles
from mspn_ros.evaluation.bench_frames import camera_frames, jpeg_of
from mspn_ros.evaluation.node_loads import MAX_RATE, OVERLOAD, NodeResult, Percentiles, Plan
from mspn_ros.evaluation.timing import Progress
from mspn_ros.node import NODE_NAME
from mspn_ros.node.bench_camera import CameraProcess
from mspn_ros.node.collector import Collector
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.session import (
    FrameCounts,
    change_state,
    ros_node,
    settled_status,
    wait_for_catalogue,
)
from mspn_ros.node.transport import loopback_environment, profile_hint
from mspn_ros.node.worker import STAGES
from mspn_ros.records import ImageHW3, RosError
from mspn_ros.store.backbone_file import load_backbone

_NAMESPACE = "/mspn_bench"
# A load before those that count, so that all are measured on a node that is warm.
_WARM_UP_HZ, _WARM_UP_S = 30.0, 1.5


def bench_node(
    model: Path, plan: Plan, device: str, engine: str, progress: Progress
) -> list[NodeResult]:
    """Measure a node of ``model`` for each transport, profile and number of cameras.

    Images come from a process of their own and answers are taken here. The node answers each
    image with a pose (``min_confidence`` 0). Everything runs in a ROS domain of this process's
    own; the environment gets that, and what ``loopback_environment`` returns.

    Raises:
        ModelError: the model has no backbone that can be read.
        RosError: node or camera do not start or end, or frames do not get through.
    """
    load_backbone(model)  # a wrong path is told here, not by a node that ends
    os.environ.update(loopback_environment())
    os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
    results: list[NodeResult] = []

    def say(note: str) -> None:
        progress(len(results), plan.loads, note)

    for transport, profile, cameras in product(plan.transports, plan.profiles, plan.cameras):
        with _Bench(model, transport, profile, cameras, device, engine) as bench:
            for size in plan.sizes:
                for result in bench.measure(size, plan, say):
                    results.append(result)
    return results


class _Bench:
    """A localizer in a process of its own, and who listens to it."""

    def __init__(
        self, model: Path, transport: str, profile: str, cameras: int, device: str, engine: str
    ) -> None:
        self._model, self._transport, self._profile = model, transport, profile
        self._topics = {f"camera{i}": f"{_NAMESPACE}/camera{i}/image" for i in range(cameras)}
        self._parameters: dict[str, Any] = {
            "model": str(model.resolve()),
            "cameras": " ".join(self._topics),
            **{f"{name}.image_topic": topic for name, topic in self._topics.items()},
            "transport": transport,
            "device": device,
            "engine": engine,
            "min_confidence": 0.0,
        }
        self._stack = ExitStack()

    def __enter__(self) -> _Bench:
        with ExitStack() as stack:
            node = stack.enter_context(ros_node("mspn_bench"))
            self._collector = Collector(node, _NAMESPACE, NODE_NAME, node.context)
            stack.callback(self._collector.close)
            has_profile = self._profile in ("node", "both")
            self._process = stack.enter_context(
                LocalizerProcess(_NAMESPACE, self._parameters, profile=has_profile)
            )
            wait_for_catalogue(self._collector, self._process)
            self._states = node.create_client(ChangeState, f"{_NAMESPACE}/{NODE_NAME}/change_state")
            self._status = self._settled(time.monotonic())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def measure(
        self, size: tuple[int, int], plan: Plan, say: Callable[[str], None]
    ) -> Iterator[NodeResult]:
        """All rates of one size, after a load that warms up."""
        width, height = size
        with tempfile.TemporaryDirectory(prefix="mspn_bench_") as name:
            for i, image in enumerate(camera_frames(width, height)):
                Path(name, f"{i}.cdr").write_bytes(serialized(image, self._transport))
            with ExitStack() as stack:
                has_profile = self._profile in ("camera", "both")
                cameras = [
                    stack.enter_context(
                        CameraProcess(topic, self._transport, Path(name), has_profile)
                    )
                    for topic in self._topics.values()
                ]
                what = f"{self._transport} {width}x{height}"
                if len(cameras) > 1:
                    what = f"{len(cameras)} cameras, {what}"
                if self._profile != "both":
                    what += f", profile: {self._profile}"
                say(f"{what}: warming up")
                first = self._load(cameras, size, "", _WARM_UP_HZ, _WARM_UP_S)
                # Without the profile that is what is measured.
                if first.answered == 0 and self._profile == "both":
                    raise RosError(
                        f"none of {first.published} {self._transport} images of {width}x{height} "
                        f"was answered: {first.lost} lost, {first.rejected} rejected; "
                        f"{profile_hint()} sets what large images need"
                    )
                fastest_hz = _capacity_hz(first)
                for rate in plan.ordered_rates:
                    each_hz = OVERLOAD * max(fastest_hz, _WARM_UP_HZ) / len(cameras)
                    if rate != MAX_RATE:
                        each_hz = float(rate)
                    say(f"{what} at {each_hz:.0f} Hz")
                    result = self._load(cameras, size, rate, each_hz, plan.seconds)
                    fastest_hz = max(fastest_hz, _capacity_hz(result))
                    yield result

    def _load(
        self,
        cameras: Sequence[CameraProcess],
        size: tuple[int, int],
        rate: str,
        each_hz: float,
        seconds: float,
    ) -> NodeResult:
        self._begin()
        memory_start_mb = self._process.memory_mb()
        for camera in cameras:
            camera.begin(each_hz, seconds)
        by_camera = dict(zip(self._topics, (camera.played() for camera in cameras), strict=True))
        published = sorted(chain(*by_camera.values()), key=itemgetter(1))
        self._process.check()
        # Nothing came since the load before had settled.
        before, self._status = self._status, self._settled(published[-1][1])
        after = self._status[""]
        memory_end_mb = self._process.memory_mb()
        counts = FrameCounts.between(before[""], after)
        records = [r for r in self._collector.records(published) if r.processed and not r.rejected]
        ages_ms = [1e3 * (r.pose_latency_s or r.latency_s or 0.0) for r in records]
        offered_hz = sum(_rate_hz(frames, seconds) for frames in by_camera.values())
        stages = _stages_ms(after)
        localize = stages["localize"]
        age, latency = latency_percentiles(ages_ms), stages.pop("latency")
        return NodeResult(
            transport=self._transport,
            width=size[0],
            height=size[1],
            rate=rate,
            cameras=len(cameras),
            profile=self._profile,
            seconds=seconds,
            asked_hz=each_hz * len(cameras),
            offered_hz=offered_hz,
            published=len(published),
            received=counts.received,
            answered=counts.answered,
            overtaken=counts.overtaken,
            rejected=sum(counts.rejected.values()),
            lost=len(published) - counts.received,
            poses=sum(r.pose is not None for r in records),
            by_camera={
                name: _fates(len(frames), FrameCounts.between(before[name], self._status[name]))
                for name, frames in by_camera.items()
            },
            answered_hz=offered_hz * counts.answered / len(published),
            age_ms=age,
            latency_ms=latency,
            **{f"{stage}_ms": times for stage, times in stages.items()},
            age_ratio=_ratio(age, localize),
            latency_ratio=_ratio(latency, localize),
            memory_start_mb=memory_start_mb,
            memory_end_mb=memory_end_mb,
            model=str(self._model),
            device=after["device"],
            engine=after["engine"],
        )

    def _settled(self, last_published_s: float) -> dict[str, dict[str, str]]:
        """The localizer's status, under "", and those of its cameras."""
        status = settled_status(self._collector, last_published_s)
        return {"": status, **self._collector.cameras}

    def _begin(self) -> None:
        """Activate the node anew, so that its latencies are those of what comes now."""
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            change_state(self._states, transition, self._collector, self._process)


def _fates(published: int, counts: FrameCounts) -> dict[str, int]:
    return {
        "published": published,
        "received": counts.received,
        "answered": counts.answered,
        "overtaken": counts.overtaken,
        "rejected": sum(counts.rejected.values()),
        "lost": published - counts.received,
    }


def serialized(image: ImageHW3, transport: str) -> bytes:
    """The message that a driver would publish: rgb8, or a JPEG."""
    height, width = image.shape[:2]
    if transport == "raw":
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.data = image.tobytes()
    else:
        message = CompressedImage(format="jpeg")
        message.data = jpeg_of(image)
    message.header.frame_id = "bench_camera"
    return serialize_message(message)


def _rate_hz(published: Sequence[tuple[int, float]], seconds: float) -> float:
    if len(published) < 2:
        return len(published) / seconds
    return (len(published) - 1) / (published[-1][1] - published[0][1])


def _stages_ms(status: Mapping[str, str]) -> dict[str, Percentiles]:
    """Of latency and of each stage: the percentiles that the node told; None where it told none."""
    found: dict[str, Percentiles] = {}
    for stage in ("latency", *STAGES, "ros_adds"):
        times = {p: status.get(f"{stage}_{p}_ms") for p in ("p50", "p95", "p99")}
        found[stage] = {p: float(ms) for p, ms in times.items() if ms is not None} or None
    return found


def _ratio(times: Percentiles, localize: Percentiles) -> Percentiles:
    if times is None or localize is None or not localize["p50"]:
        return None
    return {p: times[p] / localize["p50"] for p in ("p50", "p95")}


def _capacity_hz(result: NodeResult) -> float:
    """Frames a second that the node answered, or can: one after the other without waiting."""
    if result.latency_ms is None or result.waiting_ms is None:
        return 0.0
    busy_ms = result.latency_ms["p50"] - result.waiting_ms["p50"]
    return max(result.answered_hz, 1e3 / max(busy_ms, 0.1))
