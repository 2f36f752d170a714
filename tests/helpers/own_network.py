"""A user's file with networks for the real command line: batch normalisation, dropout, nested and frozen layers."""

import keras
from keras import layers, ops


class Places(layers.Layer):
    """Adds to each place of a feature map what was learned of that place, as vision transformers do; and has a weight
    on which nothing depends."""

    def build(self, shape):
        self.table = layers.Embedding(shape[1] * shape[2], shape[3], name="table")
        self.table.build(None)
        self.unused = self.add_weight(shape=(3,), name="unused")

    def call(self, inputs):
        places = self.table(ops.arange(self.table.input_dim))
        return inputs + ops.reshape(places, inputs.shape[1:])


def build(classes, image_size):
    """A convolution, and a network nested in this one that holds both hidden dense layers."""
    head = [
        keras.Input((6 * 6 * 8,)),
        layers.Dense(48, "relu", name="fc6"),
        layers.Dropout(0.5, name="fc6_dropout"),
        layers.Dense(48, "relu", name="fc7"),
    ]
    return _network(classes, image_size, keras.Sequential(head, name="head"))


def with_frozen_layers(classes, image_size):
    """The same, but that neither the first dense layer nor the batch normalisation is trained."""
    network = build(classes, image_size)
    network.get_layer("head").get_layer("fc6").trainable = False
    network.get_layer("norm").trainable = False
    return network


def unscaled(classes, image_size):
    """Takes pixels as ``--pixels`` scales them."""
    layer = [
        keras.Input((image_size, image_size, 3)),
        layers.Conv2D(8, 3, activation="relu", name="conv"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(1 if classes == 2 else classes, name="logits"),
    ]
    return keras.Sequential(layer)


def _network(classes, image_size, head):
    images = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(8, 5, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = layers.MaxPooling2D()(layers.ReLU()(x))
    x = layers.Flatten()(Places(name="places")(x))
    return keras.Model(images, layers.Dense(classes, name="fc8")(head(x)))
