# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""SROS 2: what the policy allows is what the node does, and strangers are shut out.

The wheels' Fast DDS is built without security: there a node that is asked for it must not start.
Where it is built in, a node, a camera and a navigation stack with enclaves talk to each other.
"""

import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as Tree

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

import rclpy
import ros_tools
from rclpy.node import Node
from rclpy.serialization import serialize_message
from ros_tools import raw_image
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from test_node import picture

from mspn_ros.node import interface
from mspn_ros.node.collector import Collector
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.node.session import with_stamp
from mspn_ros.paths import config_file

POLICY = Tree.parse(config_file("sros2_policy.xml")).getroot()
LOCALIZER, CAMERA, NAVIGATION = "/mspn/localizer", "/camera/driver", "/navigation"
PARAMETER_SERVICES = ("describe_parameters", "get_parameter_types", "get_parameters")
PARAMETER_SERVICES += ("list_parameters", "set_parameters", "set_parameters_atomically")


def profile(enclave):
    """(what, verb) -> resolved names of what an enclave may do."""
    [found] = POLICY.findall(f".//enclave[@path='{enclave}']/profiles/profile")
    names = {}
    for group in (*found.findall("topics"), *found.findall("services")):
        for verb in group.attrib:
            for one in group:
                name, space = one.text, found.get("ns").rstrip("/")
                name = name.replace("~", f"{space}/{found.get('node')}")
                name = name if name.startswith("/") else f"{space}/{name}"
                names.setdefault((group.tag, verb), set()).add(name)
    return names


def test_the_policy_names_exactly_what_the_interface_has():
    allowed = profile(LOCALIZER)
    own = ("/rosout", "/parameter_events", "/mspn/localizer/transition_event")
    topics = {one.resolved() for one in interface.PUBLISHERS}
    # Neither named cameras nor TF, as its comment says.
    topics -= {interface.CAMERA_POSE.resolved(), interface.TF.resolved()}
    assert allowed["topics", "publish"] == topics | set(own)
    taken = {one.name for one in interface.SUBSCRIPTIONS}
    assert allowed["topics", "subscribe"] == taken | {"/clock", "/parameter_events"}
    services = [one.name for one in interface.SERVICES]
    services += [*interface.LIFECYCLE_SERVICES, *PARAMETER_SERVICES, "get_type_description"]
    assert allowed["services", "reply"] == {f"/mspn/localizer/{one}" for one in services}
    assert set(allowed) == {("topics", "publish"), ("topics", "subscribe"), ("services", "reply")}
    for enclave in (CAMERA, NAVIGATION):
        asked = profile(enclave).get(("services", "request"), set())
        assert not any(one.endswith(("reload", "set_parameters")) for one in asked)


def permissions(enclave, domain):
    """What ``ros2 security create_permission`` makes of the policy: DDS topics by name."""
    verbs = {"publish": [], "subscribe": []}
    for (what, verb), names in profile(enclave).items():
        for name in sorted(names):
            if what == "topics":
                verbs[verb].append(f"rt{name}")
            else:
                asked = ("publish", "subscribe") if verb == "request" else ("subscribe", "publish")
                verbs[asked[0]].append(f"rq{name}Request")
                verbs[asked[1]].append(f"rr{name}Reply")
    for topics in verbs.values():
        topics.append("ros_discovery_info")
    rules = "".join(
        f"<{verb}><topics>{''.join(f'<topic>{t}</topic>' for t in topics)}</topics></{verb}>"
        for verb, topics in verbs.items()
    )
    return (
        f'<dds><permissions><grant name="{enclave}"><subject_name>CN={enclave}</subject_name>'
        "<validity><not_before>2020-01-01T00:00:00</not_before>"
        "<not_after>2100-01-01T00:00:00</not_after></validity>"
        f"<allow_rule><domains><id>{domain}</id></domains>{rules}</allow_rule>"
        "<default>DENY</default></grant></permissions></dds>"
    )


def governance(domain):
    """As ``ros2 security create_keystore`` makes it: nobody unknown, everything encrypted."""
    return (
        f"<dds><domain_access_rules><domain_rule><domains><id>{domain}</id></domains>"
        "<allow_unauthenticated_participants>false</allow_unauthenticated_participants>"
        "<enable_join_access_control>true</enable_join_access_control>"
        "<discovery_protection_kind>ENCRYPT</discovery_protection_kind>"
        "<liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>"
        "<rtps_protection_kind>SIGN</rtps_protection_kind><topic_access_rules><topic_rule>"
        "<topic_expression>*</topic_expression>"
        "<enable_discovery_protection>true</enable_discovery_protection>"
        "<enable_liveliness_protection>true</enable_liveliness_protection>"
        "<enable_read_access_control>true</enable_read_access_control>"
        "<enable_write_access_control>true</enable_write_access_control>"
        "<metadata_protection_kind>ENCRYPT</metadata_protection_kind>"
        "<data_protection_kind>ENCRYPT</data_protection_kind>"
        "</topic_rule></topic_access_rules></domain_rule></domain_access_rules></dds>"
    )


def make_keystore(folder, domain):
    """With one enclave for each of the policy's; by openssl, since sros2 is not on the registry."""

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    def signed(text, path):
        (folder / "plain.xml").write_text(text)
        openssl("smime", "-sign", "-text", "-in", "plain.xml", "-out", str(path),
                "-signer", "ca.pem", "-inkey", "ca.key")  # fmt: skip

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=ca")  # fmt: skip
    for enclave in (LOCALIZER, CAMERA, NAVIGATION):
        place = folder / "enclaves" / enclave[1:]
        place.mkdir(parents=True)
        subject = f"/CN={enclave.replace('/', chr(92) + '/')}"
        openssl("req", "-new", *curve, "-keyout", f"{place}/key.pem", "-out", "request.pem",
                "-subj", subject)  # fmt: skip
        openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-out", f"{place}/cert.pem")  # fmt: skip
        for name in ("identity_ca.cert.pem", "permissions_ca.cert.pem"):
            shutil.copy(folder / "ca.pem", place / name)
        signed(governance(domain), place / "governance.p7s")
        signed(permissions(enclave, domain), place / "permissions.p7s")
    return folder


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make keys with")
    return make_keystore(tmp_path_factory.mktemp("keystore"), os.environ["ROS_DOMAIN_ID"])


