# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A dataset from videos or photos: frames chosen, posed by structure from motion, placed, written.

What takes long lies in a work folder and is used again: another scale, split or threshold takes
seconds. The dataset itself is written whole or not at all.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.datasets import sfm, sfm_scale
from mspn_ros.datasets.frame_choice import DEFAULT_TEST_SHARE, held_out_blocks
from mspn_ros.datasets.nerfstudio_writer import (
    PROVENANCE,
    WrittenFrame,
    new_dataset,
    write_json,
    write_nerfstudio,
)
from mspn_ros.datasets.sfm import Progress, Reconstruction
from mspn_ros.datasets.sfm_agreement import agree
from mspn_ros.datasets.sfm_frames import KeptFrame, keep_frames, working_in
from mspn_ros.datasets.sfm_refusal import check, why_nothing
from mspn_ros.datasets.sfm_scale import KnownDistance, PlacedFrame, Placement
from mspn_ros.datasets.sfm_summary import notes_of, summary_of
from mspn_ros.datasets.video_frames import Sources, plain_path
from mspn_ros.records import Array, DatasetError, Pose, unit_name

PICTURE = "reconstruction.png"


@dataclass(frozen=True, slots=True)
class FromVideoConfig:
    """How to make the dataset; ``max_frames`` is per pass, ``max_side`` in pixels.

    ``min_motion`` is the motion between chosen frames as a share of the image's longer side.
    ``focal_px`` is in pixels of the images as they are in the source. ``test_share`` of each pass
    is held out in blocks where no pass is given to test with. ``min_registered`` is the least
    share of frames that must find their place.
    """

    max_frames: int = 300
    min_motion: float = 0.02
    max_side: int = 1600
    camera_model: str = "SIMPLE_RADIAL"
    focal_px: float | None = None
    separate_cameras: bool = False
    features: int = 4096
    test_share: float = DEFAULT_TEST_SHARE
    min_registered: float = 0.5
    known_distances: tuple[KnownDistance, ...] = ()
    camera_positions: Path | None = None
    first_stamp_s: float = 0.0
    threads: int = -1

    def __post_init__(self) -> None:
        limits = (
            ("max_frames", sfm.LEAST_IMAGES, 5000),
            ("min_motion", 0, 1),
            ("max_side", 64, 8000),
            ("features", 100, 20_000),
            ("test_share", 0, 0.5),
            ("min_registered", 0, 1),
            ("threads", -1, 1024),
        )
        for name, low, high in limits:
            value = getattr(self, name)
            if not low <= value <= high:
                option = "--" + name.replace("_", "-")
                raise DatasetError(f"{option} {value}: give {low} to {high}")
        if self.camera_model not in sfm.CAMERA_MODELS:
            raise DatasetError(
                f"--camera-model {self.camera_model!r}: known are {', '.join(sfm.CAMERA_MODELS)}"
            )
        if self.focal_px is not None and not 0 < self.focal_px < math.inf:
            raise DatasetError(f"--focal-px {self.focal_px}: give pixels above 0")
        if not math.isfinite(self.first_stamp_s):
            raise DatasetError(f"--first-stamp {self.first_stamp_s}: give seconds")
        if self.known_distances and self.camera_positions is not None:
            raise DatasetError("--known-distance, --camera-positions: both set the scale; give one")


@dataclass(frozen=True, slots=True)
class View:
    """What a picture of a reconstruction shows; ``poses`` are by split."""

    points_N3: Array
    colours_N3: Any
    poses: dict[str, list[Pose]]
    unit: str
    title: str


@dataclass(frozen=True, slots=True)
class FromVideoResult:
    """What was made, also in ``out/provenance.json``."""

    out: Path
    work: Path
    summary: dict[str, Any]
    notes: tuple[str, ...]


def make_dataset(
    sources: Sources,
    out: Path,
    config: FromVideoConfig = FromVideoConfig(),
    *,
    work: Path | None = None,
    progress: Progress | None = None,
    draw: Callable[[View, Path], None] | None = None,
) -> FromVideoResult:
    """Make the dataset ``out``; ``work`` is ``out`` with ``.sfm`` added unless given.

    ``progress`` is called with (step, done, total), ``draw`` once with the picture's path, also
    before a reconstruction is refused.

    Raises:
        DatasetError: a source, a setting or the reconstruction is unusable; ``out`` is not there
            then. See sfm_refusal.py for what is refused.
    """
    sfm.require_pycolmap()
    out = plain_path(out)
    work = plain_path(out.parent / f"{out.name or 'root'}.sfm" if work is None else work)
    if out == work or out in work.parents:
        raise DatasetError(
            f"--work {work}: lies in --out, which is moved there whole; name another"
        )
    with new_dataset(out) as folder:
        began = time.monotonic()
        kept, notes = keep_frames(sources, work, config, progress)
        chosen_s = time.monotonic() - began
        with working_in(work):
            agreement = agree(lambda run: _reconstruct(kept, work, config, run, progress))
        if agreement is None:
            raise DatasetError(why_nothing(work, len(kept)))
        models, model = agreement.models, agreement.trusted
        splits = _splits(kept, len(sources.train), config.test_share, bool(sources.test))
        try:
            check(kept, agreement, sources, splits, work, config.min_registered)
        except DatasetError as error:
            picture = _draw_refused(draw, models[0], splits, work)
            raise DatasetError(f"{error}{picture}") from error
        placement = _place(kept, model, sources, config)
        frames = [frame for frame in kept if frame.written in model.poses]
        summary = summary_of(sources, config, kept, agreement, placement, splits)
        summary["seconds"] = {
            "frames": round(chosen_s, 1),
            "all": round(time.monotonic() - began, 1),
        }
        notes += notes_of(kept, agreement, splits)
        with working_in(work):
            _write(folder, work, frames, model, placement, splits)
        if draw is not None:
            view = _view(model, placement.similarity, splits, placement.metres_per_unit, out.name)
            draw(view, folder / PICTURE)
        write_json(folder / PROVENANCE, {**summary, "notes": notes})
    return FromVideoResult(out, work, summary, tuple(notes))


