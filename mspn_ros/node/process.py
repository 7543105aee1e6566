# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A localizer node in its own process, started and ended by whoever needs one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mspn_ros.node.transport import process_environment
from mspn_ros.paths import PACKAGE
from mspn_ros.records import RosError


class LocalizerProcess:
    """A localizer in its own process, ended by SIGINT when the context is left.

    ``parameters`` are node parameters by name; ``arguments`` further ROS arguments; ``profile``:
    with the Fast DDS profile, if this process has it, see ``process_environment``; ``module``: what
    runs the node.
    """

    def __init__(
        self,
        namespace: str,
        parameters: dict[str, Any],
        arguments: tuple[str, ...] = (),
        profile: bool = True,
        module: str = "mspn_ros.node.main",
    ) -> None:
        command = [sys.executable, "-m", module, "--ros-args"]
        command += ["-r", f"__ns:={namespace}"]
        for name, value in parameters.items():
            # rcl reads values as YAML, of which JSON is a part: quotes keep text to be text.
            command += ["-p", f"{name}:={json.dumps(value)}"]
        # Appending, since the child shares the file's position with whoever reads it here.
        self._log = tempfile.TemporaryFile(mode="a+")  # noqa: SIM115
        # A checkout that is not installed must be found by the child as well.
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [*command, *arguments],
            env={**process_environment(profile), "PYTHONPATH": path},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> LocalizerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(signal.SIGINT)
        self._log.close()

    def stop(self, number: int) -> int:
        """Send a signal and wait for the end, by force after 10 s; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def memory_mb(self) -> float:
        """Resident memory without shared segments, which are DDS's and filled once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kb = {
            name: int(value.split()[0])
            for name, _, value in (line.partition(":") for line in status.splitlines())
            if name in ("VmRSS", "RssShmem")
        }
        return (kb["VmRSS"] - kb.get("RssShmem", 0)) / 1024

    def output(self) -> str:
        """All that the process has written so far."""
        self._log.seek(0)
        return self._log.read()

    def check(self) -> None:
        """Raise RosError if the process has ended."""
        code = self.process.poll()
        if code is not None:
            lines = [line for line in self.output().splitlines() if line.strip()] or ["no output"]
            raise RosError(f"the localizer ended with exit code {code}: {lines[-1]}")
