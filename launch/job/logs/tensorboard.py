"""TensorBoard's event files: written during training, and cut back where a run goes on from a checkpoint."""

import functools
import os
import struct
import time
from pathlib import Path
from statistics import fmean

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DataType
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata

from launch.job.logs.console import Console
from launch.job.logs.observer import Observer, spared
from launch.job.logs.stragglers import find_stragglers
from launch.job.timing.epoch_clock import PARTS


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
        network: keras.Model,
        *,
        every: int,
        histogram_epochs: int,
        profile_steps: tuple[int, int] | None,
    ):
        """Args: steps between two points of loss and images/s; epochs between two histograms, 0 for none; first and
        last step to trace."""
        self.path, self.console, self.settings, self.network = directory, console, settings, network
        self.every, self.histogram_epochs, self.profile_steps = every, histogram_epochs, profile_steps
        self.profiling = self.failed = False

    @spared
    def begin(self, step, epochs):
        folders = [self.path / name for name in ("train", "validation", "time")]
        # A run that begins anew where an earlier one has left no checkpoint begins with empty logs, too.
        last = (step, epochs) if step else (-1, -1)
        begun, *_ = [rewind(folder, *last) for folder in folders]
        self.train, self.validation, self.time = (tf.summary.create_file_writer(str(folder)) for folder in folders)
        if not begun:
            self._describe()

    def _describe(self):
        with self.train.as_default(step=0):
            lines = "\n".join(f"| {name} | {value} |" for name, value in self.settings.items())
            tf.summary.text("configuration", f"| setting | value |\n|---|---|\n{lines}")
            network = self.network
            image = tf.TensorSpec([1, *network.input_shape[1:]], tf.uint8)
            tf.summary.graph(
                tf.function(lambda images: network(images, training=False)).get_concrete_function(image).graph
            )
        if any(self.path.glob("events.out.tfevents.*")):
            return
        # Above both folders: the HPARAMS tab then shows the metrics of training and of validation.
        with tf.summary.create_file_writer(str(self.path)).as_default(step=0):
            hparams.hparams({name: _shown(value) for name, value in self.settings.items()}, self.path.parent.name)

    @spared
    def before_steps(self, step):
        if self.profile_steps and step == self.profile_steps[0] - 1:
            tf.profiler.experimental.start(str(self.path / "train"))
            self.profiling = True

    @spared
    def after_steps(self, steps):
        if self.failed:
            return
        if self.profiling and steps.first + len(steps.losses) - 1 >= self.profile_steps[1]:
            self._stop_profiling()
        now, events = time.time(), []
        for step, (rate, loss) in enumerate(zip(steps.rates, steps.losses.tolist(), strict=True), start=steps.first):
            values = {"step/learning_rate": rate}
            if step % self.every == 0:
                values |= {"step/loss": loss, "step/images_per_second": steps.images_per_second}
            events.append(scalar_event(now, step, values))
        # The writer that all else goes through: TensorBoard reads one file of a folder at a time.
        _write_events(self.train._resource, tf.constant(events))

    @spared
    def end_epoch(self, epoch):
        if self.failed:
            return
        for name, value in epoch.metrics.items():
            if name.endswith("examples"):
                continue
            writer = self.validation if name.startswith("val_") else self.train
            with writer.as_default(step=epoch.number):
                tf.summary.scalar(f"epoch/{name.removeprefix('val_')}", value)
        with self.train.as_default(step=epoch.number):
            tf.summary.scalar("epoch/learning_rate", epoch.learning_rate)
            tf.summary.scalar("epoch/images_per_second", epoch.images_per_second)
            if self.histogram_epochs and epoch.number % self.histogram_epochs == 0:
                for weight in self.network.weights:
                    tf.summary.histogram(weight.path, weight)
        self._write_times(epoch)
        self.flush()

    def _write_times(self, epoch):
        """Seconds of each part, of the average rank, and for how many the others waited for the slowest one."""
        if not epoch.ranks:
            return
        stragglers = find_stragglers(epoch.ranks)
        with self.time.as_default(step=epoch.number):
            for part in PARTS:
                tf.summary.scalar(f"time/{part}", fmean(rank.seconds[part] for rank in epoch.ranks))
            tf.summary.scalar("time/waiting for the slowest", stragglers.longer if stragglers else 0.0)

    @spared
    def flush(self):
        if not self.failed:
            self.train.flush()
            self.validation.flush()
            self.time.flush()

    @spared
    def end(self):
        if self.profiling:
            self._stop_profiling()

    def _stop_profiling(self):
        self.profiling = False
        tf.profiler.experimental.stop()


def _shown(value: object) -> int | float | str:
    """A setting as the HPARAMS tab takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, int | float | str) else str(value)


@tf.function(input_signature=[tf.TensorSpec([], tf.resource), tf.TensorSpec([None], tf.string)], autograph=False)
def _write_events(writer, events):
    """Add serialized events to a file, in one call: a summary operation from Python takes as long as a small step."""

    def write(index):
        with tf.control_dependencies([tf.raw_ops.ImportEvent(writer=writer, event=events[index])]):
            return index + 1

    tf.while_loop(lambda index: index < tf.size(events), write, (0,), parallel_iterations=1)


def scalar_event(seconds: float, step: int, values: dict[str, float]) -> bytes:
    """A serialized ``Event`` of scalars as ``tf.summary.scalar`` writes them, put together without the library's
    objects, which take ten times as long.

    Args:
        seconds: wall time since 1970.
        values: tag -> number.
    """
    parts = []
    for tag, value in values.items():
        before, after = _around_scalar(tag)
        parts.append(before + struct.pack("<f", value) + after)
    summary = b"".join(parts)
    return b"\x09" + struct.pack("<d", seconds) + b"\x10" + _varint(step) + b"\x2a" + _varint(len(summary)) + summary


@functools.cache
def _around_scalar(tag: str) -> tuple[bytes, bytes]:
    """What stands before and behind the four bytes of the number in a serialized summary of one scalar."""
    mark = struct.pack("<f", 1.25)
    tensor = TensorProto(dtype=DataType.DT_FLOAT, tensor_shape=TensorShapeProto(), tensor_content=mark)
    metadata = scalar_metadata(display_name="", description="")
    summary = Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])
    before, found, after = summary.SerializeToString(deterministic=True).partition(mark)
    assert found and mark not in after
    return before, after


def _varint(number: int) -> bytes:
    """A number of 0 or more as protocol buffers write it."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
