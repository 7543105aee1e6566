# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``mspn demo``: the packaged model in a real node on a packaged bag, judged.

``model/`` was trained from scratch on synthetic rooms, ``walk.mcap`` is a held-out walk through
them; docs/demo.md gives the commands that made both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mspn_ros.commands.run import Replayed, replay_live, replay_offline, show_table, write_results
from mspn_ros.datasets.bags import BagReader
from mspn_ros.evaluation.answers import Answer, by_scene, make_table, write_json
from mspn_ros.evaluation.replay import ground_truth
from mspn_ros.evaluation.report import Picture, encode_frame, sample_answers
from mspn_ros.inference.localizer import Localizer
from mspn_ros.metrics import SceneScore
from mspn_ros.paths import make_folder, package_file
from mspn_ros.records import SceneRow
from mspn_ros.terminal import say

MODEL = package_file("demo", "model")
BAG = package_file("demo", "walk.mcap")

LEAST_ANSWERED = 0.95
LEAST_RIGHT_SCENE = 0.95
MOST_OF_MEAN_POSE = 0.5
# Live and offline run the same float32 code; only the order of sums may differ by load.
SAME_POSE = 1e-5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the demo promises, the number seen, and whether it holds."""

    promise: str
    seen: str
    holds: bool


def run_demo(output: Path) -> int:
    """Replay offline and live, print the table, write the report; 0 if every check holds.

    Raises:
        MspnError: model, bag or ROS cannot be used.
    """
    # A domain and a namespace of its own, so that a robot on the same machine is left alone.
    os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
    make_folder(output)
    localizer = Localizer.load(MODEL)
    with BagReader(BAG) as bag:
        say(
            f"a walk of {bag.duration_s:.0f} s and {bag.image_count} frames through "
            f"{len(localizer.scenes)} synthetic rooms; the bag plays at its own rate"
        )
        truth = ground_truth(bag, localizer.rows, None)
        live = replay_live(BAG, localizer, truth, "mspn_demo")
        offline = replay_offline(bag, localizer, truth)
        pictures = _frame_pictures(bag, live.answers, localizer.rows)
    show_table("live, through the node", live)
    checks = make_checks(live, offline, localizer.rows)
    for check in checks:
        mark, style = ("holds", "green") if check.holds else ("FAILS", "red")
        say(f"{mark}  {check.promise}: {check.seen}", style)
    live.facts.update({check.promise: check.seen for check in checks})
    write_results(output, "mspn demo", live, localizer, pictures)
    write_json(output / "result.json", live.table.to_json())
    return 0 if all(check.holds for check in checks) else 1


def make_checks(live: Replayed, offline: Replayed, rows: Sequence[SceneRow]) -> list[Check]:
    """All that ``mspn demo`` promises, checked on the answers."""
    answers: list[Answer] = live.answers
    known = [answer for answer in answers if answer.estimate.known]
    answered = len(known) / max(1, len(answers))
    right = sum(a.estimate.scene == a.scene for a in known) / max(1, len(known))
    checks = [
        Check("frames answered >= 95 %", f"{100 * answered:.1f} %", answered >= LEAST_ANSWERED),
        Check(
            "answers name the right room >= 95 %",
            f"{100 * right:.1f} %",
            right >= LEAST_RIGHT_SCENE,
        ),
    ]
    mean = make_table(_mean_pose_answers(answers, rows), rows, "mean pose", oracle=True)
    for own, reference in zip(live.table.scores, mean.scores, strict=True):
        checks.append(_beats_mean(own, reference))
    worst, compared = largest_difference(answers, offline.answers)
    checks.append(
        Check(
            "live poses equal offline poses of the same stamps",
            f"largest difference {worst:.1e} over {compared} poses",
            compared > 0 and worst <= SAME_POSE,
        )
    )
    return checks


def _beats_mean(own: SceneScore, reference: SceneScore) -> Check:
    return Check(
        f"{own.scene}: median errors < half of the mean pose's",
        f"{own.median_position:.2f} {own.unit} of {reference.median_position:.2f}, "
        f"{own.median_rotation_deg:.1f} deg of {reference.median_rotation_deg:.1f}",
        own.median_position < MOST_OF_MEAN_POSE * reference.median_position
        and own.median_rotation_deg < MOST_OF_MEAN_POSE * reference.median_rotation_deg,
    )


def _mean_pose_answers(answers: Sequence[Answer], rows: Sequence[SceneRow]) -> list[Answer]:
    """What always answering the mean training pose gets; the rows hold it as their coding."""
    known = {row.name: row for row in rows}
    return [
        replace(
            answer,
            estimate=replace(
                answer.estimate,
                scene=answer.scene,
                position=known[answer.scene].position_offset,
                quaternion=known[answer.scene].reference_rotation,
            ),
        )
        for group in by_scene(answers).values()
        for answer in group
    ]


def largest_difference(a: Sequence[Answer], b: Sequence[Answer]) -> tuple[float, int]:
    """Largest difference of any pose component between answers of the same name, and how many.

    Infinite if one of a pair names another scene, or gives no pose where the other does; frames
    that a live node did not process at all are not compared.
    """
    others = {answer.name: answer.estimate for answer in b}
    worst, compared = 0.0, 0
    for answer in a:
        one, other = answer.estimate, others[answer.name]
        if answer.latency_ms is None:
            continue
        compared += 1
        if one.scene != other.scene or one.position is None or other.position is None:
            worst = worst if one.scene == other.scene else float("inf")
            continue
        assert one.quaternion is not None
        assert other.quaternion is not None
        # q and -q are one orientation.
        turn = min(
            np.abs(one.quaternion - other.quaternion).max(),
            np.abs(one.quaternion + other.quaternion).max(),
        )
        worst = max(worst, float(np.abs(one.position - other.position).max()), float(turn))
    return worst, compared


def _frame_pictures(
    bag: BagReader, answers: Sequence[Answer], rows: Sequence[SceneRow]
) -> list[Picture]:
    wanted = {answer.name: caption for answer, caption in sample_answers(answers, rows)}
    return [
        Picture(encode_frame(image.decode()), wanted[str(image.stamp_ns)], frame=True)
        for image in bag.images()
        if str(image.stamp_ns) in wanted
    ]
