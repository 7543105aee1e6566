# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images of another field of view than the training frames': cut to what those would show."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from dataset_files import write_walk
from models import make_dense_model, make_landmark_model, make_tiny_model

from mspn_ros.cli import main
from mspn_ros.inference.field_of_view import TOLERANCE, TrainingCameras, usual_camera
from mspn_ros.inference.localizer import Localizer
from mspn_ros.inference.one_trip import OneTrip, as_it_is
from mspn_ros.records import Intrinsics
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.view import View, camera_vector, pixel_rays

CROP, SQUEEZE = View(64, 72), View(64, 64, "squeeze")
# 62 degrees wide, and one of 4:3 that sees twice as much of a plane ahead.
TRAINED = Intrinsics(133.0, 133.0, 79.5, 59.5, 160, 120)
WIDE = Intrinsics(133.0, 133.0, 159.5, 119.5, 320, 240)


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def with_cameras(model, **cameras):
    """The model, whose rows have these training cameras."""
    with SceneBank(model, read_only=False) as bank:
        for row in bank.rows():
            bank.remove(row.name)
            bank.add(replace(row, intrinsics=cameras.get(row.name, row.intrinsics), id=0))
    return Localizer.load(model, "cpu")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    model = make_tiny_model(tmp_path_factory.mktemp("f") / "m")
    return with_cameras(model, hall=TRAINED, lab=TRAINED)


def same_bits(a, b):
    return np.array_equal(a.position, b.position) and np.array_equal(a.quaternion, b.quaternion)


@pytest.mark.parametrize("view", [CROP, SQUEEZE])
@pytest.mark.parametrize(
    "camera",
    [
        WIDE,
        Intrinsics(133.0, 133.0, 140.0, 126.0, 320, 240),
        Intrinsics(133.0, 120.0, 159.5, 89.5, 320, 180, (-0.2, 0.05, 0.001, -0.001)),
        Intrinsics(100.0, 101.0, 110.0, 170.0, 240, 320),
    ],
)
def test_the_cut_image_has_the_rays_of_the_pixels_that_it_shows(view, camera):
    found = TrainingCameras(view, [TRAINED]).compare(camera, camera.height, camera.width)
    image = picture(camera.height, camera.width)
    cut, by = found.window.cut(image), found.window.camera(camera)
    assert cut.shape[:2] == (by.height, by.width) < image.shape[:2]
    left, top = found.window.left, found.window.top
    np.testing.assert_array_equal(cut, image[top : top + by.height, left : left + by.width])
    pixel = torch.tensor([[[3.0, 5.0], [40.0, 30.0], [by.width - 1.0, by.height - 1.0]]])
    whole = pixel_rays(torch.tensor([camera_vector(camera)]), pixel + torch.tensor([left, top]))
    torch.testing.assert_close(pixel_rays(torch.tensor([camera_vector(by)]), pixel), whole)


@pytest.mark.parametrize("view", [CROP, SQUEEZE])
@pytest.mark.parametrize("shift", [0.0, 17.0, -30.0])
def test_the_square_then_shows_the_angles_that_training_frames_showed(view, shift):
    camera = replace(WIDE, cx=WIDE.cx + shift, cy=WIDE.cy - shift / 2)
    window = TrainingCameras(view, [TRAINED]).compare(camera, 240, 320).window
    own, trained = view.camera(window.camera(camera)), view.camera(TRAINED)
    # A pixel of the wide image is half a pixel of the square.
    assert (own.fx, own.fy) == pytest.approx((trained.fx, trained.fy), rel=0.01)
    assert (own.cx, own.cy) == pytest.approx((trained.cx, trained.cy), abs=0.5)


def test_a_principal_point_near_the_edge_is_followed_as_far_as_the_image_reaches():
    window = TrainingCameras(CROP, [TRAINED]).compare(replace(WIDE, cx=290.0), 240, 320).window
    assert (window.left, window.width) == (160, 160)


@pytest.mark.parametrize("view", [CROP, SQUEEZE])
@pytest.mark.parametrize("ratio", [1 / (1 + TOLERANCE) + 1e-3, 1.0, 1 + TOLERANCE - 1e-3])
def test_a_camera_that_is_nearly_the_same_is_left_alone(view, ratio):
    camera = replace(TRAINED, fx=TRAINED.fx * ratio, fy=TRAINED.fy * ratio)
    found = TrainingCameras(view, [TRAINED]).compare(camera, 120, 160)
    assert found.window is None
    assert not found.differs
    assert found.text.endswith("as in training")


