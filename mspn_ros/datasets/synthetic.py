# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes: furnished rooms, smooth walks and exact poses, in the 7Scenes layout.

The same configuration gives the same bytes on one machine.
"""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import mspn_ros
from mspn_ros.datasets.rooms import build_room
from mspn_ros.datasets.sevenscenes import DEFAULT_FOCAL_PX, DEFAULT_FOCAL_WIDTH
from mspn_ros.datasets.walks import walk
from mspn_ros.records import Array, DatasetError

CANNOT_DRAW = (
    "VTK cannot draw without a screen on this machine; run: apt-get install libegl1 libgl1-mesa-dri"
)
# Exit code of the renderer's process when its last line on stderr is meant for the user.
USER_ERROR = 3
_TRAIN_SEQUENCES = 3
_STEP_M = 0.1
_LIMITS = (
    ("rooms", 1, 26),
    ("train_frames", 2 * _TRAIN_SEQUENCES, 1_000_000),
    ("test_frames", 2, 1_000_000),
    ("width", 16, 4096),
    ("height", 16, 4096),
    ("seed", 0, 2**63),
    ("jpeg_quality", 1, 95),
)


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """What to render: ``rooms`` rooms of seed ``seed``; rooms 2k and 2k + 1 look alike.

    ``train_frames`` and ``test_frames`` are per room, 10 cm of walking apart; ``width`` and
    ``height`` are in pixels.
    """

    rooms: int = 4
    train_frames: int = 1200
    test_frames: int = 120
    width: int = 320
    height: int = 240
    seed: int = 0
    jpeg_quality: int = 75

    @property
    def focal_px(self) -> float:
        """What the 7Scenes reader assumes; the principal point is the image's centre."""
        return DEFAULT_FOCAL_PX * self.width / DEFAULT_FOCAL_WIDTH

    def __post_init__(self) -> None:
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise DatasetError(f"{name} is {value}; give {low} to {high}")


def room_name(index: int) -> str:
    """The name of the ``index``-th room and of its folder: room_a, room_b ..."""
    return f"room_{string.ascii_lowercase[index]}"


def _mirrored(poses: Array, width_m: float) -> Array:
    """The walk of a mirror image through the mirror image of a room of that width."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    turned = np.asarray(flip @ poses @ flip)
    turned[:, 0, 3] += width_m
    return turned


def sequence_poses(config: SyntheticConfig, index: int) -> list[Array]:
    """Camera-to-world poses (N, 4, 4) of the training surveys, then of the held-out test walk.

    Look-alike rooms are surveyed alike, so that neither shows more of what both contain; their
    test walks have nothing in common.
    """
    first = index - index % 2
    surveyed = build_room(config.seed, first)
    surveys = []
    for k, share in enumerate(np.array_split(np.arange(config.train_frames), _TRAIN_SEQUENCES)):
        rng = np.random.default_rng((config.seed, first, 2 + k))
        poses = walk(surveyed, rng, len(share), _STEP_M, survey=True)
        surveys.append(poses if index == first else _mirrored(poses, surveyed.size[0]))
    rng = np.random.default_rng((config.seed, index, 2 + _TRAIN_SEQUENCES))
    room = build_room(config.seed, index)
    return [*surveys, walk(room, rng, config.test_frames, _STEP_M, survey=False)]


def _run_renderer(out: Path, config: SyntheticConfig, done: Callable[[], None]) -> None:
    """Draw in a process of its own, see room_renderer; ``done`` is called after each frame."""
    package_root = str(Path(mspn_ros.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    paths = [package_root, inherited] if inherited else [package_root]
    command = [sys.executable, "-m", "mspn_ros.datasets.room_renderer", str(out)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*command, json.dumps(asdict(config))],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        ) as process,
    ):
        try:
            for _ in process.stdout or ():
                done()
        except BaseException:
            process.kill()
            raise
        code = process.wait()
        errors.seek(0)
        said = errors.read().strip()
    if code < 0:
        raise DatasetError(f"{CANNOT_DRAW} (its process ended with signal {-code})")
    if code == USER_ERROR:
        raise DatasetError(said.splitlines()[-1])
    if code != 0:
        raise RuntimeError(f"the renderer's process ended with exit code {code}:\n{said}")


def generate(
    out: Path, config: SyntheticConfig, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Render every room into ``out`` -> the rooms' folders.

    Each folder is a 7Scenes scene (``seq-01/frame-000000.color.jpg``, ``.pose.txt``, the splits);
    ``out/scenes.yaml`` is their scene set. ``progress`` is called with (frames done, frames).

    Raises:
        DatasetError: a room's folder exists or cannot be written, PyVista is missing, or VTK
            cannot draw off-screen.
    """
    if find_spec("pyvista") is None:
        raise DatasetError(
            "pyvista is missing, which draws synthetic scenes; run: pip install mspn_ros[synthetic]"
        )
    folders = [out / room_name(index) for index in range(config.rooms)]
    for folder in folders:
        if folder.exists():
            raise DatasetError(f"{folder} exists already; remove it or choose another folder")
    total = config.rooms * (config.train_frames + config.test_frames)
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        if progress is not None:
            progress(finished, total)

    _run_renderer(out, config, done)
    known = f"format: 7scenes, focal_px: {config.focal_px:g}"
    names = "".join(f"  {f.name}: {{path: {f.name}, {known}}}\n" for f in folders)
    (out / "scenes.yaml").write_text(f"scenes:\n{names}")
    return folders
