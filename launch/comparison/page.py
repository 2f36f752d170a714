"""``report.html``: one run or several on one page that needs nothing besides itself."""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from launch.comparison import repeat
from launch.comparison.curves import COLOURS, DARK_COLOURS, panels
from launch.comparison.differences import is_number, number, outcome_rows, same_weights, setting, settings_rows
from launch.comparison.evaluated import evaluation
from launch.comparison.markup import Best, command, comparison, details, heading, paragraph, section, table, text
from launch.comparison.runs import DEFAULTS, Run
from launch.comparison.svg import MOST_POINTS, chart

# No script, no address: whatever a file holds, the page asks the network for nothing.
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<header>
<h1>$title</h1>
$runs
<nav aria-label="Parts of this page">$links</nav>
</header>
<main>
$main
</main>
</body>
</html>
""")


def page(runs: Sequence[Run]) -> str:
    """The page of one run, or of several beside each other."""
    parts = {
        "results": ("Results", _results(runs)),
        "curves": ("Curves", _curves(runs)),
        "settings": ("Settings", _settings(runs)),
        "evaluation": ("Evaluation", _evaluations(runs)),
        "timing": ("Timing and exchange", _timing(runs)),
        "environment": ("Environment", _environment(runs)),
        "repeat": ("How to repeat it", _repeat(runs)),
    }
    sections = {name: section(name, title, *content) for name, (title, content) in parts.items()}
    links = [f'<a href="#{name}">{text(parts[name][0])}</a>' for name, content in sections.items() if content]
    return PAGE.substitute(
        title=text(runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"),
        style=_style(),
        runs=_introduction(runs),
        links=" ".join(links),
        main="\n".join(content for content in sections.values() if content),
    )


def _style() -> str:
    """The style sheet, and the runs' colours on light and on dark."""

    def colours(values: Sequence[str]) -> str:
        return " ".join(f"--run{i}: {value};" for i, value in enumerate(values))

    used = "\n".join(f".run{i} {{ --run: var(--run{i}); }}" for i in range(len(COLOURS)))
    light, dark = colours(COLOURS), colours(DARK_COLOURS)
    sheet = Path(__file__).with_name("report.css").read_text()
    # Only screens are dark; paper is not.
    return (
        f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{used}\n{sheet}"
    )


