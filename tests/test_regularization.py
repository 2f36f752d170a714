"""What weight decay leaves alone, and the gradient and value of penalties."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from distributed.optimization.regularization import Penalties, biases_and_scales


def test_biases_and_parameters_of_normalisation_are_left_alone():
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = keras.layers.LayerNormalization((1, 2), name="norm")(x)
    x = keras.layers.BatchNormalization(name="batch_norm")(x)
    x = keras.layers.SeparableConv1D(5, 3, name="separable")(x)
    network = keras.Model(inputs, keras.layers.Dense(2, name="dense")(x))
    spared = {id(variable) for variable in biases_and_scales(network.trainable_variables)}
    decayed = [variable.name for variable in network.trainable_variables if id(variable) not in spared]
    # Of the attention four; its biases have two axes, as the scale of a layer that normalises by two.
    assert decayed == ["kernel"] * 4 + ["depthwise_kernel", "pointwise_kernel", "kernel"]


def variables() -> list[keras.Variable]:
    random = np.random.default_rng(0)
    kernel = keras.Variable(random.normal(size=(3, 4)).astype("float32"), name="kernel")
    bias = keras.Variable(random.normal(size=4).astype("float32"), name="bias")
    return [kernel, bias]


def test_the_penalty_of_kernels():
    kernel, bias = variables()
    penalties = Penalties([kernel, bias], 0.25, 0.5)
    weights = np.float64(kernel)
    expected = 0.25 * np.sign(weights) + 2 * 0.5 * weights
    assert penalties.gradient(kernel).numpy() == pytest.approx(expected, rel=1e-6)
    assert penalties.gradient(bias) is None and penalties.divisible
    assert penalties.value() == pytest.approx(0.25 * np.abs(weights).sum() + 0.5 * (weights**2).sum(), rel=1e-6)
    part = keras.Variable(np.asarray(kernel)[:, :2])
    assert penalties.gradient(kernel, part).numpy() == pytest.approx(expected[:, :2], rel=1e-6)


def test_a_regularizer_of_a_layers_own_comes_on_top():
    kernel, bias = variables()
    kernel.regularizer, bias.regularizer = keras.regularizers.L2(0.25), keras.regularizers.L1(0.125)
    alone, both = Penalties([kernel, bias]), Penalties([kernel, bias], l2=0.5)
    assert alone.gradient(kernel).numpy() == pytest.approx(2 * 0.25 * np.asarray(kernel), rel=1e-6)
    assert both.gradient(kernel).numpy() == pytest.approx(2 * 0.75 * np.asarray(kernel), rel=1e-6)
    assert both.gradient(bias).numpy() == pytest.approx(0.125 * np.sign(bias))
    assert both.divisible


def test_without_any_there_is_none():
    assert not Penalties(variables())


def test_what_looks_at_a_whole_kernel_is_not_divided():
    kernel, bias = variables()
    kernel.regularizer = keras.regularizers.OrthogonalRegularizer(0.1)
    penalties = Penalties([kernel, bias])
    assert not penalties.divisible and penalties.value() > 0
    assert tf.reduce_any(penalties.gradient(kernel) != 0)
