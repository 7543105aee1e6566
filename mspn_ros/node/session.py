# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What live replay and the benchmark share: a node of their own, and a localizer's counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node

from mspn_ros.node.collector import Collector
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.records import RosError

# A writer that sees its reader is not yet seen by it: best-effort frames sent now would be lost.
MATCH_SLACK_S = 0.5
# Seconds for a localizer to load its model; for a change of state, or counts after the last frame.
_LOAD_S, _SETTLE_S = 120.0, 30.0


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """What a localizer counted: received = answered + overtaken + all of ``rejected``, by cause."""

    received: int
    answered: int
    overtaken: int
    rejected: dict[str, int]

    @classmethod
    def between(cls, before: Mapping[str, str], after: Mapping[str, str]) -> FrameCounts:
        """From two statuses, as the ``Collector`` keeps them."""

        def grown(key: str) -> int:
            return int(after[key]) - int(before.get(key, 0))

        causes = [key for key in after if key.startswith("rejected.")]
        return cls(
            grown("received"),
            grown("answered"),
            grown("overtaken"),
            {key.partition(".")[2]: grown(key) for key in causes if grown(key)},
        )


@contextmanager
def ros_node(name: str) -> Iterator[Any]:
    """A node in a context of its own, so that a caller's rclpy is left alone."""
    context: Any = rclpy.Context()
    rclpy.init(context=context, args=[])
    try:
        node = Node(
            name,
            context=context,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        yield node
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


def wait_for_catalogue(collector: Collector, process: LocalizerProcess) -> None:
    """Wait until the localizer that was started serves its scenes.

    Raises:
        RosError: it ended, or is not up after two minutes.
    """

    def up_or_ended() -> bool:
        return collector.catalogue is not None or process.ended

    if not collector.wait_for(up_or_ended, _LOAD_S):
        raise RosError(
            f"the localizer did not come up within {_LOAD_S:.0f} s; is the machine busy?"
        )
    process.check()


def settled_status(collector: Collector, last_published_s: float) -> dict[str, str]:
    """The localizer's status once it has dealt with all frames, the last of them published then.

    Raises:
        RosError: it is still busy, or silent, after half a minute.
    """

    def settled() -> bool:
        quiet_s = max(last_published_s, collector.last_answer_s) + MATCH_SLACK_S
        status = collector.diagnostics
        return collector.diagnostics_s > quiet_s and (status or {}).get("in_progress") == "0"

    if not collector.wait_for(settled, _SETTLE_S):
        raise RosError(
            f"the localizer is still busy, or silent, {_SETTLE_S:.0f} s after the last frame; "
            "see its log"
        )
    assert collector.diagnostics is not None
    return collector.diagnostics


def change_state(
    states: Any, transition: int, collector: Collector, process: LocalizerProcess
) -> None:
    """Make the localizer go through a transition, by its id; ``states``: a ChangeState client.

    Raises:
        RosError: it ended, refuses, or does not answer within half a minute.
    """
    request = ChangeState.Request()
    request.transition.id = transition
    future = states.call_async(request)
    done = collector.wait_for(future.done, _SETTLE_S)
    process.check()
    if not done or not future.result().success:
        raise RosError(f"the localizer does not change its state within {_SETTLE_S:.0f} s")


def with_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """A serialized message that begins with a header, with another stamp.

    CDR: four bytes of encapsulation (the second one odd for little endian), then the header's
    stamp as int32 and uint32.
    """
    order: Literal["little", "big"] = "little" if cdr[1] & 1 else "big"
    sec, nanosec = (part.to_bytes(4, order) for part in divmod(stamp_ns, 10**9))
    return b"".join((cdr[:4], sec, nanosec, memoryview(cdr)[12:]))
