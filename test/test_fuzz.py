# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A few hundred of the messages of ``make fuzz``, and what it has found."""

from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mspn_ros[ros]")

from fuzz import PIXEL_BYTES, Fuzz, FuzzError
from fuzz_messages import COMPRESSED, RAW, REJECT, Case, Maker, many_scans

from mspn_ros.datasets.camera_info import intrinsics_of
from mspn_ros.images import MAX_SCANS, RAW_ENCODINGS, decode_compressed
from mspn_ros.inference.engine_recovery import reason_of
from mspn_ros.records import ImageError

MESSAGES = 240


def test_a_node_answers_hostile_messages_one_by_one_and_gives_no_pose_of_what_is_no_image(tmp_path):
    with ExitStack() as stack:
        fuzz = Fuzz(stack, 1, tmp_path, demo=False)
        fuzz.begin()
        fuzz.run(0, MESSAGES)
        sent = sum(counts["sent"] for counts in fuzz.kinds.values())
        rejected = sum(counts["rejected"] for counts in fuzz.kinds.values())
        poses = sum(counts["pose"] for counts in fuzz.kinds.values())
        assert sent >= MESSAGES
        # Without either the messages would have tested little.
        assert min(rejected, poses) > MESSAGES / 5
        # The judge judges: an undamaged picture that has to be rejected is a failure.
        camera = fuzz.cameras[0]
        good = fuzz.maker.control(0, camera.transport, camera.stamp())
        fuzz._send(camera, -2, Case("control", good.cdr, REJECT, 0))
        with pytest.raises(FuzzError, match="must be reject"):
            fuzz._spin_until(lambda: not camera.sent, 20)


def test_a_message_of_the_fuzz_is_the_same_whenever_it_is_asked_for():
    for transport in (RAW, COMPRESSED):
        once, again = (Maker(3).make(17, transport, (5, 6)) for _ in range(2))
        assert once == again
        assert Maker(4).make(17, transport, (5, 6)) != once


def test_the_fuzz_knows_every_encoding():
    assert set(PIXEL_BYTES) == set(RAW_ENCODINGS)


def test_a_jpeg_of_kilobytes_whose_scans_would_take_minutes_is_refused():
    bomb = many_scans(4000, 3000)
    assert len(bomb) < 2_000_000
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
        decode_compressed(bomb)
    assert decode_compressed(many_scans(40, 30, 5)).shape == (30, 40, 3)


def test_a_reason_quotes_a_strangers_megabytes_in_part_and_in_one_line():
    reason = reason_of(ImageError(f"encoding '{'x' * 1_000_000}\x1b[2J' is not supported"))
    assert len(reason) < 500
    assert reason.startswith("encoding 'xxx")
    assert reason.endswith("?[2J' is not supported")


@pytest.mark.parametrize(
    "fields",
    [
        {"k": [1e300, 0, 160, 0, 500, 120, 0, 0, 1]},
        {"k": [1e-3, 0, 160, 0, 500, 120, 0, 0, 1]},
        {"k": [300.0, 0, 1e9, 0, 300, 120, 0, 0, 1]},
        {"d": [0.0, 100.0, -1e6, 0.0, 1e9]},
        {"d": [1e300, 0.0, 0.0, 0.0, 0.0]},
        {"height": 2**31},
    ],
)
def test_a_camera_that_no_lens_is_like_is_not_used(fields):
    """Its rays made the network's answers fail, and the engine was taken for broken."""
    from sensor_msgs.msg import CameraInfo

    usual = {"k": [300.0, 0, 160, 0, 300, 120, 0, 0, 1], "width": 320, "height": 240}
    usual |= {"distortion_model": "plumb_bob", "d": [-0.3, 0.1, 0.001, -0.002, 0.0]}
    assert intrinsics_of(CameraInfo(**usual), rectified=False).fx == 300.0
    with pytest.raises(ValueError, match="sees no image"):
        intrinsics_of(CameraInfo(**usual | fields), rectified=False)


def test_an_unknown_lens_model_without_distortion_is_a_pinhole():
    from sensor_msgs.msg import CameraInfo

    message = CameraInfo(width=320, height=240, distortion_model="equidistant", d=[0.0] * 4)
    message.k = [300.0, 0, 160, 0, 300, 120, 0, 0, 1]
    assert intrinsics_of(message, rectified=False).distortion == ()
