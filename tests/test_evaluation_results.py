"""What an evaluation takes from a network besides its answers."""

import keras
import numpy as np
import pytest

from launch.evaluation.results import last_hidden

layers = keras.layers


def test_a_last_hidden_layer_over_places_is_their_mean():
    places = layers.Reshape((16, 12)), layers.Dense(6, name="places"), layers.Dense(3), layers.GlobalAveragePooling1D()
    network = keras.Sequential([keras.Input((8, 8, 3)), *places])
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    found = last_hidden(network)(images)
    assert found.shape == (2, 6)
    dense = network.layers[1]
    np.testing.assert_allclose(found, dense(images.reshape(2, 16, 12)).numpy().mean(axis=1), rtol=1e-5, atol=1e-6)


def base(*after):
    hidden = layers.Dense(6, "relu", name="hidden")
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), hidden, layers.Dense(3, name="last"), *after])


def in_functional():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, base()(layers.Rescaling(0.5)(images)))


def in_sequential():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(0.5), keras.Sequential([base()])])


@pytest.mark.parametrize("build", (in_functional, in_sequential, lambda: base(layers.Activation("linear"))))
def test_the_last_hidden_layer_is_found_in_networks_that_are_layers(build):
    network = build()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    (last,) = [layer for layer in network._flatten_layers() if layer.name == "last"]
    found = last_hidden(network)(images)
    assert found.shape == (2, 6) and found.dtype == "float32"
    np.testing.assert_allclose(found @ last.kernel + last.bias, network(images), rtol=1e-5, atol=1e-6)
