# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that a backbone starts from: ImageNet's by name, or a file of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from mspn_ros.network.backbone import CLASSIFIER_NAMES, Backbone
from mspn_ros.paths import file_digest
from mspn_ros.records import ModelError


def load_pretrained(backbone: Backbone, weights: str) -> str:
    """Initialise ``backbone.network`` from ``imagenet``, ``none`` or a state-dict file.

    Returns a description for the records (name of the weights, or the file's name and SHA-256).

    Raises:
        ModelError: the weights cannot be fetched or read, or do not fit this network.
    """
    if weights == "imagenet":
        _load_imagenet(backbone)
    elif weights != "none":
        path = Path(weights).expanduser()
        _load_fitting(backbone.network, _read_state_dict(path), str(path))
    return describe_weights(weights, backbone.architecture.backbone)


def describe_weights(weights: str, backbone: str) -> str:
    """What ``weights`` of a backbone are by content: a published name, or a file's SHA-256."""
    if weights == "none":
        return "none (random initialisation)"
    if weights == "imagenet":
        return f"imagenet ({_imagenet_entry(backbone)})"
    path = Path(weights).expanduser()
    return f"{path.name} (sha256 {file_digest(path).hex()[:12]})"


def _imagenet_entry(name: str) -> Any:
    # The first published weights, as the paper used, not torchvision's newer ones.
    return next(iter(torchvision.models.get_model_weights(name)))


def _load_imagenet(backbone: Backbone) -> None:
    name = backbone.architecture.backbone
    entry = _imagenet_entry(name)
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[1]
    # torchvision's own loader would unpickle whatever lies there; ours reads tensors only.
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(path), _hash_prefix(path))
        except (URLError, OSError, RuntimeError) as error:
            raise ModelError(
                f"ImageNet weights of {name} cannot be downloaded ({error}); put {path.name} into "
                f"{path.parent}, or set weights to a local file or to none"
            ) from error
    _load_fitting(backbone.network, _read_state_dict(path), str(path))


def _hash_prefix(path: Path) -> str | None:
    """torchvision's file names end in the first digits of their SHA-256: resnet34-b627a593.pth."""
    digits = path.stem.rpartition("-")[2]
    return digits if len(digits) >= 8 and set(digits) <= set("0123456789abcdef") else None


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file; give a path, imagenet or none")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        # weights_only: an unrestricted pickle could run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise ModelError(f"{path}: not readable as weights ({error})".splitlines()[0]) from error
    except Exception as error:  # torch.load raises pickle's own errors, which have no common base
        raise ModelError(f"{path}: not a plain state dict; save one as safetensors") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: not a plain state dict; save one as safetensors")
    return state


def _load_fitting(network: nn.Module, state: dict[str, Tensor], place: str) -> None:
    """Load all that the headless network has; the file's own classifier is left aside."""
    wanted = network.state_dict()
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - state.keys() - optional)
    wrong = sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)
    surplus = sorted(
        key
        for key in state.keys() - wanted.keys()
        if not key.startswith((*CLASSIFIER_NAMES, "aux", "AuxLogits"))
    )
    for problem, keys in (("lacks", missing), ("has other shapes for", wrong), ("adds", surplus)):
        if keys:
            raise ModelError(
                f"{place}: does not fit {type(network).__name__}: it {problem} {len(keys)} tensors "
                f"such as {keys[0]!r}; name the backbone that these weights belong to"
            )
    network.load_state_dict({**wanted, **{key: state[key] for key in wanted.keys() & state.keys()}})
