# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ways in which poses are usually written wrongly, each with the step that puts them right.

A step takes what a reader made of the files, rotations (N, 3, 3) and positions (N, 3) that are
meant to be camera-to-world with x right, y down, z forward, and returns what they would be if the
files had been written in that other way. World axes are free: a rotated world is none of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.spatial.transform import Rotation

from mspn_ros.records import Array

Poses = tuple[Array, Array]
Step = Callable[[Array, Array], Poses]

_FLIP_YZ = np.diag([1.0, -1.0, -1.0])
# Columns: the optical axes x right, y down, z forward in axes x forward, y left, z up (REP-103).
_BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_UNITY_FROM_OPTICAL = np.diag([1.0, -1.0, 1.0])
_UNREAL_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_AIRCRAFT_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_MIRROR = np.diag([-1.0, 1.0, 1.0])
# What a stranger's readers put between the file and the pose: formats in OpenGL's axes, formats
# that hold world-to-camera.
_OPENGL_FORMATS = ("nerfstudio",)
_INVERTED_FORMATS = ("colmap",)
_INVERTED_ROTATIONS = ("colmap", "cambridge")


@dataclass(frozen=True)
class Hypothesis:
    """One way of having written poses: a key, what it is in words, how to mend the files."""

    key: str
    text: str
    remedy: str
    step: Step


def hypotheses(format: str) -> list[Hypothesis]:
    """All of them for a dataset of reader ``format``: as given first, then from likely to rare."""
    found = [
        Hypothesis("as_given", "as given", "", lambda rotation, position: (rotation, position))
    ]
    found += _inversions(format)
    axes, other_axes = _changed_axes(1, format)
    mirrored, other_mirrored = _changed_axes(-1, format)
    inverted = found[1]
    found += [*axes, *_quaternion_orders(format), *mirrored, *other_axes]
    found += [_both(inverted, turned) for turned in (*axes, *other_axes)]
    found += [_world(matrix) for sign in (1, -1) for matrix in _signed_permutations(sign)]
    found += other_mirrored
    return found


