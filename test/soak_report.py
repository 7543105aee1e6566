# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a soak has seen, what it demands, and its picture.

Of each camera: published = before matching + received + lost in DDS, and
received = answered + overtaken + rejected.

* published: what the camera noted in its journal right before it published it. A camera that is
  killed may be at a frame of which nobody knows whether it left (``cut``, one a kill at most, a
  part of published); one that did not counts as lost.
* before matching: published while the camera had no subscription, neither before nor after it:
  the node was inactive, or the two had not found each other yet. Nobody can have received them.
* received, answered, overtaken, rejected: the node's own counts on /diagnostics, read when no
  frame was in progress any more.
* lost in DDS: the rest. Best-effort images that did not get through; those that a camera sent
  between its own view of a match and the node's are in it, up to about half a second of frames at
  each activation and each return of a camera.

So that "the rest" hides nothing: it must not be negative, each frame that the node says it
answered must be heard as an answer, and each answer heard must be to a frame of that camera's
journal, once.

Memory: resident memory of the node without shared segments (which are DDS's), once a second.
Growth: from the median of the first fifth after the warm-up to that of the last fifth. Trend: what
a line through all of it gains over that time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mspn_ros.demo import Check
from mspn_ros.evaluation.plots import (
    ESTIMATE_COLOUR,
    TRUE_COLOUR,
    new_figure,
    save_figure,
)
from mspn_ros.node.bench_camera import JournalFrame
from mspn_ros.terminal import print_table, say

# Causes of rejection that are no fault: in progress when the node was deactivated.
EXPECTED_CAUSES = {"inactive"}
# Seconds for which an answer may name a scene after the node has told of its going: frames that
# were localized before, and messages that wait.
_LAST_WORDS_S = 2.0
# Seconds in which at least one answer must come, events included.
_LONGEST_SILENCE_S = 15.0
_BINS = 60


class Heard(NamedTuple):
    """One answer, and when it came."""

    at_s: float
    stamp_ns: int
    camera: str
    scene: str
    rejected: str | None


@dataclass(slots=True)
class Life:
    """From when to when a scene may be named."""

    scene: str
    start_s: float
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What was done at which second, and how long it took until the node had followed."""

    at_s: float
    kind: str
    note: str
    took_s: float


@dataclass(slots=True)
class Recording:
    """All that was seen. Times are of ``time.monotonic``, but those of events and memory.

    ``poses``: (stamp in ns, time) of the robot's pose topic; ``memory``: (second, MB);
    ``status``: the node's last, under "", and its cameras'.
    """

    start_s: float = 0.0
    published: dict[str, list[JournalFrame]] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    last_heard: dict[str, Heard] = field(default_factory=dict)
    poses: list[tuple[int, float]] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    status: dict[str, dict[str, str]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class SoakResult:
    """Numbers, series and demands; times in seconds from the start."""

    checks: list[Check]
    by_camera: dict[str, dict[str, Any]]
    memory: dict[str, float]
    memory_mb: list[tuple[float, float]]
    bins: list[dict[str, Any]]
    events: list[Event]
    latency_ms: dict[str, float]
    machine: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether all demands do."""
        return all(check.holds for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {"holds": self.holds, **asdict(self)}

    def show(self) -> None:
        """A table of the frames, and each demand."""
        keys = ("published", "before_matching", "lost", "received", "answered", "overtaken")
        rows = [
            [name, *(str(one[key]) for key in keys), str(sum(one["rejected"].values()))]
            for name, one in self.by_camera.items()
        ]
        print_table("frames", ["camera", *(k.replace("_", " ") for k in (*keys, "rejected"))], rows)
        took = {}
        for event in self.events:
            took.setdefault(event.kind, []).append(event.took_s)
        for kind, times in took.items():
            say(f"{kind}: {len(times)} times, followed in {max(times):.1f} s at most")
        ages = ", ".join(f"{p} {ms:.0f} ms" for p, ms in self.latency_ms.items())
        say(f"from publishing an image to its answer: {ages}")
        for check in self.checks:
            mark = "[green]holds[/]" if check.holds else "[red]FAILS[/]"
            say(f"{mark}  {check.promise}: {check.seen}")


def judge(recording: Recording, warm_up_s: float, most_growth: float) -> SoakResult:
    """All numbers and demands of a soak."""
    by_camera = {name: _fates(recording, name) for name in recording.published}
    memory = _memory(recording.memory, warm_up_s)
    latencies = _latencies(recording)
    p50, p95, p99, most = np.percentile(latencies[:, 1], (50, 95, 99, 100))
    checks = [
        *_memory_checks(memory, most_growth),
        *_account_checks(recording, by_camera),
        *_answer_checks(recording),
    ]
    return SoakResult(
        checks,
        by_camera,
        memory,
        recording.memory,
        _bins(recording, latencies),
        recording.events,
        {"p50": float(p50), "p95": float(p95), "p99": float(p99), "longest": float(most)},
        recording.machine,
    )


def _fates(recording: Recording, camera: str) -> dict[str, Any]:
    frames = recording.published[camera]
    # A node with one camera has no status of the camera's own.
    status = recording.status.get(camera, recording.status[""])
    received = int(status["received"])
    unmatched = sum(not frame.matched for frame in frames)
    causes = [key for key in status if key.startswith("rejected.")]
    heard = [one for one in recording.heard if one.camera == camera and one.rejected is None]
    return {
        "published": len(frames),
        "cut": sum(not frame.whole for frame in frames),
        "before_matching": unmatched,
        "lost": len(frames) - unmatched - received,
        "received": received,
        "answered": int(status["answered"]),
        "overtaken": int(status["overtaken"]),
        "rejected": {key.partition(".")[2]: int(status[key]) for key in causes},
        "in_progress": int(status["in_progress"]),
        "heard": len(heard),
    }


def _memory(samples: list[tuple[float, float]], warm_up_s: float) -> dict[str, float]:
    kept = np.array([sample for sample in samples if sample[0] >= warm_up_s])
    fifth = max(1, len(kept) // 5)
    first, last = np.median(kept[:fifth, 1]), np.median(kept[-fifth:, 1])
    slope = np.polyfit(kept[:, 0], kept[:, 1], 1)[0] if len(kept) > 2 else 0.0
    return {
        "warm_up_s": warm_up_s,
        "first_mb": float(first),
        "last_mb": float(last),
        "growth": float(last / first - 1),
        "slope_mb_per_hour": float(3600 * slope),
        "trend": float(slope * np.ptp(kept[:, 0]) / first),
        "most_mb": float(kept[:, 1].max()),
    }


def _memory_checks(memory: dict[str, float], most: float) -> list[Check]:
    growth, trend = memory["growth"], memory["trend"]
    return [
        Check(
            f"memory grows by under {most:.0%} after the warm-up",
            f"{growth:+.2%}, from {memory['first_mb']:.1f} to {memory['last_mb']:.1f} MB",
            bool(growth < most),
        ),
        Check(
            f"its trend is under {most:.0%} as well",
            f"{trend:+.2%}, {memory['slope_mb_per_hour']:+.2f} MB an hour",
            bool(trend < most),
        ),
    ]


def _account_checks(recording: Recording, by_camera: dict[str, dict[str, Any]]) -> list[Check]:
    whole = all(
        one["lost"] >= 0
        and one["in_progress"] == 0
        and one["received"] == one["answered"] + one["overtaken"] + sum(one["rejected"].values())
        for one in by_camera.values()
    )
    total = Counter()
    for one in by_camera.values():
        rejected = sum(one["rejected"].values())
        total.update({**{k: v for k, v in one.items() if k != "rejected"}, "rejected": rejected})
    same = all(total[k] == int(recording.status[""][k]) for k in ("received", "answered"))
    parts = ("answered", "overtaken", "rejected", "lost", "before_matching")
    seen = " + ".join(f"{total[part]} {part.replace('_', ' ')}" for part in parts)
    causes = {cause for one in by_camera.values() for cause in one["rejected"]}
    return [
        Check(
            "every published frame is accounted for",
            f"{total['published']} = {seen}",
            whole and same and total["published"] == sum(total[part] for part in parts),
        ),
        Check(
            "no frame is rejected, but those in progress at a deactivation",
            f"{total['rejected']} ({', '.join(sorted(causes)) or 'none'})",
            causes <= EXPECTED_CAUSES,
        ),
        Check(
            "every frame that the node says it answered is heard as an answer",
            f"{total['heard']} of {total['answered']}",
            total["heard"] == total["answered"] > 0,
        ),
    ]


def _answer_checks(recording: Recording) -> list[Check]:
    published = {
        (name, frame.stamp_ns) for name, frames in recording.published.items() for frame in frames
    }
    answered = Counter((one.camera, one.stamp_ns) for one in recording.heard)
    foreign, twice = len(answered.keys() - published), sum(n > 1 for n in answered.values())
    last, back = {"": 0}, 0
    for one in recording.heard:
        back += one.stamp_ns <= last.get(one.camera, 0)
        last[one.camera] = one.stamp_ns
    stamps = [stamp for stamp, _ in recording.poses]
    back += sum(b < a for a, b in pairwise(stamps))
    unanswered = set(stamps) - {one.stamp_ns for one in recording.heard if one.scene}
    gone = [one for one in recording.heard if not _may_be_named(recording, one)]
    times_s = [one.at_s for one in recording.heard]
    silence_s = max(np.diff(times_s), default=float("inf"))
    scenes = {one.scene for one in recording.heard} - {"unknown"}
    return [
        Check(
            "every answer is to a published frame of its camera, once",
            f"{foreign} to none, {twice} twice",
            not foreign and not twice,
        ),
        Check(
            "no answer or pose is older than the one before, no pose without an answer",
            f"{back} older, {len(unanswered)} without, of {len(stamps)} poses",
            not back and not unanswered and len(stamps) > 0,
        ),
        Check(
            "no answer names a scene that the bank does not have",
            f"{len(gone)} do" + (f", first {gone[0].scene}" if gone else ""),
            not gone,
        ),
        Check(
            f"answers never stop for {_LONGEST_SILENCE_S:.0f} s, events included",
            f"{silence_s:.1f} s at most",
            bool(silence_s < _LONGEST_SILENCE_S),
        ),
        Check("scenes change", ", ".join(sorted(scenes)), len(scenes) > 1),
    ]


def _may_be_named(recording: Recording, one: Heard) -> bool:
    if one.rejected is not None or one.scene == "unknown":
        return True
    return any(
        life.start_s <= one.at_s and (life.end_s is None or one.at_s <= life.end_s + _LAST_WORDS_S)
        for life in recording.lives
        if life.scene == one.scene
    )


def _latencies(recording: Recording) -> np.ndarray:
    """Of each answer in order: (second at which it came, ms since its image was published)."""
    published = {
        (name, frame.stamp_ns): frame.time_s
        for name, frames in recording.published.items()
        for frame in frames
    }
    start_s = recording.start_s
    found = [
        (one.at_s - start_s, 1e3 * (one.at_s - published[one.camera, one.stamp_ns]))
        for one in recording.heard
        if one.rejected is None and (one.camera, one.stamp_ns) in published
    ]
    return np.array(found or [(0.0, np.nan)])


def _bins(recording: Recording, latencies: np.ndarray) -> list[dict[str, Any]]:
    """Answers over time, in sixty parts."""
    end_s = recording.heard[-1].at_s - recording.start_s if recording.heard else 1.0
    edges = np.linspace(0, end_s + 1e-6, _BINS + 1)
    named: list[Counter[str]] = [Counter() for _ in range(_BINS)]
    for one in recording.heard:
        place = np.searchsorted(edges, one.at_s - recording.start_s, "right")
        named[int(place) - 1][one.scene] += 1
    bins = []
    for low, high, scenes in zip(edges[:-1], edges[1:], named, strict=True):
        ms = latencies[(latencies[:, 0] >= low) & (latencies[:, 0] < high), 1]
        p50, p95 = np.percentile(ms, (50, 95)) if len(ms) else (None, None)
        bins.append(
            {
                "start_s": float(low),
                "end_s": float(high),
                "answers_hz": sum(scenes.values()) / float(high - low),
                "p50_ms": None if p50 is None else float(p50),
                "p95_ms": None if p95 is None else float(p95),
                "scenes": dict(scenes),
            }
        )
    return bins


def plot_soak(result: SoakResult, path: Path) -> Path:
    """Memory, latency, answers a second and scenes over time; events as lines.

    Raises:
        MspnError: the file cannot be written.
    """
    figure, axes = new_figure(1, 4, width=11.0, height=2.3)
    memory, latency, rate, scenes = axes[:, 0]
    times = np.array([one["start_s"] for one in result.bins])
    width = result.bins[0]["end_s"] - result.bins[0]["start_s"]
    middle = times + width / 2
    seconds, mb = zip(*result.memory_mb, strict=True)
    memory.plot(seconds, mb, color=ESTIMATE_COLOUR, lw=1)
    memory.axvspan(0, result.memory["warm_up_s"], color="black", alpha=0.06)
    memory.set(ylabel="memory (MB)", title=_title(result))
    for name, colour in (("p50", TRUE_COLOUR), ("p95", ESTIMATE_COLOUR)):
        values = [np.nan if one[f"{name}_ms"] is None else one[f"{name}_ms"] for one in result.bins]
        latency.plot(middle, values, color=colour, label=name)
    latency.set(ylabel="image to answer (ms)", yscale="log")
    latency.legend(fontsize=8)
    rate.plot(middle, [one["answers_hz"] for one in result.bins], color=TRUE_COLOUR)
    rate.set(ylabel="answers a second", ylim=(0, None))
    names = sorted({name for one in result.bins for name in one["scenes"]})
    bottom = np.zeros(len(times))
    for name in names:
        shares = np.array([_share(one["scenes"], name) for one in result.bins])
        scenes.bar(middle, shares, width, bottom=bottom, label=name)
        bottom += shares
    scenes.set(ylabel="answers by scene", xlabel="seconds", ylim=(0, 1))
    scenes.legend(fontsize=7, loc="upper right", ncols=3)
    _mark_events(axes[:, 0], result)
    return save_figure(figure, path)


def _share(scenes: dict[str, int], name: str) -> float:
    return scenes.get(name, 0) / max(1, sum(scenes.values()))


def _title(result: SoakResult) -> str:
    growth = result.memory["growth"]
    frames = sum(one["published"] for one in result.by_camera.values())
    return f"{len(result.by_camera)} cameras, {frames} frames: memory {growth:+.2%} after warm-up"


def _mark_events(axes: Any, result: SoakResult) -> None:
    kinds = list(dict.fromkeys(event.kind for event in result.events))
    for axis in axes:
        axis.set_xlim(0, result.bins[-1]["end_s"])
        for event in result.events:
            colour = f"C{4 + kinds.index(event.kind)}"
            style = "--" if event.kind in ("kill", "deactivate") else ":"
            axis.axvline(event.at_s, color=colour, lw=0.8, ls=style)
    marks = [
        axes[0].plot([], [], color=f"C{4 + place}", lw=1, label=kind)[0]
        for place, kind in enumerate(kinds)
    ]
    axes[0].legend(handles=marks, fontsize=7, ncols=len(kinds) or 1, loc="lower right")
