# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a dataset from videos or photos says of itself: its numbers, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mspn_ros
from mspn_ros.datasets import sfm
from mspn_ros.datasets.sfm_agreement import Agreement
from mspn_ros.datasets.sfm_frames import KeptFrame
from mspn_ros.datasets.sfm_scale import Placement
from mspn_ros.datasets.video_frames import Sources
from mspn_ros.records import listing

if TYPE_CHECKING:
    from mspn_ros.datasets.from_video import FromVideoConfig


def summary_of(
    sources: Sources,
    config: FromVideoConfig,
    kept: Sequence[KeptFrame],
    agreement: Agreement,
    placement: Placement,
    splits: dict[str, str],
) -> dict[str, Any]:
    """What was made of what, for provenance.json; ``splits`` are by written name."""
    model = agreement.trusted
    passes = []
    for number, source in enumerate((*sources.train, *sources.test)):
        frames = [frame for frame in kept if frame.source == number]
        found = sum(frame.written in model.poses for frame in frames)
        passes.append(
            {"name": source.name, "path": str(source.path), "frames": len(frames), "posed": found}
        )
    camera = next(iter(model.cameras.values()))
    used = [splits[name] for name in model.poses]
    return {
        "made_by": f"mspn_ros {mspn_ros.__version__}, mspn dataset from-video, pycolmap "
        f"{sfm.version()}",
        "passes": passes,
        "frames": len(kept),
        "posed": len(model.poses),
        "train": used.count("train"),
        "test": used.count("test"),
        **model.figures(),
        "reconstructions": agreement.runs,
        "disagreeing": len(agreement.disagreeing),
        "difference_percent": agreement.percent,
        "difference_deg": agreement.degrees,
        "other_models": [len(other.poses) for other in agreement.models[1:]],
        "cameras": len(set(model.cameras.values())),
        "focal_px": camera.fx,
        "image_size": [camera.width, camera.height],
        "scale": placement.source,
        "metres_per_unit": placement.metres_per_unit,
        **placement.figures,
        "options": {
            **{k: v for k, v in asdict(config).items() if k != "camera_positions"},
            "camera_positions": str(config.camera_positions or ""),
        },
        "origins": {
            f"images/{frame.written}": frame.origin
            for frame in kept
            if splits[frame.written] and frame.written in model.poses
        },
    }


def notes_of(
    kept: Sequence[KeptFrame],
    agreement: Agreement,
    splits: dict[str, str],
) -> list[str]:
    """Sentences about frames that are not in the dataset."""
    notes = []
    models = agreement.models
    lost = [frame.written for frame in kept if frame.written not in models[0].poses]
    if lost:
        notes.append(f"{len(lost)} frames found no place and are left out: {listing(lost)}")
    if agreement.disagreeing:
        notes.append(
            f"{len(agreement.disagreeing)} frames are left out, since two reconstructions do not "
            f"agree on where they are: {listing(agreement.disagreeing)}"
        )
    between = sum(not splits[name] for name in agreement.agreed)
    if between:
        notes.append(f"{between} frames beside the held-out blocks are left out")
    if "test" not in {splits[name] for name in agreement.agreed}:
        notes.append("no frame is held out for testing; give a second pass with --test")
    apart = [other for other in models[1:] if not set(other.poses) <= set(models[0].poses)]
    if apart:
        parts = ", ".join(f"{len(m.poses)} frames from {min(m.poses)}" for m in apart)
        notes.append(
            f"parts of the recording do not connect with the largest and were left out: {parts}; "
            "record the way between them, or make a dataset of each"
        )
    return notes
