# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sends a node what no camera would: broken, lying, hostile and meaningless messages.

    python test/fuzz.py --messages 100000 --seed 0        (make fuzz)
    python test/fuzz.py --seed 0 --first 4711 --messages 1     (one of them again)

A node with the demo's model, and one with a model that reads ``camera_info``, each in a process of
its own, get them over DDS, one at a time from each of their cameras. Every one must be answered,
with its own stamp; what cannot be an image must be rejected, what is one must not; poses must be
finite and stand beside an answer that names a scene; undamaged pictures must keep their poses; the
nodes' memory must not grow; images that show nothing must get hardly a pose by the demo's model. Of
images whose pixels are destroyed in other ways it is counted how many get one.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from fuzz_messages import (
    ANSWER,
    COMPRESSED,
    DEPTH_ENCODINGS,
    RAW,
    REJECT,
    Maker,
    camera_info,
    good_camera_info,
)
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from models import make_landmark_model
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from ros_tools import ros_context
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from mspn_ros.images import MAX_ASPECT, MAX_PIXELS, RAW_ENCODINGS
from mspn_ros.metrics import rotation_error_deg
from mspn_ros.node.interface import ANSWER as ANSWER_TOPIC
from mspn_ros.node.messages import decode_image
from mspn_ros.node.process import LocalizerProcess
from mspn_ros.terminal import notes, print_table, progress_bar

ANSWERS = ANSWER_TOPIC.qos.profile()
TYPES = {RAW: Image, COMPRESSED: CompressedImage}
# Camera -> transport. Those of the second node have a camera_info.
DEMO = {"left": RAW, "front": COMPRESSED, "right": RAW, "rear": COMPRESSED}
INFO = {"plain": RAW, "packed": COMPRESSED}
FIRST_STAMP_S = 1_700_000_000
# Of one message, on a busy machine; the slowest takes 2 s on an idle one.
PATIENCE_S = 60.0
# What never is the fault of an image.
BUGS = ("bug", "inference_error", "non_finite_pose", "inactive", "stale")
# What a node may grow by after the first tenth, and have at most, in MB.
MOST_GROWTH_MB, MOST_MB = 150, 3000
# Kinds that show no room at all, and the share of them that may get a pose by the demo's model.
NOTHING = ("noise", "even", "clouds", "shuffled blocks", "80 % noise", "80 % grey")
NOTHING = tuple(f"pixels {name}" for name in NOTHING)
MOST_NOTHING = 0.01
# A picture is destroyed where more than this share of it is other by more than so many levels.
DESTROYED_SHARE, DESTROYED_LEVELS = 0.5, 25
# Answers nearer than this to that of the whole picture are not wrong.
NEAR_M, NEAR_DEG = 0.5, 15.0
# Bytes of a pixel, apart from the package's own table.
PIXEL_BYTES = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4, "mono8": 1}
PIXEL_BYTES |= {"8UC1": 1, "mono16": 2, "rgb16": 6, "bgr16": 6}
PIXEL_BYTES |= {f"bayer_{order}8": 1 for order in ("rggb", "bggr", "gbrg", "grbg")}
PIXEL_BYTES |= dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), 2)
MAGIC = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"P", b"\x80")


def judge_raw(message):
    """REJECT or ANSWER by what the fields of an Image say; None of what cv_bridge may read."""
    height, width = message.height, message.width
    if message.encoding not in PIXEL_BYTES:
        return REJECT if message.encoding in DEPTH_ENCODINGS else None
    row = width * PIXEL_BYTES[message.encoding]
    shown = height > 0 and width > 0 and height * width <= MAX_PIXELS
    shown = shown and max(height, width) <= MAX_ASPECT * min(height, width)
    whole = message.step >= row and (
        message.step * (height - 1) + row <= len(message.data) <= message.step * height
    )
    even = PIXEL_BYTES[message.encoding] != 2 or message.encoding == "mono16" or width % 2 == 0
    tiny = message.encoding.startswith("bayer") and min(height, width) < 2
    if tiny and shown and whole:
        return None
    return ANSWER if shown and whole and even else REJECT


class FuzzError(Exception):
    """Something that must not be; the message says what."""


