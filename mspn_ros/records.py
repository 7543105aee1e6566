"""The plain records that every room shares, and the errors a user may see.

Conventions, everywhere in this project: poses are camera-to-world; a position is the camera
centre in the scene's frame (metres, or the scene's own unit where its scale is unknown); camera
axes are x right, y down, z forward (OpenCV, the optical frame of REP-103); quaternions are
x, y, z, w as in ROS and SciPy. NumPy only, so that any room can import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ImageHW3 = npt.NDArray[np.uint8]

# An image may differ from its camera's aspect ratio by rounding, not by a crop or a turn.
_ASPECT_TOLERANCE = 0.03

# Names in one line of an error.
_MOST_NAMED = 20

# Of one robot at once; more than any has, and a bound on what can be asked for.
MOST_CAMERAS = 16

UNKNOWN_SCENE_ID = -1
UNKNOWN_SCENE = "unknown"


class MspnError(Exception):
    """An error that the user can mend: one line that says value, place and remedy.

    The command line prints it and exits with 1; the node logs it. Never wrap a bug in it.
    """


class ConfigError(MspnError):
    """A setting, parameter or command-line value is unusable."""


class DatasetError(MspnError):
    """A folder or file of images and poses cannot be read as what it should be."""


class ImageError(MspnError):
    """An image message or file cannot be decoded."""


class ModelError(MspnError):
    """A model directory, a stored file or weights cannot be used."""


class BagError(MspnError):
    """A rosbag cannot be read, or lacks what was asked for."""


class RosError(MspnError):
    """ROS 2 is missing, or a peer on the network does not answer."""


@dataclass(frozen=True, slots=True)
class Pose:
    """A camera-to-world pose: ``position`` (3,) and unit ``quaternion`` (4,) xyzw, float64."""

    position: Array
    quaternion: Array


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera in pixels of an image of ``width`` x ``height``.

    ``distortion`` holds OpenCV's (k1, k2, p1, p2, k3 ...), empty for none. ``assumed`` is True
    where the format has no intrinsics and a stated default focal length was taken.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] = ()
    assumed: bool = False

    def fits(self, width: int, height: int) -> bool:
        """Whether an image of this size may be this camera's, resized but not cut or turned."""
        ratio = (width * self.height) / (height * self.width)
        return abs(ratio - 1) <= _ASPECT_TOLERANCE + 1 / min(width, height)

    def scaled_to(self, width: int, height: int) -> Intrinsics:
        """The same camera for the image resized to ``width`` x ``height`` pixels.

        Pixel centres lie at half-integers of the continuous image plane, hence the 0.5.
        """
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
            width,
            height,
            self.distortion,
            self.assumed,
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One posed image of a scene: where the file is, and the camera-to-world pose.

    ``name`` is the image's path as its dataset writes it (unique within the scene); ``sequence``
    names the recording it belongs to.
    """

    image_path: Path
    name: str
    scene: str
    split: str
    pose: Pose
    sequence: str = ""
    stamp_s: float | None = None
    intrinsics: Intrinsics | None = None


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that a reader left out, and why. Counted and listed, never replaced."""

    name: str
    split: str
    reason: str


def listing(names: Sequence[str]) -> str:
    """Names for a message of one line: a bank may have 100,000."""
    rest = len(names) - _MOST_NAMED
    shown = ", ".join(names[:_MOST_NAMED]) or "none"
    return f"{shown} and {rest} more" if rest > 0 else shown


def unit_name(metres_per_unit: float | None) -> str:
    """``m`` where positions are metres, ``u`` where the unit is another or unknown."""
    return "m" if metres_per_unit == 1.0 else "u"


@dataclass(frozen=True, slots=True)
class PoseEstimate:
    """The localizer's answer for one image.

    ``position`` (3,) and ``quaternion`` (4,) xyzw are camera-to-scene, None while the place is
    unknown. ``covariance`` (6, 6) follows REP-103: x, y, z in units squared, then rotations about
    the fixed axes x, y, z in rad^2. ``reason`` says why there is no pose. ``probabilities`` are
    those of the ten most likely scenes, or of all; a bank may have 100,000. ``metres_per_unit`` is
    that of the position, None where it is unknown; a pose in a map is metric already.
    """

    scene_id: int
    scene: str
    confidence: float
    frame_id: str = ""
    position: Array | None = None
    quaternion: Array | None = None
    covariance: Array | None = None
    reason: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    metres_per_unit: float | None = 1.0

    @property
    def known(self) -> bool:
        """Whether a pose was given."""
        return self.position is not None


