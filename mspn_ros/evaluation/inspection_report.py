# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The page of ``mspn inspect``: what is wrong with datasets, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.convention_check import ConventionCheck
from mspn_ros.evaluation.findings import Finding, by_severity
from mspn_ros.evaluation.inspection import SceneInspection
from mspn_ros.evaluation.inspection_plots import coverage_distances, coverage_map
from mspn_ros.evaluation.pose_checks import Coverage, Step
from mspn_ros.evaluation.report import Picture, encode_frame, html_figure, html_rows, write_page
from mspn_ros.evaluation.scene_checks import SceneChecks
from mspn_ros.images import read_image
from mspn_ros.records import ImageError

_STYLE = """
tr.problem td:first-child { background: #b2182b; color: #fff; }
tr.warning td:first-child { background: #fdb863; } tr.note td:first-child { background: #e8e8e8; }
table.text td { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
tr.given td { font-weight: 600; }
"""
_MOST_ROWS, _WORST_IMAGES = 20, 4
_VERDICTS = {
    "agrees": "the poses move as the images do",
    "differs": "the poses do not move as the images do, but would if they are meant otherwise",
    "unexplained": "the poses do not move as the images do, and nothing else can be named",
    "cannot_tell": "it cannot be told",
}


@dataclass(frozen=True, slots=True)
class InspectedScene:
    """A scene with all that was found of it."""

    scene: SceneData
    inspection: SceneInspection
    checks: SceneChecks
    findings: tuple[Finding, ...]


def write_inspection_report(path: Path, scenes: Sequence[InspectedScene]) -> Path:
    """Write the page: findings of all scenes, then what they rest on, scene by scene.

    Raises:
        MspnError: the file cannot be written.
    """
    found = by_severity([finding for scene in scenes for finding in scene.findings])
    parts = ["<h2>Findings</h2>", _finding_table(found)]
    for scene in scenes:
        parts += _scene_parts(scene)
    return write_page(path, "Look before you train", parts, _STYLE)


def _finding_table(found: Sequence[Finding]) -> str:
    if not found:
        return "<p>Nothing was found to be wrong.</p>"
    rows = [(f.severity, f.scene, f.text, f.place, f.remedy) for f in found]
    header = ("severity", "scene", "what", "where", "remedy")
    return html_rows(header, rows, [f.severity for f in found], "text")


def _scene_parts(inspected: InspectedScene) -> list[str]:
    scene, inspection, checks = inspected.scene, inspected.inspection, inspected.checks
    counts = ", ".join(f"{count} {split}" for split, count in inspection.splits.items())
    extent = "unknown" if inspection.extent is None else f"{inspection.extent:.3g} {scene.unit}"
    facts = {
        "folder": inspection.root,
        "format": inspection.format,
        "frames": counts + (f", {len(scene.bad)} left out" if scene.bad else ""),
        "extent": f"{extent} (diagonal of the 5-95 % box of training positions)",
        "path": f"{inspection.path_length:.3g} {scene.unit}",
        "up": inspection.up.axis + ("" if inspection.up.clear else " (unclear)"),
    }
    parts = [f"<h2>{escape(scene.name)}</h2><dl>"]
    parts += [f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()]
    parts.append("</dl>")
    parts += [f"<p>{escape(note)}</p>" for note in inspection.notes]
    parts.append("<h3>What training covers</h3>")
    caption = f"{scene.name}: positions, and viewing directions of some frames"
    parts.append(html_figure(Picture(coverage_map(scene, checks), caption)))
    if checks.coverage is not None:
        caption = f"{scene.name}: distance of test frames to the nearest training frame"
        parts.append(html_figure(Picture(coverage_distances(scene, checks.coverage), caption)))
        parts += ["<h3>Errors to expect</h3>", _expected(scene, checks.coverage)]
        parts.append(_beyond(scene, checks.coverage))
    if checks.conventions is not None:
        parts.append("<h3>Poses against images</h3>")
        parts += [_convention(check) for check in checks.conventions]
        if not checks.conventions:
            parts.append("<p>Not checked: the camera's intrinsics are unknown.</p>")
    parts += _odd_poses(scene, checks)
    parts += _thumbnails(checks)
    return parts


