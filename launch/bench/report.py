"""What a benchmark leaves: a table on the console, JSON, and a picture (``picture.py``)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from launch.bench import picture
from launch.bench.timing import Timing


@dataclass
class Result:
    """Rows of a comparison and what they say.

    Attributes:
        value: the column that the picture shows.
        rows: each with ``case`` (model and batch), ``setting`` (what varies), ``contestant`` and measured columns;
            all with ``ranks`` are drawn as curves over these.
        limits: what limits the run: ``case``, ``setting``, ``contestant``, and ``timing.parts``.
        notes: sentences.
    """

    value: str
    rows: list[dict] = field(default_factory=list)
    limits: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, setting: str, contestant: str, columns: dict) -> None:
        self.rows.append({"case": case, "setting": setting, "contestant": contestant} | columns)

    def add_beside(self, case: str, setting: str, timings: dict[str, Timing], more: dict | None = None) -> None:
        """A row for each contestant; the first one's says how many times the second it is, and has ``more`` columns,
        and notes say how many times the others it is."""
        (name, ours), (nearest, theirs), *others = timings.items()
        self.add(case, setting, name, ours.row() | ours.speedup(theirs) | {"ratio_to": nearest} | (more or {}))
        for other, timing in [(nearest, theirs), *others]:
            self.add(case, setting, other, timing.row())
        for other, timing in others:
            self.add_note(", ".join(filter(None, (case, setting))), ours, other, timing)

    def add_note(self, where: str, ours: Timing, name: str, theirs: Timing) -> None:
        """A sentence on how many times the images per second of ``name`` Lockstep does."""
        times = ours.speedup(theirs)
        low, high = times["ratio_spread"]
        self.notes.append(f"{where}: lockstep is {times['ratio']:.2f} ({low:.2f}-{high:.2f}) times {name}")

    def add_limit(self, case: str, setting: str, contestant: str, parts: dict) -> None:
        self.limits.append({"case": case, "setting": setting, "contestant": contestant} | parts)


def _number(form: str, unit: str = ""):
    return lambda value: f"{value:{form}}{unit}"


def _range(number):
    return lambda pair: f"{number(pair[0])}-{number(pair[1])}"


def _milliseconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


# Column -> heading, and how a value is written; the order is the table's.
COLUMNS = {
    "case": ("case", str),
    "setting": ("setting", str),
    "contestant": ("contestant", str),
    "ms_per_step": ("ms/step", _milliseconds),
    "ms_spread": ("min-max", _range(_milliseconds)),
    "images_per_second": ("images/s", _rate),
    "ratio": ("times", _number(".2f")),
    "ratio_spread": ("min-max", _range(_number(".2f"))),
    "ratio_to": ("of", str),
    "efficiency": ("efficiency", _number(".0%")),
    "cores_busy": ("cores busy", _number(".2f")),
    "mb_per_step": ("MB/step/rank", _number(",.2f")),
    "mb_model": ("model", _number(",.2f")),
    "mb_control": ("idle talk", _number(",.2f")),
    "fewer_bytes": ("fewer bytes", _number(".1f", "x")),
    "between_epochs_ms": ("between epochs ms", _number(",.1f")),
    "blocked_seconds": ("in the callback s", _number(".3f")),
    "cost_seconds": ("cost of a save s", _number(".3f")),
    "share_of_20_s": ("of a 20 s epoch", _number(".1%")),
}


def machine_sentence(facts: dict) -> str:
    """The machine and its load, in one line."""
    here, before, after = facts["machine"], facts["load_before"], facts["load_after"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return (
        f"machine: {here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, Linux {here['kernel']}, {versions}; "
        f"busy before {before['cores_busy']} and after {after['cores_busy']} cores"
    )


def show(result: Result, title: str, console: Console) -> None:
    """Print the table, the limits and the notes."""
    columns = [name for name in COLUMNS if any(name in row for row in result.rows)]
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(COLUMNS[name][0], justify="left" if COLUMNS[name][1] is str else "right", overflow="fold")
    for row, following in zip(result.rows, [*result.rows[1:], None], strict=True):
        cells = [COLUMNS[name][1](row[name]) if row.get(name) is not None else "" for name in columns]
        here, there = ((r["case"], r["setting"]) if r else None for r in (row, following))
        table.add_row(*cells, end_section=here != there)
    console.print(table)
    for line in [*map(limit_sentence, result.limits), *result.notes]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def limit_sentence(limit: dict) -> str:
    """What limits one contestant, in a sentence with the share of each part."""
    share = sorted(limit["share"].items(), key=lambda pair: -pair[1])
    parts = ", ".join(f"{name} {part:.0%} ({1000 * limit['seconds'][name]:.1f} ms)" for name, part in share)
    where = ", ".join(filter(None, (limit["case"], limit["setting"], limit["contestant"])))
    return f"limit: {where}: {limit['limit']}; of a step: {parts}"


def save(result: Result, path: Path, facts: dict) -> list[Path]:
    """Write the JSON file, and the picture beside it; ``facts`` come first in the file."""
    content = facts | {"rows": result.rows, "limits": result.limits, "notes": result.notes}
    path.write_text(json.dumps(content, indent=1) + "\n")
    machine = facts["machine"]
    title = f"benchmark {facts['benchmark']}, {machine['cpu']}, {machine['cores']} cores"
    picture.draw(result, COLUMNS[result.value][0], title, path.with_suffix(".png"))
    return [path, path.with_suffix(".png")]
