# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The same few cameras written in each dataset format, for tests of readers and of inspection."""

import json

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

WIDTH, HEIGHT = 64, 48
TARGET = np.array([3.0, 0.5, 0.2])
CENTRES = [np.array(c) for c in ([-2.0, -1.0, 1.5], [-1.0, 1.5, 1.0], [0.5, -2.0, 2.0])]


def look_at(centre, target=TARGET):
    """(4, 4) camera-to-world of a camera held upright (z is up) with ``target`` straight ahead."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.column_stack((right, np.cross(forward, right), forward, centre))
    return matrix


def save_image(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)


def numbers(values):
    return " ".join(f"{value:.12g}" for value in np.ravel(values))


def wxyz(matrix):
    return np.roll(Rotation.from_matrix(matrix[:3, :3]).as_quat(), 1)


def write_7scenes(root, matrices):
    for i, matrix in enumerate(matrices):
        save_image(root / f"seq-01/frame-{i:06d}.color.png")
        (root / f"seq-01/frame-{i:06d}.pose.txt").write_text(numbers(matrix))
    (root / "TrainSplit.txt").write_text("sequence1\n")


def write_cambridge(root, matrices):
    lines = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
    for i, matrix in enumerate(matrices):
        save_image(root / f"seq1/frame{i:05d}.png")
        world_to_camera = matrix[:3, :3].T
        values = f"{numbers(matrix[:3, 3])} {numbers(wxyz(world_to_camera))}"
        lines.append(f"seq1/frame{i:05d}.png {values}")
    (root / "dataset_train.txt").write_text("\n".join(lines))


def write_tum(root, matrices):
    images, poses = ["# timestamp filename"], ["# timestamp tx ty tz qx qy qz qw"]
    for i, matrix in enumerate(matrices):
        save_image(root / f"rgb/{i}.png")
        images.append(f"{100 + i}.000 rgb/{i}.png")
        quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat()
        poses.append(f"{100 + i}.015 {numbers(matrix[:3, 3])} {numbers(quaternion)}")
    (root / "rgb.txt").write_text("\n".join(images))
    (root / "groundtruth.txt").write_text("\n".join(poses))


def write_kitti(root, matrices):
    for i in range(len(matrices)):
        save_image(root / f"sequences/04/image_0/{i:06d}.png")
    (root / "poses").mkdir()
    (root / "poses/04.txt").write_text("\n".join(numbers(m[:3]) for m in matrices))


def write_colmap(root, matrices):
    (root / "sparse/0").mkdir(parents=True)
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"]
    for i, matrix in enumerate(matrices):
        save_image(root / f"images/a/{i}.png")
        world_to_camera = matrix[:3, :3].T
        translation = -world_to_camera @ matrix[:3, 3]
        lines += [f"{i + 1} {numbers(wxyz(world_to_camera))} {numbers(translation)} 7 a/{i}.png"]
        lines += ["12.5 8.25 -1 3.5 4.5 17" if i else ""]
    (root / "sparse/0/images.txt").write_text("\n".join(lines) + "\n")
    (root / "sparse/0/cameras.txt").write_text("7 SIMPLE_RADIAL 128 96 100 64 48 0.01\n")


def write_nerfstudio(root, matrices):
    frames = []
    for i, matrix in enumerate(matrices):
        save_image(root / f"images/{i}.png")
        x, y, z, centre = matrix[:3].T
        opengl = np.eye(4)
        opengl[:3] = np.column_stack((x, -y, -z, centre))
        frames.append({"file_path": f"./images/{i}", "transform_matrix": opengl.tolist()})
    content = {"w": 128, "h": 96, "fl_x": 100, "cx": 64, "cy": 48, "k1": 0.01, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(content))


def write_walk(root, train=12, test=4, seed=0, size=(96, 72)):
    """A 7Scenes folder of ``train`` + ``test`` noisy pictures, all different, along a line."""
    rng = np.random.default_rng(seed)
    hue = rng.integers(40, 200, 3)
    for number, count in ((1, train), (2, test)):
        for i in range(count):
            path = root / f"seq-{number:02d}/frame-{i:06d}.color.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(-40, 40, (size[1] // 8, size[0] // 8, 3)) + hue
            pixels[:, : 1 + i * size[0] // 8 // max(train, test)] //= 2
            Image.fromarray(pixels.astype(np.uint8)).resize(size).save(path)
            matrix = look_at(np.array([-2.0 + i / count, -1.0, 1.5 + 0.1 * number]))
            (path.with_name(f"frame-{i:06d}.pose.txt")).write_text(numbers(matrix))
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root


WRITERS = {
    "7scenes": write_7scenes,
    "cambridge": write_cambridge,
    "tum": write_tum,
    "kitti": write_kitti,
    "colmap": write_colmap,
    "nerfstudio": write_nerfstudio,
}
