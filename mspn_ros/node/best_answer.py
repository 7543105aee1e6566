# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which camera's answer speaks for the robot, where it has several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mspn_ros.node.stamps import JUMP_NS
from mspn_ros.records import PoseEstimate

# A camera's last answer counts until its next one, or until the camera has been silent for this
# long: the others then speak without it.
_SILENT_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """One camera's answer: ``camera`` by its number, the image's stamp."""

    camera: int
    stamp_ns: int
    estimate: PoseEstimate


class BestAnswer:
    """Compares what each camera answered last.

    An answer with a scene comes before one without. Of answers in different scenes, those in the
    scene of the highest confidence count; of these the one whose covariance has the smallest
    determinant (the smallest ellipsoid of errors, whatever the units), then the most confident.
    Not for several threads.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[Answered, float]] = {}
        self._published: Answered | None = None

    def choose(self, answered: Sequence[Answered], now_s: float) -> Answered | None:
        """Of new answers, at most one of each camera, the one to publish.

        None if what another camera answered before is better, or is of a later image.
        ``now_s``: seconds of a steady clock.
        """
        for answer in answered:
            self._last[answer.camera] = (answer, now_s)
        recent = [answer for answer, at_s in self._last.values() if now_s - at_s < _SILENT_S]
        best = _best(recent)
        if best is None or best not in answered or self._late(best):
            return None
        self._published = best
        return best

    def _late(self, answer: Answered) -> bool:
        last = self._published
        if last is None or last.camera == answer.camera:
            return False
        return 0 < last.stamp_ns - answer.stamp_ns < JUMP_NS


def _best(answers: Sequence[Answered]) -> Answered | None:
    known = [answer for answer in answers if answer.estimate.known]
    if not known:
        return max(answers, key=lambda answer: answer.estimate.confidence, default=None)
    scene = max(known, key=lambda answer: answer.estimate.confidence).estimate.scene_id
    inside = [answer for answer in known if answer.estimate.scene_id == scene]
    return min(inside, key=lambda a: (_log_volume(a.estimate), -a.estimate.confidence))


def _log_volume(estimate: PoseEstimate) -> float:
    """The logarithm of the covariance's determinant; infinite without one."""
    if estimate.covariance is None or not np.isfinite(estimate.covariance).all():
        return float("inf")
    sign, log_determinant = np.linalg.slogdet(estimate.covariance)
    return float(log_determinant) if sign > 0 else float("inf")
