"""The newest frame only: a slot for one message, one thread that processes it, and the counts."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

_FRAMES_KEPT = 1000
_STAGES = ("waiting", "decode", "localize", "publish")


class Milestones(NamedTuple):
    """When an answered frame had been decoded and when localized, in ``time.monotonic`` seconds."""

    decoded_s: float
    localized_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the frames: received = answered + overtaken + rejected + in_progress.

    ``latency_ms`` holds p50, p95 and p99 from a frame's arrival to its published answer, over the
    last thousand answered since the node was activated; None before the first. ``stages_ms``
    holds p50 and p95 of what each of these frames spent, empty before the first: ``waiting``
    for the worker to take it, then ``decode`` (deserialized, decoded), ``localize`` and
    ``publish``, which is the rest; and ``ros_adds``, the latency without ``localize``.
    ``idle_s`` is the time since the last frame arrived, or since the node was activated.
    """

    received: int
    answered: int
    overtaken: int
    rejected: dict[str, int]
    in_progress: int
    latency_ms: tuple[float, float, float] | None
    stages_ms: dict[str, tuple[float, float]]
    idle_s: float


class NewestFrameWorker:
    """Processes the newest message on one thread.

    A message that waits when a newer one comes is overtaken: counted, never processed late, and
    none is processed twice.

    ``process`` gets a message, publishes its answer, and returns the frame's milestones, or the
    cause (a short key) why it was rejected. Should it raise nevertheless, the frame counts as
    rejected by a bug and ``on_bug`` gets the exception.
    """

    def __init__(
        self, process: Callable[[Any], Milestones | str], on_bug: Callable[[Exception], None]
    ) -> None:
        self._process = process
        self._on_bug = on_bug
        self._changed = threading.Condition()
        self._waiting: tuple[Any, float] | None = None
        self._busy = False
        self._thread: threading.Thread | None = None
        self._running = False
        self._received = self._answered = self._overtaken = 0
        self._rejected: Counter[str] = Counter()
        # Of each answered frame: arrival, taken, decoded, localized, published.
        self._times_s: deque[tuple[float, ...]] = deque(maxlen=_FRAMES_KEPT)
        self._last_arrival = time.monotonic()

    def submit(self, message: Any) -> None:
        """Take a message from the subscription; returns at once."""
        with self._changed:
            self._received += 1
            self._last_arrival = time.monotonic()
            if self._waiting is not None:
                self._overtaken += 1
            self._waiting = (message, self._last_arrival)
            self._changed.notify()

    def start(self) -> None:
        """Start the thread; idle time, latencies and stages count from here."""
        with self._changed:
            self._running = True
            self._last_arrival = time.monotonic()
            self._times_s.clear()
        if self._thread is not None and self._thread.is_alive():
            return  # stop() gave up waiting for it; it goes on
        # A daemon, so that a forward pass that hangs in a driver cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 1.5) -> None:
        """End the thread after the frame in progress; one still waiting counts as overtaken."""
        with self._changed:
            self._running = False
            if self._waiting is not None:
                self._waiting = None
                self._overtaken += 1
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def counts(self) -> Counts:
        """A consistent snapshot."""
        with self._changed:
            times_s = list(self._times_s)
            counts = Counts(
                self._received,
                self._answered,
                self._overtaken,
                dict(self._rejected),
                int(self._busy) + int(self._waiting is not None),
                None,
                {},
                time.monotonic() - self._last_arrival,
            )
        # Not under the lock: a frame must not wait for statistics.
        return replace(counts, **_durations_ms(times_s)) if times_s else counts

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or not self._running)
                if self._waiting is None:
                    return
                (message, arrival), self._waiting, self._busy = self._waiting, None, True
            taken = time.monotonic()
            try:
                done = self._process(message)
            # The thread must outlive any bug: without it every later frame would wait for ever.
            except Exception as error:
                done = f"bug.{type(error).__name__}"
                self._on_bug(error)
            published = time.monotonic()
            with self._changed:
                self._busy = False
                if isinstance(done, str):
                    self._rejected[done] += 1
                else:
                    self._answered += 1
                    self._times_s.append((arrival, taken, *done, published))


def _durations_ms(times_s: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """``latency_ms`` and ``stages_ms`` of ``Counts``."""
    times = np.array(times_s) * 1000.0
    latency = times[:, -1] - times[:, 0]
    stages = dict(zip(_STAGES, np.diff(times).T, strict=True))
    stages["ros_adds"] = latency - stages["localize"]
    p50, p95, p99 = np.percentile(latency, (50, 95, 99))
    return {
        "latency_ms": (float(p50), float(p95), float(p99)),
        "stages_ms": {
            name: (float(np.percentile(spent, 50)), float(np.percentile(spent, 95)))
            for name, spent in stages.items()
        },
    }
