"""The files of run directories, read for people to look at.  No TensorFlow in here.

What a run leaves is described in docs/run_directory.md.  A run needs no more than ``config.yaml``: one that is under
way or was killed has the rest in part.
"""

import contextlib
import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed.checkpoint import disk
from launch.job.config import ConfigError, TrainConfig
from launch.job.run_directory import liveness
from launch.job.text_files import TextError, parse_yaml

LARGEST = 1 << 27  # bytes of a file
NOT_METRICS = ("epoch", "step", "learning_rate", "images_per_second", "seconds")  # columns of metrics.csv
DEFAULTS = {name: field.default for name, field in TrainConfig.model_fields.items()}


class ComparisonError(ValueError):
    """Runs that cannot be compared; its message has a sentence a line. It ends the program with exit code 2."""


@dataclass(frozen=True)
class Evaluation:
    """A folder ``evaluation-<name>``: ``metrics.json`` as it is, the lines of ``per_class.csv``, and the bytes of its
    pictures, file name -> PNG."""

    name: str
    metrics: dict
    per_class: list[dict[str, str]]
    pictures: dict[str, bytes]


@dataclass(frozen=True)
class Run:
    """A run, as its files tell it.

    Attributes:
        label: a letter, by which tables and curves name it.
        name: the shortest that tells it from the others.
        path: as it was given.
        status: finished, running, ...
        settings: all, with the defaults of what ``config.yaml`` does not name.
        epochs: the lines of ``metrics.csv``; None where a cell is empty.
        summary: ``summary.json``; empty where it is not there, or older than ``metrics.csv``.
        state: that of the last checkpoint; empty where there is none.
        record: ``labels.json``; empty for a run of an older version.
        exchange: ``exchange.json``; empty where nothing was measured.
        evaluations: by name.
    """

    label: str
    name: str
    path: Path
    status: str
    settings: dict
    epochs: list[dict[str, float | None]]
    summary: dict
    state: dict
    record: dict
    exchange: dict
    evaluations: tuple[Evaluation, ...]

    @property
    def final(self) -> dict[str, float | None]:
        """Metrics of the last epoch."""
        if self.summary:
            return self.summary["final"]
        last = self.epochs[-1] if self.epochs else {}
        return {name: value for name, value in last.items() if name not in NOT_METRICS}

    @property
    def best(self) -> dict[str, float | None]:
        """Metrics of the best epoch so far, and its number as ``epoch``."""
        if self.summary:
            return self.summary["best"]
        decisions = self.state.get("decisions", {})
        if decisions.get("best_epoch") is None:
            return {}
        metrics = decisions.get("best_metrics", {})
        kept = {name: value for name, value in metrics.items() if not name.endswith("examples")}
        return {"epoch": decisions["best_epoch"] + 1} | kept

    @property
    def facts(self) -> dict:
        """What the summary holds, or, before there is one, as much of it as the last checkpoint does."""
        return self.summary or self.state

    @property
    def versions(self) -> dict[str, str]:
        """Of Python and the packages, and of Lockstep where the run says it."""
        lockstep = {"lockstep": self.record["lockstep"]} if "lockstep" in self.record else {}
        return lockstep | (self.facts.get("versions") or self.record.get("versions", {}))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run directories.

    Raises:
        ComparisonError: one sentence for each path that is no run, is given twice, or has a file that cannot be read.
    """
    problems, first, fields = [], {}, []
    for path in paths:
        place = path.resolve()
        if place in first:
            problems.append(f"{path} was given twice, before as {first[place]}; give each run once")
            continue
        first[place] = path
        try:
            fields.append(_read(path))
        except ComparisonError as error:
            problems.append(str(error))
    if problems:
        raise ComparisonError("\n".join(problems))
    short = [path.resolve().name for path in paths]
    names = [name if name and short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]
    return [Run(label(i), names[i], path, **fields[i]) for i, path in enumerate(paths)]


def label(index: int) -> str:
    """A, B, ... Z, AA, AB, ... as columns of a sheet are named."""
    rest, letter = divmod(index, 26)
    return (label(rest - 1) if rest else "") + chr(ord("A") + letter)


def _read(path: Path) -> dict:
    """All attributes of a run that its directory tells."""
    if not path.is_dir():
        there = "is a file, not a run directory" if path.exists() else "does not exist"
        raise ComparisonError(f"{path} {there}; give a folder that train.py has written")
    if not (path / "config.yaml").exists():
        inside = sorted(folder.parent for folder in path.glob("*/config.yaml"))
        remedy = f"the runs in it are {path}/*" if inside else "give a folder that train.py has written"
        raise ComparisonError(f"{path} is no run, it has no config.yaml; {remedy}")
    problems = []

    def attempt(reader: Callable, name: str, *kinds: str):
        try:
            return reader(path / name, *kinds)
        except ComparisonError as error:
            problems.append(str(error))

    given = attempt(_settings, "config.yaml")
    epochs = attempt(_table, "metrics.csv")
    summary = attempt(_json, "summary.json", "final", "best", "versions", "exchange")
    files = {
        "state": attempt(_json, "checkpoints/last/state.json", "decisions", "versions"),
        "record": attempt(_json, "labels.json", "versions"),
        "exchange": attempt(_json, "exchange.json", "calibration"),
    }
    folders = sorted(file.parent for file in path.glob("evaluation-*/metrics.json"))
    evaluations = tuple(attempt(_evaluation, folder.name) for folder in folders)
    if problems:
        raise ComparisonError("\n".join(problems))
    if summary:
        summary = {"final": {}, "best": {}} | summary
        steps = summary.get("steps")
        if epochs and isinstance(steps, int) and epochs[-1]["step"] > steps:
            summary = {}  # somebody let the run go on
    return files | {
        "status": _status(path, summary),
        "settings": DEFAULTS | given,
        "epochs": epochs,
        "summary": summary,
        "evaluations": evaluations,
    }


def _status(path: Path, summary: dict) -> str:
    alive = False
    for file in path.glob(".lock/*"):
        with contextlib.suppress(ConfigError, OSError):
            if found := liveness.look(file):
                signs, owner = found
                alive = owner.alive(signs.inode) if owner else None
    if alive:
        return "running"
    if summary:
        return "interrupted" if summary.get("stopped_by") == "preempted" else "finished"
    # Another machine's owner can only be watched for a while, see liveness.py.
    return "not finished" if alive is False else "not finished, may be running"


def _bytes(path: Path) -> bytes:
    try:
        return disk.read_regular(path, LARGEST)
    except OSError as error:
        reason = error.strerror or error
        raise ComparisonError(f"{path} cannot be read ({reason}); mend it or leave the run out") from None


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError:
        raise ComparisonError(f"{path} cannot be read (it is not text); mend it or leave the run out") from None


def _settings(path: Path) -> dict:
    try:
        found = parse_yaml(_text(path))
    except TextError as error:
        raise ComparisonError(f"{path} is not YAML ({error}); mend it or leave the run out") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ComparisonError(f"{path} is not lines of the form 'name: value'; mend it or leave the run out")
    return found


def _json(path: Path, *objects: str) -> dict:
    """A file that holds an object, empty where there is none; ``objects`` name the parts of it that must be, too."""
    if not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except ComparisonError:
        raise
    except (ValueError, RecursionError):  # also a number of 5,000 digits
        raise ComparisonError(f"{path} is not JSON; mend it or leave the run out") from None
    if not isinstance(found, dict):
        raise ComparisonError(f"{path} holds no JSON object; mend it or leave the run out")
    for name in objects:
        if not isinstance(found.get(name, {}), dict):
            raise ComparisonError(f"{name} in {path} is no JSON object; mend it or leave the run out")
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(_text(path).splitlines(), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise ComparisonError(f"{path} is not CSV ({error}); mend it or leave the run out") from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            cells = len(reader.fieldnames)
            raise ComparisonError(f"line {number} of {path} has not {cells} cells; mend it or leave the run out")
    return rows


def _table(path: Path) -> list[dict[str, float | None]]:
    rows = _rows(path)
    try:
        table = [{name: float(cell) if cell else None for name, cell in row.items()} for row in rows]
    except ValueError as error:
        raise ComparisonError(f"{path} has a cell that is no number ({error}); mend it or leave the run out") from None
    if not all(math.isfinite(row.get(name) or math.nan) for row in table for name in ("epoch", "step")):
        raise ComparisonError(f"{path} lacks the number of an epoch or step; mend it or leave the run out")
    return table


def _evaluation(folder: Path) -> Evaluation:
    pictures = {}
    for path in (folder / "confusion.png", folder / "worst.png"):
        if path.exists():
            content = _bytes(path)
            if not content.startswith(b"\x89PNG\r\n\x1a\n"):
                raise ComparisonError(f"{path} is no PNG picture; evaluate the run again")
            pictures[path.name] = content
    name = folder.name.removeprefix("evaluation-")
    return Evaluation(name, _json(folder / "metrics.json"), _rows(folder / "per_class.csv"), pictures)
