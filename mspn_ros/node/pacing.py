# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Leaves out frames that come quicker than a given rate."""

from __future__ import annotations

# A frame may come so much before it is due, as a share of the time between two: cameras jitter.
_EARLY = 0.25


class Pacer:
    """Lets at most ``most_hz`` frames a second through, evenly, and decides at once.

    No frame is kept until it is due: it would be older then. Due times follow each other by the
    period, whenever frames come, so that 20 of 30 are let through and not every second one. Not
    for several threads.
    """

    def __init__(self) -> None:
        self._due_s = self._last_s = float("-inf")

    def lets(self, now_s: float, most_hz: float) -> bool:
        """Whether the frame that comes now goes through; with 0 every one does."""
        if most_hz <= 0:
            return True
        period_s = 1 / most_hz
        # A rate that was raised meanwhile must not wait for the old one's due time.
        due_s = min(self._due_s, self._last_s + (1 + _EARLY) * period_s)
        if now_s < due_s - _EARLY * period_s:
            return False
        self._due_s = (due_s if now_s < due_s + period_s else now_s) + period_s
        self._last_s = now_s
        return True
