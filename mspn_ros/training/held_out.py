# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the network does on frames it was not trained on, and its features' statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mspn_ros import metrics
from mspn_ros.inference.familiarity import sighting_sign
from mspn_ros.network.backbone import Backbone, Features
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.landmark_head import LandmarkHead
from mspn_ros.network.mspn import MSPN, Prediction
from mspn_ros.records import Array, HeldOutErrors
from mspn_ros.training.samples import Samples

_BATCH = 64
# Median absolute deviation of a normal distribution in standard deviations.
_MAD = 0.6745


@dataclass(frozen=True)
class HeldOut:
    """One scene's validation: errors with the scene known, and how the scene was named.

    ``position_B`` and ``rotation_deg_B`` are the errors of each frame, ``position_error_B3`` and
    ``turn_B3`` the same as vectors in the scene's axes (unit, rad). ``covariance_B66`` is the
    head's own, ``sighting_B`` the sign of inference/familiarity.py, None for heads without;
    ``feature_BF`` are the pooled features, on the CPU.
    """

    scene: str
    errors: HeldOutErrors
    scene_accuracy: float
    confidence_B: Array
    position_B: Array
    rotation_deg_B: Array
    position_error_B3: Array
    turn_B3: Array
    covariance_B66: Array | None
    sighting_B: Array | None
    feature_BF: Tensor

    @property
    def mean_log_error(self) -> float:
        """Of both errors: what tells two heads apart by fewer frames than medians need."""
        floor = 1e-9
        logs = np.log(self.position_B + floor), np.log(self.rotation_deg_B + floor)
        return float(np.mean(logs))

    def to_json(self) -> dict[str, Any]:
        """The figures for history and progress display."""
        return {
            "scene": self.scene,
            **asdict(self.errors),
            "scene_accuracy": self.scene_accuracy,
        }


@torch.no_grad()
def sample_features(backbone: Backbone, samples: Samples, device: torch.device) -> Tensor:
    """Float32 pooled features of the central crops, (S, F) on the device; evaluation mode."""
    backbone.eval()
    features = []
    for index_B in torch.split(torch.arange(len(samples)), _BATCH):
        features.append(backbone(_crops(backbone, samples, index_B, device)).pooled_BF.float())
    return torch.cat(features)


@torch.no_grad()
def central_features(backbone: Backbone, samples: Samples, device: torch.device) -> Features:
    """As ``sample_features``, all that the backbone says; for a split that is small."""
    backbone.eval()
    found = [
        backbone(_crops(backbone, samples, index_B, device)).float()
        for index_B in torch.split(torch.arange(len(samples)), _BATCH)
    ]
    return Features.joined(found)


def _crops(backbone: Backbone, samples: Samples, index_B: Tensor, device: torch.device) -> Tensor:
    crops = samples.center_crops(index_B, backbone.architecture.crop)
    return crops.to(device).permute(0, 3, 1, 2)


class _Answers(NamedTuple):
    """What a network says of samples, on the CPU; the last ones as heads give them, or None."""

    logits_SN: Tensor
    pose_SP: Tensor
    feature_SF: Tensor
    start_SP: Tensor | None
    covariance_S66: Tensor | None
    sighting_S: Tensor | None


