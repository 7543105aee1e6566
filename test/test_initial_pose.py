# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which answers agree, what they say together, and the service that tells AMCL so."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

from scipy.spatial.transform import Rotation

from mspn_ros.node.agreement import Agreement, Bounds, PoseAnswer, agree, agreed_pose

BOUNDS = Bounds(5, 1.0, np.radians(20))
COVARIANCE = np.diag([0.04, 0.04, 0.04, 1e-3, 1e-3, 1e-3])


def answer_at(position, yaw_deg=0.0, number=0, scene="hall", covariance=COVARIANCE):
    turn = Rotation.from_euler("z", yaw_deg, degrees=True)
    stamp_ns = 1_700_000_000_000_000_001 + number * 100_000_000
    position = np.asarray(position, float)
    return PoseAnswer(stamp_ns, scene, "map", "base_link", position, turn.as_quat(), covariance)


def scattered(rng, count, position=(4.0, 2.0, 0.0), yaw_deg=179.0):
    return [
        answer_at(rng.normal(position, 0.05), yaw_deg + rng.normal(0, 1), number)
        for number in range(count)
    ]


def taken(agreement, answers):
    """What the last of the answers gave; none before it may have given anything."""
    *before, last = answers
    assert [agreement.add(answer) for answer in before] == [None] * len(before)
    return agreement.add(last)


def test_the_fifth_agreeing_answer_gives_their_mean_at_their_mean_time():
    answers = scattered(np.random.default_rng(0), 5)
    agreed = taken(Agreement(BOUNDS), answers)
    mean = np.mean([answer.position for answer in answers], axis=0)
    np.testing.assert_allclose(agreed.pose.position, mean)
    assert agreed.pose.stamp_ns == answers[2].stamp_ns
    # Yaws about 179 degrees lie on both sides of the half turn; their mean must not be about 0.
    yaw = Rotation.from_quat(agreed.pose.quaternion).as_euler("ZYX", degrees=True)[0]
    assert abs(yaw) > 175
    assert (agreed.count, agreed.speed_m_s, agreed.turn_rad_s) == (5, 0, 0)
    assert (agreed.pose.scene, agreed.pose.frame_id, agreed.pose.subject) == (
        "hall",
        "map",
        "base_link",
    )


def test_the_covariance_is_no_smaller_than_the_answers_own_and_their_scatter():
    """Averaging K answers divided it by K once: their errors are not independent."""
    rng = np.random.default_rng(1)
    answers = [
        replace(answer, covariance=COVARIANCE * factor)
        for answer, factor in zip(scattered(rng, 6), (1, 1, 2, 2, 3, 3), strict=True)
    ]
    found = agreed_pose(answers).pose.covariance
    positions = np.array([answer.position for answer in answers])
    np.testing.assert_allclose(found[:3, :3], 2 * COVARIANCE[:3, :3] + np.cov(positions.T))
    for least in (COVARIANCE, np.zeros((6, 6))):
        assert np.linalg.eigvalsh(found - least).min() >= 0
    np.testing.assert_allclose(found, found.T)


def test_an_answer_that_is_wrong_by_itself_is_left_out():
    right = scattered(np.random.default_rng(2), 5)
    for wrong in (answer_at([9, 9, 0], 179, 5), answer_at([4, 2, 0], 0, 6)):  # elsewhere; turned
        agreed = taken(Agreement(BOUNDS), [*right[:3], wrong, *right[3:]])
        assert agreed.count == 5
        assert agreed.spread_m < 0.2
        assert np.linalg.norm(agreed.pose.position - [4, 2, 0]) < 0.1


def test_two_places_that_look_alike_never_agree():
    """With the majority of the last nine answers, one or the other soon had it."""
    agreement = Agreement(BOUNDS)
    for number in range(50):
        place = [4, 2, 0] if number // 2 % 2 else [9, 9, 0]
        assert agreement.add(answer_at(place, 0, number)) is None
    assert agreement.shortfall().startswith("4 of 5 answers agreed; the last 6 spread 8.6 m")


@pytest.mark.parametrize("field", ["scene", "frame_id", "subject"])
def test_answers_of_other_scenes_frames_and_cameras_do_not_agree(field):
    one = answer_at([4, 2, 0])
    assert agree(one, one, BOUNDS)
    assert not agree(one, replace(one, **{field: "other"}), BOUNDS)


def test_answers_differ_at_most_by_what_the_bounds_and_their_covariances_allow():
    def agrees(metres, degrees, deviation_m, deviation_deg):
        variances = np.repeat([deviation_m, np.radians(deviation_deg)], 3) ** 2
        covariance = np.diag(variances)
        one, other = answer_at([0, 0, 0]), answer_at([0, metres, 0], degrees)
        return agree(
            replace(one, covariance=covariance), replace(other, covariance=covariance), BOUNDS
        )

    assert agrees(0.9, 15, 1, 30)
    assert not agrees(1.1, 15, 1, 30)  # beyond the bound, likely or not
    assert not agrees(0.9, 25, 1, 30)
    assert not agrees(0.9, 0, 0.1, 30)  # 6 standard deviations of the difference
    assert agrees(0.09, 1.9, 1e-6, 1e-6)  # covariances may be too sure of themselves
    assert not agrees(0.09, 2.1, 1e-6, 1e-6)


def test_a_moving_robot_is_told_of_and_one_that_stands_is_not():
    rng = np.random.default_rng(3)
    moving = [answer_at(rng.normal([4 + 0.05 * n, 2, 0], 0.005), 2 * n, n) for n in range(6)]
    agreed = agreed_pose(moving)
    assert agreed.speed_m_s == pytest.approx(0.5, rel=0.2)
    assert np.degrees(agreed.turn_rad_s) == pytest.approx(20, rel=0.2)
    said = [agreed_pose(scattered(rng, 5)) for _ in range(200)]
    assert np.mean([a.speed_m_s > 0 or a.turn_rad_s > 0 for a in said]) < 0.1


def test_the_shortfall_says_how_many_agreed_and_how_far_they_spread():
    agreement = Agreement(BOUNDS)
    assert agreement.shortfall() == "no frames came"
    agreement.miss("the place is unknown")
    assert "1 frames gave no pose, the last since the place is unknown" in agreement.shortfall()
    taken(agreement, [answer_at([4, y, 0], 30 * (y > 1), i) for i, y in enumerate((0, 0.1, 2.1))])
    text = agreement.shortfall()
    assert text.startswith("2 of 5 answers agreed; the last 3 spread 2.1 m and 30 deg")
    agreement.add(answer_at([0, 0, 0], scene="lab"))
    assert "scenes hall, lab" in agreement.shortfall()


def test_answers_from_before_time_was_set_back_do_not_count():
    agreement = Agreement(BOUNDS)
    later = [answer_at([4, 2, 0], 0, 100 + number) for number in range(4)]
    earlier = [answer_at([4, 2, 0], 0, number) for number in range(5)]
    assert taken(agreement, later + earlier).count == 5
