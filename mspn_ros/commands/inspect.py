# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn inspect``: what a reader found, and what is wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mspn_ros.paths import make_folder
from mspn_ros.records import DatasetError
from mspn_ros.terminal import note, progress_bar, rule, say

if TYPE_CHECKING:
    from mspn_ros.evaluation.findings import Finding

_COLOURS = {"problem": "bold red", "warning": "yellow", "note": None}


def inspect(arguments: argparse.Namespace) -> int:
    """What a reader found and all checks, as text, JSON, a top view and a page."""
    from mspn_ros.datasets import verify_images
    from mspn_ros.evaluation.answers import write_json
    from mspn_ros.evaluation.findings import by_severity, list_findings
    from mspn_ros.evaluation.inspection import draw_top_view, finite, inspect_scene
    from mspn_ros.evaluation.inspection_report import InspectedScene, write_inspection_report
    from mspn_ros.evaluation.scene_checks import check_scene

    output = make_folder(arguments.output)
    scenes = _read(arguments)
    if not arguments.headers_only:
        with progress_bar("decoding images") as update:
            scenes = [verify_images(scene, update) for scene in scenes]
    for scene in scenes:
        if not scene.frames:
            first = scene.bad[0]
            raise DatasetError(
                f"{scene.root}: none of {len(scene.bad)} images can be decoded; the first is "
                f"{first.name}: {first.reason}. Check that the files are whole"
            )
    done = []
    for scene in scenes:
        inspection = inspect_scene(scene)
        _show_scene(inspection.to_json())
        checks = check_scene(scene, progress_bar, arguments.headers_only)
        findings = tuple(list_findings(scene, checks))
        done.append(InspectedScene(scene, inspection, checks, findings))
    _show_findings(by_severity([finding for scene in done for finding in scene.findings]))
    picture = output / "top_view.png"
    draw_top_view(scenes, picture)
    write_json(
        arguments.json or output / "inspect.json",
        finite(
            [
                {
                    **one.inspection.to_json(),
                    "findings": [asdict(finding) for finding in one.findings],
                    "checks": one.checks.to_json(one.scene),
                }
                for one in done
            ]
        ),
    )
    report = write_inspection_report(output / "report.html", done)
    note(f"top view: {picture}")
    note(f"report: {report}")
    return 0


def _read(arguments: argparse.Namespace) -> list[Any]:
    from mspn_ros.datasets import ReaderOptions, read_scene
    from mspn_ros.datasets.scene_set import load_scene_set

    if arguments.format is None and arguments.focal_px is None:
        return list(load_scene_set(arguments.paths))
    scenes = []
    for text in arguments.paths:
        name, _, path = text.rpartition("=")
        options = ReaderOptions(arguments.focal_px)
        scenes.append(read_scene(Path(path), name or None, arguments.format, options))
    return scenes


def _show_scene(scene: dict[str, Any]) -> None:
    rule(scene["scene"])
    for key, value in scene.items():
        if key not in ("scene", "bad", "notes"):
            _line(key.replace("_", " "), _text(value))
    for text in scene["notes"]:
        _line("note", text)
    for group in scene["bad"]:
        names = group["names"]
        listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        _line("bad frames", f"{len(names)}: {group['reason']}: {listed}", style="yellow")
    if not scene["bad"]:
        _line("bad frames", "none")


def _line(title: str, text: str, style: str | None = None) -> None:
    say(f"{title:>16}  {text}", style=style)


def _show_findings(found: Sequence[Finding]) -> None:
    rule("findings")
    for finding in found:
        style = _COLOURS[finding.severity]
        _line(finding.severity, f"{finding.scene}: {finding.text}", style)
        for key, text in (("where", finding.place), ("remedy", finding.remedy)):
            _line(key, text)
    if not found:
        say(f"{'':>16}  nothing is wrong as far as can be seen")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_text(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
