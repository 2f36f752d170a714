"""What the benchmark gives to Lockstep as any user would: data without end, and a callback that takes steps on request
and tells what a callback can see."""

import math
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.datasets import ArraySource, Source
from distributed.gradients.cost_model import Choice
from distributed.world import World
from launch.baselines.client import BenchmarkCallback, BenchmarkClient

EXAMPLES = 1 << 22  # of an epoch; each has a label of four bytes


def endless() -> tuple[Source, None]:
    """For --dataset: the images of the npz file that the benchmark has named, and nothing to validate on."""
    return Endless(Path(os.environ["LOCKSTEP_BENCHMARK_DATA"])), None


def callbacks() -> list[keras.callbacks.Callback]:
    """For --callbacks."""
    return [BenchmarkedRun()]


class Endless(ArraySource):
    """A few images in memory, so many times over that their epoch has no end in practice."""

    def __init__(self, path: Path):
        """Args: an npz of x_train uint8 [n, h, w, 3] and y_train [n], whose largest label is the last class."""
        with np.load(path) as archive:
            pixels, labels = archive["x_train"], archive["y_train"]
        super().__init__("endless", [str(label) for label in range(labels.max() + 1)], pixels, labels)
        self.labels = np.tile(self.labels, EXAMPLES // len(labels))

    def read(self, indices):
        return super().read(indices % len(self.pixels))


class BenchmarkedRun(BenchmarkCallback):
    """Notes seconds ``between_calls`` and ``between_epochs``, of the latter apart what follows the callbacks there
    (``saving``: logs and the checkpoint), and how many ``epochs`` ended."""

    def __init__(self):
        super().__init__(None)
        self.call_ended = self.epoch_ended = self.saving = None

    def on_train_begin(self, logs=None):
        world = World.from_environment(os.environ)
        facts = exchange_facts(self.model, self.params["exchange"], world.size)
        facts["trained"] = sum(math.prod(variable.shape) for variable in self.model.trainable_variables)
        state = self.model.optimizer.variables
        facts["optimizer_bytes"] = sum(math.prod(slot.shape) * slot.value.dtype.size for slot in state)
        self.client = BenchmarkClient(world.rank, facts, {"update": self.time_update})

    def on_train_batch_begin(self, batch, logs=None):
        if self.call_ended is not None:
            gap = time.perf_counter() - self.call_ended
            if self.saving is None:
                self.client.notes.update(between_calls=gap)
            else:
                self.client.notes.update(between_epochs=gap - self.saving, saving=self.saving, epochs=1)
        self.saving = None
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.call_ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_ended = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.saving = self.epoch_ended and time.perf_counter() - self.epoch_ended

    def time_update(self, count: int) -> dict:
        """Seconds of each of ``count`` optimizer steps on given gradients, where there is nobody to exchange with."""
        variables, optimizer = self.model.trainable_variables, self.model.optimizer
        gradients = [tf.fill(variable.shape, 1e-9) for variable in variables]
        step = tf.function(lambda *given: optimizer.step(list(given), variables, tf.zeros(4)))
        seconds = []
        for _ in range(count + 2):
            began = time.perf_counter()
            step(*gradients)
            seconds.append(time.perf_counter() - began)
        return {"update": seconds[2:]}


def exchange_facts(network: keras.Model, choices: dict[str, Choice], ranks: int) -> dict:
    """What follows from the ways that the gradients of dense layers travel.

    Returns:
        ``parameters``; ``saved_bytes``, how many fewer than by all-reducing everything a rank sends per step;
        ``updated_share``, the part of all weights that one rank updates; ``predicted_saving``, seconds of a step that
        the cost model expects to save against all-reducing everything, or None where it went by bytes.
    """
    saved = sum(choice.allreduce_bytes - choice.bytes for choice in choices.values())
    split = [network.get_layer(name) for name, choice in choices.items() if choice.scheme == "split"]
    kernels = [math.prod(layer.kernel.shape) for layer in split]
    if split:
        # The bias of the first of the two is divided between the workers as well.
        saved += choices[split[0].name].allreduce_bytes * math.prod(split[0].bias.shape) // kernels[0]
    timed = all(choice.seconds is not None and choice.allreduce_seconds is not None for choice in choices.values())
    return {
        "parameters": network.count_params(),
        "saved_bytes": saved,
        "updated_share": 1 - sum(kernels) * (1 - 1 / ranks) / network.count_params(),
        "predicted_saving": sum(it.allreduce_seconds - it.seconds for it in choices.values()) if timed else None,
    }
