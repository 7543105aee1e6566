# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of ``mspn``, one function each: they wire the library to the terminal."""
