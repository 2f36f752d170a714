"""The training's signs of life for the monitor: three callbacks that stand first, before the checkpoints, and last."""

import keras

from distributed.health import heartbeat
from launch.job.callbacks import Progress


class StepsEnd(keras.callbacks.Callback):
    """First of all callbacks: whatever hangs from the end of a step on hangs in this process."""

    def on_train_batch_end(self, batch, logs=None):
        heartbeat.enter("training")

    def on_test_begin(self, logs=None):
        # Until the first step of it is over, which holds the tracing of the graph.
        heartbeat.enter("first validation")

    def on_test_batch_end(self, batch, logs=None):
        heartbeat.enter("validation")


class Saves(keras.callbacks.Callback):
    """Before the checkpoints, which may take their time."""

    def on_train_batch_end(self, batch, logs=None):
        heartbeat.enter("saving")

    def on_epoch_end(self, epoch, logs=None):
        heartbeat.enter("saving")


class StepsBegin(keras.callbacks.Callback):
    """Last of all callbacks: a step, once begun, waits for the gradients of the other ranks."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress
        self.phase = "first step"

    def on_train_batch_begin(self, batch, logs=None):
        heartbeat.enter(self.phase, self.progress.step, waiting=True)

    def on_train_batch_end(self, batch, logs=None):
        self.phase = "training"
        heartbeat.enter("training", self.progress.step)

    def on_epoch_end(self, epoch, logs=None):
        heartbeat.enter("training", self.progress.step)