@pytest.fixture(scope="module")
def secured(keystore):
    """A localizer with an enclave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_SECURITY_ENABLE", "true")
        patch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
        patch.setenv("ROS_SECURITY_KEYSTORE", str(keystore))
        with LocalizerProcess("/mspn", {"device": "cpu"}, ("--enclave", LOCALIZER)) as process:
            end_s = time.monotonic() + 60
            while not process.ended and "active: takes" not in process.output():
                assert time.monotonic() < end_s, process.output()
                time.sleep(0.1)
            yield process


def built_without_security(process):
    return process.ended and "without security" in process.output()


def test_a_node_that_cannot_be_secure_does_not_start(secured):
    if not secured.ended:
        pytest.skip("this Fast DDS is built with security")
    lines = [one for one in secured.output().splitlines() if "mspn localize" in one]
    assert secured.process.returncode == 1
    assert "Traceback" not in secured.output()
    assert len(lines) == 1
    assert re.search(r"built without security.*ROS_SECURITY_ENABLE", lines[0])


def test_enclaves_talk_and_strangers_hear_and_reach_nothing(secured):
    if built_without_security(secured):
        pytest.skip("this Fast DDS is built without security (as the wheels' is)")
    contexts = {}
    for enclave in (CAMERA, NAVIGATION):
        contexts[enclave] = rclpy.Context()
        rclpy.init(context=contexts[enclave], args=["--ros-args", "--enclave", enclave])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_SECURITY_ENABLE", "false")
        contexts["stranger"] = rclpy.Context()
        rclpy.init(context=contexts["stranger"], args=[])
    driver = Node("driver", context=contexts[CAMERA], namespace="/camera")
    navigation = Node("navigation", context=contexts[NAVIGATION])
    stranger = Node("stranger", context=contexts["stranger"])
    images = driver.create_publisher(Image, "image_raw", 10)
    forged = stranger.create_publisher(Image, "/camera/image_raw", 10)
    heard = Collector(navigation, "/mspn", "localizer", contexts[NAVIGATION])
    overheard = Collector(stranger, "/mspn", "localizer", contexts["stranger"])
    try:
        assert heard.wait_for(lambda: heard.catalogue is not None, 30)
        assert heard.wait_for(lambda: images.get_subscription_count() > 0, 30)
        time.sleep(0.5)
        cdr = serialize_message(raw_image(picture(3), "rgb8"))
        stamp_ns = ros_tools.FIRST_STAMP_NS
        forged.publish(with_stamp(cdr, stamp_ns))
        sent = (stamp_ns + 10**9, time.monotonic())
        images.publish(with_stamp(cdr, sent[0]))
        assert heard.wait_for(lambda: heard.records([sent])[0].pose is not None, 20)
        assert not heard.records([(stamp_ns, 0.0)])[0].processed
        assert forged.get_subscription_count() == 0
        assert overheard.catalogue is None
        assert overheard.diagnostics is None
        # An enclave does what its policy says, and nothing else.
        with pytest.raises(Exception, match="create_publisher"):
            driver.create_publisher(Image, "/mspn/pose", 10)
        with pytest.raises(Exception, match="create_client"):
            navigation.create_client(Trigger, "/mspn/localizer/reload")
        asked = navigation.create_client(Trigger, "/mspn/localizer/publish_initialpose")
        assert asked.wait_for_service(10)
    finally:
        heard.close()
        overheard.close()
        for node in (driver, navigation, stranger):
            node.destroy_node()
        for context in contexts.values():
            rclpy.try_shutdown(context=context)
