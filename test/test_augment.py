# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Crops, warps and colours of training images: what is shown, along which rays, and the label."""

import numpy as np
import pytest
import torch
from dataset_files import write_walk
from scipy.spatial.transform import Rotation
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
)

from mspn_ros.datasets import read_scene
from mspn_ros.records import ConfigError
from mspn_ros.training.augment import cell_rays, draw, jitter, turned_labels, warp
from mspn_ros.training.config import AugmentConfig, load_config
from mspn_ros.training.samples import FrameStore
from mspn_ros.view import View

SQUEEZED = View(64, 64, "squeeze")


@pytest.fixture(scope="module")
def take(tmp_path_factory):
    root = tmp_path_factory.mktemp("augment")
    scene = read_scene(write_walk(root / "walk", train=24, size=(160, 120)))

    def samples_of(view):
        store = FrameStore([scene], "train", view, str(root / "cache"))
        return store.take([scene.split("train")])[0]

    return samples_of


@pytest.fixture(scope="module")
def samples(take):
    return take(SQUEEZED)


@pytest.fixture(scope="module")
def cropped(take):
    return take(View(64, 96))


def test_a_warped_image_shows_each_ray_where_its_cell_says(samples):
    # One bright dot per image, found again by its centre of mass: the ray of that pixel of the
    # warped image must be that of the dot.
    index = torch.arange(len(samples))
    config = AugmentConfig(zoom=0.4, roll=30.0, shift=0.1)
    drawn = draw(samples, index, 64, config, torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    dot = 127 * torch.exp(-((x - 36.4) ** 2 + (y - 29.7) ** 2) / 8)
    image = (128 + dot).byte()[None, ..., None].expand(len(samples), -1, -1, 3)
    seen = warp(image, drawn.warp_B23)[..., 0].double() - 128
    total = seen.sum((1, 2))
    found = torch.stack(((seen * x).sum((1, 2)) / total, (seen * y).sum((1, 2)) / total), 1)
    for i in range(len(samples)):
        back = drawn.part(slice(i, i + 1)).sources(found[i : i + 1])[0, 0]
        np.testing.assert_allclose(back, [36.4, 29.7], atol=0.15)
    spread = found.std(0)
    assert (spread > 2).all()  # the warps did move it


def test_a_roll_turns_rays_about_the_optical_axis_in_the_world(samples):
    index = torch.arange(len(samples))
    drawn = draw(samples, index, 64, AugmentConfig(roll=40.0), torch.Generator().manual_seed(0))
    rays, seen = cell_rays(samples, index, drawn, 64, 4)
    plain = samples.central_rays(index, 64, 4)
    # Squeezed pixels are not square (160 x 120), and yet the angle to the axis is kept: the
    # principal point is the middle here.
    torch.testing.assert_close(rays[..., 2], plain[..., 2], atol=2e-3, rtol=0)
    assert (rays - plain).abs().max() > 0.1
    assert seen.any(1).all()
    assert not seen.all()


def test_unwarped_rays_are_the_central_ones(samples):
    index = torch.arange(4)
    drawn = draw(samples, index, 64, AugmentConfig("center"), torch.Generator())
    rays, seen = cell_rays(samples, index, drawn, 64, 4)
    torch.testing.assert_close(rays, samples.central_rays(index, 64, 4))
    assert seen.all()


def test_warps_need_the_whole_image(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("augment:\n  zoom: 0.3\n")
    with pytest.raises(ConfigError, match="fit=squeeze"):
        load_config(path)
    load_config(path, ["architecture.fit=squeeze"])


def degrees_between(a, b):
    return np.degrees((Rotation.from_quat(a) * Rotation.from_quat(b).inv()).magnitude())


def test_a_rolled_view_has_the_label_of_a_rolled_camera(samples):
    index = torch.arange(len(samples))
    drawn = draw(samples, index, 64, AugmentConfig(roll=40.0), torch.Generator().manual_seed(0))
    turned = turned_labels(samples, index, drawn, 64)
    back = Rotation.from_quat(samples.quaternion_S4.numpy()).inv() * Rotation.from_quat(turned)
    vectors = np.degrees(back.as_rotvec())
    np.testing.assert_allclose(vectors[:, :2], 0, atol=0.05)
    assert np.abs(vectors[:, 2]).max() > 20
    # The cells that are shown lie, for the turned camera, where the central ones lie.
    shown, _ = cell_rays(samples, index, drawn, 64, 4)
    plain = samples.central_rays(index, 64, 4)
    for i in range(len(samples)):
        np.testing.assert_allclose(back[i].apply(plain[i].numpy()), shown[i].numpy(), atol=2e-3)


def test_a_shifted_crop_has_the_label_of_a_camera_that_looks_there(cropped):
    index = torch.arange(len(cropped))
    drawn = draw(cropped, index, 64, AugmentConfig("random"), torch.Generator().manual_seed(0))
    turned = turned_labels(cropped, index, drawn, 64)
    camera = cropped.camera_SK[:, :4].numpy()
    # Pinhole by hand: the ray through the middle of the crop.
    u, v = drawn.left_B.numpy() + 31.5, drawn.top_B.numpy() + 31.5
    x, y = (u - camera[:, 2]) / camera[:, 0], (v - camera[:, 3]) / camera[:, 1]
    middle = np.stack((x, y, np.ones_like(x)), 1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    plain = Rotation.from_quat(cropped.quaternion_S4.numpy())
    axis = Rotation.from_quat(turned).apply(cropped.central_rays(index, 64, 1)[:, 0].numpy())
    angle = np.degrees(np.arccos(np.clip((axis * plain.apply(middle)).sum(1), -1, 1)))
    moved = degrees_between(turned, cropped.quaternion_S4.numpy())
    assert moved.max() > 5
    # What is left is the homography, which no turn can follow.
    assert (angle < 0.06 * moved + 0.01).all()


def test_without_a_known_camera_the_label_stays(cropped):
    from dataclasses import replace

    unknown = replace(cropped, camera_known_S=torch.zeros(len(cropped), dtype=torch.bool))
    index = torch.arange(len(cropped))
    drawn = draw(cropped, index, 64, AugmentConfig("random"), torch.Generator().manual_seed(0))
    assert torch.equal(turned_labels(unknown, index, drawn, 64), cropped.quaternion_S4)


def test_jitter_is_torchvisions_with_factors_of_each_images_own():
    images = torch.randint(0, 255, (4, 8, 9, 3), dtype=torch.uint8)
    factors = torch.tensor([[0.6, 1, 1], [1, 1.4, 1], [1, 1, 0.3], [1.2, 0.7, 1.3]])
    done = jitter(images, factors, AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4))
    for image, result, (brightness, contrast, saturation) in zip(
        images, done, factors.tolist(), strict=True
    ):
        expected = image.permute(2, 0, 1).float() / 255
        expected = adjust_brightness(expected, brightness)
        expected = adjust_contrast(expected, contrast)
        expected = adjust_saturation(expected, saturation)
        torch.testing.assert_close(result.permute(2, 0, 1) / 255, expected, rtol=1e-3, atol=2e-3)
    assert 0 <= float(done.min()) <= float(done.max()) <= 255
