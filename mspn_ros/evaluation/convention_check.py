# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the poses of a dataset move as its images do, and if not, what they may be instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.evaluation.conventions import Hypothesis, hypotheses
from mspn_ros.evaluation.two_views import Matches, Motion, motion, sample_matches
from mspn_ros.records import Array, Frame

PAIRS = 60
# Fewer pairs than this that turn (or move) say nothing of rotations (or of directions).
LEAST_PAIRS = 8
# A pair turns where the images or the poses say so by as much.
_LEAST_TURN_DEG = 3.0
# A median rotation error of a quarter of the median turn fits, within these bounds; and a median
# direction error below the last one: directions at random are off by 90.
_FITS_OF_TURN, _FITS_LEAST_DEG, _FITS_MOST_DEG = 0.25, 2.0, 5.0
_DIRECTION_FITS_DEG = 20.0
# Another hypothesis is named only if it fits, is better by such a factor than the poses as given in
# what these do not fit, and is so on such a share of the pairs that tell the two apart.
_MARGIN, _SHARE_OF_PAIRS = 0.4, 0.75
# Poses that nothing explains are called wrong if their cost is so large on so many pairs: a lens
# that is not as said, or repeated things that are matched, raise it, too.
_GROSS, _LEAST_FOR_GROSS = 3.0, 15
# Hypotheses this near to the best cannot be told from it.
_TIE = 1.25
# With more of them none is named.
_MOST_TIES = 2
# Focal lengths that are tried, as factors of the given one; what is nearer to 1 than _FOCAL_WRONG
# is left alone, since lenses and matches are not that exact.
_FOCAL_FACTORS = np.exp(np.linspace(-math.log(2.5), math.log(2.5), 75))
_COARSE_FACTORS = (0.4, 0.5, 0.625, 0.8, 1.25, 1.6, 2.0, 2.5)
_FOCAL_WRONG = 1.15
_FOCAL_MARGIN = 0.6
# With a free focal length something fits a few pairs by chance.
_LEAST_TURNING_FOR_FOCAL = 20
# The first hypotheses, which are the likely mistakes, are always shown.
_SHOWN = 14
# A gain in cost below it is none.
_LEAST_GAIN = 0.2
_LEAST_SINE = math.sin(math.radians(0.05))

Verdict = Literal["agrees", "differs", "unexplained", "cannot_tell"]


@dataclass(frozen=True, slots=True)
class HypothesisFit:
    """How a hypothesis goes with the images: median errors in degrees, None where unknown.

    Costs are errors over what would still fit: at most 1 fits; zero where there is none.
    """

    key: str
    text: str
    rotation_deg: float | None
    direction_deg: float | None
    rotation_cost: float
    direction_cost: float

    @property
    def fits(self) -> bool:
        """Whether what is known of it goes with the images."""
        return max(self.rotation_cost, self.direction_cost) <= 1

    @property
    def cost(self) -> float:
        """For ordering hypotheses."""
        return self.rotation_cost + self.direction_cost


