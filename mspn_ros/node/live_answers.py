# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A live replay's records as the evaluation room's answers: the same tables as everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from mspn_ros.evaluation.answers import Answer
from mspn_ros.evaluation.replay import GroundTruth
from mspn_ros.node.collector import LiveRecord
from mspn_ros.node.live import LiveResult
from mspn_ros.records import UNKNOWN_SCENE, UNKNOWN_SCENE_ID, PoseEstimate, SceneRow


def live_answers(
    result: LiveResult, truth: GroundTruth, rows: Sequence[SceneRow]
) -> tuple[list[Answer], dict[str, int]]:
    """Answers in the order of publication, and counts of dropped frames by cause.

    Positions come back from metres to the scene's own unit, in which truth and tables are.
    """
    known = {row.name: row for row in rows}
    answers = []
    for record in result.records:
        scene, pose = truth.at(record.stamp_ns)
        latency = record.pose_latency_s if record.pose else record.latency_s
        answers.append(
            Answer(
                name=str(record.stamp_ns),
                scene=scene,
                stamp_s=record.stamp_ns / 1e9,
                pose=pose,
                estimate=_estimate(record, known),
                latency_ms=None if latency is None else 1e3 * latency,
            )
        )
    counts = {
        "overtaken": result.overtaken,
        "rejected": sum(result.rejected.values()),
        "lost": result.lost,
    }
    return answers, counts


def _estimate(record: LiveRecord, rows: dict[str, SceneRow]) -> PoseEstimate:
    if record.pose is None:
        reason = record.reason or ("" if record.processed else "overtaken or lost")
        return PoseEstimate(
            UNKNOWN_SCENE_ID, UNKNOWN_SCENE, record.confidence or 0.0, reason=reason
        )
    row = rows.get(record.scene)
    # As the node: a map frame has its own unit, and an unknown scale is published as it is.
    scale = 1.0
    if row is not None and row.map_frame is None and row.metres_per_unit is not None:
        scale = row.metres_per_unit
    return PoseEstimate(
        scene_id=record.scene_id,
        scene=record.scene,
        confidence=record.confidence or 0.0,
        frame_id=record.frame_id,
        position=record.pose.position / scale,
        quaternion=record.pose.quaternion,
    )
