"""Several runs in one process, as in a notebook: none ends it, and none leaves anything to the next one in silence."""

import sys

import pytest
from conftest import BIN, run_command

SETUP = """
import os, signal, sys
import numpy as np
from launch.job.config import TrainConfig
from launch.job.run import train

def network(classes, image_size):
    import keras
    layers = keras.layers

    class Unused(layers.Layer):
        def build(self, shape):
            self.aside = self.add_weight(shape=(3, 2), name="aside", initializer="ones")

        def call(self, inputs):
            return inputs

    pixels = keras.Input((image_size, image_size, 3))
    x = Unused(name="unused")(layers.Rescaling(1 / 255)(pixels))
    x = layers.Dense(8, "relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x))

pixels = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), np.uint8)
data = ((pixels, np.arange(24) % 3), None)

def settings(name, **more):
    return TrainConfig(
        epochs=1, global_batch_size=8, validation_split=0, run_dir=os.path.join(sys.argv[1], name), **more
    )
"""
CELLS = {
    # Ctrl-C before training: the kernel goes on, and the directory is free.
    "interrupted": """
def interrupted():
    signal.raise_signal(signal.SIGINT)

try:
    train(settings("one"), model=network, data=interrupted)
except KeyboardInterrupt:
    print("interrupted")
print(train(settings("one"), model=network, data=data).summary["stopped_by"])
""",
    # What the loss does not depend on stays as it is, and is named; the CPU is asked for by one run alone.
    "unconnected": """
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
config = settings("one", cpu=True, weight_decay=0.2, strategy="mirrored", cpu_devices=2)
result = train(config, model=network, data=data)
assert "CUDA_VISIBLE_DEVICES" not in os.environ
print(result.model.get_layer("unused").aside.numpy().tolist() == [[1, 1]] * 3)
""",
    # An early end is one run's; what was given twice is refused.
    "again": """
import keras

class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True

one = network(3, 4)
best = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
for name, callbacks in (("one", [Stop()]), ("two", [best])):
    config = settings(name).model_copy(update={"epochs": 2})
    print(train(config, model=lambda classes, size: one, data=data, callbacks=callbacks).summary["stopped_by"])
for more in ({"model": "vgg11"}, {"callbacks": "mine.py:callbacks"}, {"dataset": "cifar10"}):
    try:
        train(settings("three", **more), model=network, data=data, callbacks=[Stop()])
    except ValueError as error:
        print(error)
""",
}
SAID = {
    "interrupted": ["interrupted", "epochs"],
    "unconnected": ["True"],
    "again": [
        "early_stopping",
        "note: EarlyStopping(restore_best_weights=True) puts weights back once all is saved: they are those of the "
        "network in memory alone; on disk the best are those by accuracy",
        "epochs",
        "model='vgg11' was given beside a Python object that takes its place; give one of them",
        "callbacks='mine.py:callbacks' was given beside a Python object that takes its place; give one of them",
        "dataset='cifar10' was given beside a Python object that takes its place; give one of them",
    ],
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_process_goes_on(tmp_path, cell):
    done = run_command(sys.executable, "-c", SETUP + CELLS[cell], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line in SAID[cell]] == SAID[cell], done.stdout
    warning = "warning: the loss does not depend on unused/aside: what has no part in it does not learn; "
    assert done.stderr.count(f"{warning}use or freeze it\n") == {"interrupted": 1, "unconnected": 1, "again": 2}[cell]


# The same sums in the same order: Horovod is told so only when it starts.
DETERMINISTIC_LAST = """
first = train(settings("one"), model=network, data=data)
train(settings("two", deterministic=True), model=network, data=data)
"""


@pytest.mark.faults
@pytest.mark.parametrize("ranks", (2, 3))
def test_a_deterministic_run_after_another_is_refused_where_sums_may_have_another_order(tmp_path, ranks):
    code = SETUP.replace("global_batch_size=8", "global_batch_size=6") + DETERMINISTIC_LAST
    (tmp_path / "cells.py").write_text(code)
    done = run_command(BIN / "horovodrun", "-np", ranks, BIN / "python", tmp_path / "cells.py", tmp_path)
    refused = "error: Horovod was started in this process by what was not deterministic, "
    assert (done.returncode != 0, done.stderr.count(refused)) == ((True, 1) if ranks > 2 else (False, 0)), done.stderr
