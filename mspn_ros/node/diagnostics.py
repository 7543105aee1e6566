# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node says about itself on /diagnostics, from plain values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mspn_ros.node.stamps import ClockOffset
from mspn_ros.node.transport import PROFILE_VARIABLES, profile_hint
from mspn_ros.node.worker import Counts
from mspn_ros.records import listing

# Rows that are left out of which a message tells why; a damaged bank may have 100,000.
_MOST_REFUSED = 20


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What the graph says about the image topic.

    ``type_name`` is the subscribed message type; ``publisher_types`` those of its publishers,
    ``other_image_topics`` lists topics of that type that have one.
    """

    topic: str
    type_name: str
    publisher_types: tuple[str, ...] = ()
    other_image_topics: tuple[str, ...] = ()


@dataclass(slots=True)
class CameraStatus:
    """What one camera's status reports; without ``source`` nothing is said of missing frames.

    ``name`` is "" for the only camera of a node, which has no status of its own. ``camera_info``
    says which intrinsics are in use. ``mismatches`` names publishers whose quality of service does
    not go with the subscription, ``clock`` tells of the stamps.
    """

    name: str
    counts: Counts
    source: ImageSource | None = None
    camera_info: str = ""
    mismatches: tuple[str, ...] = ()
    clock: ClockOffset = field(default_factory=ClockOffset)


@dataclass(slots=True)
class NodeStatus:
    """Everything that one diagnostics message reports.

    ``failure`` makes it an error, ``warnings``, ``reload_trouble`` (why the model as it is on disk
    is not in service) and ``refused`` (rows that are left out, by name or
    number, and why) a warning.
    """

    name: str
    state: str
    model: str
    device: str = ""
    engine: str = ""
    engine_reason: str = ""
    bank_version: int | None = None
    scenes: int = 0
    reload_trouble: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    scene: str = ""
    pose_axes: str = "optical"
    pose_of: str = "camera"
    failure: str = ""
    warnings: tuple[str, ...] = ()
    no_frames_timeout_s: float = 5.0
    cameras: tuple[CameraStatus, ...] = ()

    @property
    def counts(self) -> Counts:
        """Of the frames of all cameras."""
        return sum((camera.counts for camera in self.cameras[1:]), self.cameras[0].counts)


def image_source(node: Any, topic: str, message_type: Any) -> ImageSource:
    """Ask the graph about the image ``topic`` that an rclpy node subscribes to."""
    type_name = f"sensor_msgs/msg/{message_type.__name__}"
    return ImageSource(
        topic,
        type_name,
        tuple(p.topic_type for p in node.get_publishers_info_by_topic(topic)),
        tuple(
            name
            for name, types in node.get_topic_names_and_types()
            if type_name in types and name != topic and node.count_publishers(name)
        ),
    )


def no_frames_reason(source: ImageSource, idle_s: float) -> str:
    """Why no image may have come for ``idle_s`` seconds, and what to do about it."""
    start = f"no frames for {idle_s:.0f} s on {source.topic!r}"
    if not source.publisher_types:
        others = ", ".join(source.other_image_topics) or "none"
        return (
            f"{start}: nobody publishes there; topics with {source.type_name}: {others}; "
            "set image_topic (and transport)"
        )
    if source.type_name not in source.publisher_types:
        return (
            f"{start}: it carries {', '.join(source.publisher_types)}, not {source.type_name}; "
            "set transport to raw or compressed accordingly"
        )
    return (
        f"{start}, though it has a publisher; is the camera running? Large best-effort frames "
        f"starve without the Fast DDS profile: {profile_hint()} before starting the camera driver"
    )


class DiagnosticsReport:
    """Makes the messages; keeps the last counts, so that each speaks of the time since the last."""

    def __init__(self) -> None:
        self._before: dict[str, Counts] = {}
        self._before_s: float | None = None

    def message(self, status: NodeStatus, now_s: float) -> DiagnosticArray:
        """A status of the node, and one of each named camera; the stamp is the caller's to set.

        ``now_s``: seconds of a steady clock.
        """
        elapsed_s = now_s - self._before_s if self._before_s is not None else 0.0
        self._before_s = now_s
        recent = self._recent("", status.counts, elapsed_s)
        level, text = _level(status, recent)
        message = DiagnosticArray()
        values = _values(status, recent)
        message.status.append(_status(status.name, status.device, level, text, values))
        for camera in status.cameras:
            if camera.name:
                recent = self._recent(camera.name, camera.counts, elapsed_s)
                level, text = _camera_level(status, camera, recent)
                values = [
                    *_count_values(camera.counts, recent),
                    *_source_values([camera]),
                    *_clock_values([camera]),
                ]
                name = f"{status.name}: {camera.name}"
                message.status.append(_status(name, status.device, level, text, values))
        return message

    def _recent(self, name: str, counts: Counts, elapsed_s: float) -> _Recent:
        before = self._before.get(name, Counts())
        self._before[name] = counts
        answered = counts.answered - before.answered
        return _Recent(
            answered,
            sum(counts.rejected.values()) - sum(before.rejected.values()),
            answered / elapsed_s if elapsed_s > 0 else 0.0,
        )


class _Recent(NamedTuple):
    """Since the message before: frames, and answers a second."""

    answered: int
    rejected: int
    rate_hz: float


def _status(
    name: str, device: str, level: bytes, text: str, values: list[tuple[str, str]]
) -> DiagnosticStatus:
    status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=device)
    status.values = [KeyValue(key=key, value=value) for key, value in values]
    return status


def _level(status: NodeStatus, recent: _Recent) -> tuple[bytes, str]:
    if status.failure:
        return DiagnosticStatus.ERROR, status.failure
    if status.state != "active":
        return DiagnosticStatus.OK, status.state
    if refusal := _all_rejected(status.counts, recent):
        return DiagnosticStatus.ERROR, refusal
    warnings, hints = _rejected(status.counts, recent), []
    for camera in status.cameras:
        start = f"{camera.name}: " if camera.name else ""
        warnings += [start + text for text in _camera_warnings(status, camera)]
        hints += [start + camera.clock.hint] if camera.clock.hint else []
    warnings += status.warnings
    if status.state == "active" and not status.scenes:
        warnings.append("the scene bank holds no scene; add one")
    if status.reload_trouble:
        warnings.append(status.reload_trouble)
    if status.refused:
        warnings.append(f"{len(status.refused)} rows left out: {listing(list(status.refused))}")
    if warnings:
        return DiagnosticStatus.WARN, "; ".join(warnings + hints)
    well = f"{recent.rate_hz:.1f} Hz, scene {status.scene or 'none yet'}"
    return DiagnosticStatus.OK, "; ".join([well, *hints])


def _camera_level(status: NodeStatus, camera: CameraStatus, recent: _Recent) -> tuple[bytes, str]:
    if status.state != "active":
        return DiagnosticStatus.OK, status.state
    if refusal := _all_rejected(camera.counts, recent):
        return DiagnosticStatus.ERROR, refusal
    hints = [camera.clock.hint] if camera.clock.hint else []
    if warnings := _rejected(camera.counts, recent) + _camera_warnings(status, camera):
        return DiagnosticStatus.WARN, "; ".join(warnings + hints)
    return DiagnosticStatus.OK, "; ".join([f"{recent.rate_hz:.1f} Hz", *hints])


def _all_rejected(counts: Counts, recent: _Recent) -> str:
    if not recent.rejected or recent.answered:
        return ""
    worst = ", ".join(sorted(counts.rejected))
    return f"all of the last {recent.rejected} frames rejected ({worst})"


def _rejected(counts: Counts, recent: _Recent) -> list[str]:
    if not recent.rejected:
        return []
    return [f"{recent.rejected} frames rejected ({', '.join(sorted(counts.rejected))})"]


def _camera_warnings(status: NodeStatus, camera: CameraStatus) -> list[str]:
    warnings, idle_s = list(camera.mismatches), camera.counts.idle_s
    if camera.source is None:
        return warnings
    # A publisher that does not go with the subscription is reason enough.
    if idle_s > status.no_frames_timeout_s and not warnings:
        warnings.append(no_frames_reason(camera.source, idle_s))
    if camera.clock.unstamped:
        warnings.append(
            f"images on {camera.source.topic} have no stamps, nor have their poses; have the "
            "driver stamp them"
        )
    return warnings


def _values(status: NodeStatus, recent: _Recent) -> list[tuple[str, str]]:
    return [
        ("state", status.state),
        *_count_values(status.counts, recent),
        ("scene", status.scene),
        ("scenes", str(status.scenes)),
        ("pose_axes", status.pose_axes),
        ("pose_of", status.pose_of),
        ("model", status.model),
        ("device", status.device),
        ("engine", status.engine),
        ("engine_reason", status.engine_reason),
        ("bank_version", "" if status.bank_version is None else str(status.bank_version)),
        ("reload", status.reload_trouble),
        ("refused", str(len(status.refused))),
        *((f"refused.{name}", why) for name, why in islice(status.refused.items(), _MOST_REFUSED)),
        *_source_values(status.cameras),
        *(_clock_values(status.cameras) if len(status.cameras) == 1 else ()),
        ("fastdds_profile", next(filter(None, map(os.environ.get, PROFILE_VARIABLES)), "") or ""),
    ]


def _count_values(counts: Counts, recent: _Recent) -> list[tuple[str, str]]:
    values = [
        ("rate_hz", f"{recent.rate_hz:.2f}"),
        ("received", str(counts.received)),
        ("answered", str(counts.answered)),
        ("overtaken", str(counts.overtaken)),
        ("skipped", str(counts.skipped)),
        ("rejected", str(sum(counts.rejected.values()))),
        *((f"rejected.{cause}", str(n)) for cause, n in sorted(counts.rejected.items())),
        ("in_progress", str(counts.in_progress)),
        ("idle_s", f"{counts.idle_s:.2f}"),
    ]
    for stage, percentiles in counts.durations_ms().items():
        names = ("p50", "p95", "p99") if stage == "latency" else ("p50", "p95")
        for name, spent_ms in zip(names, percentiles, strict=False):
            values.append((f"{stage}_{name}_ms", f"{spent_ms:.2f}"))
    return values


def _clock_values(cameras: Sequence[CameraStatus]) -> list[tuple[str, str]]:
    offsets_s = [camera.clock.seconds for camera in cameras if camera.clock.seconds is not None]
    return [("stamp_age_s", ", ".join(f"{offset_s:.3f}" for offset_s in offsets_s))]


def _source_values(cameras: Sequence[CameraStatus]) -> list[tuple[str, str]]:
    """Of one camera or, one after the other, of several."""
    sources = [camera.source for camera in cameras if camera.source is not None]
    return [
        ("image_topic", ", ".join(source.topic for source in sources)),
        ("image_type", ", ".join(source.type_name for source in sources)),
        ("camera_info", ", ".join(camera.camera_info for camera in cameras if camera.camera_info)),
    ]
