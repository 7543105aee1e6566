# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Reads a model directory, and reads it anew beside what is in service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mspn_ros.inference.cell_rays import Shot
from mspn_ros.inference.engine_choice import trial_images
from mspn_ros.inference.engine_names import PLAIN
from mspn_ros.inference.engines import beside
from mspn_ros.inference.loaded_backbone import LoadedBackbone
from mspn_ros.inference.one_trip import Capture, OneTrip, capture_cuda_graph
from mspn_ros.inference.read_out import Answer, Prior, ReadOut
from mspn_ros.inference.scene_logits import Allowed
from mspn_ros.inference.served_rows import EmptyBankError, ServedRows
from mspn_ros.records import ImageHW3, Intrinsics, ModelError, listing
from mspn_ros.store.backbone_file import BACKBONE_FILE, load_backbone
from mspn_ros.store.bank_file import BANK_FILE
from mspn_ros.store.bank_index import BankIndex
from mspn_ros.store.files import file_stamp

# Seconds that a file must stay as it is before rows in service are given up for damage in it.
_SETTLED_S = 0.5
# Of reading a bank that others write to meanwhile.
_TRIES = 3
# How far a captured graph's positions may be off those of its steps, as a share of the extent.
_MOST_OFF = 1e-3


class UnsettledError(ModelError):
    """A file is being written, or seems to be."""


@dataclass(frozen=True)
class LoadedModel:
    """Backbone and rows that belong together.

    They are exchanged by one assignment, so that no image meets the rows of one model and the
    backbone of another. Without ``read_out`` the bank has no scene.
    """

    backbone: LoadedBackbone
    read_out: ReadOut | None
    # Where it is captured: the whole way on the device.
    trip: OneTrip | None = None
    trip_reason: str = ""

    @property
    def index(self) -> BankIndex | None:
        """Of the rows in service."""
        return self.read_out.rows.columns if self.read_out is not None else None

    @property
    def refused(self) -> dict[str, str]:
        """Rows that are not in service, by name or number, and why."""
        return self.read_out.rows.refused if self.read_out is not None else {}

    def answers(
        self,
        images: Sequence[ImageHW3],
        cameras: Sequence[Intrinsics | None] | None,
        forced: int | None,
        prior: Prior,
        allowed: Allowed | None = None,
    ) -> list[Answer]:
        """An answer for each image; see ``ReadOut``, of which there has to be one."""
        assert self.read_out is not None
        with beside(self.backbone.engine):
            if cameras is not None:
                images, cameras = self.read_out.fields_of_view.corrected(images, cameras, forced)
            prepared, shots = self.backbone.prepare(images, cameras)
            if self.trip is not None:
                answers = self.trip(self.read_out, prepared, shots, forced, prior, allowed)
                if answers is not None:
                    return answers
            features = self.backbone.engine(torch.stack(prepared))
            return self.read_out(features, shots, forced, prior, allowed)

    def warm_up(self) -> None:
        """The first pass pays for lazy initialisation; a robot's first frame should not."""
        if self.read_out is not None:
            image = np.zeros((480, 640, 3), np.uint8)
            for images in ([image, image], [image]):
                self.answers(images, None, None, {})


