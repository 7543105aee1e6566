# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Levels and texts of /diagnostics: each row of docs/diagnostics.md can be produced."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

from diagnostic_msgs.msg import DiagnosticStatus

from mspn_ros.node.diagnostic_rules import RULES, diagnostic_table_markdown
from mspn_ros.node.diagnostics import CameraStatus, DiagnosticsReport, ImageSource, NodeStatus
from mspn_ros.node.stamps import ClockOffset
from mspn_ros.node.worker import Counts

DOCS = Path(__file__).resolve().parents[1] / "docs" / "diagnostics.md"
LEVELS = {
    DiagnosticStatus.OK: "OK",
    DiagnosticStatus.WARN: "WARN",
    DiagnosticStatus.ERROR: "ERROR",
    DiagnosticStatus.STALE: "STALE",
}
IMAGES = "sensor_msgs/msg/Image"
SOURCE = ImageSource("/front/image", IMAGES, (IMAGES,))
NODE = NodeStatus(
    "/mspn/localizer",
    "active",
    "model",
    scenes=2,
    scene="hall",
    cameras=(CameraStatus("front", Counts(10, 10), SOURCE),),
)
IDLE = Counts(10, 10, idle_s=60.0)


def with_camera(**changes):
    [camera] = NODE.cameras
    return replace(NODE, cameras=(replace(camera, **changes),))


def clock(stamp_s, now_s):
    offset = ClockOffset()
    offset.take(stamp_s * 10**9, now_s * 10**9)
    return offset


# What the node finds, and which text of the table it gives. The texts of ``warnings`` come from
# where they are found; tests with real nodes hold these to the table (test_lifecycle.py).
CASES = {
    "configure: …": replace(NODE, failure="configure: no model at /m"),
    "all of the last … frames rejected (…)": with_camera(counts=Counts(20, 10, 0, {"late": 10})),
    "… frames rejected (…)": with_camera(counts=Counts(20, 12, 0, {"late": 8})),
    "no frames for … s on …: nobody publishes there": with_camera(
        counts=IDLE, source=replace(SOURCE, publisher_types=())
    ),
    "no frames for … s on …: it carries …, not …": with_camera(
        counts=IDLE, source=replace(SOURCE, publisher_types=("sensor_msgs/msg/CompressedImage",))
    ),
    "no frames for … s on …, though it has a publisher": with_camera(counts=IDLE),
    "… publishes … best effort, this node asks for reliable": with_camera(
        counts=IDLE,
        mismatches=("/cam publishes /front/image best effort, this node asks for reliable: set",),
    ),
    "images on … have no stamps": with_camera(clock=clock(0, 1)),
    "stamps are … this node's clock": with_camera(clock=clock(1000, 1312)),
    "the scene bank holds no scene": replace(NODE, scenes=0),
    "… rows left out: …": replace(NODE, refused={"row 3": "damaged"}),
    "…; what was in service stays": replace(NODE, reload_trouble="x; what was in service stays"),
    "… Hz": NODE,
    "unconfigured": replace(NODE, state="unconfigured"),
}


@pytest.mark.parametrize("text", CASES)
def test_each_finding_gives_the_text_and_the_level_of_its_rule(text):
    [rule] = [rule for rule in RULES if rule.text == text]
    report = DiagnosticsReport()
    report.message(NODE, 1.0)
    node, camera = report.message(CASES[text], 2.0).status
    assert (node.name, camera.name) == ("/mspn/localizer", "/mspn/localizer: front")
    for status, whose in ((node, ("node", "both")), (camera, ("camera", "both"))):
        if rule.of in whose:
            assert LEVELS[status.level] == rule.level, status.message
            assert rule.says(status.message), status.message
    # The node is as bad as its worst camera.
    assert node.level >= camera.level
    # The text is that of its rule alone, but for what is no finding.
    told = [one.text for one in RULES if one.text and one.says(node.message)]
    assert set(told) - {"… Hz", "… frames rejected (…)"} <= {text}


def test_what_the_node_finds_elsewhere_is_a_warning_and_hints_change_no_level():
    report = DiagnosticsReport()
    status = replace(
        with_camera(clock=clock(1000, 900)), warnings=("scene 'x' has no known scale",)
    )
    node, camera = report.message(status, 1.0).status
    assert LEVELS[node.level] == "WARN"
    assert node.message.startswith("scene 'x' has no known scale; front: stamps are 100 s ahead of")
    assert LEVELS[camera.level] == "OK"
    # Whatever else there is, a transition that failed comes first.
    node, _ = report.message(replace(status, failure="activate: no"), 2.0).status
    assert (LEVELS[node.level], node.message) == ("ERROR", "activate: no")
    # One that is not active has nothing to complain of.
    node, _ = report.message(replace(status, state="inactive"), 3.0).status
    assert (LEVELS[node.level], node.message) == ("OK", "inactive")


def test_the_documented_table_is_the_codes():
    assert diagnostic_table_markdown() in DOCS.read_text()
    texts = [rule.text for rule in RULES]
    assert len(set(texts)) == len(texts)
    assert all(rule.remedy or rule.text == "… Hz" for rule in RULES)
