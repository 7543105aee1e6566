# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps a good model in service while the node runs, beside the frames.

Takes in one that has changed, and puts another engine in the place of one that fails.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.task import Future

from mspn_ros.inference.engine_recovery import reason_of
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.model_reader import UnsettledError
from mspn_ros.inference.model_watch import ModelWatch
from mspn_ros.inference.reloaded import Reloaded

# Seconds between two looks at the model's files.
_LOOK_S = 0.2
# Seconds after which a model that could not be taken in is read again though nothing has changed;
# each time twice as long, since reading a backbone costs about a second of a core.
_FIRST_RETRY_S, _LAST_RETRY_S = 0.4, 30.0
# Seconds after which no frame is with a model that was replaced any more.
_LET_GO_S = 2.0


class Reloading:
    """Watches a localizer's model and engine and reloads or replaces them, on a thread of its own.

    Neither the executor nor the frames wait for it. ``trouble`` says why the model as it is on
    disk is not in service; empty where it is.
    """

    def __init__(
        self, node: Any, localizer: Localizer, watch: ModelWatch, take_in: Callable[[], None]
    ) -> None:
        """``take_in`` is called on the thread here after the model has been read anew."""
        self._node, self._localizer = node, localizer
        self._watch, self._take_in = watch, take_in
        self.trouble = ""
        self._changed = threading.Condition()
        self._asked: list[Future] = []
        self._running = True
        self._retry_s, self._retry_at_s = _FIRST_RETRY_S, float("inf")
        self._tidy_at_s = float("inf")
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        self._thread.start()

    def now(self) -> Future:
        """Reload at once; the result is whether the model could be read, and what is to be said."""
        future = Future()
        with self._changed:
            if self._running:
                self._asked.append(future)
                self._changed.notify()
            else:
                future.set_result((False, "the model is being let go"))
        return future

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread; a model that it is reading just now is not taken in any more."""
        with self._changed:
            self._running = False
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or not self._running, _LOOK_S)
                asked, self._asked = self._asked, []
            if not self._running:
                self._answer(asked, False, "the model is being let go")
                self._watch.close()
                return
            # Looked at before it is read: what changes meanwhile shows at the next look.
            changed = self._watch.changed()
            if asked or changed or time.monotonic() >= self._retry_at_s:
                if changed:
                    self._retry_s = _FIRST_RETRY_S
                self._answer(asked, *self._reload(patient=not asked))
            self._recover()
            if time.monotonic() >= self._tidy_at_s:
                self._tidy_at_s = float("inf")
                _give_back_memory()

    def _recover(self) -> None:
        logger = self._node.get_logger()
        try:
            text = self._localizer.recover()
            if text and self._running:
                self._take_in()
                self._tidy_at_s = time.monotonic() + _LET_GO_S
        # Everything, since the thread must outlive any bug.
        except Exception as error:
            text = reason_of(error)
        if text:
            logger.warning(f"engine: {text}")

    def _reload(self, patient: bool) -> tuple[bool, str]:
        logger = self._node.get_logger()
        try:
            reloaded = self._localizer.reload(patient)
            if self._running:
                self._take_in()
                self._tidy_at_s = time.monotonic() + _LET_GO_S
        # Everything, since the thread must outlive any bug, and a GPU may be out of memory.
        except Exception as error:
            trouble = f"{reason_of(error)}; what was in service stays"
            if trouble != self.trouble:
                logger.warning(f"reload: {trouble}")
            self.trouble = trouble
            self._retry_at_s = time.monotonic()
            if not isinstance(error, UnsettledError):
                self._retry_at_s += self._retry_s
                self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            return False, trouble
        self.trouble, self._retry_at_s = "", float("inf")
        text = self._text(reloaded)
        if reloaded:
            logger.info(f"reload: {text}")
        for _, why in reloaded.refused[:10]:
            logger.warning(f"reload: left out: {why}")
        return True, text

    def _text(self, reloaded: Reloaded) -> str:
        version, scenes = self._localizer.bank_version, len(self._localizer.rows)
        return f"bank version {version}: {scenes} scenes; {reloaded}"

    def _answer(self, asked: list[Future], success: bool, text: str) -> None:
        for future in asked:
            future.set_result((success, text))
        if asked and self._node.executor is not None:
            self._node.executor.wake()


def _give_back_memory() -> None:
    """Hand to the system what a replaced model and its reading have left.

    glibc keeps it, in an arena for each thread: over days of reloads a node would seem to grow.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # other C libraries have none
        trim(0)
