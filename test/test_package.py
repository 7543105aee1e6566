# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The package as pip and colcon install it: what is where, and that it says the same everywhere."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

import mspn_ros

REPO = Path(__file__).resolve().parent.parent
SOURCES = ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "LICENSE", "README.md")
FOLDERS = ("resource", "launch", "config", "scripts", "mspn_ros")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """A real installation by pip under a prefix of its own, from a copy of the sources."""
    source, prefix = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("prefix")
    for name in SOURCES:
        if (REPO / name).exists():
            shutil.copy(REPO / name, source)
    for name in FOLDERS:
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--ignore-installed", "--prefix", prefix, source]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return prefix


def site_packages(prefix: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))


@pytest.fixture(scope="module")
def metadata(prefix) -> Distribution:
    (found,) = distributions(name="mspn_ros", path=[str(site_packages(prefix))])
    return found


def run_installed(prefix, *command):
    environment = {
        **os.environ,
        "PYTHONPATH": str(site_packages(prefix)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=prefix, timeout=120
    )


def manifest() -> ElementTree.Element:
    return ElementTree.parse(REPO / "package.xml").getroot()


def test_package_xml_is_of_format_3_and_built_by_ament_python():
    root = manifest()
    assert root.get("format") == "3"
    assert root.findtext("name") == "mspn_ros"
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == "ament_python"


def test_package_xml_depends_on_no_key_by_which_rosdep_would_replace_torch():
    keys = [element.text for element in manifest().findall("exec_depend")]
    assert len(keys) == len(set(keys))
    assert {"rclpy", "sensor_msgs", "cv_bridge", "launch_ros", "python3-torch"} <= set(keys)
    assert not {"python3-pytorch-pip", "python3-torchvision-pip"} & set(keys)


def test_version_is_the_same_everywhere(metadata):
    assert manifest().findtext("version") == mspn_ros.__version__ == metadata.version


def test_pip_installs_marker_manifest_launch_and_config_for_the_ament_index(prefix):
    share = prefix / "share"
    assert (share / "ament_index/resource_index/packages/mspn_ros").is_file()
    assert (share / "mspn_ros/package.xml").read_bytes() == (REPO / "package.xml").read_bytes()
    for folder in ("launch", "config", "config/methods"):
        files = {path.name for path in (REPO / folder).iterdir() if path.is_file()}
        installed = {path.name for path in (share / "mspn_ros" / folder).iterdir()}
        assert files <= installed


def test_pip_installs_every_module_and_all_package_data(prefix):
    def files(root: Path) -> set[str]:
        found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {str(path.relative_to(root)) for path in found}

    assert files(REPO / "mspn_ros") == files(site_packages(prefix) / "mspn_ros")


@pytest.mark.parametrize("name", ["localize", "train"])
def test_ros2_run_finds_executables_that_take_the_active_python(prefix, name):
    executable = prefix / "lib/mspn_ros" / name
    assert os.access(executable, os.X_OK)
    assert executable.read_text().startswith("#!/usr/bin/env python3\n")


@pytest.mark.parametrize("command", ["bin/mspn", "lib/mspn_ros/train"])
def test_installed_commands_start(prefix, command):
    done = run_installed(prefix, prefix / command, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_installed_localize_starts_and_names_a_wrong_model_in_one_line(prefix):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed (extra ros)")
    command = [prefix / "lib/mspn_ros/localize", "--ros-args", "-p", "model:=/no/model"]
    done = run_installed(prefix, *command)
    assert done.returncode == 1
    assert "/no/model" in done.stderr
    assert "Traceback" not in done.stderr


def test_requirements_leave_a_robots_own_torch_alone(metadata):
    core = [line for line in metadata.requires if "extra ==" not in line]
    assert [line for line in core if line.startswith("torch")] == [
        "torch>=2.0",
        "torchvision>=0.15",
    ]
    assert not [line for line in metadata.requires if line.startswith("evo")]


def test_extras_exist(metadata):
    extras = set(metadata.metadata.get_all("Provides-Extra"))
    assert {"ros", "ros-kilted", "synthetic", "test"} <= extras


def test_make_pins_every_direct_requirement(metadata):
    def name(line: str) -> str:
        return re.split(r"[<>=;\s\[]", line)[0].lower().replace("_", "-")

    constraints = (REPO / "constraints.txt").read_text().splitlines()
    pinned = {name(line) for line in constraints if "==" in line}
    needed = {name(line) for line in metadata.requires if '"ros-kilted"' not in line}
    assert needed <= pinned


def test_three_processes_with_the_fast_dds_profile_fit_into_dockers_shared_memory():
    root = ElementTree.parse(REPO / "config/fastdds.xml").getroot()
    (size,) = (e.text for e in root.iter() if e.tag.endswith("segment_size"))
    assert 3 * int(size) * 1.1 < 64 * 2**20


def test_fast_dds_takes_the_profile():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed (extra ros)")
    program = """
import rclpy
rclpy.init()
node = rclpy.create_node("profile_probe")
for line in open("/proc/self/maps"):
    span, *_, path = line.split()
    if "/dev/shm/fast" in path:
        low, high = (int(number, 16) for number in span.split("-"))
        print(high - low)
"""
    profile = str(REPO / "config/fastdds.xml")
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**environment, **dict.fromkeys(names, profile)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(int, done.stdout.split())) >= 16 * 2**20
