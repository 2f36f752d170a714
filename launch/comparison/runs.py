"""Runs, put together from the files of their directories for people to look at.  No TensorFlow in here.

What a run leaves is described in docs/run_directory.md.  A run needs no more than ``config.yaml``: one that is under
way or was killed has the rest in part.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.comparison import files
from launch.comparison.files import ComparisonError, Evaluation
from launch.job.config import ConfigError, TrainConfig
from launch.job.run_directory import earlier, liveness

NOT_METRICS = ("epoch", "step", "learning_rate", "images_per_second", "seconds")  # columns of metrics.csv
DEFAULTS = {name: field.default for name, field in TrainConfig.model_fields.items()}


@dataclass(frozen=True)
class Run:
    """A run, as its files tell it.

    Attributes:
        label: a letter, by which tables and curves name it.
        name: the shortest that tells it from the others.
        path: as it was given.
        status: finished, running, ...
        settings: all, with the defaults of what ``config.yaml`` does not name, as they were for that run.
        earlier: those of them that are not the defaults of today.
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
    earlier: dict
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
        except OSError as error:
            place = error.filename or path
            problems.append(f"{place} cannot be read ({error.strerror}); mend that or leave the run out")
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

    given = attempt(files.settings, "config.yaml")
    epochs = attempt(files.table, "metrics.csv")
    summary = attempt(files.json_object, "summary.json", "final", "best", "versions", "exchange")
    parts = {
        "state": attempt(files.json_object, "checkpoints/last/state.json", "decisions", "versions"),
        "record": attempt(files.json_object, "labels.json", "versions"),
        "exchange": attempt(files.json_object, "exchange.json", "calibration"),
    }
    folders = sorted(file.parent for file in path.glob("evaluation-*/metrics.json"))
    evaluations = tuple(attempt(files.evaluation, folder.name) for folder in folders)
    if problems:
        raise ComparisonError("\n".join(problems))
    before = earlier.settings_of(given)
    if summary:
        summary = {"final": {}, "best": {}} | summary
        steps = summary.get("steps")
        if epochs and isinstance(steps, int) and epochs[-1]["step"] > steps:
            summary = {}  # somebody let the run go on
    return parts | {
        "status": _status(path, summary),
        "settings": DEFAULTS | before | given,
        "earlier": before,
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
