"""``Localizer``: images in, ``PoseEstimate``s out; the node, replay and evaluation share it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.geometry import Similarity
from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.inference.engine_names import AUTO, check_engine_name
from mspn_ros.inference.engines import choose_device
from mspn_ros.inference.evidence import Evidence, gather_evidence
from mspn_ros.inference.familiarity import confidence_of, growth_of
from mspn_ros.inference.loaded_backbone import LoadedBackbone
from mspn_ros.inference.model_reader import ModelReader
from mspn_ros.inference.read_out import Answer, ReadOut
from mspn_ros.inference.reloaded import Reloaded, compare
from mspn_ros.inference.scene_logits import SceneLogits
from mspn_ros.inference.served_rows import WHOLE_BYTES
from mspn_ros.network.backbone import Architecture
from mspn_ros.records import (
    UNKNOWN_SCENE,
    UNKNOWN_SCENE_ID,
    Array,
    ConfigError,
    ImageHW3,
    Intrinsics,
    PoseEstimate,
    SceneRow,
    listing,
)

# A JPEG that is scaled while it is decoded stays this many times as large as the resized image:
# then poses differ from those of the full image by less than 5 % of the median error
# (docs/performance.md). At 1.5 times they differ by up to 13 %.
_DECODED_MARGIN = 3.3


class Localizer:
    """A loaded model. ``localize`` is deterministic: the same image gives the same answer.

    ``reload`` may run on another thread than ``localize``.
    """

    def __init__(
        self,
        model_dir: Path,
        device: str = "auto",
        whole_bytes: int = WHOLE_BYTES,
        engine: str = AUTO,
    ) -> None:
        """Load a model directory; prefer :meth:`load`.

        ``whole_bytes``: see ``ServedRows``.

        Raises:
            ModelError: the directory, backbone or bank is missing, damaged or foreign.
            ConfigError: no such device, or the engine does not run there.
        """
        check_engine_name(engine)
        self.model_dir = model_dir
        self.device, self._device_reason = choose_device(device)
        self.bank_version = 1
        self._reading = threading.Lock()
        self._reader = ModelReader(model_dir, self.device, engine, whole_bytes)
        self._model = self._reader.read(None)

    @classmethod
    def load(
        cls,
        model_dir: Path,
        device: str = "auto",
        whole_bytes: int = WHOLE_BYTES,
        engine: str = AUTO,
    ) -> Localizer:
        """Load ``model_dir`` (backbone.safetensors, scenes.db) onto ``device`` and warm up.

        ``device``: auto (CUDA where there is one), cpu, cuda, cuda:N. ``engine``: auto (the fastest
        that is as good as exact there) or one of ``engine_names.ENGINES``. A bank of more than
        ``whole_bytes`` is opened by its classifier, heads are read on demand (``ServedRows``).

        Raises:
            ModelError: the directory, backbone or bank is missing, damaged or foreign.
            ConfigError: no such device, or the engine does not run there.
        """
        return cls(Path(model_dir), device, whole_bytes, engine)

    def reload(self, patient: bool = False) -> Reloaded:
        """Read the model anew; on an error backbone and rows that were in service stay.

        Rows that are damaged or of another backbone are left out; ``refused`` says why. A bank
        without rows leaves no scene in service. A backbone whose file has changed is loaded and
        warmed up beside the one in service, then both are exchanged with their rows at once; where
        no row fits it, nothing is. ``patient`` gives a file that seems to be written just now half
        a second before rows in service are given up for damage in it.

        Raises:
            UnsettledError: a file is being written; try again.
            ModelError: backbone or bank is missing, damaged, or no row can be served.
        """
        with self._reading:
            before = self._model
            model = self._reader.read(before, patient)
            # One assignment: an image that is being answered goes on with the model it began with.
            self._model = model
            self.bank_version += 1
        exchanged = model.backbone is not before.backbone
        return compare(before.index, model.index, self.backbone_id if exchanged else "")

    @property
    def _in_service(self) -> ReadOut | None:
        return self._model.read_out

    @property
    def backbone(self) -> LoadedBackbone:
        """In service, behind its engine."""
        return self._model.backbone

    @property
    def backbone_id(self) -> str:
        """Of the backbone in service."""
        return self._model.backbone.identity

    @property
    def provenance(self) -> dict[str, Any]:
        """What the backbone's file says of where it is from."""
        return self._model.backbone.provenance

    @property
    def architecture(self) -> Architecture:
        """Of the backbone in service."""
        return self._model.backbone.architecture

    @property
    def engine(self) -> str:
        """What runs the backbone."""
        return self._model.backbone.engine.name

    @property
    def engine_reason(self) -> str:
        """Which device, which engine, and why these."""
        reasons = (self._model.backbone.engine_reason, self._model.trip_reason)
        reason = "; ".join(filter(None, reasons))
        return f"{self.device}: {self._device_reason}; {self.engine}: {reason}"

    @property
    def refused(self) -> dict[str, str]:
        """Rows that are not in service, by name or number, and why.

        A row of a large bank can come in when it is asked for, see ``ServedRows``.
        """
        return self._model.refused

    @property
    def scenes(self) -> tuple[SceneInfo, ...]:
        """The catalogue of the rows in service."""
        read_out = self._in_service
        return read_out.scenes if read_out is not None else ()

    @property
    def reads_cameras(self) -> bool:
        """Whether answers depend on the images' cameras, as those of dense heads do."""
        model = self._model
        heads = set(model.index.head) if model.index is not None else set()
        return any(model.backbone.grids[model.backbone.fit.grid(kind)] for kind in heads)

    def least_size(self, height: int, width: int) -> tuple[int, int]:
        """The least (height, width) to which an image of ``height`` x ``width`` may be scaled while
        it is decoded: for ``images.decode_compressed``.
        """
        resized = self.architecture.view.resized_shape(height, width)
        return math.ceil(_DECODED_MARGIN * resized[0]), math.ceil(_DECODED_MARGIN * resized[1])

    @property
    def rows(self) -> Sequence[SceneRow]:
        """The rows in service, in the order of their ids; some may have to be read first."""
        read_out = self._in_service
        return read_out.rows if read_out is not None else ()

    @property
    def reads_whole(self) -> bool:
        """Whether all rows were read when the bank was opened, see ``ServedRows``."""
        read_out = self._in_service
        return read_out is None or read_out.rows.whole

    @property
    def classifier(self) -> SceneLogits | None:
        """The scene classifier of all rows in service; None where there are none."""
        read_out = self._in_service
        return read_out.logits if read_out is not None else None

    def localize(
        self,
        images: Sequence[ImageHW3],
        scene: str | None = None,
        min_confidence: float | None = None,
        cameras: Sequence[Intrinsics | None] | None = None,
        prior: Mapping[str, float] | None = None,
        min_margin: float = 0.0,
    ) -> list[PoseEstimate]:
        """(H, W, 3) uint8 RGB images of any size -> one estimate each, in order.

        ``scene`` forces that scene's head (no threshold then); otherwise the most likely scene
        answers if its confidence (inference/familiarity.py) reaches ``min_confidence`` (None: the
        scene's own threshold).
        ``cameras`` are the images' intrinsics, for heads that read rays; where one is None, the
        camera of the scene's training frames stands in (see ``CellRays``).

        ``prior`` adds to scenes' logits, see ``SceneFilter.prior``; names that are not in service
        are passed over. It decides which scene answers; the confidence is then how sure the image
        alone makes of the scene that it is most like. Where the probabilities of the two most
        likely scenes differ by less than ``min_margin``, neither answers.

        Raises:
            ConfigError: no such scene, or a camera of another shape than its image.
        """
        if not images:
            return []
        model = self._model  # one model for the whole call, even if reloaded meanwhile
        forced = _index(model.read_out, scene)
        if model.read_out is None:
            reason = "the scene bank holds no scene; add one"
            return [PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason=reason)] * len(images)
        index = model.read_out.index
        places = {index[name]: more for name, more in (prior or {}).items() if name in index}
        answers = model.answers(images, cameras, forced, places)
        estimates = [
            _estimate(model.read_out, answer, forced, min_confidence) for answer in answers
        ]
        return [_unless_close(e, min_margin) for e in estimates] if forced is None else estimates

    def evidence(
        self, image: ImageHW3, scene: str | None = None, camera: Intrinsics | None = None
    ) -> Evidence:
        """What the answer to one image was made of: for people who want to see why.

        Raises:
            ConfigError: as ``localize``; or the scene's head has neither cells nor landmarks.
        """
        model = self._model
        forced = _index(model.read_out, scene)
        if model.read_out is None:
            raise ConfigError("the scene bank holds no scene; add one")
        features, shots = model.backbone.features([image], [camera])
        _, readings, troubles = model.read_out.read(features, shots, forced)
        for trouble in troubles.values():
            raise ConfigError(trouble)
        _, group, (place,), reading = readings[0]
        row = group.rows[place]
        if reading.votes is None:
            raise ConfigError(
                f"scene {row.name!r} has a head of kind {row.head}: no votes and no landmarks to "
                "show"
            )
        return gather_evidence(group.coding, reading, place, row, shots[0])


