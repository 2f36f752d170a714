"""Look at batches that are copied ahead to a second device of the CPU: python tests/helpers/copied_ahead.py FOLDER.

Writes what it has seen to FOLDER/found.json.
"""

import hashlib
import json
import sys
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import tensorflow as tf
from jobs import tiny

from data.datasets import ArraySource
from data.files.source import FileSource
from data.order import Order, SequentialOrder, Share
from data.pipeline import training_batches, validation_batches
from distributed.hardware import devices
from distributed.strategies import AHEAD, Horovod, SingleDevice
from distributed.world import World
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.preparation.build import build

SECOND, STEPS, SIZE = "/device:CPU:1", 6, 16
PIXELS = np.random.default_rng(0).integers(0, 256, (50, SIZE, SIZE, 3), np.uint8)
SOURCE = ArraySource("made", ["a", "b", "c"], PIXELS, np.arange(50) % 3)
SETTINGS = {"augment": "flip_crop", "image_size": SIZE, "threads": 2}


def training(source=SOURCE):
    order = Order(examples=len(source), seed=3, replica_batch=4, replicas=1)
    settings = {"order": order, "start_step": 2} | SETTINGS
    return lambda first, stride: training_batches(source, share=Share(first, stride), **settings)


def validation(first: int, stride: int):
    order = SequentialOrder(examples=len(SOURCE), replica_batch=4, replicas=1)
    return validation_batches(SOURCE, order=order, share=Share(first, stride), **SETTINGS)


def looked_at(dataset) -> dict:
    """The devices of all tensors, and a digest of what they hold; of an endless dataset the first ones."""
    digest, seen = hashlib.sha256(), set()
    for batch in islice(dataset, 30):
        for part in batch:
            seen.add(part.device.rpartition("device:")[2])
            digest.update(part.numpy().tobytes())
    return {"devices": sorted(seen), "digest": digest.hexdigest()}


def waiting(strategy: SingleDevice, expected: int) -> int:
    """How many elements wait behind the one that was taken, once no more are made: at least so many as expected."""
    made, options = [], tf.data.Options()
    options.autotune.enabled = False  # it prefetches too
    numbers = tf.data.Dataset.range(100).map(lambda x: tf.numpy_function(lambda x: made.append(x) or x, [x], tf.int64))
    iterator = iter(strategy.distribute(lambda first, stride: numbers.with_options(options)))
    next(iterator)
    before, until = -1, time.monotonic() + 20
    while (len(made) != before or before <= expected) and time.monotonic() < until:
        before = len(made)
        time.sleep(0.5)
    return len(made) - 1


def losses(strategy: SingleDevice) -> list[float]:
    """Of some steps, taken in one compiled call."""
    config = TrainConfig(global_batch_size=4, momentum=0.9)
    plan = create_batch_plan(config, examples=len(SOURCE), replicas=1)
    model, _ = build(config, plan, strategy, classes=3, image_size=SIZE, own_model=tiny(0.5, 0))
    model.shard()
    return model.steps(iter(strategy.distribute(training())), np.full(STEPS, 0.01)).loss.tolist()


def error(strategy: SingleDevice, folder: Path) -> str:
    """What a picture that is none leads to."""
    (folder / "none.jpg").write_bytes(b"no picture")
    source = FileSource("made", ["a"], str(folder), ["none.jpg"] * 4, np.zeros(4, int))
    try:
        next(iter(strategy.distribute(training(source))))
    except tf.errors.OpError as problem:
        return type(problem).__name__
    return "none"


def chosen(gpus: list) -> str | None:
    """The device of the strategy where TensorFlow sees these GPUs; nothing is set that a real one would need."""
    devices._visible_gpus, visible = lambda: gpus, tf.config.set_visible_devices
    tf.config.set_visible_devices = lambda *_: None
    try:
        return devices.create_strategy("single", World(), cpu_devices=None, threads=2).device
    finally:
        tf.config.set_visible_devices = visible


def main(folder: Path) -> None:
    found = {"chosen": {"a GPU": chosen(["a GPU"]), "none": chosen([])}}
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    plain, ahead = SingleDevice(World()), SingleDevice(World(), SECOND)
    for split, make in (("training", training()), ("validation", validation)):
        ways = {"made": plain, "single": ahead, "horovod": Horovod(World(), SECOND)}
        found[split] = {name: looked_at(strategy.distribute(make)) for name, strategy in ways.items()}
    found["waiting"] = {"CPU:0": waiting(plain, 0), "CPU:1": waiting(ahead, AHEAD)}
    found["losses"] = {"made": losses(plain), "ahead": losses(ahead)}
    found["errors"] = {"made": error(plain, folder), "ahead": error(ahead, folder)}
    dataset = tf.data.Dataset.range(3)
    found["a CPU gets the very dataset that was made"] = plain.distribute(lambda first, stride: dataset) is dataset
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
