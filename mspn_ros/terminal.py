# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the commands show in a terminal: progress bars and tables, by rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

console = Console()
# Notes and progress go to stderr, so that what is piped on is the result alone.
notes = Console(stderr=True)


def say(text: str, style: str | None = None) -> None:
    """A line of the result, on stdout, as it is.

    Rich neither breaks it, so that paths can be copied, nor takes ``[a]`` in file names as markup.
    """
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """A line beside the result, on stderr, as it is."""
    notes.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def rule(title: str) -> None:
    """A line across stdout that begins with ``title``."""
    console.rule(Text(title), align="left")


@contextmanager
def progress_bar(text: str, shown: bool = True) -> Iterator[Callable[..., None]]:
    """A bar on stderr; yields ``update(done, total, note="")``. Gone when done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=notes, transient=True, disable=not shown) as progress:
        task = progress.add_task(text, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield update


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column is left-aligned, the others right.

    Cells are never cut: what is piped on is as wide as it must be, a terminal wraps long lines.
    """
    table = RichTable(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    say(title, style="italic")
    wide = Console(file=console.file, width=10_000, markup=False)
    wide.width = max(wide.measure(table).maximum, console.width)
    wide.print(table)
