# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the paper's experiments as text: cells for the terminal, Markdown for documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mspn_ros.evaluation.paper.published import Cell
from mspn_ros.evaluation.paper.tables import PaperTable, Ratio
from mspn_ros.evaluation.report import markdown_table

# (title, header, rows)
Block = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def blocks(table: PaperTable) -> Iterator[Block]:
    """Our table with the paper's cells of the same scenes; then the paper's, if it has others."""
    names = tuple(table.units)
    header = ("method", *(f"{name} ({unit}/deg)" for name, unit in table.units.items()))
    paper = {
        method: {scene: cell for scene, cell in row.items() if scene in names}
        for method, row in table.paper.items()
    }
    rows = []
    for method, cells in table.cells.items():
        rows += _rows(method, cells, names)
        if paper.get(method):
            rows += _rows(f"{method}, paper", paper[method], names, True)
    yield f"{table.name}: {table.title}; {table.note}", header, rows
    if not table.paper:
        return
    others = tuple(dict.fromkeys(scene for row in table.paper.values() for scene in row))
    if not set(others) <= set(names):
        yield (
            f"{table.name} in the paper",
            ("method", *(f"{name} (m/deg)" for name in others)),
            [
                line
                for method, cells in table.paper.items()
                for line in _rows(method, cells, others, True)
            ],
        )


def _rows(
    method: str, cells: dict[str, Cell], names: Sequence[str], printed: bool = False
) -> list[tuple[str, ...]]:
    """``printed``: as the paper prints them, instead of rounded to what a cell can mean."""
    found = [cells.get(name) for name in names]
    rows = [(_label(method), *(_text(cell, printed) for cell in found))]
    if any(cell and cell.accuracy is not None for cell in found):
        accuracy = [
            "-" if cell is None or cell.accuracy is None else f"{100 * cell.accuracy:.1f} %"
            for cell in found
        ]
        rows.append((f"{_label(method)}, scene named right", *accuracy))
    return rows


def _label(method: str) -> str:
    return method.replace("_", " ")


def _text(cell: Cell | None, printed: bool) -> str:
    if cell is None:
        return "-"
    if printed:
        return f"{cell.position:g} / {cell.rotation_deg:g}"
    return f"{cell.position:.3g} / {cell.rotation_deg:.1f}"


def ratio_lines(table: PaperTable) -> list[str]:
    """One sentence per comparison: errors of a method over another's, here and in the paper."""
    lines = []
    for method, other, ours, theirs in table.ratios():
        position, rotation = (_part(ours, i) for i in (0, 1))
        if table.paper:
            position += f" (paper {_part(theirs, 0)})"
            rotation += f" (paper {_part(theirs, 1)})"
        lines.append(
            f"{_label(method)} / {_label(other)}: position {position}, rotation {rotation}, "
            "geometric means over scenes"
        )
    return lines


def _part(ratio: Ratio, i: int) -> str:
    return "-" if ratio is None else f"x{ratio[i]:.2f}"


def markdown(table: PaperTable) -> str:
    """All blocks and ratios as Markdown."""
    parts = [
        f"**{title}**\n\n{markdown_table(header, rows)}" for title, header, rows in blocks(table)
    ]
    parts.append("\n".join(f"- {line}" for line in ratio_lines(table)) + "\n")
    return "\n".join(parts)
