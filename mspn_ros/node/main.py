# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Starts the localizer node in this process, and ends it on a signal."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from mspn_ros.node.localizer_node import LocalizerNode
from mspn_ros.node.parameters import read_parameter
from mspn_ros.records import ConfigError, MspnError, RosError

# How often the main thread looks for a signal while nothing arrives, in seconds.
_WAKE_S = 0.2


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, which end the process with exit code 0.

    ``args``: ROS arguments without the program's name (None: those of the process). Bad input
    at start is one line on stderr, and 1 is returned.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    node, executor, interrupted = None, None, False
    try:
        _init_ros(list(sys.argv[1:] if args is None else args))
        node = LocalizerNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if not read_parameter(node, "autostart") or node.bring_up():
            # Without rclpy's signal handlers the context outlives the signal, so that the frame
            # in progress still gets its answer; but nothing wakes a wait then.
            while True:
                executor.spin_once(timeout_sec=_WAKE_S)
    except KeyboardInterrupt:
        interrupted = True
    except MspnError as error:
        print(f"mspn localize: {error}", file=sys.stderr)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _leave_ros(node, executor)
    if interrupted:
        # Python would take apart all of torch first: up to 2 s on a busy machine.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    gc.unfreeze()
    return 1


def _leave_ros(node: LocalizerNode | None, executor: Any) -> None:
    """Give back all that ROS holds; Fast DDS leaves its shared memory behind otherwise."""
    context = rclpy.get_default_context()
    if node is not None:
        node.release()
    if executor is not None:
        executor.shutdown(timeout_sec=1.0)
    if node is not None:
        # destroy_node() forgets the state machine, which keeps the participant alive.
        node._state_machine.destroy_when_not_in_use()
        node.destroy_node()
    rclpy.try_shutdown()
    context.destroy()


def _init_ros(args: list[str]) -> None:
    try:
        surplus = remove_ros_args(args)
        if not surplus:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise RosError(
            f"ROS 2 cannot start with arguments {args}: {str(error).partition(', at ')[0]}; "
            "check them and the environment (RMW_IMPLEMENTATION, ROS_DOMAIN_ID)"
        ) from error
    if surplus:
        raise ConfigError(
            f"argument {surplus[0]!r} is unknown; the node takes ROS arguments only, "
            "as in --ros-args -p model:=PATH"
        )


if __name__ == "__main__":
    sys.exit(main())
