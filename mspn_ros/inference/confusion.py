# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How often scenes would be taken for each other, from what the bank stores of their features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from mspn_ros.records import Array, ModelError, SceneRow
from mspn_ros.store.scene_bank import SceneBank

MOST_RIVALS = 256


@dataclass(frozen=True, slots=True)
class Confusion:
    """The share of a scene's frames that would be named like another one (estimated, 0 to 1)."""

    scene: str
    taken_for: str
    share: float


def confusion(row: SceneRow, other: SceneRow) -> Confusion:
    """From ``row``'s stored mean, spread and principal axes of features.

    The difference of two logits is linear in the feature, hence normal where features are: no
    frame is needed, which a robot that got the scene from another one has none of.
    """
    weight_F = np.asarray(other.classifier_weight, np.float64) - row.classifier_weight
    bias = other.classifier_bias - row.classifier_bias
    mean = float(weight_F @ row.feature_mean) + bias
    rest_F = np.asarray(row.feature_std, np.float64) ** 2
    along_R = np.zeros(0)
    if row.feature_axes is not None and row.feature_axes_scale is not None:
        axes_RF = row.feature_axes * row.feature_axes_scale[:, None].astype(np.float64)
        rest_F = np.maximum(rest_F - (axes_RF**2).sum(0), 0.0)
        along_R = axes_RF @ weight_F
    spread = math.sqrt(float((weight_F**2) @ rest_F + along_R @ along_R))
    if spread == 0:
        return Confusion(row.name, other.name, 0.5 * float(1 + np.sign(mean)))
    return Confusion(row.name, other.name, 0.5 * math.erfc(-mean / spread / math.sqrt(2)))


def likeliest_rivals(bank: SceneBank, backbone_id: str, feature_F: Array) -> list[SceneRow]:
    """Of an open bank's rows those that a feature is likeliest to be named like, by their logits.

    Of many thousands few are at all like a scene; only these are read. Damaged rows, and those of
    another backbone, serve nobody and are passed over.

    Raises:
        ModelError: the bank cannot be read.
    """
    index = bank.index()
    own = [i for i, name in enumerate(index.backbone_id) if name == backbone_id]
    weights = b"".join(index.classifier[i] for i in own)
    weight_NF = np.frombuffer(weights, "<f4").reshape(len(own), len(feature_F))
    bias_N = np.array([index.classifier_bias[i] for i in own])
    likeliest = np.argsort(-(weight_NF @ feature_F + bias_N), kind="stable")[:MOST_RIVALS]
    rivals = []
    for i in sorted(likeliest):
        with suppress(ModelError):
            rivals.append(bank.row(index.name[own[i]]))
    return rivals


def confusions(new: Sequence[SceneRow], present: Sequence[SceneRow]) -> list[Confusion]:
    """Of new rows with those that are there and with each other, both ways, the largest first."""
    found = []
    for i, row in enumerate(new):
        for other in (*present, *new[:i]):
            found += [confusion(row, other), confusion(other, row)]
    return sorted(found, key=lambda c: -c.share)
