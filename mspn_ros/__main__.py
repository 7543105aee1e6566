# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m mspn_ros``: the same as the command ``mspn``."""

from mspn_ros.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
