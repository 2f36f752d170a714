"""Keras alone: one process, model.fit, a tf.data pipeline that handles one image at a time.

python launch/baselines/keras_fit.py --data cifar10.npz --augment
python launch/baselines/keras_fit.py --data cifar10.npz --precision bfloat16
python launch/baselines/keras_fit.py --data cifar10.npz --steps-per-execution 32
python launch/baselines/keras_fit.py --data cifar10.npz --mirrored                   # MirroredStrategy: all GPUs
python launch/baselines/keras_fit.py --data cifar10.npz --mirrored --cpu-devices 2   # where there is none
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import keras
import tensorflow as tf

from launch.baselines.client import BenchmarkCallback, BenchmarkClient
from launch.baselines.job import build, dataset, read_job


def main():
    job = read_job(
        __doc__,
        ("--steps-per-execution", {"type": int, "default": 1}),
        ("--mirrored", {"action": "store_true"}),
        ("--cpu-devices", {"type": int, "default": 0}),
    )
    if job.cpu_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * job.cpu_devices)
    devices = [f"CPU:{index}" for index in range(job.cpu_devices)]
    strategy = tf.distribute.MirroredStrategy(devices or None) if job.mirrored else tf.distribute.get_strategy()
    with strategy.scope():
        model = build(job)
        model.compile(
            optimizer=keras.optimizers.SGD(job.learning_rate, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=job.steps_per_execution,
            # Keras' default, "auto", takes XLA, whose convolutions on CPUs are several times slower.
            jit_compile=False,
        )
    data = dataset(job, job.batch_size * strategy.num_replicas_in_sync)
    model.fit(data, epochs=job.epochs, callbacks=[BenchmarkCallback(BenchmarkClient())], verbose=0)


if __name__ == "__main__":
    main()
