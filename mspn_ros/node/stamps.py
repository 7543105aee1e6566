# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What images' stamps say: whether a frame follows those before, how old it is, whose clock."""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np

# A stamp that lies further back than this is no frame that came late: a bag began anew, or a clock
# was set. Less is a frame that has been overtaken on its way, or one of another camera.
JUMP_S = 1.0
JUMP_NS = round(JUMP_S * 1e9)
# Ages of so many frames tell how far clocks are apart.
_AGES = 30
# Clocks that are further apart than this are told of: a frame is seldom so long on its way.
_APART_S = 1.0

Order = Literal["next", "anew", "late"]


class StampOrder:
    """The stamps of one camera, one after the other.

    ``next`` follows the frames before, or has their stamp, or none at all (0). ``anew`` lies more
    than JUMP_S back, or less but nothing newer has come for so long: what was learnt from frames
    before does not hold. ``late`` is a frame that a newer one has overtaken on its way.
    """

    def __init__(self) -> None:
        self._latest_ns, self._at_s = 0, 0.0

    def judge(self, stamp_ns: int, now_s: float) -> Order:
        """Of the next frame; ``now_s``: seconds of a steady clock."""
        back_s = (self._latest_ns - stamp_ns) / 1e9
        if stamp_ns and 0 < back_s <= JUMP_S and now_s - self._at_s <= JUMP_S:
            return "late"
        order: Order = "anew" if stamp_ns and back_s > 0 else "next"
        if stamp_ns:
            self._latest_ns, self._at_s = stamp_ns, now_s
        return order


class ClockOffset:
    """How far one camera's stamps are behind the node's clock, by the median age of its frames."""

    def __init__(self) -> None:
        self._ages_s: deque[float] = deque(maxlen=_AGES)
        self.unstamped = False

    def take(self, stamp_ns: int, now_ns: int) -> None:
        """A frame's stamp, and the node's clock when the frame was taken to be answered."""
        self.unstamped = not stamp_ns
        if stamp_ns and now_ns:
            self._ages_s.append((now_ns - stamp_ns) / 1e9)

    @property
    def seconds(self) -> float | None:
        """Negative where the stamps are ahead; None before the first."""
        return float(np.median(self._ages_s)) if self._ages_s else None

    @property
    def hint(self) -> str:
        """What to do about clocks that differ; empty where they do not."""
        offset_s = self.seconds
        if offset_s is None or abs(offset_s) <= _APART_S:
            return ""
        return (
            f"stamps are {_span(abs(offset_s))} {'behind' if offset_s > 0 else 'ahead of'} this "
            "node's clock: synchronise the clocks (chrony, PTP), or, where a bag is played, "
            "play it with --clock and set use_sim_time"
        )


def staleness(stamp_ns: int, now_ns: int, max_age_s: float) -> str:
    """Why an image is too old to be answered; empty where it is not, or with ``max_age_s`` 0.

    A stamp that is as far ahead of the clock does not tell the age either.
    """
    age_s = (now_ns - stamp_ns) / 1e9
    if not max_age_s or abs(age_s) <= max_age_s:
        return ""
    if not stamp_ns:
        return "the image has no stamp, so that its age is not known; have the driver stamp it"
    side = "old" if age_s > 0 else "ahead of this node's clock"
    return (
        f"the image is {_span(abs(age_s))} {side}, max_age is {max_age_s:g} s; "
        "synchronise the clocks if they differ"
    )


def _span(seconds: float) -> str:
    """Seconds for people: 0.25 s, 312 s, 3.2 days."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s"
