"""What looks on: the console's lines and ``metrics.csv`` here, TensorBoard in ``tensorboard.py``.

On the chief only; none calls a collective, none changes training, and none ends it where a log cannot be written.
"""

import csv
import functools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from launch.job.logs.console import Console


@dataclass(frozen=True)
class Steps:
    """The steps of one compiled call.

    Attributes:
        first: number of the first one, counted from 1.
        of_epoch: steps of the epoch that are taken by now.
        losses: float32 [k], of each step's global batch.
        rates: the k learning rates.
        images_per_second: of the call, over all workers; 0 where it is not known.
    """

    first: int
    of_epoch: int
    losses: np.ndarray
    rates: list[float]
    images_per_second: float


@dataclass(frozen=True)
class Epoch:
    """An epoch that was trained, validated and decided on.

    Attributes:
        number: counted from 1.
        step: steps that the run has taken by now.
        metrics: global metrics, those of the validation with ``val_`` before their names.
        learning_rate: of the last step.
        images_per_second, seconds: of its training steps.
    """

    number: int
    step: int
    metrics: dict[str, float]
    learning_rate: float
    images_per_second: float
    seconds: float


class Stopwatch:
    """Times each epoch's training steps; the run's first call, which holds the tracing of the graph, does not count."""

    def __init__(self, global_batch: int):
        self._batch = global_batch
        self.traced = False  # whether the run's first call is over
        self.rates: list[float] = []  # images per second of each epoch

    def begin_epoch(self) -> None:
        self._began = self._last = time.perf_counter()
        self._counted = 0
        self.seconds = self.images_per_second = 0.0

    def took(self, steps: int) -> float:
        """A call is over; returns its images per second, 0 for the first one."""
        now, last = time.perf_counter(), self._last
        self._last = now
        if not self.traced:
            self.traced, self._began = True, now
            return 0.0
        self._counted += steps
        return steps * self._batch / max(now - last, 1e-9)

    def end_steps(self) -> None:
        """The epoch's steps are taken; what follows is not training."""
        self.seconds = self._last - self._began
        if self._counted and self.seconds:
            self.images_per_second = self._counted * self._batch / self.seconds
            self.rates.append(self.images_per_second)


class Observer:
    """What looks on; each method stands for a place in ``loop.py``."""

    def begin(self, step: int, epochs: int) -> None:
        """Training begins, after so many steps and whole epochs that were taken before."""

    def begin_epoch(self, number: int) -> None:
        """Epoch ``number``, counted from 1, begins or goes on."""

    def before_steps(self, step: int) -> None:
        """A call is about to begin; ``step`` steps are taken."""

    def after_steps(self, steps: Steps) -> None:
        """A call is over."""

    def end_epoch(self, epoch: Epoch) -> None:
        """An epoch was decided on."""

    def flush(self) -> None:
        """Bring to the disk what has been logged; called before each checkpoint, so that logs are never behind it."""

    def end(self) -> None:
        """Training is over."""


def spared(method):
    """A method of an observer with ``console`` and ``path``: where the disk fails, it warns once and returns."""

    @functools.wraps(method)
    def guarded(self, *arguments):
        try:
            method(self, *arguments)
        except (OSError, tf.errors.OpError) as error:
            if not self.failed:
                # TensorFlow names its operation before, and whatever failed after it behind the cause.
                reason = getattr(error, "strerror", None) or re.sub(
                    r"{{.*?}} | \[Op:.*|\n.*", "", str(error), flags=re.S
                )
                self.console.warn(f"{self.path} cannot be written ({reason}); training goes on")
            self.failed = True

    return guarded


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


def _reading_order(name: str) -> tuple:
    """Training before validation, loss before accuracy before the rest."""
    plain = name.removeprefix("val_")
    return name != plain, plain != "loss", plain != "accuracy", plain


class EpochTable(Observer):
    """``metrics.csv``: a line per epoch; metrics asked for beyond loss and accuracy follow in columns of their own.

    The whole table is replaced each time, so that it is never torn, and complete again once a full disk has space.
    """

    COLUMNS = ("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy")
    COLUMNS += ("learning_rate", "images_per_second", "seconds")

    def __init__(self, path: Path, console: Console, metrics: tuple[str, ...]):
        self.path, self.console = path, console
        more = [name for name in metrics if name not in self.COLUMNS]
        self.columns = [*self.COLUMNS, *(prefix + name for name in more for prefix in ("", "val_"))]
        self.rows, self.failed = [], False

    @spared
    def begin(self, step, epochs):
        # A resumed run goes on in the same table; lines of epochs that will be repeated are dropped.
        self.rows += [row for row in read_table(self.path) if int(row["epoch"]) <= epochs]
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
        temporary = self.path.with_suffix(".tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def read_table(path: Path) -> list[dict[str, str]]:
    """The whole lines of ``metrics.csv``, or none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]
