# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Settings that train in seconds, for tests that need a trained network and not a good one."""

from dataclasses import replace

from mspn_ros.network.backbone import Architecture
from mspn_ros.training.config import (
    AugmentConfig,
    CodingConfig,
    OptimizerConfig,
    TrainConfig,
    ValidationConfig,
)
from mspn_ros.training.loop import Trainer

TINY = TrainConfig(
    architecture=Architecture("mobilenet_v3_small", resize=72, crop=64),
    weights="none",
    epochs=3,
    batch_size=16,
    optimizer=OptimizerConfig(
        backbone_lr=1e-3, head_lr=4e-3, loss_lr=1e-2, schedule="cosine", warmup_epochs=1
    ),
    augment=AugmentConfig("center", False, 0.2, 0.2, 0.2),
    coding=CodingConfig(True, True),
    validation=ValidationConfig(fraction=0.05, every=1000),
)


def train(rooms, output, **changes):
    trainer = Trainer(replace(TINY, output=str(output), **changes), rooms)
    trainer.run()
    return trainer
