# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The landmark head: finds known points of the scene in the image; votes say where to start.

A scene has up to K landmarks, each a point and a key. A landmark is seen at the place of the image
whose descriptor is most like its key, or nowhere; the pose is the one that best explains where all
are seen (network/pose_solver.py), starting from a dense head's votes and held weakly to them.
Landmarks after Do et al. 2022 (Learning to Detect Scene Landmarks for Camera Localization), who
train a network for each scene; here keys are looked up in descriptors that all scenes share, and a
landmark costs a few dozen bytes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mspn_ros.network.backbone import Features, Grid
from mspn_ros.network.coding import MATRIX_PARAMETERS
from mspn_ros.network.dense_head import DenseHead
from mspn_ros.network.pose_solver import refine_pose
from mspn_ros.network.scene_head import Reading, SceneHead, Seen, Sightings

# A key and a descriptor that agree make a logit of 10 at the start.
_SHARPNESS = math.log(10.0)
# Places about the likeliest one that count as the same sighting: a square of 5.
_WINDOW = 2
# The surest sightings of an image that its pose is made of.
_MOST_SIGHTINGS = 256
# Landmarks of rows are filled up to multiples of this, and never to less: what one scene's image
# gives does then not depend on how many landmarks other scenes have.
ROW_PADDING = _MOST_SIGHTINGS
# A probability below which a sighting has no part in it.
_LEAST_PROBABILITY = 0.1
# How far votes are off in position (spreads) and rotation (rad) where nobody has measured it.
_VOTE_ERROR = (0.3, 0.1)
# Stored keys have whole numbers up to this.
_KEY_LEVELS = 127
# The tensors with a row for each landmark, which a scene may have fewer of.
_PER_LANDMARK = ("point", "key", "nowhere")


