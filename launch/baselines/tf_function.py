"""TensorFlow by hand: one process, a step in a tf.function, called in a loop over the data.

python launch/baselines/tf_function.py --data cifar10.npz --augment
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import keras
import tensorflow as tf

from launch.baselines.client import BenchmarkClient
from launch.baselines.job import build, dataset, read_job


def main():
    job = read_job(__doc__)
    model = build(job)
    variables = [variable.value for variable in model.trainable_variables]
    optimizer = keras.optimizers.SGD(job.learning_rate, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        optimizer.apply(tape.gradient(loss, variables), model.trainable_variables)
        return loss

    client, loss = BenchmarkClient(), None
    for epoch in range(job.epochs):
        for images, labels in dataset(job, job.batch_size):
            client.begin_step(lambda done=loss: done is None or float(done))
            loss = step(images, labels)
        print(f"epoch {epoch + 1}: loss of the last batch {float(loss):.4f}", flush=True)


if __name__ == "__main__":
    main()
