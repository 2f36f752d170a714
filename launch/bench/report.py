"""What a benchmark leaves: a table on the console, JSON, and a picture."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass
class Result:
    """Rows of a comparison and what they say.

    Attributes:
        rows: each with ``case`` (model and batch), ``setting`` (what varies), ``contestant`` and measured columns.
        value: the column that the picture shows.
        limits: what limits the run; see ``launch/bench/limits.py``.
        notes: sentences.
        curve: whether the settings are numbers of ranks, to be drawn as a curve with the ideal line.
    """

    value: str
    rows: list[dict] = field(default_factory=list)
    limits: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curve: bool = False

    def add(self, case: str, setting: str, contestant: str, columns: dict) -> None:
        self.rows.append({"case": case, "setting": setting, "contestant": contestant} | columns)


def _range(form: str):
    return lambda pair: f"{pair[0]:{form}}-{pair[1]:{form}}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _number(form: str, unit: str = ""):
    return lambda value: f"{value:{form}}{unit}"


# Column -> heading, and how a value is written; the order is the table's.
COLUMNS = {
    "case": ("case", str),
    "setting": ("setting", str),
    "contestant": ("contestant", str),
    "ms_per_step": ("ms/step", _number(",.1f")),
    "ms_spread": ("min-max", _range(",.1f")),
    "images_per_second": ("images/s", _rate),
    "ratio": ("times", _number(".2f")),
    "ratio_spread": ("min-max", _range(".2f")),
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
    picture = path.with_suffix(".png")
    draw(
        result, f"benchmark {facts['benchmark']}, {facts['machine']['cpu']}, {facts['machine']['cores']} cores", picture
    )
    return [path, picture]


def draw(result: Result, title: str, path: Path) -> None:
    """Draw the rows, and beside them the parts of a step where these are known."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    panels = 2 if result.limits else 1
    figure = Figure(figsize=(7 * panels, 4.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    figure.suptitle(title, fontsize=10)
    (_curves if result.curve else _bars)(axes[0], result)
    if result.limits:
        _parts(axes[1], result.limits)
    figure.savefig(path, dpi=120)


def _bars(axes, result: Result) -> None:
    groups = list(dict.fromkeys((row["case"], row["setting"]) for row in result.rows))
    names = list(dict.fromkeys(row["contestant"] for row in result.rows))
    width, values = 0.8 / len(names), []
    for index, name in enumerate(names):
        rows = [row for row in result.rows if row["contestant"] == name and row.get(result.value) is not None]
        places = [groups.index((row["case"], row["setting"])) + (index - (len(names) - 1) / 2) * width for row in rows]
        heights = [row[result.value] for row in rows]
        axes.bar(places, heights, width, yerr=_reach(rows, result.value), label=name, ecolor="grey", capsize=2)
        values += heights
    if values and min(values) > 0 and max(values) / min(values) > 30:
        axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), ["\n".join(filter(None, group)) for group in groups], fontsize=8)
    axes.set_ylabel(COLUMNS[result.value][0])
    axes.margins(y=0.3)  # room for the legend
    axes.legend(fontsize=8)


def _reach(rows: list[dict], column: str) -> list[list[float]] | None:
    """How far the rounds reach below and above the median of each row; None for a column without a range."""
    ranges = {"ms_per_step": lambda row: row["ms_spread"], "images_per_second": lambda row: row["images_spread"]}
    if column not in ranges:
        return None
    pairs = [(row[column] - ranges[column](row)[0], ranges[column](row)[1] - row[column]) for row in rows]
    return [list(side) for side in zip(*pairs, strict=True)]


def _curves(axes, result: Result) -> None:
    """Images per second over the ranks, as multiples of what one rank does; the ideal is a straight line."""
    series = {}
    for row in result.rows:
        # All are compared with the same single rank.
        series.setdefault((row["case"], row["contestant"]), {1: 1.0})[row["ranks"]] = row["ratio"]
    most = max(ranks for points in series.values() for ranks in points)
    axes.plot([1, most], [1, most], "--", color="grey", label="ideal")
    for (case, name), points in series.items():
        axes.plot(*zip(*sorted(points.items()), strict=True), "o-", label=f"{case}, {name}")
    axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("ranks, one core each")
    axes.set_ylabel("times the images/s of one rank")
    axes.legend(fontsize=8)


def _parts(axes, limits: list[dict]) -> None:
    labels = ["\n".join(filter(None, (part["case"], part["setting"], part["contestant"]))) for part in limits]
    floor = [0.0] * len(limits)
    for name in ("compute", "update", "exchange", "input", "saving"):
        heights = [100 * part["share"].get(name, 0.0) for part in limits]
        if any(heights):
            axes.bar(range(len(limits)), heights, 0.6, bottom=floor, label=name)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    axes.set_xticks(range(len(limits)), labels, fontsize=7)
    axes.set_ylabel("% of a step")
    axes.legend(fontsize=8)
