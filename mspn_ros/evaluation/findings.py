# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the checks of a scene mean: findings, each with its place and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.convention_check import ConventionCheck
from mspn_ros.evaluation.pose_checks import FAR_DEG, Run
from mspn_ros.evaluation.scene_checks import SceneChecks

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
# Shares of the frames from which on a finding is a warning and no longer a note.
_MANY_BAD, _MANY_FAR, _MANY_POOR = 0.05, 0.1, 0.1
# Of the test frames next to a training frame: held-out blocks have two of these each.
_INTERLEAVED = 0.5
_FEW_FRAMES = 30
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a user should know before training.

    A problem makes a model wrong or its errors meaningless, a warning worse, a note neither.
    ``kind`` is for programs; ``place`` names frames, a split or a file.
    """

    severity: Severity
    kind: str
    scene: str
    place: str
    text: str
    remedy: str


def list_findings(scene: SceneData, checks: SceneChecks) -> list[Finding]:
    """All findings of a scene, the severest first."""
    found = [
        Finding(severity, kind, scene.name, place, text, remedy)
        for part in (_frames, _conventions, _copies, _poses, _coverage, _images)
        for severity, kind, place, text, remedy in part(scene, checks)
    ]
    return by_severity(found)


def by_severity(found: Sequence[Finding]) -> list[Finding]:
    """Problems, then warnings, then notes; the order within each stays."""
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _listing(names: Sequence[str]) -> str:
    """The first names; the JSON's checks and the page have more."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


_Parts = Iterator[tuple[Severity, str, str, str, str]]


def _frames(scene: SceneData, checks: SceneChecks) -> _Parts:
    train = scene.split("train")
    if not train:
        yield (
            "problem",
            "no_train_frames",
            str(scene.root),
            "no frame is for training",
            "check the lists of the split that the format wants",
        )
    elif len(train) < _FEW_FRAMES:
        yield (
            "note",
            "few_train_frames",
            "train",
            f"only {len(train)} frames are for training",
            "record more of the place: some hundred frames cover a room",
        )
    if not scene.split("test"):
        yield (
            "note",
            "no_test_frames",
            str(scene.root),
            "no frame is for testing: how good a model is cannot be measured",
            "hold out a second walk, or blocks of this one",
        )
    elif checks.poses.interleaved > _INTERLEAVED:
        yield (
            "warning",
            "interleaved_test",
            "test",
            f"{100 * checks.poses.interleaved:.0f} % of the test frames come right before or after "
            "a training frame of the same recording: errors on them promise too much",
            "hold out a second walk, or whole blocks of this one",
        )
    if scene.bad:
        share = len(scene.bad) / (len(scene.bad) + len(scene.frames))
        yield (
            "problem" if share > 0.5 else "warning" if share > _MANY_BAD else "note",
            "bad_frames",
            _listing([bad.name for bad in scene.bad]),
            f"{len(scene.bad)} frames ({100 * share:.0f} %) cannot be used: {scene.bad[0].reason}",
            "they are left out; mend or remove the files if these are many",
        )
    assumed = sum(f.intrinsics is not None and f.intrinsics.assumed for f in scene.frames)
    if assumed:
        yield (
            "note",
            "assumed_focal",
            f"{assumed} frames",
            "the focal length is not in the files and was assumed",
            "give it by --focal-px, or write the camera into the dataset",
        )
    if checks.conventions is None:
        yield (
            "note",
            "headers_only",
            str(scene.root),
            "images were not looked at: no check of conventions, copies, blur and exposure",
            "leave out --headers-only",
        )


def _conventions(scene: SceneData, checks: SceneChecks) -> _Parts:
    if checks.conventions is not None:
        unknown = sum(frame.intrinsics is None for frame in scene.frames)
        if unknown:
            yield (
                "note",
                "no_intrinsics",
                f"{unknown} frames",
                "the camera is unknown: poses were not held against these images",
                "write the camera's intrinsics into the dataset",
            )
    for check in checks.conventions or ():
        if check.verdict == "differs":
            yield "problem", "convention", check.split, _named(check), check.remedy
        elif check.verdict == "unexplained":
            yield (
                "problem",
                "poses_do_not_fit",
                check.split,
                f"the poses do not move as the images do, and {check.reason}",
                "check that poses and images belong together: names, stamps, the camera's lens; "
                "then how the poses were made",
            )
        elif check.verdict == "cannot_tell":
            yield (
                "note",
                "convention_unknown",
                check.split,
                f"poses could not be held against the images: {check.reason}",
                "look at the top view: arrows have to point where the camera looked",
            )
        elif check.fits and check.fits[0].direction_deg is None:
            yield (
                "note",
                "positions_unchecked",
                check.split,
                "rotations go with the images; positions were not checked: only "
                f"{check.moving} pairs of images move clearly",
                "look at the path in the top view",
            )
        if check.focal_factor is not None:
            yield (
                "warning",
                "focal_length",
                check.split,
                f"poses and images fit better with {check.focal_factor:.2f} times the focal length",
                "check the camera's intrinsics; an assumed focal length is replaced by --focal-px",
            )