class LandmarkHead(SceneHead):
    """See the module; P = 12: position and rotation matrix, row by row.

    ``point`` (N, K, 3) is in the axes and the unit of the coding, ``present`` (N, K) 1 where a
    scene has a landmark, ``vote_error`` (N, 2) how far votes usually are off in position and in
    rotation (rad). In training mode the pose is that of the votes alone.
    """

    kind: ClassVar[str] = "landmarks"
    grid: ClassVar[Grid] = "places"
    reads: ClassVar[tuple[str, ...]] = ("cell_BCD", "place_BED")
    outputs = MATRIX_PARAMETERS

    def __init__(self, scenes: int, cell_features: int, features: int, landmarks: int) -> None:
        """``features`` of a descriptor, up to ``landmarks`` a scene."""
        super().__init__()
        self.votes = DenseHead(scenes, cell_features)
        self.key = nn.Parameter(0.1 * torch.randn(scenes, landmarks, features))
        self.nowhere = nn.Parameter(torch.zeros(scenes, landmarks))
        self.sharpness = nn.Parameter(torch.full((scenes, 1), _SHARPNESS))
        self.register_buffer("point", torch.zeros(scenes, landmarks, 3))
        self.register_buffer("vote_error", torch.tensor([_VOTE_ERROR] * scenes))
        self.register_buffer("present", torch.zeros(scenes, landmarks))

    def row(self, scene: int) -> dict[str, Tensor]:
        """One scene's tensors in half precision and only its own landmarks; keys in 8 bits."""
        tensors = super().row(scene)
        # Farther ones than half precision reaches tell nothing that nearer ones do not.
        near = (tensors["point"].abs() < torch.finfo(torch.half).max).all(1)
        present = (tensors.pop("present") > 0) & near
        for name in _PER_LANDMARK:
            tensors[name] = tensors[name][present]
        key = (F.normalize(tensors.pop("key"), dim=1) * _KEY_LEVELS).round().to(torch.int8)
        return {"key": key, **{name: tensor.half() for name, tensor in tensors.items()}}

    def check_row(self, tensors: dict[str, Tensor]) -> None:
        """See ``StackedRows``; a row may have any number of landmarks."""
        counts = {name: len(tensors[name]) for name in _PER_LANDMARK if name in tensors}
        if len(set(counts.values())) > 1:
            raise ValueError(f"landmarks are {counts}, not equally many")
        none = {name: tensors[name][:0] for name in counts}
        super().check_row(self._padded({**tensors, **none}))

    def set_row(self, scene: int, tensors: dict[str, Tensor]) -> None:
        """See ``StackedRows``; K is the most that any row may have."""
        LandmarkHead.check_row(self, tensors)
        if len(tensors["point"]) > self.key.shape[1]:
            raise ValueError(f"{len(tensors['point'])} landmarks, not at most {self.key.shape[1]}")
        super().set_row(scene, self._padded(tensors))

    def _padded(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """With zeros up to K landmarks, and which are present."""
        count, most = len(tensors.get("point", ())), self.key.shape[1]
        padded = {"present": (torch.arange(most) < count).float()}
        for name, tensor in tensors.items():
            filling = (0, 0) * (tensor.dim() - 1) + (0, most - count)
            short = name in _PER_LANDMARK
            padded[name] = F.pad(tensor.float(), filling) if short else tensor.float()
        return padded

    def place_landmarks(self, scene: int, point_K3: Tensor) -> None:
        """Give a scene its landmarks, coded as positions are; at most K."""
        count, (point, present) = len(point_K3), self._landmarks()
        point[scene].zero_()[:count] = point_K3.to(point)
        present[scene].zero_()[:count] = 1.0

    def place_keys(self, scene: int, key_KD: Tensor) -> None:
        """Start a scene's keys anew, as many as there are landmarks; of any length."""
        with torch.no_grad():
            self.key[scene, : len(key_KD)] = key_KD.to(self.key)

    def measure_votes(self, scene: int, position: float, rotation: float) -> None:
        """Say how far a scene's votes usually are off on frames not learned from: coded, rad."""
        assert isinstance(self.vote_error, Tensor)
        self.vote_error[scene] = torch.tensor([position, rotation])

    def _landmarks(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.point, Tensor)
        assert isinstance(self.present, Tensor)
        return self.point, self.present

    def read(
        self, features: Features, scene_B: Tensor, ray_BC3: Tensor | None, seen_BC: Tensor | None
    ) -> Reading:
        """See ``SceneHead``; the squares are places, of which each cell has as many."""
        assert features.cell_BCD is not None
        assert ray_BC3 is not None
        cells = math.isqrt(features.cell_BCD.shape[1])
        cell_ray_BC3 = F.normalize(_pooled(ray_BC3, cells), dim=2)
        cell_seen_BC = None if seen_BC is None else _pooled(seen_BC[..., None], cells)[..., 0] == 1
        start = self.votes.read(features, scene_B, cell_ray_BC3, cell_seen_BC)
        sightings = self._sightings(self.described(features, scene_B), scene_B)
        if self.training:
            return start._replace(sightings=sightings)
        seen = self._surest(sightings, scene_B, ray_BC3)
        assert isinstance(self.vote_error, Tensor)
        rotation_B33, position_B3, covariance_B66 = refine_pose(
            start.pose_BP[:, 3:].view(-1, 3, 3),
            start.pose_BP[:, :3],
            *seen,
            self.vote_error[scene_B],
        )
        pose_BP = torch.cat((position_B3, rotation_B33.flatten(1)), 1)
        return Reading(pose_BP, start.votes, sightings, start.pose_BP, covariance_B66, seen)

    def described(self, features: Features, scene_B: Tensor) -> Tensor:
        """The unit vectors (B, E, D) that describe the places to the images' scenes."""
        assert features.place_BED is not None
        return features.place_BED

    def _sightings(self, place_BED: Tensor, scene_B: Tensor) -> Sightings:
        key_BKD = F.normalize(self.key[scene_B], dim=2)
        logit_BKE = torch.einsum("bkd,bed->bke", key_BKD, place_BED)
        sharp_B11 = self.sharpness[scene_B].exp()[:, :, None]
        return Sightings(sharp_B11 * logit_BKE, self.nowhere[scene_B])

    def _surest(self, sightings: Sightings, scene_B: Tensor, ray_BE3: Tensor) -> Seen:
        point_NK3, present_NK = self._landmarks()
        ray_BK3, probability_BK = sighted_rays(sightings, ray_BE3)
        # Squared: what is seen with a probability of a half is right in a quarter of cases only.
        weight_BK = probability_BK**2 * (probability_BK > _LEAST_PROBABILITY) * present_NK[scene_B]
        weight_BM, best_BM = weight_BK.topk(min(_MOST_SIGHTINGS, weight_BK.shape[1]))
        ray_BM3 = ray_BK3.gather(1, best_BM[..., None].expand(-1, -1, 3))
        return Seen(point_NK3[scene_B[:, None], best_BM], ray_BM3, weight_BM)


def sighted_rays(sightings: Sightings, ray_BE3: Tensor) -> tuple[Tensor, Tensor]:
    """Along which unit ray each landmark is seen (B, K, 3), and how probably (B, K).

    The mean ray of the places about the likeliest one, by their probabilities: finer than a place.
    """
    place_BKE = sightings.place_BKE
    index_BKW, inside_BKW = _window(_likeliest(place_BKE), math.isqrt(place_BKE.shape[2]))
    total_BK = torch.logaddexp(place_BKE.logsumexp(2), sightings.nowhere_BK)
    share_BKW = (place_BKE.gather(2, index_BKW) - total_BK[..., None]).exp() * inside_BKW
    batch_B11 = torch.arange(len(ray_BE3), device=ray_BE3.device)[:, None, None]
    mean_BK3 = (share_BKW[..., None] * ray_BE3[batch_B11, index_BKW]).sum(2)
    return F.normalize(mean_BK3, dim=2), share_BKW.sum(2)


def _likeliest(place_BKE: Tensor) -> Tensor:
    """The place (B, K) with the largest logit."""
    if place_BKE.device.type == "cpu":
        # NumPy's search is vectorized, PyTorch's not: 20 times as quick on a CPU.
        return torch.from_numpy(place_BKE.detach().numpy().argmax(2))
    return place_BKE.argmax(2)


def _window(place_BK: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The places at most _WINDOW from each (B, K, W), and whether they are in the image at all."""
    step = torch.arange(-_WINDOW, _WINDOW + 1, device=place_BK.device)
    x = place_BK[..., None] % side + step.repeat(len(step))
    y = place_BK[..., None] // side + step.repeat_interleave(len(step))
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    return (y * side + x).clamp(0, side * side - 1), inside


def _pooled(square_BEX: Tensor, cells: int) -> Tensor:
    """Means over the places of each cell: (B, E, X) -> (B, C, X)."""
    side = math.isqrt(square_BEX.shape[1])
    planes = square_BEX.float().transpose(1, 2).reshape(len(square_BEX), -1, side, side)
    return F.avg_pool2d(planes, side // cells).flatten(2).transpose(1, 2)
