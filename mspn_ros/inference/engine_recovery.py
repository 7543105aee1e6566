# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of a model whose engine fails while it serves: another stands in, until it works.

An engine may fail for good (a CUDA error loses the context for the whole process) or for a while
(a device is out of memory). Which of them, only trying tells: the plain path on the CPU, which
needs nothing but memory, takes over at once; the engine that was wanted is made anew beside it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch

from mspn_ros.inference.engine_names import PLAIN
from mspn_ros.inference.engines import one_thread
from mspn_ros.inference.model_reader import LoadedModel, ModelReader
from mspn_ros.records import MspnError

# Images in a row without an answer before the engine is suspected: one alone may be at fault.
FAILURES = 3
# Seconds until something is tried (again); each time twice as long, until so many images have been
# answered since: an engine that fails now and then must not be made anew all the time.
_FIRST_WAIT_S, _LAST_WAIT_S = 1.0, 300.0
_PROVEN = 1000
# Characters of a reason.
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Recovered:
    """``model`` is to serve from now on, the one that does if None; ``text`` is to be said."""

    model: LoadedModel | None
    text: str


class EngineRecovery:
    """Counts what the model in service answers, and makes another where it does not.

    ``trouble`` says what is not as it should be; empty where all is. ``failed`` and ``answered``
    are for who localizes, ``step`` for one other thread.
    """

    def __init__(self, reader: ModelReader) -> None:
        self._reader, self._wanted = reader, reader.placement
        self.trouble = ""
        self._stands_in = False
        self._failures, self._answered, self._reason = 0, 0, ""
        self._wait_s, self._not_before_s = _FIRST_WAIT_S, 0.0

    def failed(self, error: Exception) -> None:
        """An image got no answer, and was not at fault as far as one can see."""
        self._reason, self._failures = reason_of(error), self._failures + 1

    def answered(self) -> None:
        """An image got its answer."""
        self._failures = 0
        self._answered += 1

    def step(self, model: LoadedModel, now_s: float) -> Recovered | None:
        """What there is to do about ``model``, which serves; None for nothing, or not yet.

        ``now_s``: seconds of a steady clock.
        """
        # What stands in proves nothing of the engine that is to come back.
        if self._answered >= _PROVEN and not self._stands_in:
            self._wait_s, self._not_before_s = _FIRST_WAIT_S, 0.0
        if self.trouble and not self._stands_in and not self._failures:
            self.trouble = ""
            return Recovered(None, f"{_name(model)} answers again")
        if now_s < self._not_before_s:
            return None
        if self._failures >= FAILURES:
            self._wait(now_s)
            with one_thread():
                return self._replace(model)
        if not self._stands_in:
            return None
        self._wait(now_s)
        with one_thread():
            return self._come_back()

    def _replace(self, model: LoadedModel) -> Recovered | None:
        failed = f"{_name(model)} failed ({self._reason})"
        _free_memory()
        try:
            model.warm_up()
        # Whatever a driver or a library raises.
        except Exception as error:
            failed = f"{_name(model)} failed ({reason_of(error)})"
        else:
            # The images were at fault after all, or it was out of memory for a moment.
            self._failures = 0
            return None
        cpu = torch.device("cpu")
        try:
            other = self._reader.renewed(cpu, PLAIN)
        except Exception as error:
            self.trouble = f"{failed}; no engine can be made in its place: {reason_of(error)}"
            return Recovered(None, self.trouble)
        self._failures = self._answered = 0
        self._stands_in = self._wanted != (cpu, PLAIN)
        if not self._stands_in:
            self.trouble = ""
            return Recovered(other, f"{failed}; it was made anew")
        self.trouble = f"{failed}; {_name(other)} stands in"
        return Recovered(other, self.trouble)

    def _come_back(self) -> Recovered | None:
        device, engine = self._wanted
        _free_memory()
        try:
            # Quicker than reading a model for a context that is lost.
            torch.zeros(1, device=device).cpu()
            model = self._reader.renewed(device, engine)
        # What stands in goes on to do so.
        except Exception:
            return None
        self._failures = self._answered = 0
        self.trouble, self._stands_in = "", False
        return Recovered(model, f"{_name(model)} was made anew and answers again")

    def _wait(self, now_s: float) -> None:
        self._not_before_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LAST_WAIT_S)


def reason_of(error: Exception) -> str:
    """An exception in one line; those that are not ours are named by their type.

    A message from a stranger may have an encoding's name of megabytes, which the error quotes.
    """
    reason = str(error).partition("\n")[0]
    if not isinstance(error, MspnError):
        reason = f"{type(error).__name__}: {reason}"
    if len(reason) > _LONGEST:
        reason = f"{reason[: _LONGEST // 2]} ... {reason[-_LONGEST // 2 :]}"
    return "".join(one if one.isprintable() else "?" for one in reason)


def _name(model: LoadedModel) -> str:
    return f"{model.backbone.engine.name} on {model.backbone.device}"


def _free_memory() -> None:
    """What PyTorch keeps for itself of a GPU's memory; nothing after a CUDA error."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