def _named(check: ConventionCheck) -> str:
    turned = f"{check.turning} pairs of images"
    also = f"; as well fits: {'; '.join(check.ties)}" if check.ties else ""
    return f"the poses do not move as the images do; likely {check.likely} (by {turned}){also}"


def _copies(scene: SceneData, checks: SceneChecks) -> _Parts:
    splits = {frame.name: frame.split for frame in scene.frames}
    groups = checks.copies or ()
    torn = [group for group in groups if not group.same_pose]
    if torn:
        worst = max(torn, key=lambda group: (group.distance, group.angle_deg))
        yield (
            "problem",
            "copies_with_other_poses",
            _listing(worst.names),
            f"{len(torn)} images are there more than once with different poses, up to "
            f"{worst.distance:.3g} {scene.unit} and {worst.angle_deg:.1f}° apart",
            "find out which pose is right; often poses and images are shifted against each other",
        )
    leaks = [g for g in groups if len({splits[name] for name in g.names}) > 1]
    if leaks:
        yield (
            "problem",
            "test_copies",
            _listing([name for g in leaks for name in g.names if splits[name] != "train"]),
            f"{len(leaks)} images are in more than one split; errors on them say nothing",
            "take them out of one of the splits",
        )
    same = [group for group in groups if group.same_pose and group not in leaks]
    if same:
        yield (
            "note",
            "copies",
            _listing([name for group in same for name in group.names[1:]]),
            f"{len(same)} images are there more than once",
            "remove the copies: they teach nothing and weigh double",
        )


def _poses(scene: SceneData, checks: SceneChecks) -> _Parts:
    poses = checks.poses
    timed = all(frame.stamp_s is not None for frame in scene.frames)
    for kind, steps, severity, text, remedy in (
        (
            "outliers",
            poses.outliers,
            "warning",
            "are far off the frames before and after them",
            "remove these frames: their poses are wrong",
        ),
        (
            "jumps",
            poses.jumps,
            # Without time a gap looks the same.
            "warning" if timed else "note",
            "are far from the frame before: the poses leap, or the recording has a gap",
            "if the map moved there (loop closure, lost tracking), record again with the final map",
        ),
    ):
        if steps:
            worst = max(steps, key=lambda step: (step.distance, step.angle_deg))
            yield (
                "warning" if severity == "warning" else "note",
                kind,
                _listing([step.second for step in steps]),
                f"{len(steps)} frames {text}; at most {worst.distance:.3g} {scene.unit} and "
                f"{worst.angle_deg:.1f}°",
                remedy,
            )
    if poses.alone:
        yield (
            "warning",
            "alone",
            _listing([name for name, _ in poses.alone]),
            f"{len(poses.alone)} frames are far from every other frame, up to "
            f"{max(far for _, far in poses.alone):.3g} {scene.unit}",
            "check these poses; remove the frames if they are not of this place",
        )
    if poses.equal_stamps:
        yield (
            "warning",
            "equal_stamps",
            _listing([second for _, second in poses.equal_stamps]),
            f"{len(poses.equal_stamps)} frames have the stamp of the frame before",
            "check how stamps were written; rounded stamps get the wrong poses",
        )
    yield from _standing(poses.stuck, poses.still)


def _standing(stuck: Sequence[Run], still: Sequence[Run]) -> _Parts:
    if stuck:
        yield (
            "warning",
            "stuck_poses",
            _listing([f"{run.first} to {run.last}" for run in stuck]),
            f"the very same pose {max(run.frames for run in stuck)} times in a row",
            "interpolate the poses at the images' stamps; a tracker that stops has lost its place",
        )
    longer = [run for run in still if run not in stuck]
    if longer:
        yield (
            "note",
            "standing",
            _listing([f"{run.first} to {run.last}" for run in longer]),
            f"the camera stands for {sum(run.frames for run in longer)} frames",
            "thin them out: they weigh as much as the rest of the place",
        )


def _coverage(scene: SceneData, checks: SceneChecks) -> _Parts:
    coverage = checks.coverage
    if coverage is None or not coverage.far.any():
        return
    share = float(coverage.far.mean())
    test = scene.split("test")
    yield (
        "warning" if share > _MANY_FAR else "note",
        "beyond_coverage",
        _listing([test[i].name for i in np.flatnonzero(coverage.far)]),
        f"{int(coverage.far.sum())} test frames ({100 * share:.0f} %) are more than "
        f"{coverage.bound:.3g} {scene.unit} or {FAR_DEG:.0f}° from every training "
        "frame",
        "record training frames there and in these directions; expect large errors on them",
    )


def _images(scene: SceneData, checks: SceneChecks) -> _Parts:
    images = checks.images
    if images is None:
        return
    for verdict, text, remedy in (
        ("blurred", "are much less sharp than their neighbours", "move slower, or expose shorter"),
        ("exposure", "are black or white in large parts", "let the exposure settle, or fix it"),
    ):
        found = images.with_verdict(verdict)
        if found:
            yield (
                "warning" if len(found) > _MANY_POOR * len(images.looked) else "note",
                verdict,
                _listing([quality.frame.name for quality in found]),
                f"{len(found)} of {len(images.looked)} images looked at {text}",
                f"leave them out of training; when recording, {remedy}",
            )