@dataclass
class Camera:
    """One camera of a node: what was sent last, and what came back."""

    namespace: str
    name: str
    transport: str
    publisher: object
    info: object = None
    sent: tuple = ()  # (index, case, time.monotonic)
    answers: deque = field(default_factory=deque)
    poses: deque = field(default_factory=deque)
    known: dict | None = None  # The answer whose pose is waited for.
    count: int = 0
    latest_ns: int = 0
    next_ns: int = FIRST_STAMP_S * 10**9

    def on_pose(self, message):
        self.poses.append(message)

    def stamp(self):
        """Of the next message: not a little before one that a node has taken."""
        self.next_ns += 33_333_333
        if 0 < self.latest_ns - self.next_ns < 2 * 10**9:
            self.next_ns = self.latest_ns + 33_333_333
        return divmod(self.next_ns, 10**9)


class Target:
    """A node in a process of its own with some cameras, and who talks to it."""

    def __init__(self, stack, node, namespace, cameras, parameters, info=False):
        named = {"cameras": " ".join(cameras), "image_qos": "reliable", "diagnostics_period": 0.5}
        named |= {f"{c}.image_topic": f"{namespace}/{c}/image" for c in cameras}
        named |= {f"{c}.transport": transport for c, transport in cameras.items()}
        self.namespace, self.with_info = namespace, info
        self.process = stack.enter_context(
            LocalizerProcess(namespace, named | parameters | {"device": "cpu"})
        )
        self.cameras, self.status, self.ready = {}, {}, False
        self.best, self.answered = set(), set()
        self.memory_mb, self.warm_mb = 0.0, None
        for name, transport in cameras.items():
            publisher = node.create_publisher(TYPES[transport], f"{namespace}/{name}/image", 10)
            camera = Camera(namespace, name, transport, publisher)
            if info:
                camera.info = node.create_publisher(
                    CameraInfo, f"{namespace}/{name}/camera_info", 10
                )
            self.cameras[name] = camera
            node.create_subscription(
                PoseStamped, f"{namespace}/{name}/pose", camera.on_pose, ANSWERS
            )
        node.create_subscription(String, f"{namespace}/answer", self._on_answer, ANSWERS)
        node.create_subscription(
            PoseWithCovarianceStamped, f"{namespace}/pose_with_covariance", self._on_best, ANSWERS
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, ANSWERS)

    def _on_answer(self, message):
        answer = json.loads(message.data)
        self.cameras[answer["camera"]].answers.append(answer)

    def _on_best(self, message):
        self.best.add((message.header.stamp.sec, message.header.stamp.nanosec))
        check_pose(message.pose.pose)
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        if not np.isfinite(covariance).all() or not (np.linalg.eigvalsh(covariance) > 0).all():
            raise FuzzError(f"a covariance that is none: {covariance.tolist()}")

    def _on_status(self, message):
        for status in message.status:
            if status.name.startswith(f"{self.namespace}/localizer"):
                values = {item.key: item.value for item in status.values}
                self.status[status.name.rpartition(": ")[2]] = values
                self.ready = self.ready or values.get("state") == "active"

    def measure(self):
        """Look at the process: its memory now and at most, in MB."""
        self.process.check()
        text = Path(f"/proc/{self.process.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in text.splitlines())
        self.memory_mb = int(lines["VmRSS"].split()[0]) / 1024
        if int(lines["VmHWM"].split()[0]) / 1024 > MOST_MB:
            raise FuzzError(f"the node has taken more than {MOST_MB} MB")
        return self.memory_mb


def check_pose(pose):
    """(position, quaternion) of a Pose that is one."""
    position = np.array([pose.position.x, pose.position.y, pose.position.z])
    turn = pose.orientation
    turn = np.array([turn.x, turn.y, turn.z, turn.w])
    if not np.isfinite(position).all() or not abs(np.linalg.norm(turn) - 1) < 1e-6:
        raise FuzzError(f"a pose that is none: {position}, {turn}")
    return position, turn


class Fuzz:
    """Sends messages and holds what comes back against what each may get."""

    def __init__(self, stack, seed, folder, demo=True, kept=None):
        """``folder``: for a model; ``kept``: for a message that fails, by default the same."""
        self.maker, self.seed, self.kept = Maker(seed), seed, kept or folder
        context = stack.enter_context(ros_context())
        self.node = Node("fuzz", context=context, use_global_arguments=False)
        stack.callback(self.node.destroy_node)
        model = make_landmark_model(folder / "landmarks")
        reading = {"model": str(model), "min_confidence": 0.0}
        self.targets = [Target(stack, self.node, "/fuzz_info", INFO, reading, info=True)]
        if demo:
            self.targets.append(Target(stack, self.node, "/fuzz", DEMO, {}))
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.cameras = [c for target in self.targets for c in target.cameras.values()]
        self.target_of = {id(c): t for t in self.targets for c in t.cameras.values()}
        # (namespace, transport, picture) -> scene and pose of the undamaged one.
        self.whole = {}
        self.kinds = defaultdict(Counter)
        self.causes = Counter()
        # Of images of NOTHING that the demo's model was shown.
        self.nothing = Counter()

    def begin(self):
        """Wait for the nodes, and ask for the poses of undamaged pictures."""
        self._spin_until(lambda: all(t.ready for t in self.targets), 120)
        matched = [c.publisher for c in self.cameras]
        self._spin_until(lambda: all(p.get_subscription_count() for p in matched), 20)
        time.sleep(0.5)
        for camera in self.cameras:
            for source in range(len(self.maker.pictures.rgb)):
                self._send(camera, -1, self.maker.control(source, camera.transport, camera.stamp()))
                self._spin_until(lambda camera=camera: not camera.sent, PATIENCE_S)

    def run(self, first, count, update=lambda done, total, note: None):
        """Send messages ``first`` to ``first + count - 1``, each by its number to one camera."""
        done, number_of = 0, len(self.cameras)
        todo = [
            iter([i for i in range(first, first + count) if i % number_of == number])
            for number in range(number_of)
        ]
        open_ended = True
        while open_ended or any(camera.sent for camera in self.cameras):
            open_ended = False
            for camera, indices in zip(self.cameras, todo, strict=True):
                index = None if camera.sent else next(indices, None)
                open_ended = open_ended or bool(camera.sent) or index is not None
                if index is None:
                    continue
                self._prepare(camera, index)
                done += 1
                if done % 500 == 0 or done == max(1, count // 10):
                    self._look(done, count, update)
            self._spin_once()
        self._settle()

    def _prepare(self, camera, index):
        stamp = camera.stamp()
        case = self.maker.make(index, camera.transport, stamp)
        if camera.info is not None:
            info = camera_info(random.Random(f"{self.seed} {index} info"), stamp)
            camera.info.publish(info)
        self._send(camera, index, case)

    def _send(self, camera, index, case):
        camera.sent, camera.known = (index, case, time.monotonic()), None
        camera.count += 1
        camera.publisher.publish(case.cdr)

    def _spin_until(self, condition, patience_s):
        end_s = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > end_s:
                raise FuzzError("the nodes do not come up, or do not answer")
            self._spin_once()

    def _spin_once(self):
        self.executor.spin_once(timeout_sec=0.05)
        for camera in self.cameras:
            try:
                self._take(camera)
            except FuzzError as failure:
                index, case, _ = camera.sent or (None, None, None)
                raise FuzzError(f"{failure}{self._keep(camera, index, case)}") from failure

    def _keep(self, camera, index, case):
        if case is None:
            return f" (camera {camera.name})"
        path = (self.kept / f"fuzz-{self.seed}-{index}-{camera.transport}.cdr").absolute()
        path.write_bytes(case.cdr)
        return f"\n  {case.kind} on {camera.namespace}/{camera.name}, seed {self.seed}, {path}"

    def _take(self, camera):
        """What has come of one camera: its message's answer, then its pose."""
        if not camera.sent:
            if camera.answers or camera.poses:
                raise FuzzError(f"more than one answer: {camera.answers} {camera.poses}")
            return
        _, case, sent_s = camera.sent
        if camera.answers and camera.known is None:
            camera.known = camera.answers.popleft()
        answer = camera.known
        if answer is None or (answer["scene_id"] >= 0 and not camera.poses):
            if time.monotonic() - sent_s > 2:
                self.target_of[id(camera)].process.check()
            if time.monotonic() - sent_s > PATIENCE_S:
                raise FuzzError(f"no answer, or no pose to {answer}, after {PATIENCE_S:.0f} s")
            return
        pose = camera.poses.popleft() if answer["scene_id"] >= 0 else None
        self._judge(camera, case, answer, pose)
        camera.sent = ()

    def _judge(self, camera, case, answer, pose):
        message = read(case.cdr, TYPES[camera.transport])
        if message is None and answer["rejected"] != "malformed_message":
            # On its way DDS fills a message up to whole words: one that lacks up to three bytes at
            # its end has them again.
            padded = case.cdr + bytes(-len(case.cdr) % 4)
            message = read(padded, TYPES[camera.transport])
        stamp = (
            (0, 0) if message is None else (message.header.stamp.sec, message.header.stamp.nanosec)
        )
        said = answer["stamp"]["sec"], answer["stamp"]["nanosec"]
        cause = answer["rejected"]
        if said != stamp:
            raise FuzzError(f"an answer with stamp {said} to an image of {stamp}: {answer}")
        if cause is not None and cause.startswith(BUGS):
            raise FuzzError(f"a bug: {answer}")
        if len(answer["reason"]) > 1000 or "\n" in answer["reason"]:
            raise FuzzError(f"a reason that is no line: {answer['reason'][:2000]!r}")
        must = expectation(case, message, camera.transport)
        stamp_ns = stamp[0] * 10**9 + stamp[1]
        late = cause == "late" and 0 < camera.latest_ns - stamp_ns <= 10**9
        if not late and must is not None and (must == REJECT) != (cause is not None):
            raise FuzzError(f"must be {must}: {answer}")
        if stamp_ns and message is not None and not late:
            camera.latest_ns = stamp_ns
        counts = self.kinds[case.kind]
        counts["sent"] += 1
        if case.kind in NOTHING and not self.target_of[id(camera)].with_info:
            self.nothing.update(shown=1, posed=pose is not None)
        if cause is not None:
            counts["rejected"] += 1
            self.causes[cause] += 1
        elif pose is None:
            counts["unknown"] += 1
        else:
            counts["pose"] += 1
            self._judge_pose(camera, case, answer, pose, message, stamp)

    def _judge_pose(self, camera, case, answer, pose, message, stamp):
        if (pose.header.stamp.sec, pose.header.stamp.nanosec) != stamp:
            raise FuzzError(f"a pose with stamp {pose.header.stamp} to an image of {stamp}")
        position, turn = check_pose(pose.pose)
        target = self.target_of[id(camera)]
        target.answered.add(stamp)
        if case.source is None or target.with_info:
            return
        place = camera.namespace, camera.transport, case.source
        found = answer["scene"], position, turn
        scene, there, turned = (
            self.whole.setdefault(place, found) if case.kind == "control" else self.whole[place]
        )
        off_m = float(np.linalg.norm(position - there)) if scene == found[0] else float("inf")
        off_deg = float(rotation_error_deg(turn, turned))
        if case.kind == "control" and not (off_m < 1e-3 and off_deg < 0.1):
            raise FuzzError(f"an undamaged picture moved by {off_m} m, {off_deg} degrees")
        counts = self.kinds[case.kind]
        wrong = off_m > NEAR_M or off_deg > NEAR_DEG
        counts["wrong"] += wrong
        if destroyed(decode_image(message), self.maker.pictures.rgb[case.source]):
            counts["destroyed"] += 1
            counts["destroyed and wrong"] += wrong

    def _look(self, done, count, update):
        memory = [target.measure() for target in self.targets]
        for target in self.targets:
            if target.warm_mb is None and done >= count // 10:
                target.warm_mb = target.memory_mb
        poses = sum(c["pose"] for c in self.kinds.values())
        note = f"{poses} poses, {sum(self.causes.values())} rejected, {max(memory):.0f} MB"
        update(done, count, note)

    def _settle(self):
        """Undamaged pictures still get their poses, and every message is accounted for."""
        for camera in self.cameras:
            if camera.info is not None:
                camera.info.publish(serialize_message(good_camera_info(camera.stamp())))
        self._spin_for(0.5)
        for camera in self.cameras:
            self._send(camera, -1, self.maker.control(0, camera.transport, camera.stamp()))
            self._spin_until(lambda camera=camera: not camera.sent, PATIENCE_S)
        if self.nothing["posed"] > max(1, MOST_NOTHING * self.nothing["shown"]):
            raise FuzzError(f"poses of nothing: {dict(self.nothing)}")
        for target in self.targets:
            target.status.clear()
            wanted = set(target.cameras)
            self._spin_until(lambda t=target, w=wanted: w <= t.status.keys(), 20)
            for name, camera in target.cameras.items():
                status = target.status[name]
                if int(status["received"]) != camera.count or int(status["overtaken"]):
                    raise FuzzError(f"{camera.count} sent on {name}, counted are {status}")
                if target.with_info and "focal length 262.5" not in status["camera_info"]:
                    raise FuzzError(f"the right camera is not taken again: {status}")
            if not target.best <= target.answered:
                raise FuzzError(f"poses of no image: {list(target.best - target.answered)[:5]}")
            target.measure()
            grown = target.memory_mb - (target.warm_mb or target.memory_mb)
            if grown > MOST_GROWTH_MB:
                raise FuzzError(f"{target.namespace} has grown by {grown:.0f} MB")
            if "Traceback" in target.process.output():
                raise FuzzError(f"a traceback in the log:\n{target.process.output()[-3000:]}")

    def _spin_for(self, seconds):
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._spin_once()


def read(cdr, message_type):
    """What rclpy makes of the bytes; None where it refuses them."""
    try:
        return deserialize_message(cdr, message_type)
    except Exception:
        return None


def expectation(case, message, transport):
    """ANSWER, REJECT, or None where either is right."""
    if message is None:
        return REJECT
    if case.expect in (ANSWER, REJECT):
        return case.expect
    if transport == RAW:
        return judge_raw(message)
    return None if bytes(message.data[:8]).startswith(MAGIC) else REJECT


def destroyed(pixels, whole):
    """Whether most of a picture is no longer there."""
    small = [cv2.cvtColor(cv2.resize(p, (80, 60)), cv2.COLOR_RGB2GRAY) for p in (pixels, whole)]
    off = np.abs(small[0].astype(int) - small[1])
    return bool((off > DESTROYED_LEVELS).mean() > DESTROYED_SHARE)


def report(fuzz):
    """Tables of what became of each kind of message."""
    columns = ("sent", "rejected", "unknown", "pose", "wrong", "destroyed", "destroyed and wrong")
    rows = [
        (kind, *(str(counts[name]) for name in columns))
        for kind, counts in sorted(fuzz.kinds.items())
    ]
    total = sum(fuzz.kinds.values(), Counter())
    rows.append(("all", *(str(total[name]) for name in columns)))
    print_table("What became of the messages", ("kind", *columns), rows)
    shown, posed = fuzz.nothing["shown"], fuzz.nothing["posed"]
    print(f"of {shown} images of nothing {posed} got a pose by the demo's model")
    print_table(
        "Why rejected", ("cause", "messages"), [(c, str(n)) for c, n in fuzz.causes.items()]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first message")
    options = parser.parse_args()
    assert set(PIXEL_BYTES) == set(RAW_ENCODINGS)
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fuzz = Fuzz(stack, options.seed, Path(folder), kept=Path())
        try:
            fuzz.begin()
            with progress_bar("messages") as update:
                said_s = [time.monotonic()]

                def tell(done, total, note):
                    update(done, total, note)
                    # Where stderr is no terminal, a line a minute.
                    if not notes.is_terminal and time.monotonic() - said_s[0] > 60:
                        said_s[0] = time.monotonic()
                        print(f"{done} of {total}: {note}", flush=True)

                fuzz.run(options.first, options.messages, tell)
        except Exception as error:
            print(f"FAILED: {error}", file=sys.stderr)
            for target in fuzz.targets:
                print(target.process.output()[-2000:], file=sys.stderr)
            if not isinstance(error, FuzzError):
                raise
            return 1
        report(fuzz)
        for target in fuzz.targets:
            at_end = f"{target.warm_mb:.0f} MB warm, {target.memory_mb:.0f} MB at the end"
            print(f"{target.namespace}: {at_end}")
        spent_s = time.monotonic() - start_s
        print(f"{options.messages} messages in {spent_s:.0f} s: all as they must be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