@dataclass(frozen=True, slots=True)
class Familiarity:
    """What is usual of a scene's held-out frames (inference/familiarity.py).

    ``middle`` and ``spread`` of the signs logit, residual and, for heads that look for landmarks,
    sightings.
    """

    middle: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HeldOutErrors:
    """Errors of a scene's head on frames that training did not see; the source of covariance.

    Variances are per axis: of the position in the scene's frame (unit squared), and of the
    rotation vector about the scene's fixed axes (rad^2); products are the covariances' xy, xz and
    yz. ``own_factors``: by how much the covariances that the head gives itself, of positions and
    of rotations, are to be multiplied; None for heads that give none. All are such that the 95 %
    region holds 95 % of errors, position and rotation apart (training/calibration.py), once they
    are grown by how unfamiliar an image is; ``familiarity`` is None in rows of older versions and
    of too few frames, and nothing is grown then.
    """

    frames: int
    median_position: float
    median_rotation_deg: float
    position_variance: tuple[float, float, float]
    rotation_variance: tuple[float, float, float]
    own_factors: tuple[float, float] | None = None
    position_products: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_products: tuple[float, float, float] = (0.0, 0.0, 0.0)
    familiarity: Familiarity | None = None

    @property
    def covariance(self) -> Array:
        """(6, 6) in REP-103's order, of an image that is as familiar as usual."""
        result = np.diag([*self.position_variance, *self.rotation_variance])
        for first, products in ((0, self.position_products), (3, self.rotation_products)):
            for (i, j), product in zip(((0, 1), (0, 2), (1, 2)), products, strict=True):
                result[first + i, first + j] = result[first + j, first + i] = product
        return np.asarray(result)


@dataclass(frozen=True, slots=True)
class SceneRow:
    """All that the scene bank stores of one scene.

    ``position_offset`` (3,), ``position_scale`` and ``reference_rotation`` (4,) xyzw turn the
    head's output into a pose (network/coding.py). ``head`` names the head's kind,
    ``head_tensors`` are its arrays; ``classifier_weight`` (F,) and ``classifier_bias``
    are the scene's logit. ``feature_mean`` and ``feature_std`` (F,) describe its training frames,
    ``feature_axes`` (R, F) int8 times ``feature_axes_scale`` (R,) how their features vary together:
    the R principal axes, each as long as the standard deviation along it; None in rows of older
    versions.
    ``box_low`` and ``box_high`` (3,) are the 5th and 95th percentile of training positions.
    ``map_from_scene`` (8,) is a similarity: translation, quaternion xyzw, scale. ``id`` is 0
    until the bank has given one.
    """

    name: str
    uuid: str
    frame_id: str
    backbone_id: str
    position_offset: Array
    position_scale: float
    reference_rotation: Array
    head: str
    head_tensors: dict[str, npt.NDArray[Any]]
    classifier_weight: npt.NDArray[np.float32]
    classifier_bias: float
    s_t: float
    s_q: float
    feature_mean: npt.NDArray[np.float32]
    feature_std: npt.NDArray[np.float32]
    acceptance_threshold: float
    held_out: HeldOutErrors | None
    frames: int
    box_low: Array
    box_high: Array
    metres_per_unit: float | None = None
    map_frame: str | None = None
    map_from_scene: Array | None = None
    intrinsics: Intrinsics | None = None
    feature_axes: npt.NDArray[np.int8] | None = None
    feature_axes_scale: npt.NDArray[np.float32] | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    created: str = ""
    id: int = 0

    def renamed(self, name: str) -> SceneRow:
        """The same scene under another name; its frame follows if it was called like the scene."""
        frame_id = name if self.frame_id == self.name else self.frame_id
        return replace(self, name=name, frame_id=frame_id)

    @property
    def unit(self) -> str:
        """Of positions and errors, see ``unit_name``."""
        return unit_name(self.metres_per_unit)

    @property
    def extent(self) -> float:
        """Diagonal of the 5-95 % box of training positions, in the scene's unit."""
        return float(np.linalg.norm(self.box_high - self.box_low))
