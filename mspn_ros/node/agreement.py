# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which answers agree on where the robot is, and what they say together. Knows no node.

Errors of single answers are not independent: images of one place fool a network alike. Agreement
guards against the answer that is wrong by itself; it does not make the others more exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.records import Array

# Of two answers' difference, squared and in units of their covariances: the quantile at 99.9 % of
# the chi-squared distribution with three degrees of freedom.
_GATE = 16.266
# What two answers may differ by whatever their covariances say: these are of held-out frames, and
# of a new place they may be too small.
_FLOOR_M, _FLOOR_RAD = 0.1, math.radians(2.0)
# A drift is told if it is at least this large over all answers, and this many times as large as
# the answers scatter about it.
_LEAST_DRIFT_M, _LEAST_DRIFT_RAD, _CLEAR = 0.05, math.radians(3.0), 3.0


@dataclass(frozen=True, slots=True)
class PoseAnswer:
    """One answer: the pose of ``subject`` (a frame, or a camera) in ``frame_id``.

    ``position`` (3,) in metres, ``quaternion`` (4,) xyzw of body axes, ``covariance`` (6, 6) in
    m^2 and rad^2 about ``frame_id``'s fixed axes, as in REP-103; ``stamp_ns`` is the image's.
    """

    stamp_ns: int
    scene: str
    frame_id: str
    subject: str
    position: Array
    quaternion: Array
    covariance: Array


@dataclass(frozen=True, slots=True)
class Bounds:
    """``answers`` of them have to agree.

    Two do where they differ by ``distance_m`` and ``angle_rad`` at most, and by no more than their
    covariances make likely.
    """

    answers: int
    distance_m: float
    angle_rad: float


@dataclass(frozen=True, slots=True)
class Agreed:
    """What agreeing answers say together, see ``agreed_pose``.

    ``spread_m`` and ``spread_rad`` are the largest distances of one of them from their mean;
    ``speed_m_s`` and ``turn_rad_s`` how fast it moved meanwhile, 0 where that can't be told from
    their scatter.
    """

    pose: PoseAnswer
    count: int
    spread_m: float
    spread_rad: float
    speed_m_s: float
    turn_rad_s: float


def agree(a: PoseAnswer, b: PoseAnswer, bounds: Bounds) -> bool:
    """Whether two answers may be of one pose."""
    if (a.scene, a.frame_id, a.subject) != (b.scene, b.frame_id, b.subject):
        return False
    moved = a.position - b.position
    turned = (Rotation.from_quat(a.quaternion) * Rotation.from_quat(b.quaternion).inv()).as_rotvec()
    covariance = a.covariance + b.covariance
    return _alike(moved, covariance[:3, :3], _FLOOR_M, bounds.distance_m) and _alike(
        turned, covariance[3:, 3:], _FLOOR_RAD, bounds.angle_rad
    )


def _alike(difference: Array, covariance: Array, floor: float, most: float) -> bool:
    size = float(np.linalg.norm(difference))
    if size > most:
        return False
    return size <= floor or float(difference @ np.linalg.pinv(covariance) @ difference) <= _GATE


def agreed_pose(members: list[PoseAnswer]) -> Agreed:
    """The mean of agreeing answers, at the mean of their stamps.

    A robot that moves evenly was at the mean pose at that time. The covariance is that of the
    mixture: the mean of the answers' own, since their errors are not independent and do not
    cancel out, plus how the answers scatter (and what the robot has moved).
    """
    positions = np.array([answer.position for answer in members])
    rotations = Rotation.from_quat(np.array([answer.quaternion for answer in members]))
    position, rotation = positions.mean(0), rotations.mean()
    deviations = np.hstack((positions - position, (rotations * rotation.inv()).as_rotvec()))
    scatter = deviations.T @ deviations / max(len(members) - 1, 1)
    own = np.mean([answer.covariance for answer in members], axis=0)
    # Python integers: a float would lose a tenth of a microsecond of nanoseconds since 1970.
    first = members[0]
    since_ns = np.array([answer.stamp_ns - first.stamp_ns for answer in members])
    pose = PoseAnswer(
        first.stamp_ns + round(float(since_ns.mean())),
        first.scene,
        first.frame_id,
        first.subject,
        position,
        np.asarray(rotation.as_quat()),
        np.asarray(own + scatter),
    )
    spread = [float(np.linalg.norm(part, axis=1).max()) for part in np.hsplit(deviations, 2)]
    speeds = [
        _speed(since_ns / 1e9, part, least)
        for part, least in zip(
            np.hsplit(deviations, 2), (_LEAST_DRIFT_M, _LEAST_DRIFT_RAD), strict=True
        )
    ]
    return Agreed(pose, len(members), *spread, *speeds)


