# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page: facts, tables, pictures; opens anywhere, loads nothing."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from mspn_ros.evaluation.answers import Answer, Table, by_scene, scene_errors
from mspn_ros.metrics import CovarianceScore, SceneScore
from mspn_ros.records import ImageHW3, MspnError, SceneRow

# Nothing is loaded and nothing runs, whatever a name from a file might smuggle in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em;
       color: #222; }
h1, h2 { line-height: 1.2; } img { max-width: 100%; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.mean td { font-weight: 600; border-top: 2px solid #888; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2em 1em; }
dt { color: #666; } dd { margin: 0; }
figure { display: inline-block; margin: .5em; } figcaption { font-size: 12px; color: #444; }
figure.frame img { width: 220px; }
"""

HEADER = (
    "scene",
    "frames",
    "answered",
    "scene right",
    "position",
    "of extent",
    "rotation",
)


def table_cells(table: Table) -> list[tuple[str, ...]]:
    """The rows of a table as text under HEADER, errors as medians; the mean last."""
    scores = [*table.scores, *([table.mean] if table.mean else [])]
    return [_cells(score) for score in scores]


def _cells(score: SceneScore) -> tuple[str, ...]:
    def number(value: float, form: str) -> str:
        return format(value, form) if math.isfinite(value) else "inf"

    unit = "" if score.unit == "mixed" else f" {score.unit}"
    return (
        score.scene,
        str(score.frames),
        str(score.answered),
        f"{100 * score.scene_accuracy:.1f} %",
        "-" if score.unit == "mixed" else f"{number(score.median_position, '.3f')}{unit}",
        f"{number(score.percent_of_extent, '.1f')} %",
        f"{number(score.median_rotation_deg, '.2f')}°",
    )


COVARIANCE_HEADER = (
    "scene",
    "frames",
    "position in 95 % region",
    "its squared error (median, mean)",
    "rotation in 95 % region",
    "its squared error (median, mean)",
)


def covariance_cells(scores: Sequence[CovarianceScore]) -> list[tuple[str, ...]]:
    """The rows of a table under COVARIANCE_HEADER."""
    return [
        (
            score.scene,
            str(score.frames),
            f"{100 * score.position_coverage:.1f} %",
            f"{score.position_median:.2f}, {score.position_mean:.2f}",
            f"{100 * score.rotation_coverage:.1f} %",
            f"{score.rotation_median:.2f}, {score.rotation_mean:.2f}",
        )
        for score in scores
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, for docs and logs."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"


def comparison_cells(tables: dict[str, Table]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: a method each with its medians by scene, the first being the model's.

    The last column is the model's errors over the method's, position / rotation, as geometric
    means over scenes: below 1 the model is better.
    """
    model, *_ = tables.values()
    header = ("method", *(f"{s.scene} ({s.unit}/deg)" for s in model.scores), "model / method")
    rows = []
    for title, table in tables.items():
        cells = [f"{s.median_position:.3f} / {s.median_rotation_deg:.1f}" for s in table.scores]
        rows.append((title, *cells, "" if table is model else _ratio(model, table)))
    return header, rows


def _ratio(model: Table, other: Table) -> str:
    means = []
    for kind in ("median_position", "median_rotation_deg"):
        pairs = zip(model.scores, other.scores, strict=True)
        ratios = np.array([getattr(a, kind) / max(getattr(b, kind), 1e-12) for a, b in pairs])
        means.append(f"{np.exp(np.log(ratios).mean()):.2f}")
    return " / ".join(means)


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG or JPEG file's bytes with a caption; ``frame`` marks a small camera picture."""

    content: bytes
    caption: str
    frame: bool = False


def write_report(
    path: Path,
    title: str,
    facts: dict[str, str],
    tables: dict[str, Table],
    pictures: Sequence[Picture],
) -> Path:
    """Write the page.

    Raises:
        MspnError: the file cannot be written.
    """
    parts = ["<dl>"]
    parts += [f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()]
    parts.append("</dl>")
    for heading, table in tables.items():
        parts.append(f"<h2>{escape(heading)}</h2>" + _html_table(table))
    parts.append("<h2>Pictures</h2>")
    parts += [html_figure(picture) for picture in pictures]
    return write_page(path, title, parts)


def write_page(path: Path, title: str, parts: Sequence[str], style: str = "") -> Path:
    """Write a page of ``parts``, which are HTML already; ``title`` is text.

    Raises:
        MspnError: the file cannot be written.
    """
    head = "<!doctype html><html lang=en><meta charset=utf-8>"
    head += f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    head += f"<title>{escape(title)}</title>"
    head += f"<style>{_STYLE}{style}</style><h1>{escape(title)}</h1>"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files may hold bytes that are no UTF-8.
        text = "\n".join([head, *parts]) + "</html>\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise MspnError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def html_figure(picture: Picture) -> str:
    """A picture inside the page, with its caption."""
    kind = "png" if picture.content.startswith(b"\x89PNG") else "jpeg"
    encoded = base64.b64encode(picture.content).decode()
    return (
        f"<figure{' class=frame' if picture.frame else ''}>"
        f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(picture.caption)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def html_rows(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    marks: Sequence[str] = (),
    kind: str = "",
) -> str:
    """A table of text; ``marks`` are the rows' classes, ``kind`` is the table's."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = []
    for i, cells in enumerate(rows):
        mark = f" class={marks[i]}" if marks and marks[i] else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    start = f"<table class={kind}>" if kind else "<table>"
    return f"{start}<tr>{head}</tr>{''.join(body)}</table>"


def _html_table(table: Table) -> str:
    rows = table_cells(table)
    text = html_rows(HEADER, rows, ["mean" if cells[0] == "mean" else "" for cells in rows])
    latency = ""
    if table.latency_ms:
        values = ", ".join(f"{k} {v:.1f} ms" for k, v in table.latency_ms.items())
        latency = f"<p>Latency: {values}.</p>"
    counts = ", ".join(f"{name} {count}" for name, count in table.counts.items())
    dropped = f"<p>Frames without an answer of the localizer: {table.dropped} ({counts}).</p>"
    return f"{text}{latency}{dropped}"


def sample_answers(
    answers: Sequence[Answer], rows: Sequence[SceneRow], per_scene: int = 3
) -> list[tuple[Answer, str]]:
    """A good, a typical and a bad frame of each scene (by position error), with a caption."""
    known = {row.name: row for row in rows}
    chosen = []
    for scene, group in by_scene(answers).items():
        errors = scene_errors(group, known)
        order = errors.position.argsort(kind="stable")
        for share in (0.05, 0.5, 0.95)[:per_scene]:
            i = int(order[int(share * (len(group) - 1))])
            caption = (
                f"{scene}: named {group[i].estimate.scene}, "
                f"{errors.position[i]:.2f} {known[scene].unit if scene in known else ''}, "
                f"{errors.rotation_deg[i]:.1f} deg"
            )
            chosen.append((group[i], caption))
    return chosen


def encode_frame(image: ImageHW3) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes of at most 320 pixels' width."""
    import io

    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((320, 320))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
