# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's experiments on any scene set: Blanton et al., CVPR Workshops 2020, tables 1 to 8."""
