# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How sharp and how well exposed the images of a dataset are, on a sample of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mspn_ros.datasets.base import SceneData
from mspn_ros.datasets.frame_choice import ChoiceOptions, Quality, judge, measure
from mspn_ros.images import read_image
from mspn_ros.records import Frame, ImageError

# Of each scene; a longer one is thinned, so that it is looked at within a minute.
MOST_IMAGES = 600


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """One image: ``verdict`` is "" (good), "blurred" or "exposure", against its neighbours."""

    frame: Frame
    sharpness: float
    clipped: float
    verdict: str


@dataclass(frozen=True, slots=True)
class ImageChecks:
    """The images that were looked at, in recording order."""

    looked: tuple[ImageQuality, ...]

    def with_verdict(self, verdict: str) -> list[ImageQuality]:
        """Those of a verdict, the worst first."""
        found = [quality for quality in self.looked if quality.verdict == verdict]
        if verdict == "exposure":
            return sorted(found, key=lambda quality: -quality.clipped)
        return sorted(found, key=lambda quality: quality.sharpness)

    def worst(self, count: int) -> list[tuple[ImageQuality, str]]:
        """The ``count`` least sharp and most clipped images, good or bad, each with a caption."""
        sharp = sorted(self.looked, key=lambda quality: quality.sharpness)
        clipped = sorted(self.looked, key=lambda quality: -quality.clipped)
        found = [(q, f"sharpness {q.sharpness:.2f}") for q in sharp[:count]]
        found += [(q, f"{100 * q.clipped:.0f} % black or white") for q in clipped[:count]]
        return found


def check_images(
    scene: SceneData,
    most: int = MOST_IMAGES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ImageChecks:
    """Measure at most ``most`` images, spread evenly from a start drawn by ``seed``.

    Images that cannot be read are passed over: the reader and verify_images tell of them.
    """
    step = max(1, -(-len(scene.frames) // most))
    chosen = scene.frames[int(np.random.default_rng(seed).integers(step)) :: step]
    measured: dict[tuple[str, str], list[tuple[Frame, Quality]]] = {}
    for done, frame in enumerate(chosen, 1):
        try:
            quality = measure(read_image(frame.image_path))
        except ImageError:
            continue
        finally:
            if progress is not None:
                progress(done, len(chosen))
        measured.setdefault((frame.split, frame.sequence), []).append((frame, quality))
    looked = []
    for group in measured.values():
        verdicts = judge([quality for _, quality in group], ChoiceOptions())
        looked += [
            ImageQuality(frame, quality.sharpness, quality.clipped, verdict)
            for (frame, quality), verdict in zip(group, verdicts, strict=True)
        ]
    return ImageChecks(tuple(looked))
