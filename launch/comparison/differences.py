"""Runs side by side: rows with a cell for each run, for the console and for the page alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from launch.comparison.runs import Run

RUN_OWN = ("run_dir",)  # differs between any two runs and says nothing
EMPTY = "–"


@dataclass(frozen=True)
class Row:
    """A line of a table: its heading, a cell for each run, and the indices of the runs that are best in it."""

    name: str
    cells: tuple[str, ...]
    best: frozenset[int] = frozenset()


def printable(text: object) -> str:
    """Text that moves no cursor and closes no line, whatever stood in a file."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def setting(value: object) -> str:
    """The value of a setting as flags take it."""
    if isinstance(value, list | tuple):
        return ",".join(setting(part) for part in value)
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return printable(value)


def number(value: object, form: str = "") -> str:
    """A number from a file in the given form, or whatever it is; a dash for nothing."""
    if value is None:
        return EMPTY
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(value)
    return f"{value:{form}}"


def settings_rows(runs: Sequence[Run]) -> list[Row]:
    """The settings that are not the same in all runs; of one run, all."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in RUN_OWN)
    rows = [Row(printable(name), tuple(setting(run.settings.get(name)) for run in runs)) for name in names]
    return [row for row in rows if len(runs) == 1 or len(set(row.cells)) > 1]


def outcome_rows(runs: Sequence[Run]) -> list[Row]:
    """What came out; no row that is empty in all runs."""
    facts = [run.facts for run in runs]
    rows = [
        Row("stopped by", tuple(number(run.summary.get("stopped_by")) for run in runs)),
        Row("epochs", tuple(_of(len(run.epochs), run.settings.get("epochs")) for run in runs)),
        Row("best epoch", tuple(number(run.best.get("epoch")) for run in runs)),
        *_metric_rows("best", [run.best for run in runs]),
        *_metric_rows("final", [run.final for run in runs]),
        Row("images/s", tuple(number(_pace(run), ",.0f") for run in runs)),
        Row("seconds", tuple(number(run.summary.get("seconds"), ",.1f") for run in runs)),
        Row("steps", tuple(number(_steps(run), ",.0f") for run in runs)),
        Row("global batch", tuple(number(_first(fact, "global_batch_size", "global_batch"), ",") for fact in facts)),
        Row("parameters", tuple(number(fact.get("parameters"), ",") for fact in facts)),
        Row("workers", tuple(workers(run) for run in runs)),
        Row("weights", tuple(number(run.summary.get("weights_sha256"))[:8] for run in runs)),
    ]
    return [row for row in rows if set(row.cells) != {EMPTY}]


def workers(run: Run) -> str:
    """How many replicas trained it, and the name of their strategy."""
    if "replicas" not in run.facts:
        return EMPTY
    return f"{number(run.facts['replicas'])} {number(run.facts.get('strategy'))}"


def same_weights(runs: Sequence[Run]) -> list[str]:
    """A sentence for each group of runs that ended with the same bits."""
    groups = {}
    for run in runs:
        if weights := run.summary.get("weights_sha256"):
            groups.setdefault(str(weights), []).append(run.label)
    return [
        f"same weights, to the last bit: {', '.join(labels)} (sha256 {printable(weights)[:8]})"
        for weights, labels in groups.items()
        if len(labels) > 1
    ]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metric_rows(when: str, metrics: list[dict]) -> list[Row]:
    names = dict.fromkeys(name for found in metrics for name in found if name != "epoch")
    # What most people look for first.
    ordered = sorted(names, key=lambda name: (not name.startswith("val_"), name.endswith("loss")))
    return [_metric_row(f"{when} {printable(name)}", name, [found.get(name) for found in metrics]) for name in ordered]


def _metric_row(heading: str, name: str, values: list) -> Row:
    known = [value for value in values if is_number(value)]
    # As distributed/decisions.py: of the loss less is better, of every other metric more.
    best = (min if name.removeprefix("val_") == "loss" else max)(known) if len(set(known)) > 1 else None
    winners = frozenset(i for i, value in enumerate(values) if best is not None and value == best)
    return Row(heading, tuple(number(value, ".4f") for value in values), winners)


def _steps(run: Run) -> object:
    return _first(run.facts, "steps", "step")


def _pace(run: Run) -> object:
    """Images per second as the summary has it: the median over the epochs."""
    rates = [row["images_per_second"] for row in run.epochs if is_number(row.get("images_per_second"))]
    return run.summary.get("images_per_second", median(rates) if rates else None)


def _first(found: dict, *names: str) -> object:
    return next((found[name] for name in names if name in found), None)


def _of(done: int, planned: object) -> str:
    return f"{done} of {number(planned)}"
