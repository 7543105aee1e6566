# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-Scene PoseNet camera localization for ROS 2."""

__version__ = "0.1.0"
