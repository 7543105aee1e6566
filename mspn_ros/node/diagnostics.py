"""What the node says about itself on /diagnostics, from plain values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import ReliabilityPolicy

from mspn_ros.node.transport import PROFILE_VARIABLES, profile_hint
from mspn_ros.node.worker import Counts
from mspn_ros.records import listing

# Rows that are left out of which a message tells why; a damaged bank may have 100,000.
_MOST_REFUSED = 20


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What the graph says about the image topic.

    ``type_name`` is the subscribed message type; ``publisher_types`` and
    ``best_effort_publishers`` describe its publishers, ``other_image_topics`` lists topics of
    that type that have one.
    """

    topic: str
    type_name: str
    reliable: bool
    publisher_types: tuple[str, ...] = ()
    best_effort_publishers: int = 0
    other_image_topics: tuple[str, ...] = ()


@dataclass(slots=True)
class NodeStatus:
    """Everything that one diagnostics message reports, except the counts.

    ``failure`` makes it an error, ``warnings``, ``reload_trouble`` (why the model as it is on disk
    is not in service) and ``refused`` (rows that are left out, by name or
    number, and why) a warning; without ``source`` nothing is said
    about missing frames.
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
    camera_info: str = ""
    failure: str = ""
    warnings: tuple[str, ...] = ()
    no_frames_timeout_s: float = 5.0
    source: ImageSource | None = None


def image_source(node: Any, topic: str, message_type: Any, reliable: bool) -> ImageSource:
    """Ask the graph about the image ``topic`` that an rclpy node subscribes to."""
    type_name = f"sensor_msgs/msg/{message_type.__name__}"
    publishers = node.get_publishers_info_by_topic(topic)
    best_effort = ReliabilityPolicy.BEST_EFFORT
    return ImageSource(
        topic,
        type_name,
        reliable,
        tuple(p.topic_type for p in publishers),
        sum(p.qos_profile.reliability == best_effort for p in publishers),
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
    if source.reliable and source.best_effort_publishers == len(source.publisher_types):
        return f"{start}: its publisher is best effort; set image_qos to best_effort"
    return (
        f"{start}, though it has a publisher; is the camera running? Large best-effort frames "
        f"starve without the Fast DDS profile: {profile_hint()} before starting the camera driver"
    )


class DiagnosticsReport:
    """Makes the messages; keeps the last counts, so that each speaks of the time since the last."""

    def __init__(self) -> None:
        self._before = Counts(0, 0, 0, {}, 0, None, {}, 0.0)
        self._before_s: float | None = None

    def message(self, status: NodeStatus, counts: Counts, now_s: float) -> DiagnosticArray:
        """One DiagnosticArray of one status; the header's stamp is the caller's to set.

        ``now_s``: seconds of a steady clock.
        """
        elapsed_s = now_s - self._before_s if self._before_s is not None else 0.0
        answered = counts.answered - self._before.answered
        rejected = sum(counts.rejected.values()) - sum(self._before.rejected.values())
        self._before, self._before_s = counts, now_s
        rate_hz = answered / elapsed_s if elapsed_s > 0 else 0.0
        level, text = _level(status, counts, answered, rejected, rate_hz)
        message = DiagnosticStatus(
            level=level, name=status.name, message=text, hardware_id=status.device
        )
        message.values = [
            KeyValue(key=key, value=value) for key, value in _values(status, counts, rate_hz)
        ]
        return DiagnosticArray(status=[message])


def _level(
    status: NodeStatus, counts: Counts, answered: int, rejected: int, rate_hz: float
) -> tuple[bytes, str]:
    if status.failure:
        return DiagnosticStatus.ERROR, status.failure
    if status.state != "active":
        return DiagnosticStatus.OK, status.state
    if rejected and not answered:
        worst = ", ".join(sorted(counts.rejected))
        return DiagnosticStatus.ERROR, f"all of the last {rejected} frames rejected ({worst})"
    warnings = list(status.warnings)
    if status.reload_trouble:
        warnings.append(status.reload_trouble)
    if status.refused:
        warnings.append(f"{len(status.refused)} rows left out: {listing(list(status.refused))}")
    if counts.idle_s > status.no_frames_timeout_s and status.source is not None:
        warnings.insert(0, no_frames_reason(status.source, counts.idle_s))
    if rejected:
        warnings.insert(0, f"{rejected} frames rejected ({', '.join(sorted(counts.rejected))})")
    if warnings:
        return DiagnosticStatus.WARN, "; ".join(warnings)
    return DiagnosticStatus.OK, f"{rate_hz:.1f} Hz, scene {status.scene or 'none yet'}"


def _values(status: NodeStatus, counts: Counts, rate_hz: float) -> list[tuple[str, str]]:
    source = status.source
    values = [
        ("state", status.state),
        ("rate_hz", f"{rate_hz:.2f}"),
        ("received", str(counts.received)),
        ("answered", str(counts.answered)),
        ("overtaken", str(counts.overtaken)),
        ("rejected", str(sum(counts.rejected.values()))),
        *((f"rejected.{cause}", str(n)) for cause, n in sorted(counts.rejected.items())),
        ("in_progress", str(counts.in_progress)),
        ("idle_s", f"{counts.idle_s:.2f}"),
        ("scene", status.scene),
        ("scenes", str(status.scenes)),
        ("pose_axes", status.pose_axes),
        ("camera_info", status.camera_info),
        ("model", status.model),
        ("device", status.device),
        ("engine", status.engine),
        ("engine_reason", status.engine_reason),
        ("bank_version", "" if status.bank_version is None else str(status.bank_version)),
        ("reload", status.reload_trouble),
        ("refused", str(len(status.refused))),
        *((f"refused.{name}", why) for name, why in islice(status.refused.items(), _MOST_REFUSED)),
        ("image_topic", source.topic if source is not None else ""),
        ("image_type", source.type_name if source is not None else ""),
        ("fastdds_profile", next(filter(None, map(os.environ.get, PROFILE_VARIABLES)), "") or ""),
    ]
    if counts.latency_ms is not None:
        names = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
        values += [(n, f"{v:.2f}") for n, v in zip(names, counts.latency_ms, strict=True)]
    for stage, (p50, p95) in counts.stages_ms.items():
        values += [(f"{stage}_p50_ms", f"{p50:.2f}"), (f"{stage}_p95_ms", f"{p95:.2f}")]
    return values