def _speed(time_s_N: Array, deviation_N3: Array, least: float) -> float:
    """Of an even motion, by least squares; 0 where scatter could look like it."""
    centred = time_s_N - time_s_N.mean()
    if len(time_s_N) < 4 or not centred.any():
        return 0.0
    velocity = centred @ deviation_N3 / (centred @ centred)
    rest = deviation_N3 - centred[:, None] * velocity
    scatter = math.sqrt(float((rest**2).sum()) / (len(time_s_N) - 2))
    speed = float(np.linalg.norm(velocity))
    drift = speed * float(np.ptp(time_s_N))
    return speed if drift >= max(least, _CLEAR * scatter) else 0.0


class _Candidate(NamedTuple):
    answer: PoseAnswer
    partners: set[int]


@dataclass(slots=True)
class Agreement:
    """Takes answers until enough agree.

    K have to, of the last K and a quarter of K: one that is wrong by itself does no harm, and two
    places that look alike, each seen about as often as the other, come to no agreement.
    ``without_pose`` counts the frames that gave none; ``last_reason`` is why.
    """

    bounds: Bounds
    without_pose: int = 0
    last_reason: str = ""
    _known: int = 0
    _candidates: dict[int, _Candidate] = field(default_factory=dict)

    def add(self, answer: PoseAnswer) -> Agreed | None:
        """Take one more; the agreed pose once there are enough.

        Each of the answers agrees with one of them, the one that agrees with most.
        """
        if any(answer.stamp_ns < c.answer.stamp_ns - 10**9 for c in self._candidates.values()):
            self._candidates.clear()  # time was set back: what was seen then says nothing now
        number, partners = self._known, set[int]()
        for other, candidate in self._candidates.items():
            if agree(candidate.answer, answer, self.bounds):
                candidate.partners.add(number)
                partners.add(other)
        self._candidates[number] = _Candidate(answer, partners)
        self._known += 1
        oldest = next(iter(self._candidates))
        if len(self._candidates) > self.bounds.answers + self.bounds.answers // 4:
            del self._candidates[oldest]
            for candidate in self._candidates.values():
                candidate.partners.discard(oldest)
        members = self._largest_group()
        return agreed_pose(members) if len(members) >= self.bounds.answers else None

    def miss(self, reason: str) -> None:
        """A frame gave no pose."""
        self.without_pose += 1
        self.last_reason = reason

    def shortfall(self) -> str:
        """Why there is no agreement so far, in one line."""
        misses = ""
        if self.without_pose:
            misses = f"{self.without_pose} frames gave no pose, the last since {self.last_reason}"
        answers = [candidate.answer for candidate in self._candidates.values()]
        if not answers:
            return misses or "no frames came"
        parts = [f"{len(self._largest_group())} of {self.bounds.answers} answers agreed"]
        scenes = sorted({answer.scene for answer in answers})
        if len(scenes) > 1:
            parts.append(f"the last {len(answers)} are of the scenes {', '.join(scenes)}")
        elif len(answers) > 1:
            positions = np.array([answer.position for answer in answers])
            rotations = Rotation.from_quat(np.array([answer.quaternion for answer in answers]))
            between = np.linalg.norm(positions[:, None] - positions[None], axis=-1).max()
            turn = np.degrees((rotations * rotations[0].inv()).magnitude().max())
            parts.append(f"the last {len(answers)} spread {between:.2g} m and {turn:.2g} deg")
        return "; ".join((*parts, misses) if misses else parts)

    def _largest_group(self) -> list[PoseAnswer]:
        numbered = self._candidates
        if not numbered:
            return []
        centre = max(numbered, key=lambda number: len(numbered[number].partners))
        group = sorted({centre, *numbered[centre].partners})
        return [numbered[number].answer for number in group]
