# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which poses of a reconstruction to trust: those that another reconstruction finds as well.

Where one part of a walk hangs on the rest by few points, it may come out in another scale, turned
or somewhere else, with a small reprojection error. The same images reconstructed again, with other
random numbers, then come out otherwise; what is well determined comes out as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros import metrics
from mspn_ros.datasets.sfm import LEAST_IMAGES, Reconstruction
from mspn_ros.geometry import Similarity
from mspn_ros.records import Array, DatasetError

# Two poses of a frame agree within so much of the cameras' extent, and so many degrees
# (docs/experiments.md, section 14).
AGREES_PERCENT, AGREES_DEG = 3.0, 5.0
# Two reconstructions that agree on such a share of the frames are taken at once; else there is
# another.
_CERTAIN = 0.9
# What the best two must agree on in the end.
_ENOUGH = 0.7
MOST_RUNS = 5
_TRIALS = 500

# The models of one run, the largest first.
Run = list[Reconstruction]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two of ``runs`` reconstructions agree on.

    ``models`` are those of one of the two; of the first ``agreed`` are the images whose poses the
    other's have, too, and ``disagreeing`` the rest. ``percent`` and ``degrees`` are the medians of
    the differences, of those that agree.
    """

    runs: int
    models: Run
    agreed: tuple[str, ...]
    disagreeing: tuple[str, ...]
    percent: float
    degrees: float

    @property
    def trusted(self) -> Reconstruction:
        """The largest model without what the other does not agree on."""
        return self.models[0].without(self.disagreeing)

    def check(self, images: int, least_share: float) -> None:
        """Refuse where too little is agreed on.

        Raises:
            DatasetError: with what to do.
        """
        enough, share = _ENOUGH * len(self.models[0].poses), least_share * images
        if len(self.agreed) >= max(enough, share):
            return
        remedy = (
            "Take more frames of it (--min-motion 0, a larger --max-frames), or record more "
            "slowly, sideways too, above all where the way turns, and come back to where you were"
        )
        if len(self.agreed) >= enough:
            remedy += "; or lower --min-registered if that part is enough"
        raise DatasetError(
            f"{self.runs} reconstructions of the same images put only {len(self.agreed)} of "
            f"{images} frames into the same places ({max(enough, share):.0f} are needed): parts "
            f"of the recording hang together by too little. {remedy}"
        )


def agree(reconstruct: Callable[[int], Run]) -> Agreement | None:
    """Reconstruct by ``reconstruct(run)`` until two agree, at most MOST_RUNS times; the best pair.

    Two bent ones may agree on a good part: a few more are tried for a pair that agrees on nearly
    all. None where the first finds nothing; nothing is agreed on where it finds too little.
    """
    runs: list[Run] = []
    best: Agreement | None = None
    for number in range(MOST_RUNS):
        runs.append(reconstruct(number))
        if not runs[0]:
            return None
        if len(runs[0][0].poses) < LEAST_IMAGES:
            break
        pairs = [compared(len(runs), *pair) for pair in combinations(filter(None, runs), 2)]
        if pairs:
            best = max(pairs, key=lambda pair: len(pair.agreed))
            if len(best.agreed) >= _CERTAIN * max(len(run[0].poses) for run in runs if run):
                return best
    nothing = Agreement(len(runs), runs[0], (), tuple(runs[0][0].poses), 0.0, 0.0)
    return best or nothing


def compared(runs: int, first: Run, second: Run) -> Agreement:
    """Agreement of two reconstructions; poses are those of the one with more images."""
    own, other = sorted((first, second), key=lambda run: -len(run[0].poses))
    names = [name for name in own[0].poses if name in other[0].poses]
    percent, degrees = _differences(own[0], other[0], names)
    good = (percent <= AGREES_PERCENT) & (degrees <= AGREES_DEG)
    agreed = tuple(name for name, fits in zip(names, good, strict=True) if fits)
    return Agreement(
        runs,
        own,
        agreed,
        tuple(name for name in own[0].poses if name not in set(agreed)),
        float(np.median(percent[good])) if good.any() else 0.0,
        float(np.median(degrees[good])) if good.any() else 0.0,
    )


def _differences(
    own: Reconstruction, other: Reconstruction, names: Sequence[str]
) -> tuple[Array, Array]:
    """In % of the extent and degrees, after the similarity that carries most frames over."""
    if len(names) < 2:
        return np.full(len(names), np.inf), np.full(len(names), np.inf)
    (a, turn_a), (b, turn_b) = (
        (
            np.array([model.poses[name].position for name in names]),
            Rotation.from_quat([model.poses[name].quaternion for name in names]),
        )
        for model in (other, own)
    )
    turns = turn_b * turn_a.inv()
    extent = metrics.position_extent(b) or 1.0

    def differences(similarity: Similarity) -> tuple[Array, Array]:
        moved = similarity.scale * similarity.rotation.apply(a) + similarity.translation
        angle = np.degrees((turns * similarity.rotation.inv()).magnitude())
        return 100 * np.linalg.norm(moved - b, axis=1) / extent, angle

    def worse(similarity: Similarity) -> Array:
        percent, degrees = differences(similarity)
        return np.maximum(percent / AGREES_PERCENT, degrees / AGREES_DEG)

    # Rotations come from orientations: positions on a line would leave one open.
    rng = np.random.default_rng(0)
    trials = (rng.choice(len(names), 2, replace=False) for _ in range(_TRIALS))
    best = max(
        (_fit(a[pair], b[pair], turns[pair]) for pair in trials),
        key=lambda similarity: int((worse(similarity) <= 1).sum()),
    )
    good = worse(best) <= 1
    if good.sum() >= 2:
        best = _fit(a[good], b[good], turns[good])
    return differences(best)


def _fit(a: Array, b: Array, turns: Rotation) -> Similarity:
    """Carries positions ``a`` to ``b`` by the mean of ``turns``; least squares."""
    rotation = turns.mean()
    middle, aim = a.mean(0), b.mean(0)
    turned = rotation.apply(a - middle)
    scale = float((turned * (b - aim)).sum() / max(float((turned * turned).sum()), 1e-300))
    return Similarity(aim - scale * rotation.apply(middle), rotation, scale)
