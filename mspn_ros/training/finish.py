# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a trained network to a model directory: backbone file and one bank row per scene."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from mspn_ros import __version__
from mspn_ros.inference.familiarity import LEAST_FRAMES
from mspn_ros.inference.field_of_view import usual_camera
from mspn_ros.network.losses import LearnedPoseLoss
from mspn_ros.paths import make_folder
from mspn_ros.records import ModelError, SceneRow
from mspn_ros.store.backbone_file import save_backbone
from mspn_ros.store.files import write_whole
from mspn_ros.store.scene_bank import SceneBank
from mspn_ros.training.calibration import calibrated
from mspn_ros.training.feature_statistics import feature_statistics
from mspn_ros.training.held_out import HeldOut, sample_features
from mspn_ros.training.loop import Trainer


def source_version() -> str:
    """Version and, in a checkout, the commit (with ``-dirty`` if it has changes)."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__} ({commit})"


def write_model(trainer: Trainer) -> Path:
    """Write ``<output>/model`` and ``<output>/train.json``; returns the model directory.

    The directory appears whole: it is filled beside its place and renamed.

    Raises:
        ModelError: the disk is full or not writable.
    """
    output = make_folder(Path(trainer.config.output))
    target, part = output / "model", output / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    # Models travel: paths of the machine that trained them are nobody's business.
    local = ("scenes", "output", "weights", "device", "cache")
    config = {k: v for k, v in trainer.config.to_json().items() if k not in local}
    provenance = {
        "version": source_version(),
        "weights": trainer.learner.weights,
        "device": str(trainer.device),
        "config": config,
        "scenes": [scene.name for scene in trainer.scenes],
    }
    network = trainer.network.cpu().eval()
    network.heads.round_rows()
    identity = save_backbone(part, network.backbone, provenance)
    trainer.network.to(trainer.device)
    held_out = {entry.scene: entry for entry in trainer.validate()}
    features = sample_features(network.backbone, trainer.train_samples, trainer.device).cpu()
    with SceneBank(part, read_only=False) as bank:
        for index, scene in enumerate(trainer.scenes):
            members = trainer.train_samples.of_scene(index)
            row = scene_row(trainer, index, identity, features[members], held_out.get(scene.name))
            bank.add(row)
    _replace_folder(part, target)
    report = {**provenance, "history": trainer.history, "bad_frames": len(trainer.bad)}
    write_whole(output / "train.json", json.dumps(report, indent=1).encode())
    return target


def _replace_folder(new: Path, place: Path) -> None:
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if place.exists():
            place.rename(old)
        new.rename(place)
    except OSError as error:
        raise ModelError(f"{place}: cannot be replaced ({error.strerror}); see {new}") from error
    shutil.rmtree(old, ignore_errors=True)


def acceptance_threshold(held_out: HeldOut | None) -> float:
    """Confidence below which a scene's answer is called unknown.

    A half where the row knows what is usual: confidences are made by the row's own held-out
    frames. With too few of them confidence is the probability alone; then the first percentile
    of the held-out ones, at most 0.5, so that a scene that is sure of itself does not become
    picky; 0.5 without any.
    """
    if held_out is None or len(held_out.confidence_B) >= LEAST_FRAMES:
        return 0.5
    return min(0.5, float(np.percentile(held_out.confidence_B, 1)))


def scene_row(
    trainer: Trainer,
    index: int,
    backbone_id: str,
    feature_SF: torch.Tensor,
    held_out: HeldOut | None,
) -> SceneRow:
    """What the bank stores of a trainer's scene; ``feature_SF`` are of its training frames."""
    scene, samples, loss = trainer.scenes[index], trainer.train_samples, trainer.learner.frame_loss
    head = int(trainer.network.head_of(torch.tensor([index])))
    members = samples.of_scene(index)
    low, high = np.percentile(samples.position_S3[members].numpy(), (5, 95), axis=0)
    classifier = trainer.network.classifier.rows.row(index)
    threshold = acceptance_threshold(held_out)
    if not trainer.config.loss.scene_weight and len(trainer.scenes) > 1:
        # Nobody taught it to name scenes: it must be told, or say "unknown", never guess.
        classifier = {name: torch.zeros_like(tensor) for name, tensor in classifier.items()}
        threshold = 1.0
    view = trainer.network.backbone.architecture.view
    s_t, s_q = 0.0, 0.0
    if isinstance(loss, LearnedPoseLoss):
        s_t, s_q = float(loss.s_t[head].detach()), float(loss.s_q[head].detach())
    row = SceneRow(
        name=scene.name,
        # The same for the same training, however often it is finished.
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{backbone_id}/{scene.name}")),
        frame_id=scene.name,
        backbone_id=backbone_id,
        position_offset=trainer.coding.position_offset[index].numpy(),
        position_scale=float(trainer.coding.position_scale[index]),
        reference_rotation=trainer.coding.reference_rotation[index].numpy(),
        head=trainer.network.heads.kind,
        head_tensors={k: v.numpy() for k, v in trainer.network.heads.row(head).items()},
        classifier_weight=classifier["weight"][0].numpy(),
        classifier_bias=float(classifier["bias"]),
        s_t=s_t,
        s_q=s_q,
        **feature_statistics(feature_SF)._asdict(),
        acceptance_threshold=threshold,
        held_out=None,
        frames=len(members),
        box_low=low,
        box_high=high,
        metres_per_unit=scene.metres_per_unit,
        intrinsics=usual_camera(view, [samples.frames[i].intrinsics for i in members.tolist()]),
        provenance={"format": scene.format, "seed": str(trainer.config.seed)},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    return row if held_out is None else calibrated(row, held_out)
