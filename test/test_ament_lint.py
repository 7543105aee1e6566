# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The linters that ROS packages are checked by, where ROS 2 has them, and what they leave out.

Those run that agree with our style, set up for it. Left out: ament_copyright for source files,
since it takes nothing but the whole notice of the licence for a header, where ours are two SPDX
lines, which a test here looks for; ament_mypy and
ament_pycodestyle, since `make lint` runs mypy (strict) by the version that is pinned, and flake8
includes pycodestyle.
"""

import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SCHEMA = "http://download.ros.org/schema/package_format3.xsd"
PYTHON = ("mspn_ros", "test", "launch", "setup.py", "scripts/localize", "scripts/train")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def run(linter, *arguments):
    """Run a linter as its command does, from the package's root; all that it printed."""
    module = pytest.importorskip(
        f"{linter}.main", reason=f"{linter} is not installed (it comes with ROS 2 only)"
    )
    done = subprocess.run(
        [sys.executable, "-m", module.__name__, *arguments],
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_ament_flake8():
    code, output = run("ament_flake8", "--config", "setup.cfg", *PYTHON)
    assert code == 0, output


def test_ament_pep257():
    # Google's sections (D406, D407, D413), nouns as first words (D401), names that begin small
    # (D403), and the first line where the quotes are (D213, against D212).
    ours = ("D213", "D401", "D403", "D406", "D407", "D413")
    code, output = run("ament_pep257", "--add-ignore", *ours, "--", *PYTHON[:-2])
    assert code == 0, output


def test_ament_xmllint():
    if shutil.which("xmllint") is None:
        pytest.skip("xmllint is not installed: apt install libxml2-utils")
    try:
        urllib.request.urlopen(SCHEMA, timeout=5).close()
    except OSError as error:
        pytest.skip(f"the schema of package.xml is not to be had: {SCHEMA}: {error}")
    code, output = run("ament_xmllint", "package.xml", "config")
    assert code == 0, output


def test_ament_copyright_knows_the_licence_and_what_contributors_agree_to():
    if not (REPO / ".git").exists():
        pytest.skip("no repository: ament_copyright looks for these files at a repository's root")
    code, output = run("ament_copyright", "LICENSE", "CONTRIBUTING.md")
    assert code == 0, output
    assert "checked 2 files" in output


HEADER = "# SPDX-FileCopyrightText: 2026 mspn_ros authors\n# SPDX-License-Identifier: Apache-2.0\n"


def test_every_source_file_says_whose_it_is_and_under_which_licence():
    files = [REPO / "setup.py", *(REPO / "scripts").iterdir()]
    for folder in ("mspn_ros", "test", "launch"):
        files += (REPO / folder).rglob("*.py")
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    without = [
        str(path.relative_to(REPO))
        for path, text in texts.items()
        if not text.removeprefix("#!/usr/bin/env python3\n").startswith(HEADER)
    ]
    assert not without, f"begin these with the two lines:\n{HEADER}{without}"
