"""The linters that ROS packages are checked by, where ROS 2 has them, and what they leave out.

Those run that agree with our style, set up for it. Left out: ament_copyright for source files,
since it takes nothing but the whole notice of the licence for a header; ament_mypy and
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
