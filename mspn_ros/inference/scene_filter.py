# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which scene a camera is in, judged over successive frames: a recursive Bayes filter."""

from __future__ import annotations

import math
from collections.abc import Mapping


class SceneFilter:
    """The forward algorithm over scenes, for the frames of one camera.

    Between two frames the camera stays in its scene or, with the probability that a mean stay of
    ``stay_s`` seconds gives, is in any scene, each as likely. What a frame says of the scenes is
    taken as independent of the frames before. Times are those of the frames' stamps only. Where a
    stamp does not follow the last one, or does so after more than ``stay_s``, the filter begins
    anew; with 0 at every frame, so that each is judged alone. Not for several threads.
    """

    def __init__(self, stay_s: float) -> None:
        self.stay_s = stay_s
        self._stamp_s = 0.0
        self._believed: dict[str, float] = {}

    def prior(self, stamp_s: float, scenes: int) -> dict[str, float]:
        """Before a frame: the log of how much likelier a scene is than those that are not named.

        ``scenes`` are so many as there are in service. Nothing is named when the filter begins.
        """
        passed_s = stamp_s - self._stamp_s
        if not self._believed or not scenes or not 0 < passed_s <= self.stay_s:
            return {}
        moved = -math.expm1(-passed_s / self.stay_s)
        anywhere = moved / scenes
        others = max(0, scenes - len(self._believed))
        left = max(0.0, 1 - sum(self._believed.values()))
        rest = anywhere + ((1 - moved) * left / others if others else 0.0)
        return {
            name: math.log((anywhere + (1 - moved) * share) / rest)
            for name, share in self._believed.items()
        }

    def take(self, stamp_s: float, probabilities: Mapping[str, float]) -> None:
        """After the frame: what the prior has led to, for all scenes or the likeliest."""
        if probabilities:
            self._stamp_s, self._believed = stamp_s, dict(probabilities)
