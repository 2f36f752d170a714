"""What looks on: console, CSV, TensorBoard.  On the chief only; none calls a collective, none changes training."""

import csv
import time
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from launch.callbacks import Progress
from launch.console import Console
from launch.plan import Plan


class Stopwatch(keras.callbacks.Callback):
    """Times each epoch's training steps; put first, since the others read it."""

    def __init__(self, plan: Plan):
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


class EpochLines(keras.callbacks.Callback):
    """The console's bar and lines."""

    def __init__(self, console: Console, plan: Plan, progress: Progress, watch: Stopwatch, validation_examples: int):
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


class EpochTable(keras.callbacks.Callback):
    """``metrics.csv``: a line per epoch; metrics asked for beyond loss and accuracy follow in columns of their own."""

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

    def __init__(self, path: Path, progress: Progress, watch: Stopwatch, metrics: tuple[str, ...]):
        super().__init__()
        self.path, self.progress, self.watch = path, progress, watch
        more = [name for name in metrics if name not in self.COLUMNS]
        self.columns = [*self.COLUMNS, *(prefix + name for name in more for prefix in ("", "val_"))]

    def on_train_begin(self, logs=None):
        # A resumed run goes on in the same table; lines of epochs that will be repeated are dropped.
        rows = [row for row in read_table(self.path) if int(row["epoch"]) <= self.progress.epochs_before]
        with open(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "step": self.progress.step,
            "learning_rate": self.progress.learning_rate,
            "images_per_second": round(self.watch.images_per_second, 1),
            "seconds": round(self.watch.seconds, 3),
        }
        row |= {name: f"{logs[name]:.7g}" for name in self.columns if name in logs}
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)


def read_table(path: Path) -> list[dict[str, str]]:
    """The whole lines of ``metrics.csv`` (a kill may have torn the last one), or none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


class TensorBoard(keras.callbacks.Callback):
    """Epoch metrics of training and validation on shared axes; rate, loss and images/s per step; configuration;
    graph."""

    def __init__(
        self,
        directory: Path,
        settings: dict,
        watch: Stopwatch,
        progress: Progress,
        *,
        every: int,
        histogram_epochs: int,
        profile_steps: tuple[int, int] | None,
    ):
        super().__init__()
        self.directory, self.settings, self.watch, self.progress = directory, settings, watch, progress
        self.every, self.histogram_epochs, self.profile_steps = every, histogram_epochs, profile_steps
        self.profiling = False

    def on_train_begin(self, logs=None):
        if hasattr(self, "train"):
            return
        self.train = tf.summary.create_file_writer(str(self.directory / "train"))
        self.validation = tf.summary.create_file_writer(str(self.directory / "validation"))
        with self.train.as_default(step=0):
            lines = "\n".join(f"| {name} | {value} |" for name, value in self.settings.items())
            tf.summary.text("configuration", f"| setting | value |\n|---|---|\n{lines}")
            hparams.hparams(
                {
                    name: value if isinstance(value, (int, float, str)) else str(value)
                    for name, value in self.settings.items()
                }
            )
            network = self.model.network
            image = tf.TensorSpec(
                [1, *network.input_shape[1:]], network.input_dtype if hasattr(network, "input_dtype") else tf.uint8
            )
            tf.summary.graph(
                tf.function(lambda images: network(images, training=False)).get_concrete_function(image).graph
            )

    def on_train_batch_begin(self, batch, logs=None):
        if self.profile_steps and self.progress.step == self.profile_steps[0]:
            tf.profiler.experimental.start(str(self.directory / "train"))
            self.profiling = True

    def on_train_batch_end(self, batch, logs=None):
        step = self.progress.step
        if self.profiling and step > self.profile_steps[1]:
            self._stop_profiling()
        with self.train.as_default(step=step):
            tf.summary.scalar("step/learning_rate", self.progress.learning_rate)
            if step % self.every == 0:
                tf.summary.scalar("step/loss", logs["loss"])
                tf.summary.scalar("step/images_per_second", self.watch.rate)

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            if name.endswith("examples"):
                continue
            writer = self.validation if name.startswith("val_") else self.train
            with writer.as_default(step=epoch + 1):
                tf.summary.scalar(f"epoch/{name.removeprefix('val_')}", value)
        with self.train.as_default(step=epoch + 1):
            tf.summary.scalar("epoch/learning_rate", self.progress.learning_rate)
            tf.summary.scalar("epoch/images_per_second", self.watch.images_per_second)
            if self.histogram_epochs and (epoch + 1) % self.histogram_epochs == 0:
                for weight in self.model.network.weights:
                    tf.summary.histogram(weight.path, weight)
        self.train.flush()
        self.validation.flush()

    def on_train_end(self, logs=None):
        if self.profiling:
            self._stop_profiling()
        self.train.flush()
        self.validation.flush()

    def _stop_profiling(self):
        self.profiling = False
        tf.profiler.experimental.stop()