def _introduction(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return paragraph(f"{runs[0].path}, {runs[0].status}", "note")
    items = (
        f'<li class="run{i % len(COLOURS)}"><b>{run.label}</b> <span>{text(run.path)}</span> '
        f"<i>{text(run.status)}</i></li>"
        for i, run in enumerate(runs)
    )
    return f'<ul class="runs">{"".join(items)}</ul>'


def _labels(runs: Sequence[Run], first: str) -> list[str]:
    return [first, *(run.label for run in runs)] if len(runs) > 1 else [first, "value"]


def _results(runs: Sequence[Run]) -> list[str]:
    rows = comparison("What came out", _labels(runs, "result"), outcome_rows(runs))
    return [*map(paragraph, same_weights(runs)), rows]


def _curves(runs: Sequence[Run]) -> list[str]:
    labels, shown = [run.label for run in runs], panels(runs)
    if not shown:
        return [paragraph("No epoch is over yet.")]
    figures = "\n".join(
        f"<figure><figcaption>{text(panel.title)}</figcaption>{chart(panel, labels)}</figure>" for panel in shown
    )
    dashed = "Solid with v: validation; dashed with t: training. " if len(runs) == 1 else ""
    thinned = f" Of long curves about {MOST_POINTS} points are shown." if _longest(shown) > MOST_POINTS else ""
    note = paragraph(f"{dashed}Point at a mark to read its value; all values are in the tables below.{thinned}", "note")
    tables = [details(_titled("Values of each epoch", run, runs), _epochs(run)) for run in runs if run.epochs]
    return [note, f'<div class="charts">{figures}</div>', *tables]


def _titled(title: str, run: Run, runs: Sequence[Run]) -> str:
    return f"{title}: {run.label} {run.name}" if len(runs) > 1 else title


def _longest(shown) -> int:
    return max(len(curve.points) for panel in shown for curve in panel.curves)


def _epochs(run: Run) -> str:
    names = list(run.epochs[0])
    forms = dict.fromkeys(("epoch", "step"), ",.0f") | {"images_per_second": ",.0f", "seconds": ",.1f"}
    rows = [[number(row[name], forms.get(name, ".5g")) for name in names] for row in run.epochs]
    return table(f"Epochs of {run.name}", names, rows)


def _settings(runs: Sequence[Run]) -> list[str]:
    rows = settings_rows(runs)
    if len(runs) == 1:
        given = [
            [row.name, Best(value) if row.name not in DEFAULTS or value != setting(DEFAULTS[row.name]) else value]
            for row in rows
            for value in row.cells
        ]
        changed = [cells for cells in given if isinstance(cells[1], Best)]
        shown = table("Other than the defaults", ("setting", "value"), changed) if changed else ""
        return [shown, details("All settings", table("All settings", ("setting", "value"), given))]
    differing = comparison("What differs", _labels(runs, "setting"), rows) if rows else paragraph("They are the same.")
    complete = [
        details(
            _titled("All settings", run, runs),
            table(f"Settings of {run.name}", ("setting", "value"), ((n, setting(v)) for n, v in run.settings.items())),
        )
        for run in runs
    ]
    return [differing, *complete]


def _evaluations(runs: Sequence[Run]) -> list[str]:
    several = len(runs) > 1
    return [
        evaluation(run, found, f"{run.label} {run.name}: {found.name}" if several else found.name)
        for run in runs
        for found in run.evaluations
    ]


def _timing(runs: Sequence[Run]) -> list[str]:
    parts = []
    for run in runs:
        shown = [_pace(run), _exchange(run), _links(run)]
        if any(shown):
            parts += [heading(f"{run.label} {run.name}") if len(runs) > 1 else "", *shown]
    return parts


def _pace(run: Run) -> str:
    spent = [row["seconds"] for row in run.epochs if is_number(row.get("seconds"))]
    if not spent:
        return ""
    total = run.summary.get("seconds")
    start = f"; {number(total, ',.1f')} s from its last start to its end" if total is not None else ""
    rates = sorted(row["images_per_second"] for row in run.epochs if is_number(row.get("images_per_second")))
    pace = f"; {rates[0]:,.0f} to {rates[-1]:,.0f} images/s" if rates else ""
    return paragraph(f"{sum(spent):,.1f} s of training steps in {len(spent)} epochs{start}{pace}.")


def _exchange(run: Run) -> str:
    layers = {name: found for name, found in run.facts.get("exchange", {}).items() if isinstance(found, dict)}
    if not layers or run.facts.get("replicas") == 1:
        return ""

    def scaled(found: dict, name: str, factor: float) -> str:
        value = found.get(name)
        return number(value * factor if is_number(value) else value, ",.3g")

    rows = [
        [
            name,
            number(found.get("scheme")),
            scaled(found, "bytes", 1e-6),
            scaled(found, "allreduce_bytes", 1e-6),
            scaled(found, "seconds", 1000),
            scaled(found, "allreduce_seconds", 1000),
        ]
        for name, found in layers.items()
    ]
    headings = ("layer", "way", "MB", "MB if summed", "ms, predicted", "ms if summed")
    return table("Gradients of dense layers, per step and replica", headings, rows)


def _links(run: Run) -> str:
    """What ``--exchange auto`` measured."""
    units = {"reduce": ("sum", "MB"), "gather": ("gather", "MB")}
    rows = []
    for name, (shown, unit) in units.items():
        line = run.exchange.get("calibration", {}).get(name)
        if isinstance(line, dict) and is_number(line.get("latency")) and is_number(line.get("per_unit")):
            rows.append([shown, f"{1000 * line['latency']:.3g} ms", f"{1e9 * line['per_unit']:.3g} ms per {unit}"])
    return table("Measured between the workers", ("operation", "latency", "and then"), rows) if rows else ""


def _environment(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.versions)
    rows = [[name, *(number(run.versions.get(name)) for run in runs)] for name in names]
    return [table("Versions", _labels(runs, "package"), rows)] if rows else []


def _repeat(runs: Sequence[Run]) -> list[str]:
    parts = []
    for run in runs:
        if len(runs) > 1:
            parts.append(heading(f"{run.label} {run.name}"))
        if given := repeat.given_from_python(run):
            what = " and ".join(given)
            parts.append(paragraph(f"A script gave the {what} of this run; only that script repeats it.", "note"))
            continue
        parts += [command(repeat.by_file(run)), paragraph("The same without the file:"), command(repeat.by_flags(run))]
    return parts