def test_a_narrower_camera_is_cut_less_and_no_more_is_made_up():
    cameras = TrainingCameras(CROP, [TRAINED])
    slightly = replace(TRAINED, fx=TRAINED.fx * 1.1, fy=TRAINED.fy * 1.1)
    found = cameras.compare(slightly, 120, 160)
    assert CROP.camera(found.window.camera(slightly)).fx == pytest.approx(
        CROP.camera(TRAINED).fx, rel=0.01
    )
    assert found.text.endswith("cropped less by 1.10")
    much = replace(TRAINED, fx=TRAINED.fx * 2, fy=TRAINED.fy * 2)
    found = cameras.compare(much, 120, 160)
    # All of the shorter side is seen, and hardly anything of what lies beyond it.
    own = CROP.camera(found.window.camera(much))
    assert (own.cx, own.cy) == pytest.approx((31.5, 31.5), abs=0.5)
    assert 32 / own.fy == pytest.approx(60 / much.fy, rel=0.01)
    shown = found.window.cut(picture(120, 160))
    np.testing.assert_array_equal(shown[7:-7, 10:-10], picture(120, 160))
    np.testing.assert_array_equal(shown[:7, 10:-10], np.repeat(shown[7:8, 10:-10], 7, 0))
    # A squeezed image shows all that there is.
    found = TrainingCameras(SQUEEZE, [TRAINED]).compare(much, 120, 160)
    assert found.window is None
    assert found.differs
    assert found.text == "33 deg wide, trained with 62 deg: left as it is"


def test_only_what_is_seen_wider_is_cut():
    # As wide as in training, but higher; and the other way round.
    high = Intrinsics(133.0, 133.0, 79.5, 89.5, 160, 180)
    found = TrainingCameras(SQUEEZE, [TRAINED]).compare(high, 180, 160)
    assert (found.window.left, found.window.top) == (0, 30)
    assert (found.window.width, found.window.height) == (160, 120)
    assert found.text == "68 deg high, trained with 49 deg: cropped by 1.00 x 1.50"


def test_what_is_found_is_told_in_degrees_of_what_the_network_sees():
    found = TrainingCameras(SQUEEZE, [TRAINED]).compare(WIDE, 240, 320)
    angle = 2 * math.degrees(math.atan(160 / 133))
    assert found.text == f"{angle:.0f} deg wide, trained with 62 deg: cropped by 2.00"
    # Of the image as decoded, whatever the size that the camera is stated for.
    assert TrainingCameras(SQUEEZE, [TRAINED]).compare(WIDE, 480, 640).text == found.text


def test_rows_of_several_cameras_leave_what_lies_between_them_alone():
    tele = replace(TRAINED, fx=200.0, fy=200.0)
    cameras = TrainingCameras(SQUEEZE, [tele, None, TRAINED])
    between = cameras.compare(replace(TRAINED, fx=160.0, fy=160.0), 120, 160)
    assert between.window is None
    assert between.text == "53 deg wide, trained with 44 to 62 deg: scenes differ, left as it is"
    # Beyond, the nearest one counts.
    assert cameras.compare(WIDE, 240, 320).window.width == 160
    narrow = cameras.compare(replace(TRAINED, fx=300.0, fy=300.0), 120, 160)
    assert narrow.text.endswith("left as it is")


@pytest.mark.parametrize(
    ("trained", "camera", "why"),
    [
        (TRAINED, None, "the camera's intrinsics are not known"),
        (TRAINED, replace(WIDE, assumed=True), "the camera's intrinsics are not known"),
        (None, WIDE, "the training frames' intrinsics are not known, or differ"),
        (
            replace(TRAINED, assumed=True),
            WIDE,
            "the training frames' intrinsics are not known, or differ",
        ),
    ],
)
def test_what_was_not_measured_is_not_held_against_anything(trained, camera, why):
    found = TrainingCameras(CROP, [trained]).compare(camera, 240, 320)
    assert found.window is None
    assert found.text == f"field of view cannot be checked: {why}"


def test_a_row_keeps_the_camera_that_its_frames_have_in_common():
    nearly = [replace(TRAINED, fx=TRAINED.fx * share) for share in (1.02, 0.99, 1.0)]
    assert usual_camera(CROP, [TRAINED] * 3) is TRAINED
    assert usual_camera(CROP, nearly) == TRAINED
    # Of several, one stands in for rays, but no image is cut to it.
    mixed = usual_camera(CROP, [WIDE, TRAINED, replace(TRAINED, fx=200.0)])
    assert mixed == replace(TRAINED, assumed=True)
    assert usual_camera(CROP, [TRAINED, None]) == replace(TRAINED, assumed=True)
    assert usual_camera(CROP, [None]) is None


def test_answers_of_the_training_camera_are_the_same_bits_as_without_any(linear):
    image = picture(120, 160)
    (known,) = linear.localize([image], cameras=[replace(TRAINED, fx=138.0)])
    assert same_bits(known, linear.localize([image])[0])
    assert not same_bits(known, linear.localize([picture(120, 160, seed=1)])[0])


@pytest.mark.parametrize("make_model", [make_tiny_model, make_dense_model, make_landmark_model])
def test_a_wide_image_is_answered_as_the_training_camera_would_be(tmp_path, make_model):
    localizer = with_cameras(make_model(tmp_path / "m"), hall=TRAINED, lab=TRAINED)
    image = picture(240, 320)
    part = np.ascontiguousarray(image[60:180, 80:240])
    assert localizer.reads_cameras
    for scene in (None, "lab"):
        (seen,) = localizer.localize([image], scene, cameras=[WIDE])
        assert same_bits(seen, localizer.localize([part], scene, cameras=[TRAINED])[0])
        assert not same_bits(seen, localizer.localize([image], scene)[0])
    # In a batch, each by its own camera.
    both = localizer.localize([image, part], cameras=[WIDE, TRAINED])
    np.testing.assert_array_equal(both[0].position, both[1].position)


def test_a_forced_scene_has_its_own_training_camera(tmp_path):
    model = make_tiny_model(tmp_path / "m")
    localizer = with_cameras(model, hall=TRAINED, lab=replace(WIDE, width=320))
    image = picture(240, 320)
    for scene, cut in (("hall", True), ("lab", False), (None, False)):
        found = localizer.field_of_view(WIDE, 240, 320, scene)
        assert (found.window is not None) == cut
        (seen,) = localizer.localize([image], scene, cameras=[WIDE])
        assert same_bits(seen, localizer.localize([image], scene)[0]) != cut
    # Read on demand, other rows are not looked at.
    on_demand = Localizer.load(model, "cpu", whole_bytes=0)
    assert on_demand.reads_cameras
    assert on_demand.field_of_view(WIDE, 240, 320, "hall").window is not None
    assert "no scene is forced" in on_demand.field_of_view(WIDE, 240, 320).text


def test_rows_without_a_measured_camera_need_none(tmp_path):
    localizer = Localizer.load(make_tiny_model(tmp_path / "m"), "cpu")
    assert not localizer.reads_cameras
    image = picture(240, 320)
    (named,) = localizer.localize([image], cameras=[WIDE])
    assert same_bits(named, localizer.localize([image])[0])


def test_the_captured_way_sees_the_same(tmp_path):
    localizer = with_cameras(make_landmark_model(tmp_path / "m"), hall=TRAINED, lab=TRAINED)
    model, size = localizer._model, localizer.architecture.crop
    trip = OneTrip(model.backbone.engine, model.read_out, size, as_it_is)
    images, cameras = [picture(240, 320), picture(120, 160, seed=1)], [WIDE, TRAINED]
    plain = model.answers(images, cameras, None, {})
    for own, other in zip(
        replace(model, trip=trip).answers(images, cameras, None, {}), plain, strict=True
    ):
        np.testing.assert_allclose(own.position, other.position, atol=1e-5)


def test_evidence_lies_where_it_is_seen_in_the_whole_image(tmp_path):
    localizer = with_cameras(make_landmark_model(tmp_path / "m"), hall=TRAINED, lab=TRAINED)
    image = picture(240, 320)
    whole = localizer.evidence(image, "lab", WIDE)
    part = localizer.evidence(np.ascontiguousarray(image[60:180, 80:240]), "lab", TRAINED)
    np.testing.assert_array_equal(whole.position, part.position)
    np.testing.assert_allclose(whole.seen_M2, part.seen_M2 + np.array([80, 60]), atol=1e-3)


def test_images_are_decoded_as_large_as_what_is_seen_of_them_needs(linear):
    plain = linear.least_size(1440, 1920)
    assert linear.least_size(1440, 1920, TRAINED) == plain
    assert linear.least_size(1440, 1920, WIDE) == pytest.approx(2 * np.array(plain), rel=0.02)


def test_an_evaluation_says_that_images_are_cut(tmp_path, capfd):
    walk = write_walk(tmp_path / "walk", train=1, test=3, size=(160, 120))
    model = with_cameras(make_tiny_model(tmp_path / "m"), hall=TRAINED, lab=TRAINED).model_dir
    for focal, said in ((66.5, True), (133.0, False)):
        data = tmp_path / "data.yaml"
        data.write_text(f"scenes:\n  hall: {{path: {walk}, focal_px: {focal}}}\n")
        output = ["--output", str(tmp_path / f"out_{focal:g}"), "--device", "cpu"]
        assert main(["evaluate", "--model", str(model), "--data", str(data), *output]) == 0
        # Of the middle that the network sees: 107 of 120 pixels.
        told = "3 of 3 frames: 77 deg wide, trained with 44 deg: cropped by 2.00"
        assert (told in capfd.readouterr().err) == said
