"""The newest frame only: a slot for one message of each camera, one thread that processes what is
in them, and the counts.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

_FRAMES_KEPT = 1000
# What a frame's latency is made of, in their order.
STAGES = ("waiting", "decode", "localize", "publish")


class Milestones(NamedTuple):
    """When an answered frame had been decoded and when localized, with those that are localized
    together with it; in ``time.monotonic`` seconds.
    """

    decoded_s: float
    localized_s: float


Process = Callable[[Sequence[tuple[int, Any]]], Sequence[Milestones | str]]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of frames: received = answered + overtaken + rejected + in_progress.

    ``idle_s`` is the time since the last frame arrived, or since the node was activated.
    ``times_s`` says of each of the last thousand answered since then when it arrived, was taken by
    the worker, decoded, localized and published, in ``time.monotonic`` seconds.
    """

    received: int = 0
    answered: int = 0
    overtaken: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    in_progress: int = 0
    idle_s: float = 0.0
    times_s: tuple[tuple[float, ...], ...] = ()

    def __add__(self, other: Counts) -> Counts:
        """Of the frames of both."""
        return Counts(
            self.received + other.received,
            self.answered + other.answered,
            self.overtaken + other.overtaken,
            dict(Counter(self.rejected) + Counter(other.rejected)),
            self.in_progress + other.in_progress,
            min(self.idle_s, other.idle_s),
            self.times_s + other.times_s,
        )

    def durations_ms(self) -> dict[str, tuple[float, float, float]]:
        """p50, p95 and p99 of what frames took, in milliseconds; empty before the first answer.

        ``latency`` runs from a frame's arrival to its published answer. It is made of ``waiting``
        for the worker to take it, ``decode`` (deserialized, decoded), ``localize`` and
        ``publish``; ``ros_adds`` is the latency without ``localize``.
        """
        if not self.times_s:
            return {}
        times_ms = np.array(self.times_s) * 1000.0
        stages = {"latency": times_ms[:, -1] - times_ms[:, 0]}
        stages |= zip(STAGES, np.diff(times_ms).T, strict=True)
        stages["ros_adds"] = stages["latency"] - stages["localize"]
        found = {}
        for name, spent in stages.items():
            p50, p95, p99 = np.percentile(spent, (50, 95, 99))
            found[name] = (float(p50), float(p95), float(p99))
        return found


class NewestFrameWorker:
    """Processes the newest messages on one thread, those of all cameras together.

    A message that waits when a newer one of its camera comes is overtaken: counted, never
    processed late, and none is processed twice.

    ``process`` gets (camera, message) for one or more cameras, by number; it publishes the answers
    and returns of each, in order, the frame's milestones, or the cause (a short key) why it was
    rejected. Should it raise nevertheless, these frames count as rejected by a bug and ``on_bug``
    gets the exception.
    """

    def __init__(
        self, process: Process, on_bug: Callable[[Exception], None], cameras: int = 1
    ) -> None:
        self._process = process
        self._on_bug = on_bug
        self._changed = threading.Condition()
        self._slots = [_Slot() for _ in range(cameras)]
        self._thread: threading.Thread | None = None
        self._running = False

    def submit(self, message: Any, camera: int = 0) -> None:
        """Take a message from the subscription; returns at once."""
        with self._changed:
            slot = self._slots[camera]
            slot.received += 1
            slot.last_arrival_s = time.monotonic()
            if slot.waiting is not None:
                slot.overtaken += 1
            slot.waiting = (message, slot.last_arrival_s)
            self._changed.notify()

    def start(self) -> None:
        """Start the thread; idle time, latencies and stages count from here."""
        with self._changed:
            self._running = True
            for slot in self._slots:
                slot.last_arrival_s = time.monotonic()
                slot.times_s.clear()
        if self._thread is not None and self._thread.is_alive():
            return  # stop() gave up waiting for it; it goes on
        # A daemon, so that a forward pass that hangs in a driver cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 1.5) -> None:
        """End the thread after the frames in progress; those still waiting count as overtaken."""
        with self._changed:
            self._running = False
            for slot in self._slots:
                slot.overtaken += slot.waiting is not None
                slot.waiting = None
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def counts(self) -> tuple[Counts, ...]:
        """A consistent snapshot, by camera."""
        with self._changed:
            now_s = time.monotonic()
            taken = [(slot.counts(now_s), list(slot.times_s)) for slot in self._slots]
        # Not under the lock: a frame must not wait for statistics.
        return tuple(replace(counts, times_s=tuple(times_s)) for counts, times_s in taken)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._running or any(self._waiting()))
                taken = self._take()
                if not taken:
                    return
            self._turn(taken)

    def _waiting(self) -> list[bool]:
        return [slot.waiting is not None for slot in self._slots]

    def _take(self) -> list[tuple[int, Any, float]]:
        """(camera, message, arrival) of what waits; the lock is held."""
        taken = []
        for camera, slot in enumerate(self._slots):
            if slot.waiting is not None:
                (message, arrival_s), slot.waiting, slot.busy = slot.waiting, None, True
                taken.append((camera, message, arrival_s))
        return taken

    def _turn(self, taken: Sequence[tuple[int, Any, float]]) -> None:
        taken_s = time.monotonic()
        done: Sequence[Milestones | str]
        try:
            done = self._process([(camera, message) for camera, message, _ in taken])
        # The thread must outlive any bug: without it every later frame would wait for ever.
        except Exception as error:
            done = [f"bug.{type(error).__name__}"] * len(taken)
            self._on_bug(error)
        published_s = time.monotonic()
        with self._changed:
            for (camera, _, arrival_s), frame in zip(taken, done, strict=True):
                slot = self._slots[camera]
                slot.busy = False
                if isinstance(frame, str):
                    slot.rejected[frame] += 1
                else:
                    slot.answered += 1
                    slot.times_s.append((arrival_s, taken_s, *frame, published_s))


class _Slot:
    """Of one camera: the newest message, and what became of all."""

    def __init__(self) -> None:
        self.waiting: tuple[Any, float] | None = None
        self.busy = False
        self.received = self.answered = self.overtaken = 0
        self.rejected: Counter[str] = Counter()
        # Of each answered frame: arrival, taken, decoded, localized, published.
        self.times_s: deque[tuple[float, ...]] = deque(maxlen=_FRAMES_KEPT)
        self.last_arrival_s = time.monotonic()

    def counts(self, now_s: float) -> Counts:
        return Counts(
            self.received,
            self.answered,
            self.overtaken,
            dict(self.rejected),
            int(self.busy) + int(self.waiting is not None),
            now_s - self.last_arrival_s,
        )
