# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Starts the localizer node in this process, and ends it on a signal."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mspn_ros.records import ConfigError, MspnError, RosError

# rclpy and torch take seconds to import: main does so once signals are handled.
if TYPE_CHECKING:
    from mspn_ros.node.localizer_node import LocalizerNode

# How often the main thread looks for a signal while nothing arrives, in seconds.
_WAKE_S = 0.2
# Seconds after a signal in which the process has ended, whatever the main thread is doing.
_END_S = 1.5


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, which end the process with exit code 0.

    ``args``: ROS arguments without the program's name (None: those of the process). Bad input
    at start is one line on stderr, and 1 is returned.
    """
    ending = _Ending()
    node, executor = None, None
    try:
        from mspn_ros.node.declared_parameters import read_parameter
        from mspn_ros.node.localizer_node import LocalizerNode

        _init_ros(list(sys.argv[1:] if args is None else args))
        node = _make_node(LocalizerNode)
        executor = _executor_of(node)
        if not read_parameter(node, "autostart") or node.bring_up():
            _spin(node, executor, ending)
    except KeyboardInterrupt:
        pass
    except MspnError as error:
        print(f"mspn localize: {error}", file=sys.stderr)
    # A signal may have come while some library took it for a failure of its own.
    except Exception:
        if not ending.asked:
            raise
    finally:
        ending.begin()
        _leave_ros(node, executor)
    if ending.asked:
        ending.end()
    gc.unfreeze()
    return 1


class _Ending:
    """What SIGINT and SIGTERM do: raise KeyboardInterrupt where the main thread is, once.

    Where it does not get there, or is lost in a destructor, the process ends all the same.
    """

    def __init__(self) -> None:
        self.asked = False
        # The handler below runs between two lines of the main thread's Python, and a model may be
        # compiled for longer than that; the byte comes at once.
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="ending", daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._raise)

    def begin(self) -> None:
        """No further signal disturbs the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def end(self) -> None:
        """Leave at once. Python would take apart all of torch first: up to 2 s when busy."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def _raise(self, number: int, frame: Any) -> None:
        self.asked = True
        self.begin()
        raise KeyboardInterrupt

    def _watch(self) -> None:
        while os.read(self._read, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        self.asked = True
        time.sleep(_END_S)
        self.end()


def _executor_of(node: LocalizerNode) -> Any:
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    return executor


def _spin(node: LocalizerNode, executor: Any, ending: _Ending) -> None:
    # Without rclpy's signal handlers the context outlives the signal, so that the frame in progress
    # still gets its answer; but nothing wakes a wait then.
    while not ending.asked:
        try:
            executor.spin_once(timeout_sec=_WAKE_S)
        # The executor hands on what a callback raises, rclpy's own too (a time on /clock before 0):
        # one message must not end the node.
        except Exception as error:
            if ending.asked or not node.context.ok():
                raise
            node.log_unhandled(error)


def _leave_ros(node: LocalizerNode | None, executor: Any) -> None:
    """Give back all that ROS holds; Fast DDS leaves its shared memory behind otherwise."""
    # Not imported here: a signal may have come before it was.
    rclpy = sys.modules.get("rclpy")
    if rclpy is None or not hasattr(rclpy, "get_default_context"):
        return
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


def _make_node(kind: Any) -> Any:
    try:
        return kind()
    # rcl's only: a bug of ours shall keep its traceback.
    except RuntimeError as error:
        if "security" not in str(error).lower():
            raise
        if "doesn't have the security libraries" in str(error):
            raise RosError(
                "Fast DDS is built without security here, as in the wheels; run a ROS 2 "
                "installation that has it, or unset ROS_SECURITY_ENABLE"
            ) from error
        raise RosError(
            f"ROS 2 security: {_reason_of(error)}; check ROS_SECURITY_KEYSTORE, --enclave and "
            "the enclave's files (docs/security.md)"
        ) from error


def _reason_of(error: Exception) -> str:
    """What rcl raised, in one line, without the places in its source."""
    return str(error).partition("\n")[0].partition(", at ")[0]


def _init_ros(args: list[str]) -> None:
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    try:
        surplus = remove_ros_args(args)
        if not surplus:
            args = [*args, *_without_log_file()]
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise RosError(
            f"ROS 2 cannot start with arguments {args}: {_reason_of(error)}; "
            "check them and the environment (RMW_IMPLEMENTATION, ROS_DOMAIN_ID, ROS_LOG_DIR)"
        ) from error
    if surplus:
        raise ConfigError(
            f"argument {surplus[0]!r} is unknown; the node takes ROS arguments only, "
            "as in --ros-args -p model:=PATH"
        )


def _without_log_file() -> list[str]:
    """Arguments that keep ROS from writing its log to a file, where it cannot.

    ``rclpy.init`` would fail; a robot must not stand still because a disk is read-only.
    """
    home = Path(os.environ.get("ROS_HOME") or "~/.ros")
    directory = Path(os.environ.get("ROS_LOG_DIR") or home / "log")
    try:
        directory = directory.expanduser()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return []
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        print(
            f"mspn localize: no log file, since {directory} cannot be written to ({error}); "
            "set ROS_LOG_DIR to a directory that can",
            file=sys.stderr,
        )
        return ["--ros-args", "--disable-external-lib-logs"]


if __name__ == "__main__":
    sys.exit(main())
