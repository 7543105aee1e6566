# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draws synthetic rooms with PyVista (VTK), off-screen; run by ``synthetic.generate``.

It runs in a process of its own (``python -m mspn_ros.datasets.room_renderer OUT CONFIG``, CONFIG
as JSON) for two reasons: VTK ends with a segmentation fault where it cannot draw, and Mesa brings
an LLVM into the process with which a later import of Triton, by torch, crashes.
Each line on stdout is one frame done; exit code 3 comes with one line on stderr for the user.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mspn_ros.datasets.room_builder import THIN, Room
from mspn_ros.datasets.room_light import bake, tessellate
from mspn_ros.datasets.rooms import build_room
from mspn_ros.datasets.synthetic import (
    CANNOT_DRAW,
    USER_ERROR,
    SyntheticConfig,
    room_name,
    sequence_poses,
)
from mspn_ros.records import Array, DatasetError, ImageHW3

# Standard deviation in pixels of the picture at twice its size.
_LENS_BLUR_PX = 1.2


class Renderer:
    """Draws one room off-screen from any pose."""

    def __init__(self, room: Room, config: SyntheticConfig) -> None:
        import pyvista
        from vtkmodules.vtkCommonCore import vtkLogger, vtkUnsignedCharArray

        # VTK complains on stderr of each display that it tried before it found one.
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
        self._pixels = vtkUnsignedCharArray()
        self._to_numpy = pyvista.convert_array
        self._size = (config.width, config.height)
        # Drawn at twice the size and averaged: Mesa's multisampling takes seconds for some views.
        self._plotter = pyvista.Plotter(
            off_screen=True, window_size=[2 * side for side in self._size], lighting="none"
        )
        self._plotter.render_window.SetMultiSamples(0)
        for name, mesh, texture in _meshes(room):
            picture = pyvista.Texture(np.ascontiguousarray(texture))
            picture.repeat, picture.mipmap, picture.interpolate = True, True, True
            picture.SetMaximumAnisotropicFiltering(1)
            self._plotter.add_mesh(
                mesh,
                scalars="light",
                rgb=True,
                texture=picture,
                lighting=False,
                copy_mesh=False,
                culling=False if name == THIN else "back",
            )
        camera = self._plotter.camera
        camera.SetViewAngle(np.degrees(2 * np.arctan(config.height / 2 / config.focal_px)))
        camera.SetClippingRange(0.05, 20.0)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self._plotter.close()

    def render(self, camera_to_world: Array) -> ImageHW3:
        """The view from a (4, 4) camera-to-world pose -> (H, W, 3) uint8 RGB."""
        position, forward, up = (camera_to_world[:3, k] for k in (3, 2, 1))
        camera = self._plotter.camera
        camera.SetPosition(*position)
        camera.SetFocalPoint(*(position + forward))
        camera.SetViewUp(*-up)
        window = self._plotter.render_window
        window.Render()
        # Read directly: Plotter.screenshot takes longer than drawing does.
        width, height = (2 * side for side in self._size)
        window.GetRGBACharPixelData(0, 0, width - 1, height - 1, 0, self._pixels)
        drawn = self._to_numpy(self._pixels).reshape(height, width, 4)[::-1, :, :3]
        # As sharp as a lens, no sharper: edges of one pixel cost a JPEG a tenth of its bytes.
        drawn = cv2.GaussianBlur(np.ascontiguousarray(drawn), (0, 0), _LENS_BLUR_PX)
        return np.asarray(cv2.resize(drawn, self._size, interpolation=cv2.INTER_AREA))


def _meshes(room: Room) -> Iterator[tuple[str, Any, ImageHW3]]:
    """Of each material its name, all patches of it as one shaded mesh, its texture."""
    import pyvista

    cut = [tessellate(patch.corners, patch.uv) for patch in room.patches]
    light = bake(room, np.concatenate([c[0] for c in cut]), np.concatenate([c[1] for c in cut]))
    ends = np.cumsum([len(c[0]) for c in cut])
    shades = np.split(light, ends[:-1])
    for name, texture in room.materials.items():
        used = [k for k, patch in enumerate(room.patches) if patch.material == name]
        if not used:
            continue
        starts = np.cumsum([0] + [len(cut[k][0]) for k in used[:-1]])
        faces = np.concatenate([cut[k][3] + start for k, start in zip(used, starts, strict=True)])
        colours = [
            np.array(room.patches[k].tint) * (1.0 if room.patches[k].glows else shades[k])
            + np.zeros((len(cut[k][0]), 1))
            for k in used
        ]
        mesh = pyvista.PolyData(
            np.concatenate([cut[k][0] for k in used]),
            np.concatenate((np.full((len(faces), 1), 3), faces), -1).reshape(-1),
        )
        mesh.active_texture_coordinates = np.concatenate([cut[k][2] for k in used])
        mesh["light"] = np.concatenate(colours).round().astype(np.uint8)
        yield name, mesh, texture


def _write_sequence(folder: Path, poses: Array, renderer: Renderer, quality: int) -> None:
    folder.mkdir(parents=True)
    for k, pose in enumerate(poses):
        encoded = io.BytesIO()
        Image.fromarray(renderer.render(pose)).save(encoded, "JPEG", quality=quality, optimize=True)
        (folder / f"frame-{k:06d}.color.jpg").write_bytes(encoded.getvalue())
        rows = ("\t".join(f"{value:.9e}" for value in row) for row in pose)
        (folder / f"frame-{k:06d}.pose.txt").write_text("\n".join(rows) + "\n")
        print(k, flush=True)


def write_rooms(out: Path, config: SyntheticConfig) -> None:
    """Draw every room of ``config`` into ``out``, a line on stdout for each frame.

    Raises:
        DatasetError: the pictures are blank.
        OSError: a file cannot be written.
    """
    for index in range(config.rooms):
        room = build_room(config.seed, index)
        folder = out / room_name(index)
        sequences = sequence_poses(config, index)
        with Renderer(room, config) as renderer:
            # Before the first folder is made, so that another try finds none in its way.
            if np.ptp(renderer.render(sequences[0][0])) == 0:
                raise DatasetError(f"{CANNOT_DRAW} (blank pictures)")
            for k, poses in enumerate(sequences, 1):
                _write_sequence(folder / f"seq-{k:02d}", poses, renderer, config.jpeg_quality)
        train = "".join(f"sequence{k}\n" for k in range(1, len(sequences)))
        (folder / "TrainSplit.txt").write_text(train)
        (folder / "TestSplit.txt").write_text(f"sequence{len(sequences)}\n")


if __name__ == "__main__":
    try:
        write_rooms(Path(sys.argv[1]), SyntheticConfig(**json.loads(sys.argv[2])))
    except (DatasetError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(USER_ERROR)
