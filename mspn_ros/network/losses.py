# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's losses, equations 2, 3 and 4, and those of votes and sightings.

Norms sum over components; batches are averaged.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mspn_ros.network.scene_head import Sightings, Votes


def pose_l1(pose_BP: Tensor, target_BP: Tensor) -> tuple[Tensor, Tensor]:
    """L1 norms of the position and the rotation part, (B, P), (B, P) -> (B,), (B,).

    Sums over components, not means as in ``torch.nn.L1Loss``: the equations write norms.
    """
    error = (pose_BP - target_BP).abs()
    return error[:, :3].sum(1), error[:, 3:].sum(1)


class FixedPoseLoss(nn.Module):
    """Equation 2: ||t' - t||_1 + beta ||q' - q||_1."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, pose_BP: Tensor, target_BP: Tensor, scene_B: Tensor) -> Tensor:
        """(B, P), (B, P), (B,) -> scalar mean; the scene has no part in it."""
        position_B, rotation_B = pose_l1(pose_BP, target_BP)
        return (position_B + self.beta * rotation_B).mean()


class LearnedPoseLoss(nn.Module):
    """Equation 3 with one learned pair (s_t, s_q) per scene (section 4.2).

    ||t' - t||_1 e^-s_t + s_t + ||q' - q||_1 e^-s_q + s_q. At its optimum e^s is the scene's mean
    L1 norm in training. Starts: s_t = 0, s_q = -3 as MapNet. Never under weight decay.
    """

    def __init__(self, scenes: int, s_t: float = 0.0, s_q: float = -3.0) -> None:
        super().__init__()
        self.s_t = nn.Parameter(torch.full((scenes,), s_t))
        self.s_q = nn.Parameter(torch.full((scenes,), s_q))

    def forward(self, pose_BP: Tensor, target_BP: Tensor, scene_B: Tensor) -> Tensor:
        """(B, P), (B, P), (B,) -> scalar mean over the batch."""
        position_B, rotation_B = pose_l1(pose_BP, target_BP)
        s_t, s_q = self.s_t[scene_B], self.s_q[scene_B]
        return (position_B * torch.exp(-s_t) + s_t + rotation_B * torch.exp(-s_q) + s_q).mean()


PoseLoss = FixedPoseLoss | LearnedPoseLoss


class TupleLoss(nn.Module):
    """MapNet: a pose loss on frames, and the same loss on their motion within tuples.

    The motion from one frame of a tuple to the next is the difference of their P numbers, for the
    network as for the truth; it has weights of its own. Brahmbhatt et al. 2018, equation 3, with
    their factor alpha = 1.
    """

    def __init__(self, absolute: PoseLoss, relative: PoseLoss, frames: int) -> None:
        super().__init__()
        self.absolute, self.relative, self.frames = absolute, relative, frames

    def forward(self, pose_BP: Tensor, target_BP: Tensor, scene_B: Tensor) -> Tensor:
        """(B, P), (B, P), (B,) -> scalar mean; every ``frames`` neighbours in B are a tuple."""
        loss: Tensor = self.absolute(pose_BP, target_BP, scene_B)
        motion, true_motion = (self._motion(p) for p in (pose_BP, target_BP))
        moving_scene = scene_B.view(-1, self.frames)[:, 1:].reshape(-1)
        relative: Tensor = self.relative(motion, true_motion, moving_scene)
        return loss + relative

    def _motion(self, pose_BP: Tensor) -> Tensor:
        tuples = pose_BP.view(-1, self.frames, pose_BP.shape[1])
        return (tuples[:, 1:] - tuples[:, :-1]).flatten(0, 1)


class VoteLoss(nn.Module):
    """What each cell of a dense head says, held against the truth, weighed per scene as equation 3.

    The mean distance of voted rays from the true ones, and of voted centres from the true
    position, over the cells that are seen; each with a learned s of its own.
    """

    def __init__(self, scenes: int, s_ray: float = -1.0, s_centre: float = 0.0) -> None:
        super().__init__()
        self.s_ray = nn.Parameter(torch.full((scenes,), s_ray))
        self.s_centre = nn.Parameter(torch.full((scenes,), s_centre))

    def forward(self, votes: Votes, target_BP: Tensor, scene_B: Tensor) -> Tensor:
        """Votes, (B, 12) targets, (B,) -> scalar mean."""
        rotation_B33 = target_BP[:, 3:].view(-1, 3, 3)
        true_ray_BC3 = votes.camera_ray_BC3 @ rotation_B33.mT
        ray_BC = (votes.ray_BC3 - true_ray_BC3).norm(dim=2)
        seen_BC = torch.ones_like(ray_BC) if votes.seen_BC is None else votes.seen_BC
        share_BC = seen_BC / seen_BC.sum(1, keepdim=True)
        ray_B = (ray_BC * share_BC).sum(1)
        off_BC3 = votes.centre_BC3 - target_BP[:, None, :3]
        centre_B = (off_BC3.norm(dim=2) * share_BC).sum(1)
        s_ray, s_centre = self.s_ray[scene_B], self.s_centre[scene_B]
        ray_loss = ray_B * torch.exp(-s_ray) + s_ray
        loss: Tensor = (ray_loss + centre_B * torch.exp(-s_centre) + s_centre).mean()
        return loss


class Sights(NamedTuple):
    """Where K landmarks are in truth, in B images.

    ``place_BK2``: x and y in the grid of places, the first one's middle at (0, 0). ``state_BK``:
    FOUND there; OUTSIDE the image; MISSED, there but not found, for something may hide it;
    UNKNOWN, of which nothing is said.
    """

    place_BK2: Tensor
    state_BK: Tensor


UNKNOWN, FOUND, OUTSIDE, MISSED = 0, 1, 2, 3


def sight_loss(sightings: Sightings, sights: Sights) -> Tensor:
    """Cross entropy of sightings, a scalar.

    A landmark that was found is at its place, which is shared out over the four places about it,
    as bilinear interpolation has it; one outside is nowhere; a missed one is one or the other,
    anywhere else is wrong. Each of the three is a mean of its own, over the landmarks of an image
    and then over images: most landmarks are outside, and scenes differ in how many are found.
    """
    joined = torch.cat((sightings.place_BKE, sightings.nowhere_BK[..., None]), 2)
    log_BKE = joined.log_softmax(2)
    nowhere_BK = log_BKE[..., -1]
    side = math.isqrt(sightings.place_BKE.shape[2])
    index_BK4, share_BK4 = _four_about(sights.place_BK2, side)
    there_BK4 = log_BKE.gather(2, index_BK4)
    either_BK = torch.cat((there_BK4, nowhere_BK[..., None]), 2).logsumexp(2)
    return (
        _mean_where(-(share_BK4 * there_BK4).sum(2), sights.state_BK == FOUND)
        + _mean_where(-nowhere_BK, sights.state_BK == OUTSIDE)
        + _mean_where(-either_BK, sights.state_BK == MISSED)
    )


def _four_about(place_BK2: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The four places about a point of the grid: their indices and their shares, (B, K, 4)."""
    place_BK2 = place_BK2.clamp(0, side - 1)
    corner_BK2 = place_BK2.floor().clamp(max=side - 2)
    right, down = (place_BK2 - corner_BK2).unbind(2)
    shares = ((1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down)
    first_BK = (corner_BK2[..., 1] * side + corner_BK2[..., 0]).long()
    steps = torch.tensor([0, 1, side, side + 1], device=place_BK2.device)
    return first_BK[..., None] + steps, torch.stack(shares, 2)


def _mean_where(value_BK: Tensor, counts_BK: Tensor) -> Tensor:
    """Of each image, then over the images that have any: landmarks are many in some scenes."""
    number_B = counts_BK.sum(1)
    mean_B = (value_BK * counts_BK).sum(1) / number_B.clamp(min=1)
    mean: Tensor = mean_B.sum() / (number_B > 0).sum().clamp(min=1)
    return mean


def scene_loss(logits_BN: Tensor, scene_B: Tensor) -> Tensor:
    """Equation 4's second term: cross entropy, mean over the batch (the paper's n is undefined)."""
    return F.cross_entropy(logits_BN, scene_B)


def known_loss(logits_BN: Tensor, scene_B: Tensor, nothing_MN: Tensor) -> Tensor:
    """``scene_loss`` with one class more, no scene, whose logit is 0; a mean over B + M.

    ``nothing_MN``: logits of images that show no place. A logit then says by itself whether a
    scene is there, where cross entropy alone leaves open by how much all may be shifted.
    """
    logits = F.pad(torch.cat((logits_BN, nothing_MN)), (0, 1))
    none = torch.full_like(scene_B[:1], logits_BN.shape[1]).expand(len(nothing_MN))
    return F.cross_entropy(logits, torch.cat((scene_B, none)))
