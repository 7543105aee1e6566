# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The table of the ROS interface, and what is made from it or has to agree with it."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from mspn_ros.node import NAMESPACE, NODE_NAME
from mspn_ros.node.interface import (
    DIAGNOSTIC_VALUES,
    IMAGES,
    PUBLISHERS,
    SUBSCRIPTIONS,
    interface_markdown,
    interface_table_markdown,
)
from mspn_ros.node.parameters import PARAMETERS, refusal

REPO = Path(__file__).resolve().parent.parent
TYPES = {topic.resolved(): topic.type_name for topic in (*SUBSCRIPTIONS, *PUBLISHERS)}


def test_the_readme_and_the_interface_page_say_what_the_table_says():
    """Otherwise run `python -m mspn_ros.node.interface > docs/interface.md`."""
    assert interface_table_markdown() in (REPO / "README.md").read_text()
    assert interface_markdown() == (REPO / "docs/interface.md").read_text()


def test_every_topic_is_named_once():
    names = [topic.name for topic in (*SUBSCRIPTIONS, *PUBLISHERS)]
    assert len(names) == len(set(names))


def anchors(page):
    """What a link may say after #: headings as GitHub turns them into names."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_the_documents_lead_to_files_and_headings_that_are_there():
    for page in (*REPO.glob("*.md"), *REPO.glob("docs/*.md")):
        for path, heading in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            if heading:
                assert heading in anchors(target), f"{page.name}: {path}#{heading}"


RVIZ_TYPES = {
    "rviz_default_plugins/Image": IMAGES.type_name,
    "rviz_default_plugins/Pose": "geometry_msgs/msg/PoseStamped",
    "rviz_default_plugins/PoseWithCovariance": "geometry_msgs/msg/PoseWithCovarianceStamped",
}


def matches(offered, reliability):
    """Whether a subscription of this reliability hears the topic as the table offers it."""
    return reliability == "Best Effort" or offered.qos.reliable


def test_rviz_shows_topics_that_the_node_has_by_displays_of_their_type():
    rviz = yaml.safe_load((REPO / "config/mspn.rviz").read_text())
    displays = rviz["Visualization Manager"]["Displays"]
    topics = {topic.resolved(): topic for topic in (*SUBSCRIPTIONS, *PUBLISHERS)}
    shown = set()
    for display in displays:
        assert display["Enabled"] == display["Value"]
        if "Topic" not in display:
            assert display["Class"] in ("rviz_default_plugins/Grid", "rviz_default_plugins/TF")
            continue
        topic = topics[display["Topic"]["Value"]]
        assert RVIZ_TYPES[display["Class"]] == topic.type_name, display["Name"]
        assert matches(topic, display["Topic"]["Reliability Policy"]), display["Name"]
        shown.add(topic.resolved())
    assert shown == {"/camera/image_raw", "/mspn/pose", "/mspn/pose_with_covariance"}
    assert {display["Class"].split("/")[1] for display in displays} >= {"Grid", "TF"}


def panels_of(layout):
    """The panels that a Foxglove layout's tree of rows and columns places."""
    if isinstance(layout, str):
        return [layout]
    assert layout["direction"] in ("row", "column")
    assert 0 < layout["splitPercentage"] < 100
    return panels_of(layout["first"]) + panels_of(layout["second"])


def test_foxglove_places_every_panel_once():
    layout = json.loads((REPO / "config/foxglove.json").read_text())
    placed = panels_of(layout["layout"])
    assert sorted(placed) == sorted(layout["configById"])
    assert {panel.split("!")[0] for panel in placed} == {
        "Image",
        "3D",
        "StateTransitions",
        "RawMessages",
        "Plot",
        "DiagnosticSummary",
        "DiagnosticStatusPanel",
    }


def test_foxglove_shows_topics_and_values_that_the_node_has():
    text = (REPO / "config/foxglove.json").read_text()
    panels = json.loads(text)["configById"]
    named = set(re.findall(r'"(/[\w/]+)', text))
    assert named <= {*TYPES, f"/{NAMESPACE}/{NODE_NAME}"}
    for name, panel in panels.items():
        for topic in panel.get("topics", {}):
            assert TYPES[topic].startswith("geometry_msgs/msg/Pose"), name
        if name.startswith("Diagnostic"):
            assert TYPES[panel["topicToRender"]] == "diagnostic_msgs/msg/DiagnosticArray"
        if name.startswith("Image"):
            assert TYPES[panel["imageMode"]["imageTopic"]] == IMAGES.type_name
    plotted = re.findall(r'key==\\"(\w+)\\"', text)
    promised = {re.sub(r"\{\w+\}", r"\\w+", key) for key in DIAGNOSTIC_VALUES}
    assert plotted
    assert all(any(re.fullmatch(key, value) for key in promised) for value in plotted)


def fields_of(type_name):
    """Names and types of a message's fields, as in ``std_msgs/String`` or ``sequence<...>``."""
    package, *_, name = type_name.split("/")
    pytest.importorskip("rclpy", reason="ROS 2 is not installed (extra ros)")
    module = importlib.import_module(f"{package}.msg")
    return getattr(module, name).get_fields_and_field_types()


def test_foxglove_reads_fields_that_the_messages_have():
    panels = json.loads((REPO / "config/foxglove.json").read_text())["configById"].values()
    paths = [line["value"] for panel in panels for line in panel.get("paths", ())]
    paths += [panel["topicPath"] for panel in panels if "topicPath" in panel]
    assert len(paths) >= 6
    for path in paths:
        topic, dot, fields = path.partition(".")
        assert dot
        type_name = TYPES[topic]
        # A name, then of a list all its elements, then those with a field of this value.
        part = r"(\w+)(\[:\])?(?:\{(\w+)==\"([^\"]+)\"\})?"
        assert re.fullmatch(rf"{part}(\.{part})*", fields), path
        for name, every, key, _ in re.findall(part, fields):
            type_name = fields_of(type_name)[name]
            assert bool(every) == type_name.startswith("sequence<"), path
            type_name = type_name.removeprefix("sequence<").removesuffix(">")
            assert not key or key in fields_of(type_name), path
        assert type_name == "string", path


def test_every_parameter_file_sets_what_the_node_has_to_values_that_it_takes():
    rows = {row.name: row for row in PARAMETERS}
    for file in ("localizer.yaml", "cameras.yaml"):
        [node] = yaml.safe_load((REPO / "config" / file).read_text()).values()
        values = node["ros__parameters"]
        names = values.get("cameras", "").split()
        for name, value in values.items():
            camera, _, plain = name.rpartition(".")
            row = rows[plain]
            assert camera in (names if row.per_camera and camera else [""]), name
            assert type(value) is type(row.default), name
            assert not refusal(row, value)
