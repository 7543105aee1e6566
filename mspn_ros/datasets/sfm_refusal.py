# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Why a reconstruction is refused, in a sentence that says how to record better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mspn_ros.datasets import sfm
from mspn_ros.datasets.sfm import Reconstruction
from mspn_ros.datasets.sfm_agreement import Agreement
from mspn_ros.datasets.sfm_frames import KeptFrame
from mspn_ros.datasets.video_frames import Sources
from mspn_ros.records import DatasetError


def why_nothing(work: Path, images: int) -> str:
    """Why no two frames could begin a reconstruction."""
    usable = sum(sfm.pair_counts(work).values())
    if usable:
        return _only_turned(work) or (
            f"none of {usable} pairs of matching frames shows enough points from two places to "
            "begin with. Move sideways while recording, past things at different distances"
        )
    return (
        f"no two of {images} frames show the same points: blurred, dark, bare, or too far apart. "
        "Record slowly in good light, or lower --min-motion"
    )


def _only_turned(work: Path) -> str:
    """A sentence where most pairs of frames show no depth, else ""."""
    pairs = sfm.pair_counts(work)
    usable = sum(pairs.values())
    turned = sum(pairs.get(kind, 0) for kind in ("PLANAR", "PANORAMIC", "PLANAR_OR_PANORAMIC"))
    # Without a known focal length many other pairs count as planar too.
    if turned <= 0.8 * usable:
        return ""
    return (
        f"{turned} of {usable} pairs of frames that match differ by a turn alone, or show one "
        "flat wall: that has no depth. Walk while recording, sideways too"
    )


def check(
    kept: Sequence[KeptFrame],
    agreement: Agreement,
    sources: Sources,
    splits: dict[str, str],
    work: Path,
    least_share: float,
) -> None:
    """Refuse what would teach wrong poses, or nothing.

    Raises:
        DatasetError: see :func:`sfm.check_usable` and :meth:`Agreement.check`; or a pass has no
            place beside the others, or nothing is left to learn from.
    """
    try:
        sfm.check_usable(agreement.models[0], len(kept), least_share)
    except DatasetError as error:
        raise DatasetError(_only_turned(work) or str(error)) from error
    agreement.check(len(kept), least_share)
    _check_passes(kept, agreement.trusted, sources)
    if "train" not in {splits[name] for name in agreement.agreed}:
        raise DatasetError("no frame for training has a pose; lower --test-share")


def _check_passes(kept: Sequence[KeptFrame], model: Reconstruction, sources: Sources) -> None:
    for number, source in enumerate((*sources.train, *sources.test)):
        frames = [frame for frame in kept if frame.source == number]
        if not any(frame.written in model.poses for frame in frames):
            raise DatasetError(
                f"{source.path}: none of its {len(frames)} frames found its place beside the other "
                "passes: it shows nothing that they show, or in quite another light. Begin it "
                "where another pass has been"
            )