@dataclass(frozen=True, slots=True)
class ConventionCheck:
    """What the images say about the poses of one split.

    ``verdict``: "agrees"; "differs" (``likely`` explains it, and ``ties`` do as well);
    "unexplained" (the poses do not go with the images, nor does anything else that is known);
    "cannot_tell", with its ``reason``. ``turning`` and ``moving`` are the pairs that rotations and
    directions were compared on. ``focal_factor``: the images want so many times the focal length;
    None where the given one does. ``fits`` are of the poses as given, the likely one, the best and
    the usual mistakes.
    """

    split: str
    verdict: Verdict
    reason: str
    pairs: int
    turning: int
    moving: int
    median_turn_deg: float | None
    likely: str | None
    ties: tuple[str, ...]
    remedy: str
    focal_factor: float | None
    fits: tuple[HypothesisFit, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check_conventions(
    frames: Sequence[Frame],
    split: str,
    format: str,
    count: int = PAIRS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ConventionCheck:
    """Hold the poses of ``frames`` (of one split, in recording order) against their images.

    ``count`` pairs of frames are matched, drawn by ``seed``: the same call gives the same answer.
    """
    matches = sample_matches(frames, count, seed, progress)
    return judge(matches, frames, split, format)


def judge(
    matches: Sequence[Matches], frames: Sequence[Frame], split: str, format: str
) -> ConventionCheck:
    """The check of matches that are there already."""
    known = hypotheses(format)
    poses = _poses(frames)
    fits = _Compared(matches, known, poses, 1.0)
    if fits.verdict == "agrees":
        return fits.result(split, _better_focal(matches, poses))
    if fits.verdict == "differs" or not fits.enough:
        return fits.result(split, None)
    # A wrong focal length makes every rotation too large or too small.
    others = [_Compared(matches, known, poses, factor) for factor in _COARSE_FACTORS]
    if fits.verdict == "cannot_tell":
        # Other conventions fit a doubtful case by chance.
        others = [other for other in others if other.verdict == "agrees"]
    best = min((fits, *others), key=lambda other: other.least_cost)
    if best.explained and best.least_cost < _FOCAL_MARGIN * fits.given_cost:
        finer = [
            _Compared(matches, known, poses, best.focal_factor * step)
            for step in (0.9, 0.95, 1.05, 1.1)
        ]
        best = min((best, *finer), key=lambda other: other.least_cost)
        return best.result(split, best.focal_factor)
    if fits.verdict == "unexplained" and any(other.verdict == "agrees" for other in others):
        fits.doubt("the poses go with the images at another focal length, by too few pairs to say")
    return fits.result(split, None)


def _poses(frames: Sequence[Frame]) -> tuple[Array, Array]:
    quaternions = np.array([frame.pose.quaternion for frame in frames])
    return Rotation.from_quat(quaternions).as_matrix(), np.array(
        [frame.pose.position for frame in frames]
    )


class _Compared:
    """All hypotheses against the motions that the images show at one focal length."""

    def __init__(
        self,
        matches: Sequence[Matches],
        known: Sequence[Hypothesis],
        poses: tuple[Array, Array],
        focal_factor: float,
    ) -> None:
        self.focal_factor = focal_factor
        self._known = known
        self._pairs = len(matches)
        motions = [m for m in (motion(pair, focal_factor) for pair in matches) if m is not None]
        self._errors = [_errors(motions, *h.step(*poses)) for h in known]
        turns = [_turn_deg(m.rotation) for m in motions]
        said = [_turn_deg(poses[0][m.second].T @ poses[0][m.first]) for m in motions]
        turn = np.maximum(turns, said) if motions else np.zeros(0)
        turning = turn >= _LEAST_TURN_DEG
        # Where next to nothing turns, small rotations still must be small.
        self._turning = turning if turning.sum() >= LEAST_PAIRS else np.ones(len(motions), bool)
        self.turning = int(turning.sum())
        self._moving = np.array([m.direction is not None for m in motions], bool)
        self.moving = int(self._moving.sum())
        self.median_turn = float(np.median(turn[turning])) if turning.any() else None
        wanted = _FITS_OF_TURN * (self.median_turn or 0.0)
        self._rotation_fits = min(max(wanted, _FITS_LEAST_DEG), _FITS_MOST_DEG)
        self.fits = [self._fit(h, *error) for h, error in zip(known, self._errors, strict=True)]
        self.verdict, self._reason = self._judge()

    def _fit(self, h: Hypothesis, rotation: Array, direction: Array) -> HypothesisFit:
        turned = moved = None
        if self._turning.any():
            turned = float(np.median(rotation[self._turning]))
        if self.moving >= LEAST_PAIRS:
            moved = float(np.median(direction[self._moving]))
        costs = (turned or 0.0) / self._rotation_fits, (moved or 0.0) / _DIRECTION_FITS_DEG
        return HypothesisFit(h.key, h.text, turned, moved, *costs)

    @property
    def best(self) -> int:
        """The hypothesis that fits best; of equals the likelier one."""
        least = min(fit.cost for fit in self.fits)
        return next(i for i, fit in enumerate(self.fits) if fit.cost <= _TIE * least)

    @property
    def given_cost(self) -> float:
        """The cost of the poses as given."""
        return self.fits[0].cost

    @property
    def enough(self) -> bool:
        """Whether there are pairs enough to say anything."""
        return max(self.turning, self.moving) >= LEAST_PAIRS

    @property
    def least_cost(self) -> float:
        """The least cost at this focal length; infinite where nothing is explained by it."""
        return self.fits[self.best].cost if self.explained else math.inf

    @property
    def explained(self) -> bool:
        """Whether the poses as given, or others in their place, go with the images."""
        enough = self.turning >= _LEAST_TURNING_FOR_FOCAL
        return self.verdict in ("agrees", "differs") and enough

    def _judge(self) -> tuple[Verdict, str]:
        if not self.enough:
            return "cannot_tell", (
                f"of {self._pairs} pairs of images that show the same things {self.turning} turn "
                f"and {self.moving} move clearly; {LEAST_PAIRS} of a kind are needed (too little "
                "texture, too little motion, or frames too far apart)"
            )
        given, best = self.fits[0], self.fits[self.best]
        if given.fits:
            return "agrees", ""
        if best.fits and self._clearly_better():
            ties = len(self._ties())
            if ties > _MOST_TIES:
                return "unexplained", f"{ties + 1} other conventions explain it equally well"
            return "differs", ""
        gross = (given.rotation_cost > _GROSS and self.turning >= _LEAST_FOR_GROSS) or (
            given.direction_cost > _GROSS and self.moving >= _LEAST_FOR_GROSS
        )
        if best.fits or not gross:
            reason = "the poses go with the images badly, nothing else clearly better"
            return "cannot_tell", reason
        return "unexplained", "no known convention explains it"

    def doubt(self, reason: str) -> None:
        """Take back a verdict that may have another cause."""
        self.verdict, self._reason = "cannot_tell", reason

    def _ties(self) -> list[HypothesisFit]:
        """What fits as well as the best, from better to worse."""
        best = self.fits[self.best]
        near = [fit for fit in self.fits if fit is not best and fit.cost <= _TIE * best.cost]
        return sorted(near, key=lambda fit: fit.cost)

    def _clearly_better(self) -> bool:
        given, best = self.fits[0], self.fits[self.best]
        for own, other in (
            (given.rotation_cost, best.rotation_cost),
            (given.direction_cost, best.direction_cost),
        ):
            if own > 1 and other > _MARGIN * own:
                return False
        gain = np.zeros(len(self._turning))
        for kind, mask, scale in (
            (0, self._turning, self._rotation_fits),
            (1, self._moving, _DIRECTION_FITS_DEG),
        ):
            gained = self._errors[0][kind] - self._errors[self.best][kind]
            gain[mask] += (gained / scale)[mask]
        telling = np.abs(gain) > _LEAST_GAIN
        return bool(telling.sum() >= LEAST_PAIRS and np.mean(gain[telling] > 0) >= _SHARE_OF_PAIRS)

    def result(self, split: str, focal_factor: float | None) -> ConventionCheck:
        """The answer."""
        best = self.fits[self.best]
        order = sorted(self.fits, key=lambda fit: fit.cost)
        differs = self.verdict == "differs"
        ties = self._ties()
        shown = list(dict.fromkeys([self.fits[0], *([best] if differs else []), *order[:3]]))
        shown += [fit for fit in self.fits[:_SHOWN] if fit not in shown]
        return ConventionCheck(
            split=split,
            verdict=self.verdict,
            reason=self._reason,
            pairs=self._pairs,
            turning=self.turning,
            moving=self.moving,
            median_turn_deg=self.median_turn,
            likely=best.text if differs else None,
            ties=tuple(fit.text for fit in ties) if differs else (),
            remedy=self._known[self.best].remedy if differs else "",
            focal_factor=focal_factor,
            fits=tuple(shown) if self.turning or self.moving else (),
        )


def _errors(motions: Sequence[Motion], rotation: Array, position: Array) -> tuple[Array, Array]:
    """Degrees between what images and poses say of each motion: rotations, directions (or NaN)."""
    if not motions:
        return np.zeros(0), np.zeros(0)
    first = [m.first for m in motions]
    second = [m.second for m in motions]
    back = rotation[second].transpose(0, 2, 1)
    said = back @ rotation[first]
    seen = np.array([m.rotation for m in motions])
    turned = Rotation.from_matrix(seen.transpose(0, 2, 1) @ said).magnitude()
    shift = np.einsum("nij,nj->ni", back, position[first] - position[second])
    length = np.linalg.norm(shift, axis=1)
    directions = np.array([_nan3() if m.direction is None else m.direction for m in motions])
    cosine = (directions * shift).sum(1) / np.maximum(length, 1e-12)
    # Poses that do not move where the images do are as wrong as poses at random.
    moved = np.where(length > 1e-9, np.arccos(np.clip(cosine, -1, 1)), math.pi / 2)
    return np.degrees(turned), np.degrees(moved)


def _nan3() -> Array:
    return np.full(3, np.nan)


def _turn_deg(rotation: Array) -> float:
    return float(np.degrees(Rotation.from_matrix(rotation).magnitude()))


def _better_focal(matches: Sequence[Matches], poses: tuple[Array, Array]) -> float | None:
    """The factor on the focal length under which the poses go with the matches clearly better.

    By the angle between each match's second ray and the plane in which the poses expect it.
    """
    curves = [_epipolar_curve(pair, *poses) for pair in matches]
    useful = np.array([curve for curve in curves if curve is not None])
    if len(useful) < LEAST_PAIRS:
        return None
    given = len(_FOCAL_FACTORS) // 2
    middle = np.median(useful, axis=0)
    best = int(middle.argmin())
    factor = float(_FOCAL_FACTORS[best])
    if best in (0, len(middle) - 1) or abs(math.log(factor)) < math.log(_FOCAL_WRONG):
        return None
    clear = middle[best] < _FOCAL_MARGIN * middle[given]
    agreed = float(np.mean(useful[:, best] < useful[:, given])) >= _SHARE_OF_PAIRS
    return factor if clear and agreed else None


def _epipolar_curve(pair: Matches, rotation: Array, position: Array) -> Array | None:
    """Median distance, rad, from rays to epipolar planes at each of _FOCAL_FACTORS."""
    a, b = pair.first, pair.second
    relative = rotation[b].T @ rotation[a]
    shift = rotation[b].T @ (position[a] - position[b])
    length = np.linalg.norm(shift)
    if length < 1e-9 or _turn_deg(relative) < _LEAST_TURN_DEG:
        return None
    result = []
    for factor in _FOCAL_FACTORS:
        first, second = (
            np.column_stack((ray[:, :2] / ray[:, 2:] / factor, np.ones(len(ray))))
            for ray in (pair.first_ray, pair.second_ray)
        )
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        normal = np.cross(shift / length, first @ relative.T)
        size = np.maximum(np.linalg.norm(normal, axis=1), _LEAST_SINE)
        sine = np.abs((normal * second).sum(1)) / size
        # Longer focal lengths make all angles smaller, right or wrong.
        result.append(float(np.median(sine)) * factor)
    return np.array(result)
