# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tables, plots, offline replay, reports; takes plain records, also those of a live node."""
