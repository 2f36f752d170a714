"""What the benchmark gives to Lockstep as any user would: data without end, and a callback that takes steps on request
and tells what a run's callback can see."""

import math
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.datasets import Source, captured
from distributed.gradients.cost_model import Choice
from distributed.world import World
from launch.baselines.client import BenchmarkCallback, BenchmarkClient

EXAMPLES = 1 << 22  # of an epoch; each has a label of four bytes


class Endless(Source):
    """A few images in memory, so many times over that their epoch has no end in practice."""

    def __init__(self, path: Path):
        """Args: ``path`` is an npz of x_train uint8 [n, h, w, 3] and y_train [n]; the largest label is the last class."""
        with np.load(path) as archive:
            pixels, labels = archive["x_train"], archive["y_train"]
        classes = [str(number) for number in range(labels.max() + 1)]
        super().__init__("endless", classes, np.tile(labels, EXAMPLES // len(labels)), pixels.shape[1:3], False)
        self._pixels, self._count = captured(pixels), len(pixels)

    def read(self, indices):
        return tf.gather(self._pixels, indices % self._count)

    def where(self, index):
        return f"image {index % self._count}"

    def fingerprint(self):
        return "endless"


class BenchmarkedRun(BenchmarkCallback):
    """Notes, in seconds: ``between_calls``, ``between_epochs`` without what comes after the callbacks there, that is
    ``saving`` (logs and the checkpoint), and the number of ``epochs`` that ended."""

    def __init__(self):
        super().__init__(None)
        self.stopped = self.epoch_ended = self.saving = None

    def on_train_begin(self, logs=None):
        world, network, choices = World.from_environment(os.environ), self.model, self.params["exchange"]
        facts = {
            "parameters": network.count_params(),
            "saved_bytes": saved_bytes(network, choices),
            "predicted_saving": predicted_saving(choices),
            "updated_share": updated_share(network, choices, world.size),
        }
        self.client = BenchmarkClient(world.rank, facts, {"update": self.time_update})

    def on_train_batch_begin(self, batch, logs=None):
        if self.stopped is not None:
            gap, notes = time.perf_counter() - self.stopped, self.client.notes
            if self.saving is None:
                notes["between_calls"] += gap
            else:
                notes.update(between_epochs=gap - self.saving, saving=self.saving, epochs=1)
                self.saving = None
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.stopped = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_ended = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        if self.epoch_ended is not None:
            self.saving = time.perf_counter() - self.epoch_ended

    def time_update(self, count: int) -> dict:
        """Seconds of each of ``count`` optimizer steps on given gradients; only where there is nobody to exchange with."""
        variables, optimizer = self.model.trainable_variables, self.model.optimizer
        gradients = [tf.fill(variable.shape, 1e-9) for variable in variables]
        step = tf.function(lambda *given: optimizer.step(list(given), variables, tf.zeros(4)))
        seconds = []
        for _ in range(count + 2):
            began = time.perf_counter()
            step(*gradients)
            seconds.append(time.perf_counter() - began)
        return {"update": seconds[2:]}


def saved_bytes(network: keras.Model, choices: dict[str, Choice]) -> int:
    """How many bytes fewer than by all-reducing everything a rank sends per step."""
    saved = sum(choice.allreduce_bytes - choice.bytes for choice in choices.values())
    if split := [name for name, choice in choices.items() if choice.scheme == "split"]:
        # The bias of the first of the two is divided between the workers as well.
        weights, bias = (math.prod(variable.shape) for variable in network.get_layer(split[0]).weights)
        saved += choices[split[0]].allreduce_bytes * bias // weights
    return saved


def updated_share(network: keras.Model, choices: dict[str, Choice], replicas: int) -> float:
    """The part of all weights that one rank updates: of split layers only its own."""
    split = [network.get_layer(name).kernel for name, choice in choices.items() if choice.scheme == "split"]
    shared = sum(math.prod(kernel.shape) for kernel in split)
    return 1 - shared * (1 - 1 / replicas) / network.count_params()


def predicted_saving(choices: dict[str, Choice]) -> float | None:
    """Seconds of a step that the cost model expects to save against all-reducing everything; None if it did not say."""
    if any(choice.seconds is None for choice in choices.values()):
        return None
    return sum(choice.allreduce_seconds - choice.seconds for choice in choices.values())
