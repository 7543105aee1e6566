# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What stamps say of frames, and how many frames a second are let through."""

import numpy as np
import pytest

from mspn_ros.node.pacing import Pacer
from mspn_ros.node.stamps import ClockOffset, StampOrder, staleness

SECOND = 10**9


def orders(*frames):
    """What becomes of (stamp in s, time of arrival in s)."""
    order = StampOrder()
    return [order.judge(round(stamp_s * SECOND), at_s) for stamp_s, at_s in frames]


def test_a_frame_that_was_overtaken_on_its_way_is_late_and_the_next_is_not():
    assert orders((5.0, 0), (5.1, 0.1), (5.05, 0.11), (5.2, 0.2)) == [
        "next",
        "next",
        "late",
        "next",
    ]
    # As is every one of a second publisher whose frames take half a second longer.
    assert orders((5.0, 0), (4.5, 0.01), (5.1, 0.1), (4.6, 0.11)) == ["next", "late"] * 2


def test_a_jump_far_back_is_a_beginning_and_so_is_a_short_one_that_lasts():
    assert orders((60.0, 0), (1.0, 0.03), (1.03, 0.06)) == ["next", "anew", "next"]
    # A bag of half a second that is played in a loop: nothing newer comes for a second.
    frames = [(0.5, 0.0), (0.1, 0.1), (0.4, 0.4), (0.1, 0.6), (0.4, 0.9), (0.1, 1.1), (0.2, 1.2)]
    assert orders(*frames) == ["next", "late", "late", "late", "late", "anew", "next"]


def test_a_repeated_stamp_or_none_at_all_says_nothing_of_the_order():
    assert orders((5.0, 0), (5.0, 0.1), (0, 0.2), (0, 0.3), (5.1, 0.4)) == ["next"] * 5
    # A jump ahead is none back, however far.
    assert orders((5.0, 0), (1e9, 0.1), (1e9 + 0.1, 0.2)) == ["next"] * 3


def test_clocks_are_told_apart_by_the_median_age_whatever_single_frames_waited():
    clock, now_ns = ClockOffset(), 1_700_000_000 * SECOND
    assert (clock.seconds, clock.hint) == (None, "")
    for i in range(40):
        clock.take(now_ns, now_ns + round((30 if i % 5 == 0 else 0.02) * SECOND))
    assert clock.seconds == pytest.approx(0.02, abs=1e-3)
    assert clock.hint == ""
    for behind_s, words in (
        (312, "312 s behind this node's clock"),
        (-1.5, "1.50 s ahead of this node's clock"),
        (86400 * 1000, "1000.0 days behind"),
    ):
        for _ in range(40):
            clock.take(now_ns, now_ns + round(behind_s * SECOND))
        assert words in clock.hint
    # A clock that stands at 0 compares with nothing, nor do frames without stamps.
    clock = ClockOffset()
    clock.take(now_ns, 0)
    clock.take(0, now_ns)
    assert clock.seconds is None
    assert clock.unstamped


def test_age_is_held_against_the_clock_only_where_it_is_asked_for():
    now_ns = 1_700_000_000 * SECOND
    assert staleness(now_ns - 10**15, now_ns, 0.0) == staleness(0, now_ns, 0.0) == ""
    assert staleness(now_ns - SECOND // 2, now_ns, 0.5) == ""
    assert "0.60 s old, max_age is 0.5 s" in staleness(now_ns - 6 * SECOND // 10, now_ns, 0.5)
    assert "ahead" in staleness(now_ns + SECOND, now_ns, 0.5)
    assert "has no stamp" in staleness(0, now_ns, 0.5)


@pytest.mark.parametrize(("camera_hz", "most_hz"), [(30, 20), (30, 10), (60, 7), (200, 30)])
def test_a_camera_that_is_too_quick_is_thinned_evenly_to_the_rate(camera_hz, most_hz):
    random, pacer = np.random.default_rng(0), Pacer()
    jitter_s = random.normal(0, 0.1 / camera_hz, 20 * camera_hz)
    times_s = np.arange(20 * camera_hz) / camera_hz + jitter_s
    let = [time_s for time_s in times_s if pacer.lets(time_s, most_hz)]
    assert len(let) / 20 == pytest.approx(most_hz, rel=0.02)
    # Not two at once, and no longer without than the camera's own time more.
    assert np.diff(let).min() > 0.4 / most_hz
    assert np.diff(let).max() < 1.3 / most_hz + 1.3 / camera_hz


def test_a_camera_at_the_rate_loses_hardly_a_frame_to_its_jitter():
    """A plain least time between two would leave out every second frame that comes early."""
    random, pacer = np.random.default_rng(0), Pacer()
    times_s = np.arange(600) / 30 + random.normal(0, 0.002, 600)
    assert sum(pacer.lets(time_s, 30.0) for time_s in times_s) > 590


def test_after_a_pause_or_another_rate_nothing_waits_and_nothing_is_made_up_for():
    pacer = Pacer()
    assert pacer.lets(0.0, 0.1)
    assert not pacer.lets(1.0, 0.1)
    assert pacer.lets(1.0 + 1 / 30, 30.0)
    assert not pacer.lets(1.01 + 1 / 30, 30.0)
    assert [pacer.lets(500.0 + i / 100, 10.0) for i in range(6)] == [True] + [False] * 5
    assert all(pacer.lets(600.0, 0.0) for _ in range(9))
