"""What looks on: console and CSV here, TensorBoard in ``events.py``.  On the chief only; none calls a collective, none
changes training, and none ends it where a log cannot be written."""

import csv
import functools
import os
import re
import time
from pathlib import Path

import keras
import tensorflow as tf

from launch.job.batch_plan import BatchPlan
from launch.job.callbacks import Progress
from launch.job.console import Console


class Stopwatch(keras.callbacks.Callback):
    """Times each epoch's training steps; put first, since the others read it."""

    def __init__(self, plan: BatchPlan):
        super().__init__()
        self.plan = plan
        self.images = self.seconds = 0.0
        self.rate = self.images_per_second = 0.0
        self.rates = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = self.last = time.perf_counter()
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.steps == 0 and not self.rates:
            # The run's first step holds the tracing of the graph.
            self.began = now
        else:
            self.rate = self.plan.global_batch / max(now - self.last, 1e-9)
        self.last = now
        self.steps += 1

    def on_test_begin(self, logs=None):
        self._finish()

    def on_epoch_end(self, epoch, logs=None):
        self._finish()
        if self.images_per_second:
            self.rates.append(self.images_per_second)

    def _finish(self):
        if self.steps:
            counted = self.steps - (not self.rates)
            self.seconds = self.last - self.began
            self.images_per_second = (
                counted * self.plan.global_batch / self.seconds if counted and self.seconds else 0.0
            )
            self.images += self.steps * self.plan.global_batch
            self.steps = 0


class Observer(keras.callbacks.Callback):
    """What looks on."""

    def flush(self) -> None:
        """Bring to the disk what has been logged; called before each checkpoint."""


def spared(method):
    """A method of an observer with ``console`` and ``path``: where the disk fails, it warns once and returns."""

    @functools.wraps(method)
    def guarded(self, *arguments, **named):
        try:
            method(self, *arguments, **named)
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

    def __init__(
        self, console: Console, plan: BatchPlan, progress: Progress, watch: Stopwatch, validation_examples: int
    ):
        super().__init__()
        self.console, self.plan, self.progress, self.watch = console, plan, progress, watch
        self.validation_examples = validation_examples

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()
        self.console.start_epoch(f"epoch {epoch + 1}/{self.plan.epochs}", self.plan.steps_per_epoch)

    def on_train_batch_end(self, batch, logs=None):
        if self.console.live:
            self.console.advance(batch + 1, f"loss {float(logs['loss']):.4f}  {self.watch.rate:,.0f} images/s")

    def on_epoch_end(self, epoch, logs=None):
        values = "  ".join(
            f"{name} {logs[name]:.4f}" for name in sorted(logs, key=_reading_order) if not name.endswith("examples")
        )
        seen = (
            f"  ({logs['val_examples']:.0f} of {self.validation_examples} validated)" if "val_examples" in logs else ""
        )
        seconds = time.perf_counter() - self.began
        width = len(str(self.plan.epochs))
        self.console.end_epoch(
            f"epoch {epoch + 1:>{width}}/{self.plan.epochs}  {values}  learning "
            f"rate {self.progress.learning_rate:.4g}  "
            f"{self.watch.images_per_second:,.0f} images/s  {seconds:.1f} s{seen}"
        )


def _reading_order(name: str) -> tuple:
    """Training before validation, loss before accuracy before the rest."""
    plain = name.removeprefix("val_")
    return name != plain, plain != "loss", plain != "accuracy", plain


class EpochTable(Observer):
    """``metrics.csv``: a line per epoch; metrics asked for beyond loss and accuracy follow in columns of their own.

    The whole table is replaced each time, so that it is never torn, and complete again once a full disk has space.
    """

    COLUMNS = (
        "epoch",
        "step",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "learning_rate",
        "images_per_second",
        "seconds",
    )

    def __init__(self, path: Path, console: Console, progress: Progress, watch: Stopwatch, metrics: tuple[str, ...]):
        super().__init__()
        self.path, self.console, self.progress, self.watch = path, console, progress, watch
        more = [name for name in metrics if name not in self.COLUMNS]
        self.columns = [*self.COLUMNS, *(prefix + name for name in more for prefix in ("", "val_"))]
        self.rows, self.failed = None, False

    @spared
    def on_train_begin(self, logs=None):
        if self.rows is None:
            # A resumed run goes on in the same table; lines of epochs that will be repeated are dropped.
            self.rows = []
            self.rows += [row for row in read_table(self.path) if int(row["epoch"]) <= self.progress.epochs_before]
            self._write()

    @spared
    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "step": self.progress.step,
            "learning_rate": self.progress.learning_rate,
            "images_per_second": round(self.watch.images_per_second, 1),
            "seconds": round(self.watch.seconds, 3),
        }
        row |= {name: f"{logs[name]:.7g}" for name in self.columns if name in logs}
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
