"""Keras alone: one process, model.fit, a tf.data pipeline that handles one image at a time.

python launch/baselines/keras_fit.py --data cifar10.npz --augment
python launch/baselines/keras_fit.py --data cifar10.npz --precision bfloat16
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import keras

from launch.baselines.job import build, dataset, read_job
from launch.baselines.turns import TurnCallback, Turns


def main():
    job = read_job(__doc__)
    model = build(job)
    model.compile(
        optimizer=keras.optimizers.SGD(job.learning_rate, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # Keras' default, "auto", takes XLA, whose convolutions on CPUs are several times slower.
    )
    model.fit(dataset(job, job.batch_size), epochs=job.epochs, callbacks=[TurnCallback(Turns())], verbose=0)


if __name__ == "__main__":
    main()
