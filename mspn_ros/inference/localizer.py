# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``Localizer``: images in, ``PoseEstimate``s out; the node, replay and evaluation share it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mspn_ros.inference.catalogue import SceneInfo
from mspn_ros.inference.cell_rays import Shot
from mspn_ros.inference.engine_names import AUTO, check_engine_name
from mspn_ros.inference.engine_recovery import EngineRecovery
from mspn_ros.inference.engines import choose_device
from mspn_ros.inference.estimates import estimate_of, unless_close
from mspn_ros.inference.evidence import Evidence, gather_evidence
from mspn_ros.inference.field_of_view import FieldOfView, unchecked
from mspn_ros.inference.loaded_backbone import LoadedBackbone
from mspn_ros.inference.model_reader import LoadedModel, ModelReader
from mspn_ros.inference.read_out import Answer, Prior, ReadOut
from mspn_ros.inference.reloaded import Reloaded, compare
from mspn_ros.inference.scene_logits import Allowed, SceneLogits
from mspn_ros.inference.served_rows import WHOLE_BYTES
from mspn_ros.network.backbone import Architecture
from mspn_ros.records import (
    UNKNOWN_SCENE,
    UNKNOWN_SCENE_ID,
    ConfigError,
    ImageHW3,
    Intrinsics,
    MspnError,
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

    ``reload`` and ``recover`` may run on another thread than ``localize``.
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
        chosen, self._device_reason = choose_device(device)
        self.bank_version = 1
        self._reading = threading.Lock()
        self._reader = ModelReader(model_dir, chosen, engine, whole_bytes)
        self._model = self._reader.read(None)
        self._recovery = EngineRecovery(self._reader)

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

    def recover(self) -> str:
        """Put another engine in the place of one that fails; bring it back once it works.

        The result says what was done, "" for nothing. Takes no time while all is well; to be
        called now and then, beside ``localize``.
        """
        with self._reading:
            recovered = self._recovery.step(self._model, time.monotonic())
            if recovered is None:
                return ""
            if recovered.model is not None:
                self._model = recovered.model
            return recovered.text

    @property
    def engine_trouble(self) -> str:
        """Why another engine serves than was wanted, or none; empty where all is well."""
        return self._recovery.trouble

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._model.backbone.device

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
        why_here = self._recovery.trouble or self._device_reason
        return f"{self.device}: {why_here}; {self.engine}: {reason}"

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
        """Whether answers may depend on the images' cameras.

        Heads read rays, or the training camera of a row is known, to which images can be cut.
        """
        model = self._model
        if model.read_out is not None and model.read_out.fields_of_view.any_known:
            return True
        heads = set(model.index.head) if model.index is not None else set()
        return any(model.backbone.grids[model.backbone.fit.grid(kind)] for kind in heads)

    def field_of_view(
        self, camera: Intrinsics | None, height: int, width: int, scene: str | None = None
    ) -> FieldOfView:
        """What ``localize`` makes of the camera of images that are (height, width) as decoded.

        ``scene`` is that which is forced, or none.
        """
        read_out = self._in_service
        if read_out is None or (scene and scene not in read_out.index):
            return unchecked("there is no such scene")
        forced = read_out.index[scene] if scene else None
        return read_out.fields_of_view.of(camera, height, width, forced)

    def least_size(
        self,
        height: int,
        width: int,
        camera: Intrinsics | None = None,
        scene: str | None = None,
    ) -> tuple[int, int]:
        """The least (height, width) to which an image of ``height`` x ``width`` may be scaled.

        While it is decoded: for ``images.decode_compressed``. Larger where only a part of it is
        seen, see ``field_of_view``.
        """
        margin = _DECODED_MARGIN * self.field_of_view(camera, height, width, scene).enlarged
        resized = self.architecture.view.resized_shape(height, width)
        return math.ceil(margin * resized[0]), math.ceil(margin * resized[1])

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
        allowed: Collection[str] | None = None,
    ) -> list[PoseEstimate]:
        """(H, W, 3) uint8 RGB images of any size -> one estimate each, in order.

        ``scene`` forces that scene's head (no threshold then); otherwise the most likely scene
        answers if its confidence (inference/familiarity.py) reaches ``min_confidence`` (None: the
        scene's own threshold).
        ``cameras`` are the images' intrinsics. An image of a wider camera than that of the training
        frames is cut to what that would have shown (see ``field_of_view``), and heads that read
        rays have them from here; where one is None, the camera of the scene's training frames
        stands in (see ``CellRays``).

        ``prior`` adds to scenes' logits, see ``SceneFilter.prior``; names that are not in service
        are passed over. It decides which scene answers; the confidence is then how sure the image
        alone makes of the scene that it is most like. Where the probabilities of the two most
        likely scenes differ by less than ``min_margin``, neither answers.

        Of ``allowed`` scenes only (None: all) one may answer: probabilities are as if there were no
        others, so that one of two look-alike places answers where the other is not allowed.
        Confidence still goes by how familiar the image is to the scene, or, for rows that do not
        know what is usual, by its probability among all. Names that are not in service are passed
        over; where none is left, the place is unknown.

        Raises:
            ConfigError: no such scene, it is not allowed, or a camera of another shape than its
                image.
        """
        if not images:
            return []
        if scene and allowed is not None and scene not in allowed:
            raise ConfigError(
                f"scene {scene!r} is not allowed; allowed are {listing(sorted(allowed))}"
            )
        model = self._model  # one model for the whole call, even if reloaded meanwhile
        forced = _index(model.read_out, scene)
        if model.read_out is None:
            reason = "the scene bank holds no scene; add one"
            return [PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason=reason)] * len(images)
        only = None
        if allowed is not None and forced is None:
            only = model.read_out.only(frozenset(allowed))
            if only is None:
                reason = f"none of the allowed scenes is in the bank: {listing(sorted(allowed))}"
                unknown = PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason=reason)
                return [unknown] * len(images)
        index = model.read_out.index
        places = {index[name]: more for name, more in (prior or {}).items() if name in index}
        answers = self._answers(model, images, cameras, forced, places, only)
        estimates = [
            estimate_of(model.read_out, answer, forced, min_confidence) for answer in answers
        ]
        return [unless_close(e, min_margin) for e in estimates] if forced is None else estimates

    def _answers(
        self,
        model: LoadedModel,
        images: Sequence[ImageHW3],
        cameras: Sequence[Intrinsics | None] | None,
        forced: int | None,
        prior: Prior,
        allowed: Allowed | None,
    ) -> list[Answer]:
        try:
            answers = model.answers(images, cameras, forced, prior, allowed)
        except MspnError:
            raise  # of what was asked, not of the engine
        except Exception as error:
            self._recovery.failed(error)
            raise
        self._recovery.answered()
        return answers

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
        shown, taken_by = model.read_out.fields_of_view.corrected([image], [camera], forced)
        features, shots = model.backbone.features(shown, taken_by)
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
        # Told in pixels of the image as it came.
        whole = Shot(image.shape[0], image.shape[1], camera)
        return gather_evidence(group.coding, reading, place, row, whole)


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
