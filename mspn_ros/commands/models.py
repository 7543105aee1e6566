"""Opening the model that a command names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mspn_ros.terminal import notes

if TYPE_CHECKING:
    from mspn_ros.inference.localizer import Localizer


def open_localizer(arguments: argparse.Namespace) -> Localizer:
    """The model of ``--model`` on ``--device``; scenes that cannot be served are named.

    Raises:
        ModelError, ConfigError: see ``Localizer.load``.
    """
    from mspn_ros.inference.localizer import Localizer

    localizer = Localizer.load(arguments.model, arguments.device)
    for reason in localizer.refused.values():
        notes.print(f"left out: {reason}", style="yellow", highlight=False)
    return localizer
