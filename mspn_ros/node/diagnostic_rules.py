# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says: every text with its level, cause and remedy (docs/diagnostics.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rule:
    """One text, in which … stands for what differs. ``of`` says whose status has it."""

    level: Literal["OK", "WARN", "ERROR", "STALE"]
    of: Literal["node", "camera", "both"]
    text: str
    cause: str
    remedy: str

    def says(self, message: str) -> bool:
        """Whether a status' message has this text."""
        return re.search(".*".join(map(re.escape, self.text.split("…"))), message) is not None


RULES = (
    Rule(
        "ERROR",
        "node",
        "configure: …",
        "The last transition failed (activate, deactivate, cleanup, shutdown likewise); the rest "
        "says why, as the log does.",
        "Do what the text says; then configure (or activate) again, or restart the node.",
    ),
    Rule(
        "ERROR",
        "both",
        "all of the last … frames rejected (…)",
        "Since the status before, no frame could be answered; the causes are in the values "
        "`rejected.…`.",
        "Read `reason` in `/mspn/answer`.",
    ),
    Rule(
        "WARN",
        "both",
        "… frames rejected (…)",
        "Some frames could not be answered.",
        "As above.",
    ),
    Rule(
        "WARN",
        "both",
        "no frames for … s on …: nobody publishes there",
        "For longer than `no_frames_timeout` no image has come, and the topic has no publisher.",
        "Start the camera driver, or set `image_topic` to one of the topics that the text lists.",
    ),
    Rule(
        "WARN",
        "both",
        "no frames for … s on …: it carries …, not …",
        "The topic is published with another type than the one subscribed to.",
        "Set `transport` to raw or compressed.",
    ),
    Rule(
        "WARN",
        "both",
        "no frames for … s on …, though it has a publisher",
        "The driver has stopped, or large images are lost between the processes.",
        "Run the printed `export` line before the camera driver starts (docs/performance.md).",
    ),
    Rule(
        "WARN",
        "both",
        "… publishes … best effort, this node asks for reliable",
        "A reliable subscription gets nothing from a best-effort publisher.",
        "Set `image_qos` to best_effort, or remove the override.",
    ),
    Rule(
        "WARN",
        "both",
        "images on … have no stamps",
        "The driver leaves stamps at 0: poses have stamp 0 too, and filters drop them.",
        "Have the driver stamp its images.",
    ),
    Rule(
        "OK",
        "both",
        "stamps are … this node's clock",
        "A hint, which changes no level: the camera's clock is off by more than a second, or a bag "
        "is played. Poses keep the images' stamps.",
        "Synchronise the clocks; with a bag, play it with `--clock` and set `use_sim_time`.",
    ),
    Rule(
        "WARN",
        "node",
        "use_sim_time is set, but /clock says nothing",
        "The node's clock stands at 0.",
        "Play the bag with `--clock`, start the simulator, or set `use_sim_time` to false.",
    ),
    Rule(
        "WARN",
        "node",
        "allowed_scenes: … is not in the bank",
        "A scene that may answer has been removed or renamed.",
        "Set `allowed_scenes` anew.",
    ),
    Rule(
        "WARN",
        "node",
        "the scene bank holds no scene",
        "Every answer is unknown.",
        "Add a scene (`mspn add-scene`, `mspn scenes import`); the node takes it in by itself.",
    ),
    Rule(
        "WARN",
        "node",
        "… rows left out: …",
        "Rows are damaged or of another backbone; the values `refused.…` say why.",
        "Import or train these scenes again (docs/scenes.md).",
    ),
    Rule(
        "WARN",
        "node",
        "…; what was in service stays",
        "The model on disk has changed and cannot be taken in.",
        "Repair it as the text says; the node reads it again by itself.",
    ),
    Rule(
        "WARN",
        "node",
        "… asks for reliable …, which is best effort",
        "Someone subscribes reliably to a topic that an override made best effort.",
        "Remove the override, or subscribe best effort.",
    ),
    Rule(
        "WARN",
        "node",
        "… asks for transient_local …, which is volatile",
        "Someone wants the last message kept. It is not: a late reader would take an old pose for "
        "a new one.",
        "Subscribe with durability volatile.",
    ),
    Rule(
        "WARN",
        "node",
        "scene … has no known scale",
        "Its positions are in a unit of their own.",
        "Set `metres_per_unit` when training it.",
    ),
    Rule(
        "WARN",
        "node",
        "… is not used: …; the camera of the training frames stands in",
        "`camera_info` cannot be used.",
        "Have the driver publish the calibration of the very images that are sent.",
    ),
    Rule(
        "WARN",
        "node",
        "no pose of …",
        "The camera's mounting is not known to TF (yet), or the scene has no known scale: from "
        "where the camera is does not follow where the robot is.",
        "Publish the transform that the text names, or give `mounting` in numbers; set "
        "`metres_per_unit` when training the scene.",
    ),
    Rule(
        "WARN",
        "node",
        "publish_tf: …",
        "The last pose gave no transform.",
        "Start what publishes odometry; have the driver stamp its images.",
    ),
    Rule(
        "WARN",
        "node",
        "… on … failed (…)",
        "The network's engine fails, for example out of memory. What stands in for it, if "
        "anything, is named; the engine is tried again by itself.",
        "Free memory; after a CUDA error restart the node.",
    ),
    Rule(
        "WARN",
        "node",
        "no model named: running the demo …",
        "The parameter `model` is empty.",
        "Set `model`.",
    ),
    Rule(
        "OK",
        "both",
        "… Hz",
        "It answers: so many frames a second since the status before. The node's status goes on "
        "with the scene of its last answer.",
        "",
    ),
    Rule(
        "OK",
        "both",
        "unconfigured",
        "Or `inactive`, `finalized`: it waits for its lifecycle manager.",
        "Configure and activate it, or start it with `autostart` true.",
    ),
    Rule(
        "STALE",
        "both",
        "",
        "The node never says so itself: an aggregator shows it for a status that has not come for "
        "its timeout (5 s), three or more `diagnostics_period`.",
        "The process has ended or hangs: see its log.",
    ),
)


def diagnostic_table_markdown() -> str:
    """The table as docs/diagnostics.md shows it."""
    lines = ["| level | status of | text | cause | remedy |", "|---|---|---|---|---|"]
    for rule in RULES:
        whose = {"both": "camera, node"}.get(rule.of, rule.of)
        text = f"`{rule.text}`" if rule.text else ""
        lines.append(f"| {rule.level} | {whose} | {text} | {rule.cause} | {rule.remedy} |")
    return "\n".join(lines) + "\n"
