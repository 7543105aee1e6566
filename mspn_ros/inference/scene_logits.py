"""The scene classifier of a whole bank as one matrix, padded so that scenes can be added."""

from __future__ import annotations

import threading
import time

import numpy as np
import torch
from torch import Tensor

from mspn_ros.store.bank_index import BankIndex
from mspn_ros.store.row_format import CLASSIFIER_CHUNK, CLASSIFIER_TYPE

# The least rows that a matrix has, and the least that it grows by.
_LEAST = 64


def capacity(scenes: int) -> int:
    """Rows of the matrix for so many scenes: the next multiple of an eighth of their power of 2."""
    step = max(_LEAST, (1 << scenes.bit_length()) // 16)
    return -(-scenes // step) * step


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
        self.scenes = len(index)
        self._rows = list(zip(index.id, index.checksum, strict=True))
        self._lock, self._followed, known = threading.Lock(), False, 0
        if before is not None and before._takes(self._rows):
            known = before.scenes
            self.weight_NF, self.bias_N = before.weight_NF, before.bias_N
        else:
            size = len(index.classifier[0]) // 4
            rows = capacity(len(index))
            self.weight_NF = torch.zeros(rows, size, device=device)
            self.bias_N = torch.zeros(rows, device=device)
        for start in range(known, len(index), CLASSIFIER_CHUNK):
            end = min(start + CLASSIFIER_CHUNK, len(index))
            # A bytearray, since torch wants memory that it may write to.
            content = bytearray().join(index.classifier[start:end])
            weight = np.frombuffer(content, CLASSIFIER_TYPE).astype(np.float32, copy=False)
            self.weight_NF[start:end] = torch.from_numpy(weight.reshape(end - start, -1))
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

    def __call__(self, feature_BF: Tensor) -> Tensor:
        """See the class; rows behind the bank's have no part in it."""
        return torch.addmm(self.bias_N, feature_BF, self.weight_NF.T)[:, : self.scenes]

    @torch.inference_mode()
    def seconds(self) -> float:
        """How long this takes for one feature, copied back from the device or not."""
        feature_1F = self.weight_NF[:1].clone()
        start = time.perf_counter()
        float(self(feature_1F)[0, 0])
        return time.perf_counter() - start
