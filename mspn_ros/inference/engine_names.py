# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The names of engines; apart from them, so that ``--help`` need not import PyTorch."""

from __future__ import annotations

from mspn_ros.records import ConfigError

# The fastest that is as good as exact on the device, see inference/engine_choice.py.
AUTO = "auto"
# Eager PyTorch, which all others are held against.
PLAIN = "torch_float32"
ENGINES = (
    "openvino_float32",
    "openvino_float16",
    "openvino_bfloat16",
    "torch_bfloat16",
    "torch_float16",
    PLAIN,
)


def check_engine_name(name: str) -> None:
    """Refuse what is no engine.

    Raises:
        ConfigError: it is neither auto nor one of ENGINES.
    """
    if name not in (AUTO, *ENGINES):
        raise ConfigError(f"engine {name!r} is unknown; use {AUTO} or one of {', '.join(ENGINES)}")
