# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From prepared images to answers in one step on the device, and one small array back.

The step is a function of buffers that stay where they are: images, rays, what is known of scenes
beforehand, and rows with room for more. On CUDA it is captured once as a graph and replayed: no
image size and no scene needs a new one. What it computes is what ``ReadOut`` does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mspn_ros.inference.cell_rays import Shot
from mspn_ros.inference.engines import Engine
from mspn_ros.inference.read_out import MOST_LIKELY, Answer, Likely, Prior, ReadOut, answer_of
from mspn_ros.inference.scene_logits import Allowed
from mspn_ros.inference.static_rows import POSE_NUMBERS, StaticRows
from mspn_ros.network.backbone import Features
from mspn_ros.records import Array

# Images that go together at most: the cameras of a robot.
MOST_TOGETHER = 4
# Runs before capturing, in which libraries choose their algorithms and make their work space.
_WARM_UPS = 3

# Takes a step and gives one that does the same.
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


class OneTrip:
    """The step for up to ``MOST_TOGETHER`` images at once; a graph for each number of images.

    Raises:
        RuntimeError: the step cannot be captured.
    """

    def __init__(self, engine: Engine, read_out: ReadOut, size: int, capture: Capture) -> None:
        """``size``: of the prepared square."""
        self._rows = StaticRows(read_out)
        self._steps = [
            _Step(engine, self._rows, size, together) for together in range(1, MOST_TOGETHER + 1)
        ]
        self._run = [capture(step.run) for step in self._steps]
        self._lock = threading.Lock()

    def take(self, read_out: ReadOut) -> bool:
        """Answer by these rows from now on; False if there is no room for them."""
        with self._lock:
            if not self._rows.fits(read_out):
                return False
            self._rows.take(read_out)
            return True

    @torch.inference_mode()
    def __call__(
        self,
        read_out: ReadOut,
        prepared: Sequence[Tensor],
        shots: Sequence[Shot],
        forced: int | None,
        prior: Prior,
        allowed: Allowed | None = None,
    ) -> list[Answer] | None:
        """(size, size, 3) uint8 images -> an answer for each, as ``ReadOut``.

        None where other rows than those of ``read_out`` are served by now.
        """
        answers: list[Answer] = []
        for first in range(0, len(prepared), MOST_TOGETHER):
            part = slice(first, first + MOST_TOGETHER)
            with self._lock:
                if self._rows.serves is not read_out:
                    return None
                together = len(prepared[part])
                step = self._steps[together - 1]
                step.fill(prepared[part], shots[part], forced, prior, allowed)
                packed = self._run[together - 1]().cpu().numpy()
            answers += [_unpacked(read_out, row, forced, allowed) for row in packed]
        return answers


