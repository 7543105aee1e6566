# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rooms import downwards only, and nothing but node/ needs ROS."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "mspn_ros"
BASE = {"records", "geometry", "metrics", "images", "paths", "view", "mounting"}
# Room -> rooms it may import; docs/architecture.md draws this table.
ALLOWED = {
    "records": set(),
    "paths": {"records"},
    "geometry": {"records"},
    "mounting": {"records"},
    "metrics": {"records"},
    "images": {"records"},
    "view": {"records"},
    "terminal": set(),
    "network": BASE,
    "datasets": BASE,
    "store": BASE | {"network"},
    "inference": BASE | {"network", "store"},
    "training": BASE | {"network", "datasets", "store", "inference"},
    "evaluation": BASE | {"network", "datasets", "store", "inference", "training"},
    "node": BASE | {"network", "datasets", "store", "inference", "evaluation"},
    "commands": BASE
    | {"network", "datasets", "store", "inference", "training", "evaluation", "node"}
    | {"terminal", "demo"},
    "demo": BASE | {"datasets", "inference", "evaluation", "commands", "terminal"},
    "cli": {"records", "commands"},
    "__main__": {"cli"},
}
ROS = {"rclpy", "cv_bridge", "sensor_msgs", "geometry_msgs", "std_msgs", "std_srvs"}
ROS |= {"diagnostic_msgs", "lifecycle_msgs", "rcl_interfaces", "vision_msgs", "builtin_interfaces"}


def _imports(path):
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}: relative import"
            for alias in statement.names:
                yield f"{statement.module}.{alias.name}"


def _modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def test_every_import_is_an_allowed_edge():
    wrong = []
    for room, path in _modules():
        for name in _imports(path):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            inside = package == "mspn_ros" and other in ALLOWED
            if inside and other != room and other not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_ros_is_imported_in_the_node_room_only():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for room, path in _modules()
        for name in _imports(path)
        if name.split(".")[0] in ROS and room != "node"
    ]
    assert not wrong


def test_all_but_the_node_imports_without_ros():
    modules = [
        ".".join(("mspn_ros", *path.relative_to(PACKAGE).with_suffix("").parts))
        for room, path in _modules()
        if room not in ("node", "__main__")
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {sorted(ROS)}: sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name.removesuffix('.__init__'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
