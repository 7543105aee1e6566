# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation on a dataset: every frame of a split through the Localizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.answers import Answer
from mspn_ros.images import read_image
from mspn_ros.inference.localizer import Localizer
from mspn_ros.records import (
    UNKNOWN_SCENE,
    UNKNOWN_SCENE_ID,
    BadFrame,
    DatasetError,
    Frame,
    ImageError,
    ImageHW3,
    Intrinsics,
    PoseEstimate,
)

_BATCH = 16


def evaluation_frames(scenes: Sequence[SceneData], split: str) -> list[Frame]:
    """All frames of ``split``.

    Raises:
        DatasetError: a scene has no frame of that split.
    """
    frames: list[Frame] = []
    for scene in scenes:
        found = scene.split(split)
        if not found:
            splits = sorted({frame.split for frame in scene.frames})
            raise DatasetError(
                f"scene {scene.name}: no frames in split {split!r} of {scene.root}; "
                f"it has {', '.join(splits)}. Pass --split."
            )
        frames.extend(found)
    return frames


def camera_note(
    localizer: Localizer, taken_by: Iterable[tuple[Intrinsics | None, str | None]], what: str
) -> str:
    """One line on cameras that see more or less than those of the training frames; "" of none.

    ``taken_by``: of each of ``what``, its camera and the scene that is forced, if any is.
    """
    total, texts = 0, Counter[str]()
    for camera, scene in taken_by:
        total += 1
        if camera is not None:
            found = localizer.field_of_view(camera, camera.height, camera.width, scene)
            texts.update([found.text] if found.differs else [])
    if not texts:
        return ""
    (text, _), *others = texts.most_common()
    more = f"; {len(others)} other fields of view" if others else ""
    return f"{texts.total()} of {total} {what}: {text}{more}"


def evaluate(
    localizer: Localizer,
    scenes: Sequence[SceneData],
    split: str = "test",
    oracle: bool = False,
    progress: Callable[[int, int], None] | None = None,
    min_confidence: float | None = None,
) -> tuple[list[Answer], list[BadFrame]]:
    """Answers for every frame of ``split``, and the frames whose image is broken.

    With ``oracle`` the true scene picks the head, as in the paper's tables 1 to 6. Otherwise a
    scene answers above ``min_confidence`` (None: its own threshold; the paper has none: 0).
    A broken image is an unanswered frame: its error is infinite, it does not vanish from the
    table.

    Raises:
        DatasetError: a scene without that split, or one that the model does not know.
    """
    known = {scene.name for scene in localizer.scenes}
    for scene in scenes:
        if scene.name not in known:
            raise DatasetError(
                f"scene {scene.name!r} is not in the model; it has {', '.join(sorted(known))}. "
                "Name the data as the model does: --data name=path."
            )
    frames = evaluation_frames(scenes, split)
    return answer_frames(localizer, frames, oracle, progress, min_confidence)


def answer_frames(
    localizer: Localizer,
    frames: Sequence[Frame],
    oracle: bool = False,
    progress: Callable[[int, int], None] | None = None,
    min_confidence: float | None = None,
) -> tuple[list[Answer], list[BadFrame]]:
    """As ``evaluate``, of frames of any place; with ``oracle`` of scenes that are known."""
    answers: list[Answer] = []
    bad: list[BadFrame] = []
    for first in range(0, len(frames), _BATCH):
        chunk = frames[first : first + _BATCH]
        images: dict[int, ImageHW3] = {}
        for i, frame in enumerate(chunk):
            try:
                images[i] = read_image(frame.image_path)
            except ImageError as error:
                bad.append(BadFrame(frame.name, frame.split, str(error)))
        estimates = _localize(localizer, chunk, images, oracle, min_confidence)
        for i, frame in enumerate(chunk):
            # Without stamps a TUM file still needs an increasing first column.
            stamp = frame.stamp_s if frame.stamp_s is not None else float(first + i)
            answers.append(Answer(frame.name, frame.scene, stamp, frame.pose, estimates[i]))
        if progress:
            progress(first + len(chunk), len(frames))
    return answers, bad


def _localize(
    localizer: Localizer,
    chunk: Sequence[Frame],
    images: dict[int, ImageHW3],
    oracle: bool,
    min_confidence: float | None,
) -> list[PoseEstimate]:
    result = [
        PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason="broken image") for _ in chunk
    ]
    # Forcing takes one scene a call; frames come scene by scene, so batches hardly shrink.
    groups: dict[str | None, list[int]] = {}
    for i in images:
        groups.setdefault(chunk[i].scene if oracle else None, []).append(i)
    for scene, members in groups.items():
        for i, estimate in zip(
            members,
            localizer.localize(
                [images[i] for i in members],
                scene,
                min_confidence,
                [chunk[i].intrinsics for i in members],
            ),
            strict=True,
        ):
            result[i] = estimate
    return result
