# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``make soak``: its short form for real, and that each of its demands can fail."""

import json
from copy import deepcopy

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

from models import make_tiny_model
from soak import FAULTS, RELOADS, Plan, Soak
from soak_report import judge, plot_soak

from mspn_ros.evaluation.answers import write_json

CAMERAS, HZ, SECONDS = 2, 20.0, 4.0
# A node that has just started is still growing: torch and DDS make their pools with the first
# frames. That it does not go on so is what the long form is for.
MOST_GROWTH = 0.25


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Of a few seconds: a reload, a camera that is killed, and a deactivation."""
    folder = tmp_path_factory.mktemp("soak")
    plan = Plan(
        SECONDS,
        CAMERAS,
        HZ,
        ((0.8, "rename"), (1.2, "kill"), (2.2, "deactivate")),
        warm_up_s=1.0,
        size=(64, 48),
        hold_s=0.2,
        model=make_tiny_model(folder / "made", ("hall", "lab", "attic")),
        engine="torch_float32",
    )
    with Soak(plan, folder) as soak:
        yield soak.run(lambda done, total, note: None)


def judged(recording):
    return judge(recording, 1.0, MOST_GROWTH)


def failing(recording):
    return [check.promise for check in judged(recording).checks if not check.holds]


def test_every_frame_is_accounted_for_while_scenes_state_and_cameras_change(recording, tmp_path):
    result = judged(recording)
    result.show()
    assert failing(recording) == []
    assert [event.kind for event in result.events] == ["rename", "kill", "deactivate"]
    for name in ("camera0", "camera1"):
        one = result.by_camera[name]
        assert 0 < one["answered"] <= one["received"] < one["published"]
        # The node was inactive for a second.
        assert one["before_matching"] > 0
    assert result.by_camera["camera0"]["cut"] <= 1
    assert any(one.scene == "hall_renamed" for one in recording.heard)
    write_json(tmp_path / "soak.json", result.to_json())
    assert json.loads((tmp_path / "soak.json").read_text())["holds"] is True
    assert plot_soak(result, tmp_path / "soak.png").stat().st_size > 10_000


def a_leak(recording):
    recording.memory = [(at_s, mb + 100 * at_s) for at_s, mb in recording.memory]


def a_frame_that_no_camera_sent(recording):
    del recording.published["camera0"][:]


def an_answer_that_came_twice(recording):
    recording.heard.append(recording.heard[-1])


def an_answer_that_is_not_heard(recording):
    del recording.heard[3]


def a_scene_that_is_gone(recording):
    named = next(one.scene for one in reversed(recording.heard) if one.scene != "unknown")
    for life in recording.lives:
        if life.scene == named:
            life.end_s = life.start_s - 10


def a_rejected_frame(recording):
    recording.status["camera0"]["rejected.inference_error"] = "1"


def an_old_pose(recording):
    recording.poses.append((recording.poses[0][0], recording.poses[-1][1]))


def a_silence(recording):
    recording.heard = [
        one if i < 5 else one._replace(at_s=one.at_s + 60) for i, one in enumerate(recording.heard)
    ]


@pytest.mark.parametrize(
    ("harm", "promise"),
    [
        (a_leak, "memory grows"),
        (a_leak, "its trend"),
        (a_frame_that_no_camera_sent, "every published frame"),
        (a_frame_that_no_camera_sent, "every answer is to a published frame"),
        (an_answer_that_came_twice, "every answer is to a published frame"),
        (an_answer_that_is_not_heard, "every frame that the node says"),
        (a_scene_that_is_gone, "no answer names a scene"),
        (a_rejected_frame, "no frame is rejected"),
        (an_old_pose, "no answer or pose is older"),
        (a_silence, "answers never stop"),
    ],
)
def test_each_demand_fails_where_it_is_not_met(recording, harm, promise):
    harmed = deepcopy(recording)
    harm(harmed)
    assert any(text.startswith(promise) for text in failing(harmed)), failing(harmed)


def test_the_long_form_does_everything_within_its_warm_up_and_ends_in_peace():
    plan = Plan.of(30, 4, 30)
    early = {kind for at_s, kind in plan.events if at_s < plan.warm_up_s}
    assert early == {*RELOADS, *FAULTS}
    assert plan.warm_up_s == 180
    assert max(at_s for at_s, _ in plan.events) < 1780
