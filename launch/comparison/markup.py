"""The few pieces of HTML that the page is made of.  All that comes from files passes through ``text``."""

import base64
import html
from collections.abc import Iterable, Sequence

from launch.comparison.differences import Row, printable

LONG = 28  # characters of a cell from which on it may be broken


def text(value: object) -> str:
    """Text as HTML shows it, also inside of attributes."""
    return html.escape(printable(value))


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page, which links reach as ``#name``; nothing where all its parts are empty."""
    content = "\n".join(part for part in parts if part)
    if not content:
        return ""
    heading = f'<h2 id="{name}-title">{text(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{heading}\n{content}\n</section>'


def heading(title: str) -> str:
    return f"<h3>{text(title)}</h3>"


def paragraph(sentence: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{text(sentence)}</p>"


def command(line: str) -> str:
    """A command that people copy."""
    return f'<pre tabindex="0"><code>{text(line)}</code></pre>'


def details(title: str, content: str) -> str:
    """What is shown on request."""
    return f"<details><summary>{text(title)}</summary>\n{content}\n</details>"


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first column names its lines; a cell that is a ``Best`` is marked."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in headings)
    lines = (
        f'<tr><th scope="row"{_kind(first)}>{text(first)}</th>'
        + "".join(f"<td{_kind(cell)}>{text(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    body = "\n".join(lines)
    # Wide tables scroll by themselves, also by keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>\n'
        f"<caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


class Best(str):
    """A cell that is the best of its line."""


def _kind(cell: object) -> str:
    kinds = ["best"] * isinstance(cell, Best) + ["long"] * (len(str(cell)) > LONG)
    return f' class="{" ".join(kinds)}"' if kinds else ""


def comparison(caption: str, headings: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows that have a cell for each run."""
    cells = ([row.name, *(Best(c) if i in row.best else c for i, c in enumerate(row.cells))] for row in rows)
    return table(caption, headings, cells)


def picture(content: bytes, description: str, caption: str) -> str:
    """A PNG picture inside of the page."""
    data = base64.b64encode(content).decode()
    return (
        f'<figure class="picture"><img src="data:image/png;base64,{data}" alt="{text(description)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )
