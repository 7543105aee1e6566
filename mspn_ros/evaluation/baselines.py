# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a localizer must beat: mean pose, nearest frame, retrieval, ridge regression.

All are told the scene. Retrieval and ridge read frozen ImageNet features of the central crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from mspn_ros import metrics
from mspn_ros.datasets.base import SceneData
from mspn_ros.evaluation.answers import Answer
from mspn_ros.geometry import mean_quaternion
from mspn_ros.network.backbone import Architecture, Backbone
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.pretrained import load_pretrained
from mspn_ros.records import Array, DatasetError, PoseEstimate
from mspn_ros.training.config import ValidationConfig
from mspn_ros.training.held_out import sample_features
from mspn_ros.training.samples import FrameStore, Samples, cut_validation

# Method -> what tables call it.
TITLES = {
    "mean": "mean training pose",
    "nearest": "perfect retrieval",
    "retrieval": "retrieval",
    "ridge": "ridge regression",
}

_RIDGE_STRENGTHS = 10.0 ** np.arange(-3, 5)

Predict = tuple[Array, Array]  # positions (N, 3), quaternions (N, 4) xyzw
Index = npt.NDArray[np.int64]


def baseline_answers(
    scenes: Sequence[SceneData],
    split: str,
    architecture: Architecture,
    weights: str,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[Answer]]:
    """Answers of each method in TITLES on ``split``.

    ``mean``: the scene's mean training pose. ``nearest``: the training frame nearest to the true
    pose (distance / extent + angle / 90 degrees), what perfect retrieval could reach.
    ``retrieval``: the training frame with the most similar feature (cosine). ``ridge``: linear
    regression from standardised features, strength chosen on blocks cut from train.

    Raises:
        MspnError: unusable scenes or weights.
    """
    for scene in scenes:
        if not scene.split("train"):
            raise DatasetError(
                f"scene {scene.name}: no training frames in {scene.root}, which baselines answer "
                "from; add them, or evaluate without --baselines"
            )
    backbone = Backbone(architecture).eval()
    load_pretrained(backbone, weights)
    result: dict[str, list[Answer]] = {method: [] for method in TITLES}
    for scene in scenes:
        train, test = (
            FrameStore([scene], name, architecture.view, "auto", progress).take(
                [scene.split(name)], to_learn=name == "train"
            )[0]
            for name in ("train", split)
        )
        features = (_features(backbone, train), _features(backbone, test))
        known = train.position_S3.numpy(), train.quaternion_S4.numpy()
        asked = test.position_S3.numpy(), test.quaternion_S4.numpy()
        predictions = {
            "mean": mean_pose(*known, len(test)),
            "nearest": _pick(train, nearest_frames(*known, *asked)),
            "retrieval": _pick(train, _most_similar(*features)),
            "ridge": _ridge(scene, train, *features),
        }
        for method, prediction in predictions.items():
            result[method] += _as_answers(test, prediction)
    return result


def _features(backbone: Backbone, samples: Samples) -> Array:
    feature_NF: Array = sample_features(backbone, samples, torch.device("cpu")).double().numpy()
    return feature_NF


def mean_pose(position_N3: Array, quaternion_N4: Array, count: int) -> Predict:
    """The mean of training poses, ``count`` times: (count, 3), (count, 4) xyzw."""
    position, quaternion = position_N3.mean(0), mean_quaternion(quaternion_N4)
    return np.tile(position, (count, 1)), np.tile(quaternion, (count, 1))


def _pick(train: Samples, index_N: Index) -> Predict:
    return train.position_S3.numpy()[index_N], train.quaternion_S4.numpy()[index_N]


def nearest_frames(
    position_N3: Array, quaternion_N4: Array, asked_position_M3: Array, asked_quaternion_M4: Array
) -> Index:
    """For each of M poses, which of N training poses is nearest: distance / extent + angle / 90."""
    extent = metrics.position_extent(position_N3) or 1.0
    nearest = np.zeros(len(asked_position_M3), np.int64)
    for i, (position, quaternion) in enumerate(
        zip(asked_position_M3, asked_quaternion_M4, strict=True)
    ):
        distance = metrics.position_error(position_N3, position) / extent
        angle = metrics.rotation_error_deg(quaternion_N4, quaternion[None])
        nearest[i] = np.argmin(distance + angle / 90)
    return nearest


def _most_similar(train_NF: Array, test_MF: Array) -> Index:
    unit_train = train_NF / np.linalg.norm(train_NF, axis=1, keepdims=True)
    return np.asarray((test_MF @ unit_train.T).argmax(1))


def _ridge(scene: SceneData, train: Samples, train_NF: Array, test_MF: Array) -> Predict:
    coding = PoseCoding.fit([train.position_S3.numpy()], [train.quaternion_S4.numpy()], True, True)
    zeros = torch.zeros(len(train), dtype=torch.long)
    target_NP = coding.encode(train.position_S3, train.quaternion_S4, zeros, 6).double().numpy()
    mean, std = train_NF.mean(0), train_NF.std(0) + 1e-9
    x_train, x_test = (train_NF - mean) / std, (test_MF - mean) / std
    kept, held = cut_validation(scene, ValidationConfig(fraction=0.2, blocks=3))
    fit_names, val_names = {f.name for f in kept}, {f.name for f in held}
    fit = np.array([f.name in fit_names for f in train.frames])
    val = np.array([f.name in val_names for f in train.frames])

    def error(strength: float) -> float:
        if not val.any():
            return float(abs(np.log10(strength)))  # too short to choose on: 1
        predicted = _solve_ridge(x_train[fit], target_NP[fit], x_train[val], strength)
        return float(np.median(np.abs(predicted - target_NP[val]).sum(1)))

    best = min(_RIDGE_STRENGTHS, key=error)
    predicted = torch.tensor(_solve_ridge(x_train, target_NP, x_test, float(best)))
    position, quaternion = coding.decode(predicted, torch.zeros(len(predicted), dtype=torch.long))
    return position.numpy(), quaternion.numpy()


def _solve_ridge(x: Array, y: Array, x_new: Array, strength: float) -> Array:
    """Kernel form: one N x N system, whatever F."""
    offset = y.mean(0)
    kernel = x @ x.T + strength * x.shape[1] * np.eye(len(x))
    return np.asarray(x_new @ (x.T @ np.linalg.solve(kernel, y - offset)) + offset)


def _as_answers(test: Samples, prediction: Predict) -> list[Answer]:
    answers = []
    for i, frame in enumerate(test.frames):
        estimate = PoseEstimate(
            scene_id=0,
            scene=frame.scene,
            confidence=1.0,
            frame_id=frame.scene,
            position=prediction[0][i],
            quaternion=prediction[1][i],
        )
        stamp = frame.stamp_s if frame.stamp_s is not None else float(i)
        answers.append(Answer(frame.name, frame.scene, stamp, frame.pose, estimate))
    return answers
