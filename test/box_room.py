# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A room whose geometry is known exactly: pictures of the inside of a box with textured walls."""

import numpy as np
from dataset_files import numbers
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

# Half of the box's sides: x right, y down, z ahead, metres.
HALF_M = np.array([3.0, 1.5, 4.0])
_TEXELS_PER_M = 60


def distance_to_walls(points):
    """How far points (K, 3) are from the nearest wall."""
    return np.abs(HALF_M - np.abs(points)).min(1)


def _texture(axis, side):
    rng = np.random.default_rng((axis, side))
    spots = rng.normal(size=(600, 600, 3))
    smooth = sum(gaussian_filter(spots, (s, s, 0)) * s for s in (2, 5, 12))
    return np.clip(128 + 90 * smooth / smooth.std(), 0, 255)


_TEXTURES = [[_texture(axis, side) for side in (0, 1)] for axis in range(3)]


def picture(matrix, size, focal):
    """What a pinhole at camera-to-world ``matrix`` sees: (height, width, 3) uint8."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ray = np.stack(((x - (width - 1) / 2) / focal, (y - (height - 1) / 2) / focal, x * 0 + 1), -1)
    ray, centre = ray @ matrix[:3, :3].T, matrix[:3, 3]
    # Where a ray from within leaves the box, by axis; the nearest is the wall.
    reach = (np.sign(ray) * HALF_M - centre) / np.where(np.abs(ray) < 1e-9, 1e-9, ray)
    wall = reach.argmin(-1)
    point = centre + reach.min(-1, keepdims=True) * ray
    image = np.zeros((height, width, 3))
    for axis in range(3):
        u, v = (a for a in range(3) if a != axis)
        for side in (0, 1):
            mine = (wall == axis) & ((ray[..., axis] > 0) == bool(side))
            texel = ((point[mine][:, [u, v]] + 4.5) * _TEXELS_PER_M).astype(int)
            image[mine] = _TEXTURES[axis][side][texel[:, 0], texel[:, 1]]
    return image.astype(np.uint8)


def walk(count, seed=0):
    """Camera-to-world matrices (4, 4) that look about near the middle of the room."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        angle = 2 * np.pi * i / count
        matrix = np.eye(4)
        matrix[:3, 3] = np.array([0.8 * np.sin(angle), 0.2 * np.cos(3 * angle), np.cos(angle)])
        turn = [5 * rng.normal(), 25 * np.sin(2 * angle), 3 * rng.normal()]
        matrix[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
        yield matrix


def write_box_room(root, train=40, test=8, size=(160, 120)):
    """A 7Scenes folder of the room; its reader assumes this focal length and middle."""
    focal = 525.0 * size[0] / 640
    for number, count in ((1, train), (2, test)):
        for i, matrix in enumerate(walk(count, number)):
            path = root / f"seq-{number:02d}/frame-{i:06d}.color.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(matrix, size, focal)).save(path)
            path.with_name(f"frame-{i:06d}.pose.txt").write_text(numbers(matrix))
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root
