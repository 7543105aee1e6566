# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``backbone.safetensors``: the shared weights, their architecture, and the id of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mspn_ros.network.backbone import (
    Architecture,
    Backbone,
    backbone_identity,
    weights_identity,
)
from mspn_ros.records import ModelError
from mspn_ros.store.files import read_tensors, write_tensors

BACKBONE_FILE = "backbone.safetensors"
BACKBONE_FORMAT = 1


def save_backbone(model_dir: Path, backbone: Backbone, provenance: dict[str, Any]) -> str:
    """Write the backbone into ``model_dir``; returns its ``backbone_id``.

    ``provenance`` is what a reader of the file should know: weights it started from, data,
    configuration, commit.

    Raises:
        ModelError: the file cannot be written.
    """
    identity = backbone_identity(backbone)
    fields = {
        "format": BACKBONE_FORMAT,
        "architecture": backbone.architecture.to_json(),
        "backbone_id": identity,
        "provenance": provenance,
    }
    write_tensors(model_dir / BACKBONE_FILE, backbone.state_dict(), fields)
    return identity


def load_backbone(model_dir: Path) -> tuple[Backbone, str, dict[str, Any]]:
    """The backbone in evaluation mode, its recomputed ``backbone_id``, its provenance.

    Raises:
        ModelError: missing or broken file, tensors that do not fit the architecture, or an id
            that differs from the stored one (a changed byte).
    """
    path = model_dir / BACKBONE_FILE
    if not model_dir.is_dir():
        raise ModelError(
            f"{model_dir}: no such model directory; make one with 'mspn train' or check the path"
        )
    tensors, fields = read_tensors(path)
    if fields.get("format") != BACKBONE_FORMAT:
        raise ModelError(
            f"{path}: format {fields.get('format')!r:.20}, this version reads {BACKBONE_FORMAT}; "
            "use the version that wrote it, or copy it anew"
        )
    try:
        architecture = Architecture.from_json(fields.get("architecture", {}))
    except ModelError as error:
        raise ModelError(f"{path}: {error}; copy it anew") from error
    # Half-precision storage saves disk; the id is that of the float32 weights in use.
    tensors = {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}
    identity = weights_identity(architecture, tensors)
    # Before anything is built from it.
    if identity != fields.get("backbone_id"):
        raise ModelError(
            f"{path}: computed backbone_id {identity[:12]} differs from the stored "
            f"{str(fields.get('backbone_id'))[:12]}; the file is damaged, copy it anew"
        )
    backbone = Backbone(architecture).eval()
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: tensors do not fit the architecture ({reason})") from error
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    if not all(torch.isfinite(t).all() for t in backbone.state_dict().values()):
        raise ModelError(f"{path}: has NaN or infinite weights; train anew")
    return backbone, identity, dict(fields.get("provenance", {}))
