# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch file, run by the real launch system where ROS 2 has it.

An executable that records its arguments and environment stands where the node is installed, so
that what reaches the node is seen, not what the launch file meant. One test starts the node itself.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not installed (it comes with ROS 2 only)")

from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import get_launch_description_from_python_launch_file

REPO = Path(__file__).resolve().parent.parent
LAUNCH_FILE = REPO / "launch/localize.launch.py"
LAUNCH_TEST = REPO / "test/localize.launch_test.py"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

RECORDER = """#!/bin/sh
env > "$RECORD/environment"
printf '%s\\n' "$@" > "$RECORD/arguments"
for argument; do [ -f "$argument" ] && cat "$argument" >> "$RECORD/parameters"; done
exit 0
"""
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
include = IncludeLaunchDescription(sys.argv[1], launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([include]))
raise SystemExit(service.run())
"""


def prefix(folder: Path, executable: str) -> dict[str, str]:
    """Install a package of one executable there; the environment in which it is found."""
    marker = folder / "share/ament_index/resource_index/packages/mspn_ros"
    for path, text in ((marker, ""), (folder / "lib/mspn_ros/localize", executable)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    path.chmod(0o755)
    others = {name: text for name, text in os.environ.items() if "PROFILES_FILE" not in name}
    return {**others, "AMENT_PREFIX_PATH": str(folder), "ROS_LOG_DIR": str(folder)}


class Launched:
    """What one run printed, and what the executable was given."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        own = {**prefix(folder, RECORDER), "RECORD": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", LAUNCH, LAUNCH_FILE, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**own, **environment},
            timeout=60,
        )
        self.code = done.returncode
        self.output = done.stdout + done.stderr
        self._folder = folder

    def recorded(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []


def test_every_argument_of_the_launch_file_is_described():
    description = get_launch_description_from_python_launch_file(str(LAUNCH_FILE))
    arguments = [e for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    assert {argument.name for argument in arguments} == {
        "model",
        "cameras",
        "image_topic",
        "transport",
        "device",
        "engine",
        "namespace",
        "params_file",
        "use_sim_time",
        "log_level",
    }
    assert all(argument.description for argument in arguments)


def test_empty_arguments_leave_the_nodes_own_defaults(tmp_path):
    launched = Launched(tmp_path)
    assert launched.code == 0, launched.output
    assert "__ns:=/mspn" in launched.recorded("arguments")
    assert "__node:=localizer" in launched.recorded("arguments")
    assert launched.recorded("parameters") == []


def test_given_arguments_reach_the_node_after_the_parameter_file(tmp_path):
    file = REPO / "config/localizer.yaml"
    launched = Launched(
        tmp_path,
        f"params_file:={file}",
        "model:=0123",
        "use_sim_time:=true",
        "cameras:=a b",
        "namespace:=a/b",
    )
    assert "__ns:=/a/b" in launched.recorded("arguments")
    lines = [line.strip() for line in launched.recorded("parameters")]
    own = lines[lines.index("/a/b/localizer:") :]
    assert lines[: -len(own)] == [line.strip() for line in file.read_text().splitlines()]
    # Quoted: a folder named by digits must not reach the node as a number.
    assert "model: '0123'" in own
    assert "cameras: a b" in own
    assert "use_sim_time: true" in own


def test_the_profile_is_set_for_the_node_and_the_drivers_line_is_printed(tmp_path):
    launched = Launched(tmp_path)
    expected = [f"{name}={REPO / 'config/fastdds.xml'}" for name in PROFILE_VARIABLES]
    assert set(expected) <= set(launched.recorded("environment"))
    assert f"export {' '.join(expected)}" in launched.output


@pytest.mark.parametrize("name", [*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"])
def test_transports_that_the_user_has_chosen_are_kept(tmp_path, name):
    launched = Launched(tmp_path, **{name: "UDPv4"})
    kept = [line for line in launched.recorded("environment") if line.startswith("FAST")]
    assert kept == [f"{name}=UDPv4"]


def test_raises_on_missing_parameter_file_instead_of_starting_without_it(tmp_path):
    launched = Launched(tmp_path, "params_file:=/no/file.yaml")
    assert launched.code == 1
    assert "params_file: /no/file.yaml is no file" in launched.output
    assert launched.recorded("arguments") == []


def test_raises_on_value_outside_the_choices(tmp_path):
    launched = Launched(tmp_path, "transport:=theora")
    assert launched.code == 1
    assert "compressed" in launched.output


def test_the_launched_node_becomes_active_answers_and_ends_clean(tmp_path):
    """By ``launch_test``: its plugin for pytest does not load into every version of pytest."""
    pytest.importorskip(
        "launch_testing", reason="launch_testing is not installed (it comes with ROS 2 only)"
    )
    pytest.importorskip("rclpy", reason="ROS 2 is not installed (extra ros)")
    environment = prefix(tmp_path, (REPO / "scripts/localize").read_text())
    environment["PYTHONPATH"] = f"{REPO}:{os.environ.get('PYTHONPATH', '')}"
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    done = subprocess.run(
        [sys.executable, "-m", "launch_testing.launch_test", LAUNCH_TEST],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    # One test of the running node, one after its end.
    assert output.count("Ran 1 test") == 2, output
