"""The comparison on the console: which runs, what differs in their settings, what came out."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.comparison.differences import Row, outcome_rows, printable, same_weights, settings_rows
from launch.comparison.runs import Run

MOST_COLUMNS = 8  # runs beside each other; more of them stand below each other
WIDEST = 28  # characters of a cell before it is folded


def show(runs: Sequence[Run], console: Console) -> None:
    """Print the comparison; of one run, what came out."""
    names = Table.grid(padding=(0, 2))
    for run in runs:
        names.add_row(Text(run.label, "bold"), Text(printable(run.name), overflow="fold"), Text(run.status))
    console.print(names)
    if len(runs) > 1:
        rows = settings_rows(runs)
        if rows:
            _print("what differs in their settings", rows, runs, console)
        else:
            console.print("\ntheir settings are the same")
    _print("what came out", outcome_rows(runs), runs, console)
    for sentence in same_weights(runs):
        console.print(Text(sentence))


def _print(title: str, rows: list[Row], runs: Sequence[Run], console: Console) -> None:
    labels = [run.label for run in runs]
    columns = [[row.cells[i] for row in rows] for i in range(len(runs))]
    heads = [row.name for row in rows]
    console.print(Text(f"\n{title}", "bold"))
    if len(runs) == 1 or len(runs) <= MOST_COLUMNS and _width(heads, *columns) <= console.width:
        table = _table(["", *labels])
        for row in rows:
            table.add_row(Text(row.name), *(_cell(row, i) for i in range(len(runs))))
        console.print(table)
        return
    for block in _blocks(rows, labels, console.width):
        table = _table(["", *(row.name for row in block)])
        for i, label in enumerate(labels):
            table.add_row(Text(label, "bold"), *(_cell(row, i) for row in block))
        console.print(table)


def _table(headings: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, heading in enumerate(headings):
        # Folded, never cut: a setting that nobody can read does not tell runs apart.
        side, widest = ("right", WIDEST) if i else ("left", None)
        table.add_column(Text(heading), justify=side, overflow="fold", max_width=widest)
    return table


def _cell(row: Row, index: int) -> Text:
    return Text(row.cells[index], "bold green" if index in row.best else "", overflow="fold")


def _blocks(rows: list[Row], labels: list[str], width: int) -> list[list[Row]]:
    """The rows, which become columns, in groups that fit beside each other."""
    blocks = [[]]
    for row in rows:
        if blocks[-1] and _width(labels, *([other.name, *other.cells] for other in (*blocks[-1], row))) > width:
            blocks.append([])
        blocks[-1].append(row)
    return blocks


def _width(first: Sequence[str], *columns: Sequence[str]) -> int:
    """Characters that a table takes: its cells, and two between columns."""
    return max(map(len, first)) + sum(3 + min(WIDEST, max(map(len, column))) for column in columns)
