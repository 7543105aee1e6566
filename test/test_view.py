# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the network sees of an image, and along which rays."""

import cv2
import numpy as np
import pytest
import torch

from mspn_ros.records import Intrinsics
from mspn_ros.view import (
    View,
    camera_vector,
    cell_centres,
    center_crop,
    normalise,
    pixel_rays,
)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, (256, 341)), (640, 480, (341, 256)), (256, 256, (256, 256)), (90, 100, (256, 284))],
)
def test_shorter_side_gets_the_size_asked_for(height, width, expected):
    assert View(224, 256).resized_shape(height, width) == expected
    image = torch.zeros((height, width, 3), dtype=torch.uint8)
    assert View(224, 256).resized(image).shape == (*expected, 3)


def test_resize_of_the_right_size_changes_nothing():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8))
    assert torch.equal(View(8, 8).resized(image), image)


def test_resize_averages_the_pixels_it_merges():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200  # without antialiasing they would alias to 0 or 200
    small = View(16, 16).resized(torch.from_numpy(stripes))
    assert small[2:-2, 2:-2].float().sub(100).abs().max() <= 3


def test_resize_keeps_a_linear_ramp_within_rounding():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None] * 2, (1, 48))
    image = torch.from_numpy(np.repeat(ramp[..., None], 3, 2))
    small = View(24, 24).resized(image)  # half
    expected = 2 * ((np.arange(32) + 0.5) * 2 - 0.5)
    assert np.abs(small[2:-2, 5, 0].numpy() - expected[2:-2]).max() <= 1


def test_crop_is_central():
    image = torch.arange(7 * 10).reshape(7, 10, 1).expand(7, 10, 3)
    crop = center_crop(image, 4)
    assert crop.shape == (4, 4, 3)
    assert crop[0, 0, 0] == 1 * 10 + 3


@pytest.mark.parametrize(("height", "width"), [(120, 161), (201, 133), (64, 64)])
@pytest.mark.parametrize("fit", ["crop", "squeeze"])
def test_the_camera_projects_where_the_prepared_image_shows(height, width, fit):
    camera = Intrinsics(150.0, 140.0, width / 2 - 3, height / 2 + 2, width, height)
    view = View(64, 80, fit)
    prepared = view.camera(camera)
    assert (prepared.width, prepared.height) == (64, 64)
    rows, columns = np.mgrid[:height, :width]
    for u, v in ((width / 2, height / 2), (width / 2 - 9.3, height / 2 + 12.6)):
        # A soft bright dot at (u, v), found again by its centre of mass.
        dot = 250 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 18)
        image = np.repeat(dot[..., None], 3, 2).round().astype(np.uint8)
        seen = view.prepared(image, torch.device("cpu"))[..., 0].double().numpy()
        y, x = np.mgrid[:64, :64]
        found = (seen * x).sum() / seen.sum(), (seen * y).sum() / seen.sum()
        ray = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
        expected = ray[0] * prepared.fx + prepared.cx, ray[1] * prepared.fy + prepared.cy
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_prepare_keeps_the_order_of_the_channels():
    even = np.tile(np.uint8([200, 100, 30]), (40, 50, 1))
    square = View(24, 32).prepared(even, torch.device("cpu"))
    assert (square.shape, square.dtype) == ((24, 24, 3), torch.uint8)
    assert square[5, 5].tolist() == [200, 100, 30]


def test_normalise_follows_mean_and_deviation_of_each_channel():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    mean, deviation = torch.tensor([0.5, 0.1, 0.2]), torch.tensor([0.5, 0.2, 0.4])
    result = normalise(image, mean, deviation).flatten()
    torch.testing.assert_close(result, torch.tensor([-1.0, 0.5, 2.0]))
    assert result.dtype == torch.float32


def test_squeezing_shows_the_whole_image():
    corners = np.zeros((60, 90, 3), np.uint8)
    corners[:20, :30] = 90
    corners[-20:, -30:] = 180
    seen = View(30, 99, "squeeze").prepared(corners, torch.device("cpu"))
    assert seen.shape == (30, 30, 3)
    assert (seen[0, 0, 0], seen[-1, -1, 0], seen[0, -1, 0]) == (90, 180, 0)


def test_cells_divide_the_square_evenly():
    centres = cell_centres(8, 2)
    assert centres.tolist() == [[1.5, 1.5], [5.5, 1.5], [1.5, 5.5], [5.5, 5.5]]


@pytest.mark.parametrize(
    "distortion",
    [
        (),
        (-0.28, 0.07, 0.0002, 0.00002),
        (0.1, -0.05, 0.001, -0.002, 0.02),
        (0.2, 0.1, 0.001, 0.002, 0.03, 0.15, 0.08, 0.01),
    ],
)
def test_rays_project_back_to_their_pixels_by_opencv(distortion):
    cameras = [
        Intrinsics(90.0, 80.0, 30.0, 33.0, 64, 64, distortion),
        Intrinsics(70.0, 75.0, 31.5, 31.5, 64, 64),
    ]
    pixels = cell_centres(64, 5).expand(2, -1, -1)
    vectors = torch.tensor([camera_vector(camera) for camera in cameras], dtype=torch.float64)
    rays = pixel_rays(vectors, pixels)
    torch.testing.assert_close(rays.norm(dim=2), torch.ones(2, 25, dtype=torch.float64))
    for camera, ray_C3, pixel_C2 in zip(cameras, rays.numpy(), pixels.numpy(), strict=True):
        matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
        terms = np.array(camera.distortion or (0.0,) * 4)
        seen, _ = cv2.projectPoints(ray_C3, np.zeros(3), np.zeros(3), matrix, terms)
        np.testing.assert_allclose(seen[:, 0], pixel_C2, atol=1e-3)
