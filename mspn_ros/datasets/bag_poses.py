# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the camera was when each image of a bag was taken: from a pose topic, from TF, or both.

A pose topic is one more edge in the graph of frames that /tf and /tf_static draw: from the frame of
its header to the body whose poses it gives. What lies beyond on either side is looked up in TF.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.datasets.trajectory import Trajectory
from mspn_ros.mounting import BODY_FROM_OPTICAL, RigidTransform
from mspn_ros.records import BagError, Pose, listing

# What --pose-of takes beside the name of a frame.
OPTICAL, BODY = "camera-optical", "camera-body"
# The frame that REP-105 calls the world of a robot that localizes itself.
_MAP = "map"


@dataclass(frozen=True, slots=True)
class Edge:
    """parent_from_child over time, or always the same where ``moving`` is None."""

    parent: str
    child: str
    moving: Trajectory | None = None
    fixed: RigidTransform | None = None

    def at(self, stamp_ns: int, max_gap_s: float) -> RigidTransform | str:
        """parent_from_child at a stamp, or why there is none."""
        if self.moving is None:
            assert self.fixed is not None
            return self.fixed
        pose = self.moving.interpolate(stamp_ns, max_gap_s)
        if pose is not None:
            return RigidTransform.of_pose(pose)
        stamps_ns, name = self.moving.stamps_ns, f"{self.parent} -> {self.child}"
        if not len(stamps_ns):
            return f"{name} has no usable pose"
        if stamp_ns < stamps_ns[0]:
            return f"before the first pose of {name}"
        return (
            f"after the last pose of {name}"
            if stamp_ns > stamps_ns[-1]
            else f"in a gap of more than {max_gap_s:g} s of {name}"
        )


# An edge and whether it is walked from parent to child.
Step = tuple[Edge, bool]


@dataclass(slots=True)
class FrameGraph:
    """The frames that TF connects: (parent, child) -> edge."""

    edges: dict[tuple[str, str], Edge] = field(default_factory=dict)

    def add(self, edge: Edge) -> None:
        """Take an edge; it replaces one between the same frames."""
        self.edges.pop((edge.child, edge.parent), None)
        self.edges[edge.parent, edge.child] = edge

    @property
    def frames(self) -> set[str]:
        """The names of all frames."""
        return {name for pair in self.edges for name in pair}

    def path(self, start: str, end: str) -> list[Step] | None:
        """The shortest way from ``start`` to ``end``; None where they are not connected."""
        came: dict[str, tuple[str, Step] | None] = {start: None}
        waiting = deque([start])
        while waiting and end not in came:
            here = waiting.popleft()
            for edge in self.edges.values():
                for one, other, down in (
                    (edge.parent, edge.child, True),
                    (edge.child, edge.parent, False),
                ):
                    if one == here and other not in came:
                        came[other] = here, (edge, down)
                        waiting.append(other)
        if end not in came:
            return None
        steps: list[Step] = []
        while (origin := came[end]) is not None:
            end = origin[0]
            steps.insert(0, origin[1])
        return steps

    def root(self, frame: str) -> str:
        """The frame above all others that ``frame`` hangs from."""
        seen = {frame}
        while True:
            above = [
                parent for parent, child in self.edges if child == frame and parent not in seen
            ]
            if not above:
                return frame
            frame = sorted(above)[0]
            seen.add(frame)

    def trees(self) -> str:
        """The frames that are connected with each other, for a message of one line."""
        left, texts = self.frames, []
        while left:
            start = min(left)
            tree = sorted(name for name in left if self.path(start, name) is not None)
            left -= set(tree)
            texts.append(f"[{listing([repr(name) for name in tree])}]")
        return " and ".join(texts) or "none"

    def conflicts(self) -> list[str]:
        """Frames that have several parents, which TF does not allow: two broadcasters."""
        parents: dict[str, list[str]] = {}
        for parent, child in self.edges:
            parents.setdefault(child, []).append(parent)
        return [
            f"frame {child!r} hangs from {' and '.join(map(repr, sorted(names)))} on TF; the "
            "shortest way is taken"
            for child, names in parents.items()
            if len(names) > 1
        ]


def walk(steps: Iterable[Step], stamp_ns: int, max_gap_s: float) -> RigidTransform | str:
    """start_from_end along a path at a stamp, or why it is not known then."""
    whole = RigidTransform(np.zeros(3), Rotation.identity())
    for edge, down in steps:
        found = edge.at(stamp_ns, max_gap_s)
        if isinstance(found, str):
            return found
        whole = whole @ (found if down else found.inverse())
    return whole


@dataclass(frozen=True, slots=True)
class PoseSource:
    """Where the poses of one bag's images come from, ready to be asked.

    ``steps`` lead from ``world`` to the frame that ``last`` carries the optical frame into.
    """

    world: str
    steps: tuple[Step, ...]
    last: RigidTransform | None
    words: str

    def at(self, stamp_ns: int, max_gap_s: float) -> Pose | str:
        """The camera-to-world pose at an image's stamp, or why there is none."""
        found = walk(self.steps, stamp_ns, max_gap_s)
        if isinstance(found, str):
            return found
        return (found if self.last is None else found @ self.last).pose()

    @property
    def moving(self) -> list[Edge]:
        """The edges that change over time."""
        return [edge for edge, _ in self.steps if edge.moving is not None]


