# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The frames that structure from motion sees: chosen, shrunk, written to the work folder once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mspn_ros.datasets.frame_motion import MotionMeter, choose_frames, shrunk
from mspn_ros.datasets.sfm import LEAST_IMAGES, Progress
from mspn_ros.datasets.video_frames import Source, SourceFrame, Sources
from mspn_ros.records import DatasetError, listing

if TYPE_CHECKING:
    from mspn_ros.datasets.from_video import FromVideoConfig

# Only a folder that has it is ever emptied.
_LIST, _MARKER = "frames.json", "started"
# Without EXIF: a photo's place and owner are nobody's business, and it is upright already.
_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """One image in ``work/images``: ``written`` below it, upright, ``width`` x ``height`` pixels.

    ``source`` is the number of its pass, ``names`` and ``origin`` are what the user knows it by,
    ``focal_px`` is what is known of its focal length at this size.
    """

    written: str
    source: int
    origin: str
    names: tuple[str, ...]
    stamp_s: float | None
    width: int
    height: int
    focal_px: float | None


def keep_frames(
    sources: Sources, work: Path, config: FromVideoConfig, progress: Progress | None
) -> tuple[list[KeptFrame], list[str]]:
    """The chosen frames of all passes, and sentences for the user.

    They are chosen anew only if a source or what chooses them has changed.

    Raises:
        DatasetError: too few frames differ, a source is broken, or ``work`` cannot be used.
    """
    every = (*sources.train, *sources.test)
    with working_in(work):
        key = {
            "sources": [[source.name, source.fingerprint()] for source in every],
            "max_frames": config.max_frames,
            "min_motion": config.min_motion,
            "max_side": config.max_side,
            "focal_px": config.focal_px,
        }
        stored = _prepare(work, json.loads(json.dumps(key)))
        if stored is None:
            kept = []
            notes: list[str] = []
            for number, source in enumerate(every):
                kept += _keep(source, number, work, config, notes, progress)
            content = {"key": key, "frames": [asdict(frame) for frame in kept], "notes": notes}
            (work / _LIST).write_text(json.dumps(content), encoding="utf-8")
        else:
            kept, notes = stored
    if len(kept) < LEAST_IMAGES:
        raise DatasetError(
            f"only {len(kept)} frames differ enough and {LEAST_IMAGES} are needed: "
            f"{listing([str(source.path) for source in every])}. Record more of the place, "
            "walking, or lower --min-motion"
        )
    return kept, notes


@contextmanager
def working_in(work: Path) -> Iterator[None]:
    """Tells trouble with files as that of the work folder."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{error.filename or work}: cannot be read or written ({error.strerror or error}); "
            "check it, or name another --work"
        ) from error


def _prepare(work: Path, key: dict[str, Any]) -> tuple[list[KeptFrame], list[str]] | None:
    """What the work folder holds of the same frames; else it is emptied of its own files."""
    work.mkdir(parents=True, exist_ok=True)
    if next(work.iterdir(), None) is not None and not (work / _MARKER).is_file():
        raise DatasetError(
            f"{work}: no work folder of this command, and not empty; name another --work"
        )
    marker = work / _LIST
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        frames = [KeptFrame(**{**f, "names": tuple(f["names"])}) for f in content["frames"]]
        whole = all((work / "images" / frame.written).is_file() for frame in frames)
        if content["key"] == key and whole:
            return frames, list(content["notes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    (work / _MARKER).touch()
    marker.unlink(missing_ok=True)
    for name in ("images", "models"):
        shutil.rmtree(work / name, ignore_errors=True)
    for path in (
        *work.glob("model-*.npz"),
        *work.glob("features.*"),
        *work.glob("finished-*.json"),
    ):
        path.unlink(missing_ok=True)
    return None


def _keep(
    source: Source,
    number: int,
    work: Path,
    config: FromVideoConfig,
    notes: list[str],
    progress: Progress | None,
) -> list[KeptFrame]:
    meter = MotionMeter()
    measured = []
    for frame in source.frames():
        measured.append(meter.measure(frame.index, frame.image))
        if progress is not None:
            progress(f"{source.name}: motion", len(measured), max(len(source), len(measured)))
    notes += [f"{source.path.name}: {bad.name}: {bad.reason}" for bad in source.bad[:20]]
    if len(source.bad) > 20:
        notes.append(f"{source.path.name}: {len(source.bad) - 20} more images cannot be read")
    chosen = {m.index for m in choose_frames(measured, config.max_frames, config.min_motion)}
    notes.append(f"{source.path.name}: {len(chosen)} of {len(measured)} frames chosen")
    kept = []
    (work / "images" / source.name).mkdir(parents=True, exist_ok=True)
    for frame in source.frames(chosen):
        kept.append(_write(frame, number, source.name, work, config))
        if progress is not None:
            progress(f"{source.name}: frames", len(kept), len(chosen))
    return kept


def _write(
    frame: SourceFrame, number: int, folder: str, work: Path, config: FromVideoConfig
) -> KeptFrame:
    image = shrunk(frame.image, config.max_side)
    height, width = image.shape[:2]
    written = f"{folder}/{frame.name}.jpg"
    Image.fromarray(image).save(
        work / "images" / written, "JPEG", quality=_JPEG_QUALITY, subsampling=0
    )
    known = config.focal_px if config.focal_px is not None else frame.focal_px
    focal = None if known is None else known * width / frame.image.shape[1]
    # Of a video the written name is the only one; its origin, the time, is found as such.
    names = (f"{frame.name}.jpg",) if frame.stamp_s is not None else (frame.origin,)
    return KeptFrame(written, number, frame.origin, names, frame.stamp_s, width, height, focal)
