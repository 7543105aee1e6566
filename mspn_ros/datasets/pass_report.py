# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What became of the images of one recording, for tables, JSON and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mspn_ros.datasets.frame_choice import Jump


@dataclass(frozen=True, slots=True)
class Gap:
    """No poses for ``seconds`` from ``at_s`` on; the camera went ``metres`` meanwhile."""

    at_s: float
    seconds: float
    metres: float
    where: str


@dataclass(slots=True)
class PassReport:
    """What became of one bag. Times are seconds after its first image.

    ``left_out`` maps reasons to counts of images; ``positions`` (N, 3) and ``fates`` (N) are of all
    images that have a pose, for drawing: "train", "test", or a reason. ``jump_lines`` and
    ``gap_lines`` are from the last image before to the first after one.
    """

    name: str
    bag: str
    image_topic: str
    source: str
    world: str
    images: int
    seconds: float
    frames: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    jumps: list[tuple[float, Jump, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    jump_lines: list[tuple[list[float], list[float]]] = field(default_factory=list)
    gap_lines: list[tuple[list[float], list[float]]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For --json and the dataset's own record."""
        return {
            "name": self.name,
            "bag": self.bag,
            "image_topic": self.image_topic,
            "poses": self.source,
            "world_frame": self.world,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
            "left_out": self.left_out,
            "gaps": [
                {
                    "at_s": round(g.at_s, 3),
                    "seconds": round(g.seconds, 3),
                    "metres": round(g.metres, 3),
                    "where": g.where,
                }
                for g in self.gaps
            ],
            "jumps": [
                {
                    "at_s": round(at_s, 3),
                    "metres": round(j.metres, 3),
                    "degrees": round(j.degrees, 2),
                    "where": where,
                }
                for at_s, j, where in self.jumps
            ],
            "notes": self.notes,
        }
