# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The localizer, one of whose engines runs out of memory as long as a file exists.

As with a GPU that others fill: what PyTorch raises is its allocator's own, of more than there is.
The environment's FAILING_WHILE names the file, FAILING_ENGINE the engine.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from mspn_ros.inference import engine_choice
from mspn_ros.inference.engines import TorchEngine
from mspn_ros.node.main import main

NAME = os.environ["FAILING_ENGINE"]


class FailingEngine:
    """The plain path, when there is memory."""

    name = NAME
    shares_cores = False

    def __init__(self, backbone, device):
        self._plain = TorchEngine(backbone, device)
        self._file = Path(os.environ["FAILING_WHILE"])

    def __call__(self, image_BHW3):
        if self._file.exists():
            torch.empty(1 << 60, dtype=torch.uint8)
        return self._plain(image_BHW3)


if __name__ == "__main__":
    engine_choice._KINDS[NAME] = replace(
        engine_choice._KINDS[NAME],
        make=lambda backbone, device, apart: FailingEngine(backbone, device),
    )
    sys.exit(main())
