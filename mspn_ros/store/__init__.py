# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is stored: the backbone file, the scene bank, resumable checkpoints."""