@torch.no_grad()
def _answers(
    network: MSPN, samples: Samples, device: torch.device, features: Features | None = None
) -> _Answers:
    network.eval()
    said: list[Prediction] = []
    signs: list[Tensor | None] = []
    pooled: list[Tensor] = []
    size = network.backbone.architecture.crop
    for index_B in torch.split(torch.arange(len(samples)), _BATCH):
        rays = None
        if network.grid:
            rays = samples.central_rays(index_B, size, network.grid).to(device)
        scene_B = samples.scene_S[index_B].to(device)
        if features is None:
            own = network.backbone(_crops(network.backbone, samples, index_B, device))
        else:
            own = features.of(index_B.to(device))
        found = network.read_out(own, scene_B, rays)
        pooled.append(own.pooled_BF.float())
        signs.append(sighting_sign(found.reading))
        # Votes and sightings of a whole split would fill the memory.
        kept = found.reading._replace(votes=None, sightings=None, seen=None)
        said.append(found._replace(reading=kept))
    starts = _joined([part.reading.start_BP for part in said])
    covariances = _joined([part.reading.covariance_B66 for part in said])
    return _Answers(
        torch.cat([part.logits_BN for part in said]).cpu(),
        torch.cat([part.pose_BP for part in said]).cpu(),
        torch.cat(pooled).cpu(),
        *(
            None if found is None else found.cpu()
            for found in (starts, covariances, _joined(signs))
        ),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def measure_votes(
    network: MSPN,
    coding: PoseCoding,
    samples: Samples,
    device: torch.device,
    features: Features | None = None,
) -> None:
    """Tell a landmark head how far its votes are off on samples that it did not learn from.

    ``features`` spares the backbone: ``central_features`` of the samples.
    """
    if not isinstance(network.heads, LandmarkHead):
        return
    start_SP = _answers(network, samples, device, features).start_SP
    assert start_SP is not None
    position, quaternion = coding.decode(start_SP, samples.scene_S)
    for scene in sorted(set(samples.scene_S.tolist())):
        index = samples.of_scene(scene)
        off = metrics.position_error(position[index].numpy(), samples.position_S3[index].numpy())
        turned = metrics.rotation_error_deg(
            quaternion[index].numpy(), samples.quaternion_S4[index].numpy()
        )
        scale = float(coding.position_scale[scene])
        median = float(np.median(off)) / scale, float(np.radians(np.median(turned)))
        network.heads.measure_votes(scene, *median)


def judge(
    network: MSPN,
    coding: PoseCoding,
    samples: Samples,
    names: Sequence[str],
    device: torch.device,
    features: Features | None = None,
) -> list[HeldOut]:
    """Run ``network`` over ``samples`` in float32, the true scene picking the head.

    One entry per scene that has samples. ``features`` as for ``measure_votes``.
    """
    answers = _answers(network, samples, device, features)
    position, quaternion = coding.decode(answers.pose_SP, samples.scene_S)
    probability = answers.logits_SN.softmax(1)
    covariance = None
    if answers.covariance_S66 is not None:
        covariance = coding.decode_covariance(answers.covariance_S66, samples.scene_S).numpy()
    sighting = None if answers.sighting_S is None else answers.sighting_S.numpy()
    result = []
    for scene, name in enumerate(names):
        index = samples.of_scene(scene)
        if not len(index):
            continue
        right = probability[index].argmax(1) == scene
        confidence = probability[index, scene].double().numpy()
        truth = samples.position_S3[index].numpy(), samples.quaternion_S4[index].numpy()
        off_B3 = position[index].numpy() - truth[0]
        turn_B3 = metrics.turn_vector(quaternion[index].numpy(), truth[1])
        off = metrics.position_error(position[index].numpy(), truth[0])
        turned = metrics.rotation_error_deg(quaternion[index].numpy(), truth[1])
        result.append(
            HeldOut(
                scene=name,
                errors=held_out_errors(off, turned, off_B3, turn_B3),
                scene_accuracy=float(right.double().mean()),
                confidence_B=confidence,
                position_B=off,
                rotation_deg_B=turned,
                position_error_B3=off_B3,
                turn_B3=turn_B3,
                covariance_B66=None if covariance is None else covariance[index],
                sighting_B=None if sighting is None else sighting[index],
                feature_BF=answers.feature_SF[index],
            )
        )
    return result


def held_out_errors(
    position_N: Array, rotation_deg_N: Array, position_error_N3: Array, turn_N3: Array
) -> HeldOutErrors:
    """Medians, and robust per-axis variances, which training/calibration.py makes better.

    (median |error| / 0.6745)^2 estimates the variance of the bulk of answers: outliers of pose
    regression are gross and would swamp a mean of squares.
    """

    def variance(error_N3: Array) -> tuple[float, float, float]:
        x, y, z = np.maximum((np.median(np.abs(error_N3), axis=0) / _MAD) ** 2, 1e-12)
        return float(x), float(y), float(z)

    return HeldOutErrors(
        frames=len(position_N),
        median_position=metrics.median_error(position_N),
        median_rotation_deg=metrics.median_error(rotation_deg_N),
        position_variance=variance(position_error_N3),
        rotation_variance=variance(turn_N3),
    )
