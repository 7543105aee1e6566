"""The newest frame only: a slot for one message, one thread that processes it, and the counts."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_LATENCIES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the frames: received = answered + overtaken + rejected + in_progress.

    ``latency_ms`` holds p50, p95 and p99 from a frame's arrival to its published answer, over the
    last thousand; None before the first. ``idle_s`` is the time since the last frame arrived, or
    since the node was activated.
    """

    received: int
    answered: int
    overtaken: int
    rejected: dict[str, int]
    in_progress: int
    latency_ms: tuple[float, float, float] | None
    idle_s: float


class NewestFrameWorker:
    """Processes the newest message on one thread; a message that waits when a newer one comes is
    overtaken: counted, never processed late, and none is processed twice.

    ``process`` gets a message, publishes its answer, and returns None, or the cause (a short key)
    why the frame was rejected. Should it raise nevertheless, the frame counts as rejected by a bug
    and ``on_bug`` gets the exception.
    """

    def __init__(
        self, process: Callable[[Any], str | None], on_bug: Callable[[Exception], None]
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
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
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
        """Start the thread; the idle time counts from here."""
        self._running = True
        self._last_arrival = time.monotonic()
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
            latencies = np.array(self._latencies_s) * 1000.0
            p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) if latencies.size else (0, 0, 0)
            return Counts(
                self._received,
                self._answered,
                self._overtaken,
                dict(self._rejected),
                int(self._busy) + int(self._waiting is not None),
                (float(p50), float(p95), float(p99)) if latencies.size else None,
                time.monotonic() - self._last_arrival,
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or not self._running)
                if self._waiting is None:
                    return
                (message, arrival), self._waiting, self._busy = self._waiting, None, True
            try:
                cause = self._process(message)
            # The thread must outlive any bug: without it every later frame would wait for ever.
            except Exception as error:
                cause = f"bug.{type(error).__name__}"
                self._on_bug(error)
            with self._changed:
                self._busy = False
                if cause is None:
                    self._answered += 1
                    self._latencies_s.append(time.monotonic() - arrival)
                else:
                    self._rejected[cause] += 1