def _expected(scene: SceneData, coverage: Coverage) -> str:
    rows = []
    for name, (far, angle) in (
        ("nearest training frame (perfect retrieval)", coverage.oracle),
        ("mean training pose", coverage.mean),
    ):
        share = f"{100 * far / coverage.extent:.1f} %" if coverage.extent else "-"
        rows.append((name, f"{far:.3f} {scene.unit}", share, f"{angle:.1f}°"))
    header = ("always answering (median over test frames)", "position", "of extent", "rotation")
    return html_rows(header, rows) + (
        "<p>A model worth its training is better than the first on places that are covered; one "
        "near the second has learned nothing.</p>"
    )


def _beyond(scene: SceneData, coverage: Coverage) -> str:
    train, test = scene.split("train"), scene.split("test")
    far = np.flatnonzero(coverage.far)
    if not len(far):
        return "<p>No test frame is beyond what training covers.</p>"
    cost = coverage.distance / (coverage.extent or 1.0) + coverage.angle_deg / 90
    rows = [
        (
            test[i].name,
            train[coverage.nearest[i]].name,
            f"{coverage.distance[i]:.3f} {scene.unit}",
            f"{coverage.angle_deg[i]:.1f}°",
        )
        for i in far[np.argsort(-cost[far])]
    ]
    header = ("test frame beyond coverage", "nearest training frame", "position", "rotation")
    return _cut(header, rows)


def _cut(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rest = len(rows) - _MOST_ROWS
    return html_rows(header, rows[:_MOST_ROWS]) + (f"<p>And {rest} more.</p>" if rest > 0 else "")


def _convention(check: ConventionCheck) -> str:
    text = _VERDICTS[check.verdict] + (f": {check.likely}" if check.likely else "")
    text += f" ({check.reason})" if check.reason else ""
    seen = (
        f"{check.pairs} pairs of images matched; rotations compared on {check.turning}, directions "
        f"of motion on {check.moving}."
    )
    if check.median_turn_deg is not None:
        seen += f" The pairs turn by {check.median_turn_deg:.1f}° (median)."
    if check.focal_factor is not None:
        seen += f" The images want {check.focal_factor:.2f} times the focal length."

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}°"

    rows = [(f.text, number(f.rotation_deg), number(f.direction_deg)) for f in check.fits]
    marks = ["given" if f.key == "as_given" else "" for f in check.fits]
    header = ("if the poses are", "rotation off by (median)", "direction off by (median)")
    table = html_rows(header, rows, marks) if rows else ""
    return f"<p><b>{escape(check.split)}</b>: {escape(text)}.</p><p>{escape(seen)}</p>{table}"


def _odd_poses(scene: SceneData, checks: SceneChecks) -> list[str]:
    poses = checks.poses

    def steps(kind: str, found: Sequence[Step]) -> list[tuple[str, ...]]:
        return [
            (kind, s.first, s.second, f"{s.distance:.3f} {scene.unit}, {s.angle_deg:.1f}°")
            for s in found
        ]

    rows = steps("off both neighbours", poses.outliers) + steps("jump", poses.jumps)
    rows += [("alone", name, "", f"{far:.3f} {scene.unit}") for name, far in poses.alone]
    rows += [("equal stamps", a, b, "") for a, b in poses.equal_stamps]
    rows += [("same pose", r.first, r.last, f"{r.frames} frames") for r in poses.stuck]
    rows += [("standing", r.first, r.last, f"{r.frames} frames") for r in poses.still]
    for group in checks.copies or ():
        kind = "equal images" if group.same_pose else "equal images, different poses"
        far = f"{group.distance:.3f} {scene.unit}, {group.angle_deg:.1f}°"
        rows.append((kind, group.names[0], ", ".join(group.names[1:6]), far))
    if not rows:
        return []
    return ["<h3>Odd poses and copies</h3>", _cut(("what", "from", "to", "how far"), rows)]


def _thumbnails(checks: SceneChecks) -> list[str]:
    if checks.images is None or not checks.images.looked:
        return []
    marks = {"blurred": ", blurred", "exposure": ", badly exposed", "": ""}
    parts = [f"<h3>Least sharp and worst exposed of {len(checks.images.looked)} images</h3>"]
    for quality, what in checks.images.worst(_WORST_IMAGES):
        try:
            content = encode_frame(read_image(quality.frame.image_path))
        except ImageError:
            continue
        caption = f"{quality.frame.name}: {what}{marks[quality.verdict]}"
        parts.append(html_figure(Picture(content, caption, frame=True)))
    return parts
