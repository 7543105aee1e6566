# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a reader found in a scene, as numbers and as a picture that shows a wrong convention.

A camera that looks backwards, a mirrored or upside-down world, or y for z as the height hides in
every table but is seen at once where viewing directions are drawn along the path.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.pose_checks import positions, quaternions
from mspn_ros.geometry import viewing_direction
from mspn_ros.metrics import position_extent
from mspn_ros.records import Array, ConfigError, Frame

# Okabe and Ito's colours, told apart by colour-blind readers; the markers differ too.
_STYLES = {"train": ("#0072B2", "o"), "test": ("#D55E00", "^"), "val": ("#009E73", "s")}
_AXES = "xyz"
_ARROWS = 50
# Below this mean length the cameras' up directions cancel out and say nothing.
_CLEAR_UP = 0.3


@dataclass(frozen=True, slots=True)
class BadGroup:
    """Bad frames of one kind: the first one's reason, and all their names."""

    reason: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IntrinsicsSummary:
    """Cameras of a scene. ``focal_px`` is (least, median, greatest) fx, None where none is known.

    ``assumed``, ``distorted`` and ``unknown`` count frames; ``sizes`` maps "640x480" to frames.
    """

    focal_px: tuple[float, float, float] | None
    sizes: dict[str, int]
    assumed: int
    distorted: int
    unknown: int


@dataclass(frozen=True, slots=True)
class UpDirection:
    """Which signed world axis is up, such as "-y", guessed from how cameras are held.

    ``tilt_deg`` lies between that axis and the mean of the cameras' up directions. Where those
    cancel out (``clear`` is False) the axis of least position variance is taken.
    """

    axis: str
    tilt_deg: float
    clear: bool


