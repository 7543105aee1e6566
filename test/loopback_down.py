# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node whose network goes down and up again; for a network namespace of its own.

    unshare -rn python test/loopback_down.py MODEL

Fast DDS must be kept from going by shared memory, which needs no network: by
FASTDDS_BUILTIN_TRANSPORTS=UDPv4 and ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET (told to stay on this
machine, ROS 2 takes shared memory whatever the transports), without a profile.

Prints JSON: whether frames that were sent before, while and after it was down were answered, and
what /diagnostics said of it.
"""

import json
import subprocess
import sys
import time

import numpy as np
import ros_tools

from mspn_ros.node.process import LocalizerProcess


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def main(model):
    ip("link", "set", "lo", "up", "multicast", "on")
    ip("route", "add", "224.0.0.0/4", "dev", "lo")
    image = ros_tools.raw_image(np.zeros((48, 64, 3), np.uint8), "rgb8")
    parameters = {"model": model, "device": "cpu", "engine": "torch_float32"}
    parameters |= {"diagnostics_period": 0.2, "no_frames_timeout": 0.5}
    with (
        ros_tools.ros_context() as context,
        LocalizerProcess("/cut_off", parameters) as process,
    ):
        client = ros_tools.RosClient(context, "/cut_off", "/camera/image_raw")
        statuses = ros_tools.Statuses(client)
        client.wait_until_ready(process)
        found = {"before": client.ask(image).processed}
        ip("link", "set", "lo", "down")
        lost = []
        for _ in range(10):
            lost.append(client.publish(image))
            time.sleep(0.1)
        ip("link", "set", "lo", "up")
        ip("route", "replace", "224.0.0.0/4", "dev", "lo")
        # What the node says once it can be heard.
        found["said"] = statuses.wait_for("/cut_off/localizer", "no frames for")
        found["after"] = client.ask(image).processed
        found["down"] = [record.processed for record in client.collector.records(lost)]
        found["status"] = statuses.wait_for("/cut_off/localizer", "Hz")
        client.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
