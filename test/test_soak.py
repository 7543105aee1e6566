# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The short form of ``make soak``: two rounds, a renamed scene, a pause."""

import json

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools  # noqa: F401  first: a DDS domain of the tests' own
from soak import FATES, memory_growth, run


def test_every_frame_is_accounted_for_while_scenes_change_and_the_node_pauses(tmp_path):
    # Memory says nothing in seconds; the long form holds it to a hundredth.
    assert run(5 / 60, 2, 15.0, tmp_path, most_growth=1.0, round_s=2.5) == 0
    result = json.loads((tmp_path / "soak.json").read_text())
    assert result["troubles"] == []
    assert set(result["events"]) == {"renamed", "deactivated, activated"}
    for frames in (result["frames"], *result["by_camera"].values()):
        assert frames["published"] == sum(frames[fate] for fate in FATES[1:])
        assert frames["answered"] > 0
    assert result["frames"]["published"] > 2 * 15 * 5 / 2
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_growth_is_told_from_after_the_warm_up_on():
    steady = [(float(s), 900.0 if s > 100 else 500.0 + 4 * s) for s in range(1000)]
    assert memory_growth(steady)[:2] == (900.0, 900.0)
    leaking = [(s, mb + 0.02 * s) for s, mb in steady]
    start_mb, end_mb, slope = memory_growth(leaking)
    assert (start_mb, end_mb) == pytest.approx((904, 918), abs=1)
    assert slope == pytest.approx(72)
