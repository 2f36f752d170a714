"""A line for the start and one per epoch: on the console, and in ``metrics.csv``."""

import csv
import time
from pathlib import Path

from data.messages import few
from distributed.checkpoint import disk
from distributed.model import LockstepModel
from launch.job.logs.console import Console
from launch.job.logs.observer import Observer, spared
from launch.job.logs.stragglers import find_stragglers
from launch.job.timing.startup import Startup


class StartLine(Observer):
    """A line when the first step is taken: how long that took from the command on, and why."""

    def __init__(self, console: Console, startup: Startup):
        self.console, self.startup, self.said = console, startup, False

    def after_steps(self, steps):
        if not self.said:
            self.said = True
            self.startup.end("first step")
            self.console.say(self.startup.sentence())


class UnconnectedLine(Observer):
    """A warning that names weights which cannot learn, as Keras gives it; again if a thaw brings more of them."""

    def __init__(self, console: Console, model: LockstepModel):
        self.console, self.model, self.said = console, model, []

    def after_steps(self, steps):
        names = [variable.path for variable in self.model.unconnected]
        if names and names != self.said:
            self.console.warn(
                f"the loss does not depend on {few(names)}: what has no part in it does not learn; use or freeze it"
            )
        self.said = names


class EpochLines(Observer):
    """The console's bar and lines."""

    def __init__(self, console: Console, *, epochs: int, steps_per_epoch: int, validation_examples: int):
        self.console, self.epochs, self.steps_per_epoch = console, epochs, steps_per_epoch
        self.validation_examples = validation_examples

    def begin_epoch(self, number):
        self.began = time.perf_counter()
        self.console.start_epoch(f"epoch {number}/{self.epochs}", self.steps_per_epoch)

    def after_steps(self, steps):
        self.console.advance(steps.of_epoch, f"loss {steps.losses[-1]:.4f}  {steps.images_per_second:,.0f} images/s")

    def end_epoch(self, epoch):
        metrics = epoch.metrics
        values = "  ".join(
            f"{name} {metrics[name]:.4f}"
            for name in sorted(metrics, key=_reading_order)
            if not name.endswith("examples")
        )
        seen = ""
        if "val_examples" in metrics:
            seen = f"  ({metrics['val_examples']:.0f} of {self.validation_examples} validated)"
        self.console.end_epoch(
            f"epoch {epoch.number:>{len(str(self.epochs))}}/{self.epochs}  {values}  "
            f"learning rate {epoch.learning_rate:.4g}  {epoch.images_per_second:,.0f} images/s  "
            f"{time.perf_counter() - self.began:.1f} s{seen}"
        )
        if stragglers := find_stragglers(epoch.ranks):
            self.console.say(stragglers.sentence)


def _reading_order(name: str) -> tuple:
    """Training before validation, loss before accuracy before the rest."""
    plain = name.removeprefix("val_")
    return name != plain, plain != "loss", plain != "accuracy", plain


class EpochTable(Observer):
    """``metrics.csv``: a line per epoch; what else is measured follows in columns of its own, as do penalties.

    The whole table is replaced each time, so that it is never torn, and complete again once a full disk has space.
    """

    COLUMNS = ("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy")
    COLUMNS += ("learning_rate", "images_per_second", "seconds")

    def __init__(self, path: Path, console: Console, metrics: tuple[str, ...], *, penalized: bool = False):
        self.path, self.console = path, console
        more = [name for name in metrics if name not in self.COLUMNS]
        self.columns = [*self.COLUMNS, *(prefix + name for name in more for prefix in ("", "val_"))]
        self.columns += ["regularization"] if penalized else []
        self.rows, self.failed = [], False

    @spared
    def begin(self, step, epochs):
        # A resumed run goes on in the same table; lines of epochs that will be repeated are dropped.
        self.rows += [row for row in take_up_table(self.path, self.console) if int(row["epoch"]) <= epochs]
        self._write()

    @spared
    def end_epoch(self, epoch):
        row = {
            "epoch": epoch.number,
            "step": epoch.step,
            "learning_rate": epoch.learning_rate,
            "images_per_second": round(epoch.images_per_second, 1),
            "seconds": round(epoch.seconds, 3),
        }
        row |= {name: f"{epoch.metrics[name]:.7g}" for name in self.columns if name in epoch.metrics}
        self.rows.append(row)
        self._write()

    def _write(self):
        with disk.whole_file(self.path) as beside, open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)


class TableError(ValueError):
    """Why a file is no table of ours, as the end of a sentence that begins with its name."""


def read_table(path: Path) -> list[dict[str, str]]:
    """The whole lines of ``metrics.csv`` or ``times.csv``, or none if there is no such file.

    Raises:
        TableError: it is not as a run writes it, as after a spreadsheet that writes semicolons, or UTF-16.
    """
    if not path.exists():
        return []
    try:
        # Spreadsheets put a mark first; and a kill may have torn the last letter.
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        for row in rows:
            _check_numbers(row)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise TableError("is not as a run writes it, but as a spreadsheet may") from error
    return rows


def take_up_table(path: Path, console: Console) -> list[dict[str, str]]:
    """``read_table`` for who goes on in it; what is no table of ours is set aside, with a warning."""
    try:
        return read_table(path)
    except TableError as error:
        aside = path.with_name(f"{path.name}.old")
        path.replace(aside)
        console.warn(f"{path} {error}; it is now {aside.name}, and a new one begins; training goes on")
        return []


def _check_numbers(row: dict[str, str]) -> None:
    """Raise an error where a line has no number of its epoch, more cells than the head, or, but for a host, words."""
    int(row["epoch"])
    for name, cell in row.items():
        if cell and name != "host":
            float(cell)