def _reconstruct(
    kept: Sequence[KeptFrame],
    work: Path,
    config: FromVideoConfig,
    run: int,
    progress: Progress | None,
) -> list[Reconstruction]:
    groups: dict[tuple[Any, ...], list[KeptFrame]] = {}
    for frame in kept:
        focal = None if frame.focal_px is None else round(frame.focal_px)
        key = (frame.width, frame.height, focal, frame.source if config.separate_cameras else 0)
        groups.setdefault(key, []).append(frame)
    cameras = [
        sfm.CameraGroup(
            config.camera_model,
            members[0].width,
            members[0].height,
            members[0].focal_px,
            tuple(frame.written for frame in members),
        )
        for members in groups.values()
    ]
    count = 1 + max(frame.source for frame in kept)
    passes = [[frame.written for frame in kept if frame.source == k] for k in range(count)]
    return sfm.reconstruct(
        work,
        work / "images",
        cameras,
        passes,
        features=config.features,
        threads=config.threads,
        run=run,
        progress=progress,
    )


def _splits(
    kept: Sequence[KeptFrame], train_sources: int, share: float, has_test: bool
) -> dict[str, str]:
    """Written name -> "train", "test", or "" for frames between the two."""
    splits: dict[str, str] = {}
    for source in sorted({frame.source for frame in kept}):
        names = [frame.written for frame in kept if frame.source == source]
        if has_test:
            splits |= dict.fromkeys(names, "train" if source < train_sources else "test")
        else:
            splits |= dict(zip(names, held_out_blocks(len(names), share), strict=True))
    return splits


def _placed_frames(
    kept: Sequence[KeptFrame], model: Reconstruction, sources: Sources
) -> list[PlacedFrame]:
    every = (*sources.train, *sources.test)
    first_video = min((frame.source for frame in kept if frame.stamp_s is not None), default=-1)
    # A name that several frames have would be one of them by chance.
    counts: dict[str, int] = {}
    for frame in kept:
        for name in frame.names:
            counts[name] = counts.get(name, 0) + 1
    return [
        PlacedFrame(
            frame.written,
            (
                *(name for name in frame.names if counts[name] == 1),
                frame.written,
                f"{every[frame.source].name}/{frame.names[0]}",
            ),
            frame.stamp_s if frame.source == first_video else None,
            model.poses[frame.written],
        )
        for frame in kept
        if frame.written in model.poses
    ]


def _place(
    kept: Sequence[KeptFrame], model: Reconstruction, sources: Sources, config: FromVideoConfig
) -> Placement:
    frames = _placed_frames(kept, model, sources)
    if config.known_distances:
        return sfm_scale.by_distances(frames, config.known_distances)
    if config.camera_positions is not None:
        return sfm_scale.by_positions(frames, config.camera_positions, config.first_stamp_s)
    return sfm_scale.unscaled(frames)


def _write(
    folder: Path,
    work: Path,
    frames: Sequence[KeptFrame],
    model: Reconstruction,
    placement: Placement,
    splits: dict[str, str],
) -> None:
    poses = sfm_scale.placed(placement.similarity, model.poses)
    cameras = {model.cameras[frame.written] for frame in frames}
    common = cameras.pop() if len(cameras) == 1 else None
    for split in ("train", "test"):
        written = []
        for frame in frames:
            if splits[frame.written] != split:
                continue
            path = f"images/{frame.written}"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work / path, folder / path)
            own = None if common is not None else model.cameras[frame.written]
            written.append(WrittenFrame(path, poses[frame.written], frame.stamp_s, own))
        if written:
            write_nerfstudio(
                folder, split, written, common, metres_per_unit=placement.metres_per_unit
            )


def _view(
    model: Reconstruction,
    similarity: Any,
    splits: dict[str, str],
    metres_per_unit: float | None,
    title: str,
) -> View:
    poses: dict[str, list[Pose]] = {}
    for name, pose in sfm_scale.placed(similarity, model.poses).items():
        poses.setdefault(splits[name] or "left out", []).append(pose)
    points = similarity.scale * similarity.rotation.apply(model.points_N3) + similarity.translation
    return View(np.asarray(points), model.colours_N3, poses, unit_name(metres_per_unit), title)


def _draw_refused(
    draw: Callable[[View, Path], None] | None,
    model: Reconstruction,
    splits: dict[str, str],
    work: Path,
) -> str:
    if draw is None or not len(model.points_N3):
        return ""
    frames = [PlacedFrame(name, (), None, pose) for name, pose in model.poses.items()]
    view = _view(model, sfm_scale.level(frames), splits, None, "refused")
    draw(replace(view, title=f"refused: {len(model.poses)} frames"), work / PICTURE)
    return f" (drawn in {work / PICTURE})"
