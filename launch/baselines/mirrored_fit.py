"""Keras with MirroredStrategy: one process, all its devices, model.fit, Keras' optimizer.

python launch/baselines/mirrored_fit.py --data cifar10.npz                   # all GPUs of this machine
python launch/baselines/mirrored_fit.py --data cifar10.npz --cpu-devices 2   # where there is none
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import keras
import tensorflow as tf

from launch.baselines.job import build, dataset, read_job
from launch.baselines.turns import TurnCallback, Turns


def main():
    job = read_job(__doc__, ("--cpu-devices", {"type": int}))
    devices = None
    if job.cpu_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * job.cpu_devices)
        devices = [f"CPU:{index}" for index in range(job.cpu_devices)]
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        model = build(job)
        model.compile(
            optimizer=keras.optimizers.SGD(job.learning_rate, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
    data = dataset(job, job.batch_size * strategy.num_replicas_in_sync)
    model.fit(data, epochs=job.epochs, callbacks=[TurnCallback(Turns())], verbose=0)


if __name__ == "__main__":
    main()