@dataclass(frozen=True, slots=True)
class SceneInspection:
    """What a scene consists of; lengths in ``unit``, None where nothing is there to measure.

    ``extent`` is metrics.position_extent of the training positions; ``median_step`` lies between
    neighbouring frames of a sequence; ``nearest_train`` is the median over the test frames of the
    distance to the nearest training frame. ``sequences`` maps names to counts of frames.
    """

    scene: str
    format: str
    root: str
    unit: str
    metres_per_unit: float | None
    splits: dict[str, int]
    sequences: dict[str, int]
    box_low: tuple[float, float, float]
    box_high: tuple[float, float, float]
    extent: float | None
    path_length: float
    median_step: float | None
    nearest_train: float | None
    up: UpDirection
    intrinsics: IntrinsicsSummary
    bad: tuple[BadGroup, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump with allow_nan=False."""
        return dict(finite(asdict(self)))


def inspect_scene(scene: SceneData) -> SceneInspection:
    """Measure a scene as its reader returned it."""
    every = positions(scene.frames)
    train, test = positions(scene.split("train")), positions(scene.split("test"))
    steps = _steps(scene.frames)
    nearest = cKDTree(train).query(test)[0] if len(train) and len(test) else np.zeros(0)
    low, high = every.min(0).tolist(), every.max(0).tolist()
    return SceneInspection(
        scene=scene.name,
        format=scene.format,
        root=str(scene.root),
        unit=scene.unit,
        metres_per_unit=scene.metres_per_unit,
        splits=dict(Counter(frame.split for frame in scene.frames)),
        sequences=dict(Counter(frame.sequence for frame in scene.frames)),
        box_low=(low[0], low[1], low[2]),
        box_high=(high[0], high[1], high[2]),
        extent=position_extent(train) if len(train) else None,
        path_length=float(steps.sum()),
        median_step=_median(steps),
        nearest_train=_median(nearest),
        up=up_direction(scene.frames),
        intrinsics=_summarise_intrinsics(scene.frames),
        bad=_group_bad(scene),
        notes=scene.notes,
    )


def up_direction(frames: Sequence[Frame]) -> UpDirection:
    """The world axis nearest to the mean of the cameras' up directions (camera -y)."""
    up = Rotation.from_quat(quaternions(frames)).apply([0.0, -1.0, 0.0]).mean(0)
    clear = bool(np.linalg.norm(up) >= _CLEAR_UP)
    axis = int(np.abs(up).argmax() if clear else positions(frames).var(0).argmin())
    sign = "-" if up[axis] < 0 else "+"
    cosine = abs(up[axis]) / max(float(np.linalg.norm(up)), 1e-12)
    return UpDirection(sign + _AXES[axis], math.degrees(math.acos(min(cosine, 1.0))), clear)


def draw_top_view(scenes: Sequence[SceneData], path: Path) -> None:
    """Draw every scene from above and from the side, with viewing directions, into a PNG.

    Axes are world axes at one scale; the view from above is right-handed, so that a mirrored
    world shows.

    Raises:
        ConfigError: there is no scene, or ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not scenes:
        raise ConfigError("no scene to draw; name at least one folder")
    columns = min(3, len(scenes))
    rows = math.ceil(len(scenes) / columns)
    figure = Figure(figsize=(5.2 * columns, 6.4 * rows), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    cells = figure.subfigures(rows, columns, squeeze=False, wspace=0.04, hspace=0.04).ravel()
    for cell, scene in zip(cells, scenes, strict=False):
        draw_views(cell, scene)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); name another picture file"
        ) from error


def draw_views(cell: Any, scene: SceneData) -> list[tuple[Any, tuple[int, int]]]:
    """Draw a scene into a (sub)figure; its axes from above and the side, each with world axes."""
    up = up_direction(scene.frames)
    height = _AXES.index(up.axis[1])
    # right x forward = up in a right-handed world; from below, the two change places.
    right, forward = (height + 1) % 3, (height + 2) % 3
    if up.axis[0] == "-":
        right, forward = forward, right
    wide = max(right, forward, key=lambda axis: float(np.ptp(positions(scene.frames)[:, axis])))
    top, side = cell.subplots(2, 1, height_ratios=(3, 1.25))
    _draw_view(top, scene, right, forward)
    _draw_view(side, scene, wide, height)
    if up.axis[0] == "-":
        side.invert_yaxis()
    held = (
        f"up is {up.axis}; cameras lean {up.tilt_deg:.0f}°"
        if up.clear
        else f"up unclear: {up.axis}?"
    )
    counts = Counter(frame.split for frame in scene.frames)
    shown = ", ".join(f"{count} {split}" for split, count in counts.items())
    cell.suptitle(
        f"{scene.name}  ({scene.format}: {shown})", fontsize=11, fontweight="bold", parse_math=False
    )
    top.set_title(f"from above: {_AXES[right]}, {_AXES[forward]}  ({held})", fontsize=9)
    side.set_title(f"from the side: {_AXES[wide]}, {_AXES[height]}", fontsize=9)
    top.legend(loc="best", fontsize=8, framealpha=0.8, markerscale=2.5)
    return [(top, (right, forward)), (side, (wide, height))]


def _draw_view(axes: Any, scene: SceneData, horizontal: int, vertical: int) -> None:
    plane = [horizontal, vertical]
    everything = positions(scene.frames)
    # Arrows of one length in the world: short ones look along the line of sight.
    length = 0.07 * float(np.linalg.norm(np.ptp(everything, axis=0))) or 1.0
    for split in dict.fromkeys(frame.split for frame in scene.frames):
        colour, marker = _STYLES.get(split, ("#555555", "x"))
        frames = scene.split(split)
        points = positions(frames)[:, plane]
        axes.scatter(*points.T, s=7, c=colour, marker=marker, alpha=0.45, lw=0, label=split)
        chosen = np.unique(np.linspace(0, len(frames) - 1, _ARROWS).round().astype(int))
        arrows = length * viewing_direction(quaternions(frames))[chosen][:, plane]
        axes.quiver(
            *points[chosen].T,
            *arrows.T,
            color=colour,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.0035,
            headwidth=4,
            alpha=0.85,
        )
        # Matplotlib fits the arrows' feet alone.
        axes.update_datalim(points[chosen] + arrows)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.05)
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(f"{_AXES[horizontal]} [{scene.unit}]", fontsize=9)
    axes.set_ylabel(f"{_AXES[vertical]} [{scene.unit}]", fontsize=9)


def _steps(frames: Sequence[Frame]) -> Array:
    """Distances between frames that follow each other in one sequence."""
    by_sequence: dict[str, list[Frame]] = {}
    for frame in frames:
        by_sequence.setdefault(frame.sequence, []).append(frame)
    return np.concatenate(
        [
            np.linalg.norm(np.diff(positions(sequence), axis=0), axis=1)
            for sequence in by_sequence.values()
        ]
    )


def _median(values: Array) -> float | None:
    return float(np.median(values)) if len(values) else None


def _summarise_intrinsics(frames: Sequence[Frame]) -> IntrinsicsSummary:
    cameras = [frame.intrinsics for frame in frames if frame.intrinsics is not None]
    focal = sorted(camera.fx for camera in cameras)
    return IntrinsicsSummary(
        focal_px=(focal[0], float(np.median(focal)), focal[-1]) if focal else None,
        sizes=dict(Counter(f"{camera.width}x{camera.height}" for camera in cameras)),
        assumed=sum(camera.assumed for camera in cameras),
        distorted=sum(bool(camera.distortion) for camera in cameras),
        unknown=len(frames) - len(cameras),
    )


def _group_bad(scene: SceneData) -> tuple[BadGroup, ...]:
    """Largest group first; reasons that differ in numbers alone are one kind."""
    reasons: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for bad in scene.bad:
        kind = re.sub(r"[0-9][0-9.e+-]*", "0", bad.reason)
        reasons.setdefault(kind, bad.reason)
        names.setdefault(kind, []).append(bad.name)
    groups = [BadGroup(reasons[kind], tuple(names[kind])) for kind in reasons]
    return tuple(sorted(groups, key=lambda group: -len(group.names)))


def finite(value: Any) -> Any:
    """Tuples become lists, and what JSON has no number for becomes None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
