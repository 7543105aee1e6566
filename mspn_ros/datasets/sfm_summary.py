# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a dataset from videos or photos says of itself: its numbers, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mspn_ros
from mspn_ros.datasets import sfm
from mspn_ros.datasets.sfm import Reconstruction
from mspn_ros.datasets.sfm_frames import KeptFrame
from mspn_ros.datasets.sfm_jumps import Jump
from mspn_ros.datasets.sfm_scale import Placement
from mspn_ros.datasets.video_frames import Sources
from mspn_ros.records import listing

if TYPE_CHECKING:
    from mspn_ros.datasets.from_video import FromVideoConfig


def summary_of(
    sources: Sources,
    config: FromVideoConfig,
    kept: Sequence[KeptFrame],
    models: Sequence[Reconstruction],
    placement: Placement,
    splits: dict[str, str],
) -> dict[str, Any]:
    """What was made of what, for provenance.json; ``splits`` are by written name."""
    model = models[0]
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
        "other_models": [len(other.poses) for other in models[1:]],
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
            f"images/{frame.written}": frame.origin for frame in kept if splits[frame.written]
        },
    }


def notes_on_left_out(
    uncertain: Sequence[str], strays: Sequence[str], jumps: Sequence[Jump]
) -> list[str]:
    """Sentences about frames that are placed wrongly, which no reprojection error shows."""
    notes = []
    if uncertain:
        notes.append(
            f"{len(uncertain)} frames see only things so far away that they may be anywhere, and "
            f"are left out: {listing(uncertain)}"
        )
    if strays:
        notes.append(
            f"{len(strays)} frames are left out, since the camera would have jumped to them and "
            f"back: {listing(strays)}"
        )
    if jumps:
        worst = max(jumps, key=lambda jump: jump.times)
        notes.append(
            f"{len(jumps)} jumps between frames that follow each other, the largest "
            f"{worst.times:.0f} times the usual step, from {worst.before} to {worst.after}: if "
            "these were not taken far apart, part of the reconstruction is wrong; look at the "
            "picture"
        )
    return notes


def notes_of(
    kept: Sequence[KeptFrame],
    models: Sequence[Reconstruction],
    splits: dict[str, str],
) -> list[str]:
    """Sentences about frames that are not in the dataset."""
    notes = []
    lost = [frame.written for frame in kept if frame.written not in models[0].poses]
    if lost:
        notes.append(f"{len(lost)} frames found no place and are left out: {listing(lost)}")
    between = sum(not splits[name] for name in models[0].poses)
    if between:
        notes.append(f"{between} frames beside the held-out blocks are left out")
    if "test" not in splits.values():
        notes.append("no frame is held out for testing; give a second pass with --test")
    apart = [other for other in models[1:] if not set(other.poses) <= set(models[0].poses)]
    if apart:
        parts = ", ".join(f"{len(m.poses)} frames from {min(m.poses)}" for m in apart)
        notes.append(
            f"parts of the recording do not connect with the largest and were left out: {parts}; "
            "record the way between them, or make a dataset of each"
        )
    return notes