def _index(read_out: ReadOut | None, scene: str | None) -> int | None:
    """Of a forced scene; None without.

    Raises:
        ConfigError: no such scene.
    """
    if not scene:
        return None
    if read_out is None or scene not in read_out.index:
        known = listing(read_out.rows.columns.name if read_out is not None else ())
        raise ConfigError(f"scene {scene!r} is not in the bank; it has {known}")
    return read_out.index[scene]


def _estimate(
    read_out: ReadOut, answer: Answer, forced: int | None, min_confidence: float | None
) -> PoseEstimate:
    row, position, quaternion = answer.row, answer.position, answer.quaternion
    confidence = confidence_of(answer.familiarity, answer.likely.probability)
    names = read_out.rows.columns.name
    probabilities = {names[scene]: share for scene, share in answer.likely.scenes}
    if row is None:
        reason = f"{names[answer.likely.scene]} is most likely, but {answer.trouble}"
        return PoseEstimate(
            UNKNOWN_SCENE_ID, UNKNOWN_SCENE, confidence, reason=reason, probabilities=probabilities
        )
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        reason = f"the network's output for scene {row.name} is not finite"
        return PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason=reason)
    threshold = row.acceptance_threshold if min_confidence is None else min_confidence
    if forced is None and confidence < threshold:
        reason = f"{row.name} is most likely, but {confidence:.3f} is below {threshold:.3f}"
        return PoseEstimate(
            UNKNOWN_SCENE_ID, UNKNOWN_SCENE, confidence, reason=reason, probabilities=probabilities
        )
    position, quaternion, covariance = _in_map(row, position, quaternion, _covariance(row, answer))
    return PoseEstimate(
        scene_id=row.id,
        scene=row.name,
        confidence=confidence,
        frame_id=row.map_frame or row.frame_id,
        position=position,
        quaternion=quaternion,
        covariance=covariance,
        probabilities=probabilities,
        metres_per_unit=1.0 if row.map_frame else row.metres_per_unit,
    )


