# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The scene classifier of a whole bank as one matrix, padded so that scenes can be added."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mspn_ros.inference.first_look import Best, FirstLook
from mspn_ros.store.bank_index import BankIndex
from mspn_ros.store.row_format import CLASSIFIER_CHUNK, CLASSIFIER_TYPE

# The least rows that a matrix has, and the least that it grows by.
_LEAST = 64
# Rows from which on a first look in bfloat16 is tried.
_MANY = 4096


def capacity(scenes: int) -> int:
    """Rows of the matrix for so many scenes: the next multiple of an eighth of their power of 2."""
    step = max(_LEAST, (1 << scenes.bit_length()) // 16)
    return -(-scenes // step) * step


class Allowed(NamedTuple):
    """Scenes that may answer: what is added to the logits (0, or -inf for others); their number."""

    mask_N: Tensor
    scenes: int


class SceneLogits:
    """(B, F) features -> (B, N) logits, float32, by one product with a (capacity, F) matrix.

    A bank that others were added to within the capacity shares the matrix with the one before:
    nothing is allocated anew, and shapes stay the same. Whoever still answers by the one before
    never sees the rows behind its own.
    """

    def __init__(
        self, index: BankIndex, device: torch.device, before: SceneLogits | None = None
    ) -> None:
        self.weight_NF: Tensor
        self.bias_N: Tensor
        self.first_look: FirstLook | None = None
        self.scenes = len(index)
        self._rows = list(zip(index.id, index.checksum, strict=True))
        self._lock, self._followed, known = threading.Lock(), False, 0
        shares = before is not None and before._takes(self._rows)
        if before is not None and shares:
            known = before.scenes
            self.weight_NF, self.bias_N = before.weight_NF, before.bias_N
            self.first_look = before.first_look
        else:
            rows, size = capacity(len(index)), len(index.classifier[0]) // 4
            self.weight_NF = torch.zeros(rows, size, device=device)
            self.bias_N = torch.zeros(rows, device=device)
            if self.scenes >= _MANY and device.type == "cpu":
                self.first_look = FirstLook(rows, size)
        self._fill(index, known)
        if self.first_look is not None and not shares and not self._looks_quicker():
            self.first_look = None

    def _fill(self, index: BankIndex, known: int) -> None:
        for start in range(known, len(index), CLASSIFIER_CHUNK):
            places = slice(start, min(start + CLASSIFIER_CHUNK, len(index)))
            # A bytearray, since torch wants memory that it may write to.
            content = bytearray().join(index.classifier[places])
            weight = np.frombuffer(content, CLASSIFIER_TYPE).astype(np.float32, copy=False)
            weight_NF = torch.from_numpy(weight.reshape(places.stop - start, -1))
            self.weight_NF[places] = weight_NF
            if self.first_look is not None:
                self.first_look.take(places, weight_NF)
        self.bias_N[known : len(index)] = torch.tensor(index.classifier_bias[known:])

    def _takes(self, rows: list[tuple[int, str]]) -> bool:
        """Whether these rows are the ones here and further ones, and find room behind them.

        Only once: two banks must not write behind the same rows.
        """
        if rows[: self.scenes] != self._rows or len(rows) > len(self.bias_N):
            return False
        with self._lock:
            free, self._followed = not self._followed, True
            return free

    @torch.inference_mode()
    def _looks_quicker(self) -> bool:
        """Whether this processor multiplies in bfloat16, and as exactly as is counted on."""
        look, feature_1F = self.first_look, self.weight_NF[:1].clone()
        assert look is not None
        apart_N = (look.rough(feature_1F) - self(feature_1F, padded=True)[0] + self.bias_N).abs()
        if not bool((apart_N <= look.margin(feature_1F)).all()):
            return False
        seconds = _least_seconds(lambda: look.rough(feature_1F))
        return seconds < 0.5 * _least_seconds(lambda: self(feature_1F))

    @property
    def arithmetic(self) -> str:
        """How the likeliest scenes of one image are found."""
        return "float32" if self.first_look is None else "bfloat16, then float32"

    def __call__(self, feature_BF: Tensor, padded: bool = False) -> Tensor:
        """See the class; without ``padded``, rows behind the bank's have no part in it."""
        logits = torch.addmm(self.bias_N, feature_BF, self.weight_NF.T)
        return logits if padded else logits[:, : self.scenes]

    def only(self, allowed: Collection[int]) -> Allowed:
        """These scenes, by their places, for ``best``: at least one."""
        mask_N = torch.full_like(self.bias_N, -math.inf)
        mask_N[torch.tensor(list(allowed), device=mask_N.device)] = 0.0
        return Allowed(mask_N, len(allowed))

    @torch.inference_mode()
    def best(
        self,
        feature_BF: Tensor,
        count: int,
        prior: Mapping[int, float] | None = None,
        allowed: Allowed | None = None,
    ) -> Best:
        """The ``count`` likeliest scenes, or all; ``prior`` adds to the logits of some.

        Of ``allowed`` scenes, as if there were no others.
        """
        count, bias_N = min(count, self.scenes), self.bias_N
        if allowed is not None:
            count, bias_N = min(count, allowed.scenes), bias_N + allowed.mask_N
        if prior:
            places = torch.tensor(list(prior), device=bias_N.device)
            bias_N = bias_N.clone()
            bias_N[places] += torch.tensor(list(prior.values()), device=bias_N.device)
        if self.first_look is not None and len(feature_BF) == 1:
            own_N = bias_N[: self.scenes]
            found = self.first_look.best(feature_BF, self.weight_NF, own_N, count)
            if found is not None:
                return found
        logit_BN = torch.addmm(bias_N, feature_BF, self.weight_NF.T)[:, : self.scenes]
        return Best(*logit_BN.topk(count), logit_BN.double().logsumexp(1, keepdim=True))

    def of(self, feature_BF: Tensor, scene: int) -> Tensor:
        """(B, 1) logits of one scene."""
        return feature_BF @ self.weight_NF[scene, :, None] + self.bias_N[scene]

    def seconds(self, count: int) -> float:
        """How long ``best`` takes for one image of the first scene."""
        feature_1F = self.weight_NF[:1].clone()
        start = time.perf_counter()
        float(self.best(feature_1F, count).total_B1)
        return time.perf_counter() - start


def _least_seconds(step: Callable[[], Tensor]) -> float:
    found = []
    for _ in range(4):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found)