@dataclass(frozen=True, slots=True)
class PoseTopic:
    """A pose topic as read: what it is of may be said by its messages (``child``), or not ("")."""

    topic: str
    parent: str
    child: str
    trajectory: Trajectory


@dataclass(frozen=True, slots=True)
class PoseOptions:
    """What a user says of the poses.

    ``pose_of`` is OPTICAL, BODY or a frame; ``mounting`` is body_from_camera (optical) for whatever
    the poses are of; ``image_axes`` is "body" where the images' frame_id names a frame with x
    forward against REP-103.
    """

    pose_of: str | None = None
    mounting: RigidTransform | None = None
    world_frame: str | None = None
    image_frame: str | None = None
    image_axes: str = "optical"


def pose_source(
    place: str, graph: FrameGraph, topic: PoseTopic | None, image_frame: str, options: PoseOptions
) -> PoseSource:
    """How the camera's pose follows from what a bag has.

    Raises:
        BagError: it does not, or it could be several things; names ``place`` and the remedy.
    """
    camera = options.image_frame if options.image_frame is not None else image_frame
    last = BODY_FROM_OPTICAL if options.image_axes == "body" else None
    if topic is None:
        return _tf_source(place, graph, camera, last, options)
    edge = Edge(topic.parent, topic.child or "robot", moving=topic.trajectory)
    steps = [*_way_to_world(place, graph, topic, options), (edge, True)]
    world = options.world_frame or topic.parent
    body = options.pose_of or topic.child
    words = f"{topic.topic} ({topic.parent} -> {body or 'robot'})"
    if options.mounting is not None:
        return PoseSource(world, tuple(steps), options.mounting, f"{words}, --mounting")
    if not body:
        raise BagError(
            f"{place}: {topic.topic!r} does not say what its poses are of; pass "
            f"--pose-of {OPTICAL} (z forward: SLAM, this package's own bags), --pose-of {BODY} (x "
            "forward, z up, at the camera: motion capture), --pose-of FRAME (a frame of TF, as "
            "base_link), or --mounting"
        )
    if body == OPTICAL or (body == camera and last is None):
        return PoseSource(world, tuple(steps), None, f"{words}, optical axes")
    if body == BODY:
        return PoseSource(world, tuple(steps), BODY_FROM_OPTICAL, f"{words}, body axes")
    onward = [] if body == camera else graph.path(body, camera)
    if onward is None:
        raise BagError(
            f"{place}: the poses on {topic.topic!r} are of {body!r}, the images of {camera!r}, and "
            f"TF does not connect these (frames of TF: {graph.trees()}); pass --mounting 'x y z "
            f"roll pitch yaw', --image-frame, or --pose-of {OPTICAL} or {BODY}"
        )
    return PoseSource(world, (*steps, *onward), last, f"{words}, TF to {camera}")


def _way_to_world(
    place: str, graph: FrameGraph, topic: PoseTopic, options: PoseOptions
) -> list[Step]:
    if options.world_frame in (None, topic.parent):
        return []
    assert options.world_frame is not None
    found = graph.path(options.world_frame, topic.parent)
    if found is None:
        raise BagError(
            f"{place}: TF does not connect --world-frame {options.world_frame!r} with "
            f"{topic.parent!r}, the frame of {topic.topic!r}; frames of TF: {graph.trees()}"
        )
    return found


def _tf_source(
    place: str,
    graph: FrameGraph,
    camera: str,
    last: RigidTransform | None,
    options: PoseOptions,
) -> PoseSource:
    """By TF alone: map -> ... -> what --pose-of or the images name."""
    target, known = camera, graph.frames
    if options.mounting is not None:
        if options.pose_of in (None, OPTICAL, BODY):
            raise BagError(
                f"{place}: --mounting on what? say with --pose-of which frame of TF carries the "
                "camera, as base_link"
            )
        assert options.pose_of is not None
        target, last = options.pose_of, options.mounting
    if target not in known:
        raise BagError(
            f"{place}: TF has no frame {target!r}, which the images are of; its frames are "
            f"{graph.trees()}. Pass --image-frame, or --pose-of FRAME with --mounting."
        )
    world = options.world_frame
    if world is None:
        world = _MAP if _MAP in known and graph.path(_MAP, target) else graph.root(target)
    steps = graph.path(world, target)
    if steps is None:
        raise BagError(
            f"{place}: TF does not connect {world!r} with {target!r}; connected are "
            f"{graph.trees()}. Record /tf and /tf_static from the start, or pass "
            "--world-frame or --mounting."
        )
    if not any(edge.moving is not None for edge, _ in steps):
        raise BagError(
            f"{place}: nothing moves between {world!r} and {target!r} in TF: no poses of a moving "
            f"camera; frames of TF: {graph.trees()}. Pass --world-frame or --pose-topic."
        )
    names = " -> ".join([world, *(edge.child if down else edge.parent for edge, down in steps)])
    return PoseSource(world, tuple(steps), last, f"TF: {names}")