def _unless_close(estimate: PoseEstimate, min_margin: float) -> PoseEstimate:
    """The estimate, or unknown where two scenes are about as likely as each other."""
    ranked = sorted(estimate.probabilities.items(), key=lambda item: -item[1])[:2]
    if not estimate.known or len(ranked) < 2 or ranked[0][1] - ranked[1][1] >= min_margin:
        return estimate
    (first, more), (second, less) = ranked
    return PoseEstimate(
        UNKNOWN_SCENE_ID,
        UNKNOWN_SCENE,
        estimate.confidence,
        reason=f"{first} ({more:.3f}) and {second} ({less:.3f}) look alike here: they differ by "
        f"less than {min_margin:.3f}",
        probabilities=estimate.probabilities,
    )


def _covariance(row: SceneRow, answer: Answer) -> Array:
    """The head's own covariance of this image, as large as held-out errors ask for; or theirs.

    Grown by how unfamiliar the image is.
    """
    own = answer.covariance
    growth = float(growth_of(np.array(answer.familiarity or 0.0)))
    if own is None or not np.isfinite(own).all():
        return growth**2 * scene_covariance(row)
    factors = row.held_out.own_factors if row.held_out else None
    position, rotation = growth * np.sqrt(factors or (1.0, 1.0))
    scale = np.array([position] * 3 + [rotation] * 3)
    return np.asarray(own * np.outer(scale, scale))


def scene_covariance(row: SceneRow) -> Array:
    """(6, 6) covariance of a scene's poses, REP-103 order, from its held-out errors.

    Without held-out frames nothing is known but the scene's size: half the extent as standard
    deviation, and half a turn.
    """
    if row.held_out is None:
        half = max(row.extent / 2, 1e-3)
        return np.diag([half**2] * 3 + [(np.pi / 2) ** 2] * 3)
    return row.held_out.covariance


def _in_map(
    row: SceneRow, position: Array, quaternion: Array, covariance: Array
) -> tuple[Array, Array, Array]:
    """Carry a pose into the scene's map frame by its stored similarity, if it has one."""
    if row.map_from_scene is None:
        return position, quaternion, covariance
    similarity = Similarity.from_array(row.map_from_scene)
    return (
        *similarity.apply(position, quaternion),
        similarity.apply_to_covariance(covariance),
    )
