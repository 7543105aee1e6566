# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images in, pose estimates out. Imports neither training nor datasets."""
