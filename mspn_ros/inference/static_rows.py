# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rows in service as tensors that stay where they are, however the bank changes.

A captured graph reads memory, not objects: rows that are added or exchanged are copied to where the
graph looks for them. There is room for more than there are (``capacity``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from mspn_ros.inference.cell_rays import CellRays
from mspn_ros.inference.familiarity import sighting_sign
from mspn_ros.inference.loaded_rows import LoadedGroup
from mspn_ros.inference.read_out import ReadOut
from mspn_ros.inference.scene_logits import capacity
from mspn_ros.network.backbone import Features

# Familiarity, position, quaternion, covariance: of one image.
POSE_NUMBERS = 1 + 3 + 4 + 36
# Cameras of training frames that are told apart in a group of rows, at least.
_LEAST_CAMERAS = 4


class StaticGroup:
    """A ``LoadedGroup`` with room for more rows; ``ray_cameras`` of them are told apart."""

    def __init__(self, group: LoadedGroup) -> None:
        self.rows = capacity(len(group.rows))
        self.group = copy.copy(group)
        self.group.heads = copy.deepcopy(group.heads)
        self.group.familiarity = copy.deepcopy(group.familiarity)
        self.group.coding = copy.copy(group.coding)
        for _, owner, name, tensor in list(_stacked(self.group)):
            room = tensor.new_zeros(self.rows, *tensor.shape[1:])
            if isinstance(owner, torch.nn.Module) and name in owner._parameters:
                owner._parameters[name] = torch.nn.Parameter(room, requires_grad=False)
            elif isinstance(owner, torch.nn.Module):
                owner._buffers[name] = room
            else:
                setattr(owner, name, room)
        device = group.coding.position_scale.device
        self.rays: CellRays | None = group.rays
        self.ray_cameras = 0 if group.rays is None else _capacity_of(group.rays)
        # Which of the cameras stands in for a row's.
        self.camera_N = torch.zeros(self.rows, dtype=torch.long, device=device)

    def fits(self, group: LoadedGroup) -> bool:
        """Whether the rows of ``group`` can be copied here."""
        own = {key: tensor for key, _, _, tensor in _stacked(self.group)}
        others = {key: tensor for key, _, _, tensor in _stacked(group)}
        return (
            own.keys() == others.keys()
            and len(group.rows) <= self.rows
            and all(own[key].shape[1:] == others[key].shape[1:] for key in own)
            and (group.rays is None or len(group.rays.cameras) <= self.ray_cameras)
        )

    def take(self, group: LoadedGroup) -> None:
        """Copy the rows of a group that fits."""
        others = {key: tensor for key, _, _, tensor in _stacked(group)}
        for key, _, _, tensor in _stacked(self.group):
            tensor[: len(group.rows)] = others[key]
        self.rays = group.rays
        if group.rays is not None:
            self.camera_N[: len(group.rows)] = torch.tensor(group.rays.camera_of_place)

    def read(self, features: Features, ray_BC3: Tensor | None, place_B: Tensor) -> Tensor:
        """(B, POSE_NUMBERS) float64 in the scenes' frames; NaN for what the heads do not give."""
        reading = self.group.heads.read(features, place_B, ray_BC3, None)
        known_B = self.group.familiarity(features.pooled_BF, sighting_sign(reading), place_B)
        position_B3, quaternion_B4 = self.group.coding.decode(reading.pose_BP, place_B)
        parts = [known_B[:, None], position_B3, quaternion_B4]
        if reading.covariance_B66 is not None:
            own_B66 = self.group.coding.decode_covariance(reading.covariance_B66, place_B)
            parts.append(own_B66.flatten(1))
        else:
            parts.append(position_B3.new_full((len(position_B3), 36), torch.nan))
        return torch.cat(parts, 1)


def _capacity_of(rays: CellRays) -> int:
    return max(_LEAST_CAMERAS, 2 * len(rays.cameras))


def _stacked(group: LoadedGroup) -> Iterator[tuple[str, object, str, Tensor]]:
    """All tensors of a group, which have a row for each of its scenes: key, owner, name, tensor."""
    for place, module in (("heads", group.heads), ("familiarity", group.familiarity)):
        for prefix, owner in module.named_modules():
            for name, tensor in (*owner._parameters.items(), *owner._buffers.items()):
                if tensor is not None:
                    yield f"{place}.{prefix}.{name}", owner, name, tensor
    for name, tensor in vars(group.coding).items():
        yield f"coding.{name}", group.coding, name, tensor


class StaticRows:
    """Classifier and groups of a bank that was read whole; ``ReadOut`` as a function of tensors."""

    def __init__(self, read_out: ReadOut) -> None:
        self.weight_NF = torch.zeros_like(read_out.logits.weight_NF)
        # No scene is where there is no row.
        self.bias_N = torch.full_like(read_out.logits.bias_N, -torch.inf)
        self.group_N = torch.zeros(len(self.bias_N), dtype=torch.long, device=self.bias_N.device)
        self.place_N = torch.zeros_like(self.group_N)
        self.groups = [StaticGroup(group) for group in read_out.loaded.distinct]
        self.serves: ReadOut | None = None
        self.take(read_out)

    def fits(self, read_out: ReadOut) -> bool:
        """Whether the rows of ``read_out`` can be copied here, group by group."""
        groups = read_out.loaded.distinct
        return (
            read_out.logits.weight_NF.shape == self.weight_NF.shape
            and len(groups) == len(self.groups)
            and all(own.fits(group) for own, group in zip(self.groups, groups, strict=True))
        )

    @torch.inference_mode()
    def take(self, read_out: ReadOut) -> None:
        """Copy the rows of a ``ReadOut`` that fits; not while anybody reads."""
        scenes = len(read_out.rows)
        self.weight_NF.copy_(read_out.logits.weight_NF)
        self.bias_N.fill_(-torch.inf)[:scenes] = read_out.logits.bias_N[:scenes]
        for number, (own, group) in enumerate(
            zip(self.groups, read_out.loaded.distinct, strict=True)
        ):
            own.take(group)
            scene_K = torch.tensor(list(group.place), device=self.group_N.device)
            self.group_N[scene_K] = number
            self.place_N[scene_K] = torch.tensor(
                list(group.place.values()), device=self.group_N.device
            )
        self.serves = read_out