def _signed_permutations(determinant: int) -> list[Array]:
    """The 24 matrices of that determinant whose rows are signed axes, without the identity."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.diag(signs)[list(order)]
            if round(np.linalg.det(matrix)) == determinant and not np.allclose(matrix, np.eye(3)):
                found.append(matrix)
    return found


def _inversions(format: str) -> list[Hypothesis]:
    flip = _FLIP_YZ if format in _OPENGL_FORMATS else np.eye(3)

    def inverted(rotation: Array, position: Array) -> Poses:
        back = (rotation @ flip).transpose(0, 2, 1)
        return back @ flip, -_times(back, position)

    def transposed(rotation: Array, position: Array) -> Poses:
        back = (rotation @ flip).transpose(0, 2, 1)
        if format in _INVERTED_FORMATS:
            # What is right there is the translation.
            position = _times(back, _times(back, position))
        return back @ flip, position

    def translation(rotation: Array, position: Array) -> Poses:
        return rotation, -_times(rotation @ flip, position)

    def centre(rotation: Array, position: Array) -> Poses:
        return rotation, -_times((rotation @ flip).transpose(0, 2, 1), position)

    expected, other = "camera-to-world", "world-to-camera"
    if format in _INVERTED_FORMATS:
        expected, other = other, expected
    return [
        Hypothesis(
            "inverted",
            f"poses are {other} where the format wants {expected}",
            "invert every pose (4x4 matrix) before writing it",
            inverted,
        ),
        Hypothesis(
            "transposed",
            "rotations are transposed, positions (or translations) are right",
            "transpose the rotations (conjugate the quaternions) before writing them",
            transposed,
        ),
        Hypothesis(
            "translation_not_centre",
            "rotations are right, but positions are the translations of world-to-camera",
            "write camera centres: -R t, with R camera-to-world",
            translation,
        ),
        Hypothesis(
            "centre_not_translation",
            "rotations are right, but camera centres stand where translations belong",
            "write translations: -R^T c, with R camera-to-world",
            centre,
        ),
    ]


def _times(rotation_N33: Array, position_N3: Array) -> Array:
    return np.asarray(np.einsum("nij,nj->ni", rotation_N33, position_N3))


def _key(matrix: Array) -> str:
    """Which way the optical x, y, z axes point in the axes that the poses are in: "+x-y-z"."""
    columns = matrix.T
    places = np.abs(columns).argmax(1)
    return "".join(
        ("+" if columns[i, place] > 0 else "-") + "xyz"[place] for i, place in enumerate(places)
    )


# Optical axes in the axes that a file's poses are in -> what is wrong, remedy.
_FRAMES: list[tuple[Array, str, str]] = [
    (
        _FLIP_YZ,
        "the camera's axes are OpenGL's or Blender's (y up, z back)",
        "turn the camera's y and z axes round: multiply each matrix by diag(1, -1, -1, 1)",
    ),
    (
        _BODY_FROM_OPTICAL,
        "poses are of ROS body axes (x forward, y left, z up), not of the optical frame",
        "use the poses of the camera's optical frame",
    ),
    (
        _AIRCRAFT_FROM_OPTICAL,
        "poses are of axes x forward, y right, z down (aircraft), not of the optical frame",
        "use the poses of the camera's optical frame",
    ),
    (
        _UNITY_FROM_OPTICAL,
        "the world is mirrored: left-handed axes as Unity's (y up, z forward)",
        "convert to right-handed axes: with S = diag(1, -1, 1), R becomes S R S and t becomes S t",
    ),
    (
        _UNREAL_FROM_OPTICAL,
        "the world is mirrored: left-handed axes as Unreal's (x forward, y right, z up)",
        "convert to right-handed axes before writing the poses",
    ),
]
_PICTURES: list[tuple[Array, str, str]] = [
    (
        Rotation.from_euler("z", angle, degrees=True).as_matrix().round(),
        f"the images are turned by {angle} degrees against the poses",
        "turn the images back, or the poses about the optical axis",
    )
    for angle in (90, 180, 270)
]
_PICTURES.append(
    (
        _MIRROR,
        "the images are mirrored left to right, or the poses are in left-handed axes",
        "flip the images, or convert the poses to right-handed axes",
    )
)
_OPENCV = (
    np.eye(3),
    "the camera's axes are OpenCV's (y down, z forward) where the format wants OpenGL's",
    "turn the camera's y and z axes round: multiply each matrix by diag(1, -1, -1, 1)",
)


def _changed_axes(determinant: int, format: str) -> tuple[list[Hypothesis], list[Hypothesis]]:
    """Other camera axes, and for determinant -1 a mirrored world: those with a name, the rest."""
    flip = _FLIP_YZ if format in _OPENGL_FORMATS else np.eye(3)
    frames = [*_FRAMES, *([_OPENCV] if format in _OPENGL_FORMATS else [])]
    # Names are of what a file's axes are, or of what happened to the images.
    names = {_key(flip @ matrix): (text, remedy) for matrix, text, remedy in frames}
    names.update({_key(matrix): (text, remedy) for matrix, text, remedy in _PICTURES})
    named: list[Hypothesis] = []
    others: list[Hypothesis] = []
    for matrix in _signed_permutations(determinant):
        key = _key(matrix)
        mirrored = "the world is mirrored; " if determinant < 0 else ""
        text = f"{mirrored}the camera's right, down, forward are {_spelled(flip @ matrix)}"
        text, remedy = names.get(key, (text, "turn the poses into the axes that the format wants"))
        made = Hypothesis(
            f"{'mirrored' if determinant < 0 else 'axes'} {_key(flip @ matrix)}",
            text,
            remedy,
            _turn(matrix, determinant),
        )
        (named if key in names else others).append(made)
    return named, others


def _turn(matrix: Array, determinant: int) -> Step:
    world = _MIRROR if determinant < 0 else np.eye(3)

    def turned(rotation: Array, position: Array) -> Poses:
        return world @ rotation @ matrix, position @ world

    return turned


def _world(matrix: Array) -> Hypothesis:
    def turned(rotation: Array, position: Array) -> Poses:
        return rotation, position @ matrix.T

    return Hypothesis(
        f"positions {_key(matrix)}",
        "positions and rotations are in different world axes: x, y, z of the rotations' world are "
        f"{_spelled(matrix.T)} of the positions'",
        "write positions and rotations in one world frame",
        turned,
    )


def _spelled(matrix: Array) -> str:
    key = _key(matrix)
    return ", ".join(key[i : i + 2] for i in (0, 2, 4))


def _both(first: Hypothesis, second: Hypothesis) -> Hypothesis:
    def step(rotation: Array, position: Array) -> Poses:
        return second.step(*first.step(rotation, position))

    return Hypothesis(
        f"{first.key}, {second.key}",
        f"{first.text}; and {second.text}",
        f"{first.remedy}; and {second.remedy}",
        step,
    )


def _quaternion_orders(format: str) -> list[Hypothesis]:
    flip = _FLIP_YZ if format in _OPENGL_FORMATS else np.eye(3)

    def reordered(places: list[int]) -> Step:
        def rotations(rotation: Array) -> Array:
            quaternion = Rotation.from_matrix(rotation).as_quat()[:, places]
            return np.asarray(Rotation.from_quat(quaternion).as_matrix())

        def step(rotation: Array, position: Array) -> Poses:
            if format not in _INVERTED_ROTATIONS:
                return rotations(rotation @ flip) @ flip, position
            back = rotation.transpose(0, 2, 1)
            right = rotations(back).transpose(0, 2, 1)
            if format in _INVERTED_FORMATS:
                position = _times(right, _times(back, position))
            return right, position

        return step

    return [
        Hypothesis(
            f"quaternion {file}",
            f"quaternions are written as {file} and read as {read}",
            f"write quaternions as {read}",
            reordered(places),
        )
        # What was read as x, y, z, w is w, x, y, z; and the other way round.
        for file, read, places in (("wxyz", "xyzw", [1, 2, 3, 0]), ("xyzw", "wxyz", [3, 0, 1, 2]))
    ]
