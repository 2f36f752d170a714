"""The least that a start can take: TensorFlow and Keras are loaded, a network is built, one step is traced and taken.

python launch/baselines/first_step.py    # prints when it was taken, in seconds since 1970
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import keras
import numpy as np
import tensorflow as tf

from launch.baselines import tiny


def main():
    images, labels = np.zeros((8, 32, 32, 3), np.uint8), np.arange(8)
    model, loss_of = tiny.network(10, 32), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    float(step(images, labels))
    print(time.time())


if __name__ == "__main__":
    main()
