"""Small networks, and what they give in a training step."""

import keras
import tensorflow as tf

from distributed.step_context import enter


def flat(network):
    """All its layers, those within others too."""
    return network._flatten_layers()


def in_step(network, inputs, ids, step=3):
    """Outputs of a training step of these samples."""
    with enter(tf.constant(step, tf.int64), tf.constant(ids, tf.int64)):
        return [output.numpy() for output in tf.nest.flatten(network(inputs, training=True))]


def noise(network):
    """What it makes of ones in a training step."""
    return in_step(network, tf.ones([2, 64]), [5, 9])[0]


def stack(*added, shape=(64,)):
    """Layers one after another."""
    return keras.Sequential([keras.Input(shape), *added])
