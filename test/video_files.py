# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A textured scene drawn with exact poses, and videos of it as phones write them."""

import struct

import cv2
import numpy as np

SIZE = WIDTH, HEIGHT = 320, 240
FOCAL = 300.0
# Of MP4's boxes, those around the table of times.
_AROUND = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def _texture(rng, side=400):
    """Blobs of all sizes: corners everywhere, and nothing twice."""
    total = np.zeros((side, side, 3))
    for cells in (8, 25, 80):
        grid = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(grid, (side, side), interpolation=cv2.INTER_NEAREST)
    return (total / 3).astype(np.uint8)


class Scene:
    """Upright posters before a wall, x right, y down, z ahead; metres."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        wall = (-5.0, -3.5, 7.0, 10.0, 7.0)
        posters = [(x, -1.2, z, 1.1, 1.9) for x, z in ((-1.9, 4.4), (-0.5, 5.5), (1.2, 4.8))]
        low = [(x, 0.3, z, 0.8, 0.8) for x, z in ((-1.0, 3.6), (0.4, 4.0), (2.1, 5.6))]
        self._quads = sorted([wall, *posters, *low], key=lambda quad: -quad[2])
        self._textures = [_texture(rng) for _ in self._quads]

    def draw(self, matrix):
        """(H, W, 3) RGB seen from camera-to-world ``matrix`` (4, 4)."""
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for (x, y, z, w, h), texture in zip(self._quads, self._textures, strict=True):
            corners = np.array([(x, y, z), (x + w, y, z), (x + w, y + h, z), (x, y + h, z)])
            seen = (corners - matrix[:3, 3]) @ matrix[:3, :3]
            pixels = FOCAL * seen[:, :2] / seen[:, 2:] + ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
            side = texture.shape[0] - 1
            square = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32)
            turn = cv2.getPerspectiveTransform(square, pixels.astype(np.float32))
            warped = cv2.warpPerspective(texture, turn, SIZE, flags=cv2.INTER_AREA)
            shape = np.full(texture.shape[:2], 255, np.uint8)
            mask = cv2.warpPerspective(shape, turn, SIZE) > 127
            image[mask] = warped[mask]
        return image


def corridor(along):
    """(H, W, 3) RGB of a corridor, 3 m wide and 2.4 m high, seen along it from ``along`` metres."""
    texture = _texture(np.random.default_rng(1))
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    u, v = (u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL
    depths = np.stack((1.5 / np.abs(u), 1.2 / np.abs(v), np.full_like(u, 60 - along)))
    hit, depth = depths.argmin(axis=0), depths.min(axis=0)
    x, y, z = u * depth, v * depth, depth + along
    across = np.choose(hit, (y + 10 * np.sign(x), x + 20 * np.sign(y), x))
    on = np.choose(hit, (z, z, y))
    side = texture.shape[0]
    row, column = ((length * side / 4).astype(int) % side for length in (on, across))
    return texture[row, column]


def walk(count, height=0.0, step=0.1, turning=0.0):
    """Sideways past the posters, ``step`` metres a frame, the view turned by ``turning`` deg."""
    matrices = []
    for i in range(count):
        matrix = np.eye(4)
        yaw = np.radians(turning) * (i - count / 2)
        matrix[:3, :3] = cv2.Rodrigues(np.array([0.02 * np.sin(i), yaw, 0.0]))[0]
        matrix[:3, 3] = (step * (i - count / 2), height + 0.15 * np.sin(i / 3), 0.2 * np.cos(i / 4))
        matrices.append(matrix)
    return matrices


def write_video(path, images, rate=10):
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def turn_video(path, degrees):
    """Say in the track's header that the picture is to be shown turned, as phones do."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    c, s = round(np.cos(np.radians(degrees))), round(np.sin(np.radians(degrees)))
    one = 1 << 16
    content[at : at + 36] = struct.pack(
        ">9i", c * one, s * one, 0, -s * one, c * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(content)
    return path


def retime_video(path, shares):
    """Frames that last ``shares`` of the whole each: a variable rate in the same time."""
    content = path.read_bytes()
    at = content.index(b"stts") - 4
    size, _, _, entries, frames, ticks = struct.unpack(">I4sIIII", content[at : at + 24])
    assert entries == 1
    assert frames == len(shares)
    total = frames * ticks
    edges = np.round(np.concatenate(([0], np.cumsum(shares) / np.sum(shares))) * total).astype(int)
    rows = b"".join(struct.pack(">II", 1, length) for length in np.diff(edges))
    table = struct.pack(">I4sII", 16 + len(rows), b"stts", 0, frames) + rows
    longer = bytearray(content[:at] + table + content[at + size :])
    for box in _AROUND:
        place = content.index(box) - 4
        (length,) = struct.unpack(">I", content[place : place + 4])
        longer[place : place + 4] = struct.pack(">I", length + len(table) - size)
    path.write_bytes(longer)
    return edges[:-1] / edges[-1]
