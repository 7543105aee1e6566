# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the commands print stays what it was: paths can be copied, nothing is taken for markup."""

from __future__ import annotations

from mspn_ros.terminal import note, print_table, say

PATH = "/data/" + "a long folder name/" * 20 + "walk[red].mcap"


def test_lines_and_cells_are_printed_as_they_are(capsys):
    say(PATH)
    note(PATH, style="yellow")
    print_table("[bold]passes", ["pass[1]", "file"], [["[green]one", PATH]])
    shown = capsys.readouterr()
    assert shown.err == f"{PATH}\n"
    lines = shown.out.splitlines()
    assert lines[0] == PATH
    assert "[bold]passes" in lines
    assert any("pass[1]" in line for line in lines)
    assert any("[green]one" in line and line.endswith(PATH) for line in map(str.rstrip, lines))