class ModelReader:
    """Of one model directory and device; remembers which file the backbone was read from.

    For one thread at a time.
    """

    def __init__(
        self, model_dir: Path, device: torch.device, engine: str, whole_bytes: int
    ) -> None:
        self._model_dir, self._device, self._whole_bytes = model_dir, device, whole_bytes
        self._engine = engine
        # Whether a model of it serves already, beside which all others are made.
        self._serves = False
        self._backbone_stamp: tuple[int, ...] | None = None
        self._doubted: tuple[tuple[int, ...] | None, float] = None, 0.0

    def read(self, before: LoadedModel | None, patient: bool = False) -> LoadedModel:
        """The model as it is on disk; parts of ``before`` that are the same are taken over.

        A new backbone is warmed up with its rows. ``patient``: see ``Localizer.reload``.

        Raises:
            EmptyBankError: there is no row, and the backbone is not that of ``before``.
            UnsettledError: a file is being written; try again.
            ModelError: backbone or bank is missing, damaged, or no row can be served.
            ConfigError: see ``make_engine``.
        """
        # Taken before the file is read: a change meanwhile shows at the next look.
        stamp = file_stamp(self._model_dir / BACKBONE_FILE)
        if before is not None and stamp == self._backbone_stamp:
            backbone = before.backbone
        else:
            backbone = self._backbone(before)
        same = before is not None and backbone is before.backbone
        try:
            rows = self._settled_rows(backbone, before, patient)
        except EmptyBankError:
            # With a new backbone, the bank that belongs to it is still to come.
            if not same:
                raise
            model = LoadedModel(backbone, None)
        else:
            made_for = backbone.architecture, backbone.grids, self._device
            earlier = before.read_out if before is not None and same else None
            read_out = ReadOut(rows, *made_for, before=earlier)
            trip, reason = _trip(backbone, read_out, before.trip if before and same else None)
            model = LoadedModel(backbone, read_out, trip, reason)
        if not same:
            model.warm_up()
        self._backbone_stamp, self._doubted = stamp, (None, 0.0)
        self._serves = True
        return model

    @property
    def placement(self) -> tuple[torch.device, str]:
        """Device and engine that models are made for."""
        return self._device, self._engine

    def renewed(self, device: torch.device, engine: str) -> LoadedModel:
        """The model as it is on disk, made anew for another device or engine.

        ``read`` keeps to these from then on.

        Raises:
            Exception: as ``read``, or whatever the device says; nothing has changed then.
        """
        before, (self._device, self._engine) = self.placement, (device, engine)
        try:
            return self.read(None)
        except BaseException:
            self._device, self._engine = before
            raise

    def _backbone(self, before: LoadedModel | None) -> LoadedBackbone:
        """That of the file, or of ``before`` if it is the same: an engine is dear to make."""
        read = load_backbone(self._model_dir)
        if before is not None and read[1] == before.backbone.identity:
            return before.backbone
        return LoadedBackbone(*read, self._device, self._engine, apart=self._serves)

    def _settled_rows(
        self, backbone: LoadedBackbone, before: LoadedModel | None, patient: bool
    ) -> ServedRows:
        """The rows of a file that nobody was writing meanwhile past SQLite's locks (as cp does)."""
        path = self._model_dir / BANK_FILE
        for _ in range(_TRIES):
            stamp = file_stamp(path)
            rows = ServedRows(self._model_dir, backbone.fit, self._whole_bytes)
            if file_stamp(path) == stamp:
                break
            rows.close()
        else:
            raise UnsettledError(f"{path}: changed while it was being read")
        if patient and before is not None and (lost := _lost(before, rows)):
            if self._doubted[0] != stamp:
                self._doubted = stamp, time.monotonic()
            if time.monotonic() - self._doubted[1] < _SETTLED_S:
                rows.close()
                raise UnsettledError(f"{path}: {listing(lost)} cannot be read just now")
        return rows


def _trip(
    backbone: LoadedBackbone, read_out: ReadOut, before: OneTrip | None
) -> tuple[OneTrip | None, str]:
    """The captured way, and what to say of it.

    None on a CPU, where calls cost little beside work, nor for the plain path and for rows that
    are read on demand.
    """
    if backbone.device.type != "cuda" or backbone.engine.name == PLAIN:
        return None, ""
    if not read_out.rows.whole:
        return None, "no CUDA graph: rows are read on demand"
    if before is not None and before.take(read_out):
        return before, "one CUDA graph"
    return captured_trip(backbone, read_out, capture_cuda_graph)


def captured_trip(
    backbone: LoadedBackbone, read_out: ReadOut, capture: Capture
) -> tuple[OneTrip | None, str]:
    """The captured way, unless it cannot be captured or answers something else; and what to say."""
    size = backbone.architecture.crop
    images = list(trial_images(size).to(backbone.device))
    shots = [Shot(size, size)] * len(images)
    # Whatever a driver or a library says to being captured.
    try:
        trip = OneTrip(backbone.engine, read_out, size, capture)
        found = trip(read_out, images, shots, None, {})
    except RuntimeError as error:
        return None, f"no CUDA graph: {str(error).partition(chr(10))[0]}"
    assert found is not None
    plain = read_out(backbone.engine(torch.stack(images)), shots, None)
    for ours, theirs in zip(found, plain, strict=True):
        assert theirs.row is not None
        off = np.abs(ours.position - theirs.position).max() / theirs.row.extent
        if ours.row is not theirs.row or not off <= _MOST_OFF:
            return None, "no CUDA graph: its answers are not those of the same steps one by one"
    return trip, "one CUDA graph"


def _lost(before: LoadedModel, rows: ServedRows) -> list[str]:
    """What was in service and is damaged now: rows, or the index that tells what is missing."""
    served = {f"row {i}" for i in before.index.id} if before.index is not None else set()
    return sorted((served | {"index"}) & (rows.refused.keys() - before.refused.keys()))
