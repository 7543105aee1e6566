# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md does what it says: each of its blocks is executed, in order, in one folder."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import ros_tools  # noqa: F401  a DDS domain of this process's own

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
# Heading -> the block under it.
BLOCKS = dict(
    re.findall(r"^## \d\. ([^\n]+)\n(?:(?!^## ).)*?^```bash\n(.*?)^```$", TUTORIAL, re.M | re.S)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tutorial")


def run(block, folder):
    """(exit code, what was said), with ``mspn`` and ``python`` on the path as by ``activate``."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    # In a group of its own, so that a node that a failing block has started ends with it.
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=environment,
        stdout=(folder / "said").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as shell:
        try:
            code = shell.wait(200)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return code, (folder / "said").read_text()


def test_every_block_is_found():
    assert len(BLOCKS) == TUTORIAL.count("```bash")
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("heading", BLOCKS)
def test_a_block_does_what_it_says(folder, heading):
    code, said = run(BLOCKS[heading], folder)
    assert code == 0, said
    assert "Traceback" not in said


def test_what_the_tutorial_ends_with_is_a_node_that_knows_the_place(folder):
    judged, live = (
        json.loads((folder / name / "result.json").read_text())["scenes"]["lab"]
        for name in ("judged", "live")
    )
    assert judged["scene_accuracy"] > 0.7
    # Its extent is 4.9 m, and always answering the middle is off by more.
    assert judged["median_position"] < 1.8
    assert (live["frames"], live["answered"]) == (60, judged["answered"])
    assert live["median_position"] == pytest.approx(judged["median_position"], rel=1e-3)
