"""TensorBoard's event files: written during training, and cut back where a run goes on from a checkpoint."""

import os
import struct
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import api as hparams

from launch.job.callbacks import Progress
from launch.job.console import Console
from launch.job.logs import Observer, Stopwatch, spared


def rewind(directory: Path, step: int, epoch: int) -> bool:
    """Cut a folder's event files back to a checkpoint, since what was logged after it will be logged again.

    Args:
        directory: with the files of all processes that have logged to it.
        step: last step to keep of the tags ``step/...``.
        epoch: last epoch (counted from 1) to keep of all other tags.

    Returns:
        Whether any events are left.
    """
    left = False
    for path in directory.glob("events.out.tfevents.*"):
        # A file is in order of time: behind the first event too many there is none to keep.
        end = _end(path, step, epoch)
        if end:
            os.truncate(path, end)
            left = True
        else:
            path.unlink()
    return left


def _end(path: Path, step: int, epoch: int) -> int:
    """Where the first event after the checkpoint, or the first one that a kill has torn, begins in a file."""
    end = 0
    with open(path, "rb") as file:
        # A record: its length, a checksum of that, the event, a checksum of that.
        while len(header := file.read(12)) == 12:
            (length,) = struct.unpack("<Q4x", header)
            try:
                event = Event.FromString(file.read(length))
            except DecodeError:
                break
            by_step = any(value.tag.startswith("step/") for value in event.summary.value)
            if event.step > (step if by_step else epoch) or len(file.read(4)) < 4:
                break
            end = file.tell()
    return end


class TensorBoard(Observer):
    """Epoch metrics of training and validation on shared axes; rate, loss and images/s per step; configuration;
    graph.  After a failed write, whose file nothing can be added to, it is silent."""

    def __init__(
        self,
        directory: Path,
        console: Console,
        settings: dict,
        watch: Stopwatch,
        progress: Progress,
        *,
        every: int,
        histogram_epochs: int,
        profile_steps: tuple[int, int] | None,
    ):
        super().__init__()
        self.path, self.console, self.settings = directory, console, settings
        self.watch, self.progress = watch, progress
        self.every, self.histogram_epochs, self.profile_steps = every, histogram_epochs, profile_steps
        self.profiling = self.failed = False

    @spared
    def on_train_begin(self, logs=None):
        if self.failed or hasattr(self, "train"):
            return
        step, folders = self.progress.step, (self.path / "train", self.path / "validation")
        # A run that begins anew where an earlier one has left no checkpoint begins with empty logs, too.
        last = (step, self.progress.epochs_before) if step else (-1, -1)
        begun, _ = (rewind(folder, *last) for folder in folders)
        self.train, self.validation = (tf.summary.create_file_writer(str(folder)) for folder in folders)
        if not begun:
            self._describe()

    def _describe(self):
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
            image = tf.TensorSpec([1, *network.input_shape[1:]], tf.uint8)
            tf.summary.graph(
                tf.function(lambda images: network(images, training=False)).get_concrete_function(image).graph
            )

    @spared
    def on_train_batch_begin(self, batch, logs=None):
        if self.profile_steps and self.progress.step == self.profile_steps[0]:
            tf.profiler.experimental.start(str(self.path / "train"))
            self.profiling = True

    @spared
    def on_train_batch_end(self, batch, logs=None):
        if self.failed:
            return
        step = self.progress.step
        if self.profiling and step > self.profile_steps[1]:
            self._stop_profiling()
        with self.train.as_default(step=step):
            tf.summary.scalar("step/learning_rate", self.progress.learning_rate)
            if step % self.every == 0:
                tf.summary.scalar("step/loss", logs["loss"])
                tf.summary.scalar("step/images_per_second", self.watch.rate)

    @spared
    def on_epoch_end(self, epoch, logs=None):
        if self.failed:
            return
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
        self.flush()

    @spared
    def flush(self):
        if not self.failed:
            self.train.flush()
            self.validation.flush()

    @spared
    def on_train_end(self, logs=None):
        if self.profiling:
            self._stop_profiling()

    def _stop_profiling(self):
        self.profiling = False
        tf.profiler.experimental.stop()
