"""``python -m mspn_ros``: the same as the command ``mspn``."""

from mspn_ros.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