class _Step:
    """For B images: buffers, and the function of them."""

    def __init__(self, engine: Engine, rows: StaticRows, size: int, batch: int) -> None:
        self._engine, self._rows = engine, rows
        device = rows.bias_N.device
        self._image_BHW3 = torch.zeros(batch, size, size, 3, dtype=torch.uint8, device=device)
        # Of the scene that is known, or -1.
        self._forced = torch.full((1,), -1, device=device)
        self._prior_N = torch.zeros_like(rows.bias_N)
        self._has_prior = False
        # 0, or -inf for scenes that may not answer.
        self._mask_N = torch.zeros_like(rows.bias_N)
        self._has_mask = False
        self._index_B = torch.arange(batch, device=device)
        # Of each group: rays of each image by each of the cameras that may stand in.
        self._rays_BKC3: list[Tensor | None] = []
        self._rays_of: list[list[tuple[object, ...] | None]] = []
        for group in rows.groups:
            ray_C3 = None if group.rays is None else group.rays.of(Shot(size, size), None)
            room = None
            if ray_C3 is not None:
                room = ray_C3.repeat(batch, group.ray_cameras, 1, 1)
            self._rays_BKC3.append(room)
            self._rays_of.append([None] * batch)

    def fill(
        self,
        prepared: Sequence[Tensor],
        shots: Sequence[Shot],
        forced: int | None,
        prior: Prior,
        allowed: Allowed | None,
    ) -> None:
        """What the next run is about."""
        for place, image in enumerate(prepared):
            self._image_BHW3[place] = image
        self._forced.fill_(-1 if forced is None else forced)
        if self._has_prior or prior:
            self._prior_N.zero_()
            for scene, more in prior.items():
                self._prior_N[scene] = more
            self._has_prior = bool(prior)
        if self._has_mask or allowed is not None:
            self._mask_N.zero_()
            if allowed is not None:
                self._mask_N[: len(allowed.mask_N)] = allowed.mask_N
            self._has_mask = allowed is not None
        for group, room, known in zip(
            self._rows.groups, self._rays_BKC3, self._rays_of, strict=True
        ):
            if room is None or group.rays is None:
                continue
            for i, shot in enumerate(shots):
                key = (shot, *group.rays.cameras)
                if known[i] != key:
                    for k, camera in enumerate(group.rays.cameras):
                        room[i, k] = group.rays.of(shot, camera)
                    known[i] = key

    def run(self) -> Tensor:
        """(B, X) float64: probabilities and scenes as ``_unpacked`` takes them apart, and poses."""
        rows = self._rows
        features = self._engine(self._image_BHW3)
        logit_BN = torch.addmm(rows.bias_N, features.pooled_BF, rows.weight_NF.T)
        everywhere_B1 = logit_BN.double().logsumexp(1, keepdim=True)
        logit_BN = logit_BN + self._mask_N
        judged_BN = logit_BN + self._prior_N
        best_BK, scene_BK = judged_BN.topk(MOST_LIKELY)
        total_B1 = judged_BN.double().logsumexp(1, keepdim=True)
        most_B1 = logit_BN.amax(1, keepdim=True).double()
        alone_B1 = most_B1 - logit_BN.double().logsumexp(1, keepdim=True)
        forced_B1 = self._forced.expand(len(logit_BN), 1)
        is_forced_B1 = forced_B1 >= 0
        told_B1 = judged_BN.gather(1, forced_B1.clamp(min=0)).double() - total_B1
        own_B1 = torch.where(is_forced_B1, told_B1, alone_B1)
        among_all_B1 = torch.where(is_forced_B1, told_B1, most_B1 - everywhere_B1)
        answers_B = torch.where(is_forced_B1, forced_B1, scene_BK[:, :1])[:, 0]
        shares = (own_B1.exp(), among_all_B1.exp(), (best_BK.double() - total_B1).exp())
        return torch.cat((*shares, scene_BK.double(), self._poses(features, answers_B)), 1)

    def _poses(self, features: Features, scene_B: Tensor) -> Tensor:
        """(B, POSE_NUMBERS): every group reads every image, one of them knows its scene."""
        rows = self._rows
        found_BX = torch.full(
            (len(scene_B), POSE_NUMBERS), torch.nan, dtype=torch.float64, device=scene_B.device
        )
        for number, (group, room) in enumerate(zip(rows.groups, self._rays_BKC3, strict=True)):
            mine_B = rows.group_N[scene_B] == number
            place_B = rows.place_N[scene_B] * mine_B
            ray_BC3 = None if room is None else room[self._index_B, group.camera_N[place_B]]
            pose_BX = group.read(features, ray_BC3, place_B)
            found_BX = torch.where(mine_B[:, None], pose_BX, found_BX)
        return found_BX


def _unpacked(
    read_out: ReadOut, packed: Array, forced: int | None, allowed: Allowed | None
) -> Answer:
    """One image's answer from its row of ``_Step.run``."""
    own, among_all, rest = float(packed[0]), float(packed[1]), packed[2:]
    count = len(read_out.rows) if allowed is None else allowed.scenes
    probabilities, places, pose = (
        rest[:MOST_LIKELY],
        rest[MOST_LIKELY:-POSE_NUMBERS],
        rest[-POSE_NUMBERS:],
    )
    scenes = [
        (int(place), float(probability))
        for place, probability in zip(places, probabilities, strict=True)
        if place < len(read_out.rows)
    ][:count]
    likely = Likely(scenes[0][0] if forced is None else forced, own, tuple(scenes), among_all)
    return answer_of(likely, read_out.rows[likely.scene], pose)


def as_it_is(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The step without a graph."""
    return step


def capture_cuda_graph(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The step as one CUDA graph.

    Raises:
        RuntimeError: something in it cannot be captured.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
