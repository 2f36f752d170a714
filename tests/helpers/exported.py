"""Networks of a user's that are trained and exported by the tests, and the data for it."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

LINE = "--epochs 1 --steps-per-epoch 2 --global-batch-size 4 --learning-rate 0.001 --image-size"


def write_data(folder: Path, classes: int, size: int) -> Path:
    """20 training and 33 validation pictures, uint8, of noise with a class's bright row."""
    random, arrays = np.random.default_rng(classes), {}
    for split, count in (("train", 20), ("val", 33)):
        labels = np.arange(count) % classes
        pixels = random.integers(0, 200, (count, size, size, 3))
        pixels[np.arange(count), labels] += 55
        arrays |= {f"x_{split}": pixels.astype(np.uint8), f"y_{split}": labels}
    path = folder / f"{classes}-{size}.npz"
    np.savez(path, **arrays)
    return path


def build(classes: int, size: int) -> keras.Model:
    """What a clone by configuration would lose, and what other programs know nothing of: adapted statistics, a frozen
    network inside, one that is called twice, dropout in both, convolutions by groups."""
    scale = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3100.0, 3200.0])
    frozen = keras.Sequential([keras.Input((size, size, 3)), layers.Conv2D(8, 3), layers.BatchNormalization()])
    frozen.trainable = False
    features = keras.Input((None, None, 8))
    x = layers.Conv2D(8, 3, groups=4, padding="same", activation="relu", name="grouped")(features)
    twice = keras.Model(features, layers.Dropout(0.2)(x), name="twice")
    images = keras.Input((size, size, 3))
    x = layers.MaxPooling2D()(twice(twice(frozen(scale(images)))))
    x = layers.Dropout(0.5)(layers.Dense(16, activation="gelu")(layers.Flatten()(x)))
    return keras.Model(images, layers.Dense(1 if classes == 2 else classes)(x))


def sequential(classes: int, size: int) -> keras.Model:
    """As in the README."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(1 if classes == 2 else classes),
        ]
    )


@keras.saving.register_keras_serializable("of the user")
class Gain(layers.Layer):
    """A layer that plain Keras does not know."""

    def build(self, shape):
        self.gain = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.gain


def own_layer(classes: int, size: int) -> keras.Model:
    network = sequential(classes, size)
    return keras.Sequential([*network.layers[:-1], Gain(), network.layers[-1]])


def any_code(classes: int, size: int) -> keras.Model:
    network = sequential(classes, size)
    return keras.Sequential([*network.layers[:-1], layers.Lambda(lambda x: x + 1, name="plus"), network.layers[-1]])
