# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A dataset from recordings of one place: each bag a pass (bag_pass.py), all of it in one world."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mspn_ros import __version__
from mspn_ros.datasets.bag_pass import BagPass, FromBagOptions, Progress
from mspn_ros.datasets.frame_choice import DEFAULT_TEST_SHARE, held_out_blocks
from mspn_ros.datasets.nerfstudio_writer import (
    PROVENANCE,
    WrittenFrame,
    new_dataset,
    write_json,
    write_nerfstudio,
)
from mspn_ros.datasets.pass_report import PassReport
from mspn_ros.records import BagError, listing

PICTURE = "passes.png"


def dataset_from_bags(
    out: Path,
    train: Sequence[Path],
    test: Sequence[Path],
    options: FromBagOptions,
    said: Mapping[str, Any],
    progress: Progress = lambda done, total, note: None,
    draw: Callable[[Sequence[PassReport], Path], object] | None = None,
) -> list[PassReport]:
    """Write the dataset ``out`` from bags of one place.

    With ``test`` bags these are for testing and the others for training; without, blocks of each.
    ``said`` is kept in its record; what ``draw`` makes of the reports at a path is its picture.

    Raises:
        BagError: a bag is unreadable, ambiguous, or no image of it has a pose.
        DatasetError: ``out`` is not empty or cannot be written.
        ConfigError: an option makes no sense.
    """
    share = options.test_share
    if share is None:
        share = 0.0 if test else DEFAULT_TEST_SHARE
    held_out_blocks(0, share)
    reports: list[PassReport] = []
    frames: dict[str, list[WrittenFrame]] = {"train": [], "test": []}
    with new_dataset(out) as folder:
        for path, name in zip((*train, *test), _pass_names((*train, *test)), strict=True):
            fixed = "test" if len(reports) >= len(train) else ""
            with BagPass(path, name, options) as recording:
                found = recording.write(folder, fixed, 0.0 if fixed else share, progress)
            for split, part in found.items():
                frames[split] += part
            reports.append(recording.report)
        _require_one_world(reports)
        if not frames["train"]:
            raise BagError(f"{train[0]}: no frame is left for training; see --help for the limits")
        for split, part in frames.items():
            if part:
                write_nerfstudio(folder, split, part, metres_per_unit=options.metres_per_unit)
        record = {
            "made_by": f"mspn_ros {__version__}, mspn dataset from-bag",
            "options": dict(said),
        }
        if draw is not None:
            draw(reports, folder / PICTURE)
        write_json(folder / PROVENANCE, {**record, "passes": [r.to_json() for r in reports]})
    return reports


def _pass_names(paths: Sequence[Path]) -> list[str]:
    names: list[str] = []
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.absolute().stem)[:60].lstrip(".") or "bag"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return names


def _require_one_world(reports: Sequence[PassReport]) -> None:
    worlds = {report.world for report in reports}
    if len(worlds) > 1:
        raise BagError(
            f"{reports[0].bag} and others: their poses are in different frames, "
            f"{listing([repr(world) for world in sorted(worlds)])}; pass --world-frame with one "
            "that all bags have, or make a dataset of each"
        )
