"""The two layers that Keras lacks: response normalisation, and a grouped convolution for CPUs, too."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers import GroupedConv2D, LocalResponseNormalization


def _response_normalization(x, k, n, alpha, beta):
    """Section 3.3 of the paper, literally."""
    y = np.empty_like(x)
    for i in range(x.shape[-1]):
        near = x[..., max(0, i - n // 2) : i + n // 2 + 1]
        y[..., i] = x[..., i] / (k + alpha * (near**2).sum(-1)) ** beta
    return y


def test_response_normalization_is_the_papers_formula():
    x = np.random.default_rng(0).normal(0, 100, (2, 3, 3, 9)).astype(np.float32)  # large, so that the sum matters
    paper, other = {"k": 2, "n": 5, "alpha": 1e-4, "beta": 0.75}, {"k": 1, "n": 3, "alpha": 1e-2, "beta": 0.5}
    np.testing.assert_allclose(LocalResponseNormalization()(x), _response_normalization(x, **paper), rtol=1e-5)
    np.testing.assert_allclose(LocalResponseNormalization(**other)(x), _response_normalization(x, **other), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_response_normalization_in_half_precision(policy):
    layer = LocalResponseNormalization(dtype=policy)
    x = tf.fill([1, 2, 2, 8], tf.constant(1000.0))  # its square is beyond float16
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert y.dtype == policy.removeprefix("mixed_")
    expected = _response_normalization(x.numpy(), k=2, n=5, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, rtol=1e-2)
    gradient = tape.gradient(y, x).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.parametrize("padding, strides", [("same", 1), ("valid", 2)])
def test_grouped_convolution_is_keras_own_with_its_weights_result_and_gradients(padding, strides):
    x = tf.random.stateless_normal([2, 7, 7, 6], [1, 2])
    arguments = {"groups": 2, "padding": padding, "strides": strides, "bias_initializer": "he_uniform", "name": "conv"}
    theirs, ours = keras.layers.Conv2D(8, 3, **arguments), GroupedConv2D(8, 3, **arguments)
    for layer in (theirs, ours):
        layer.build(x.shape)
    ours.set_weights(theirs.get_weights())
    assert [weight.path for weight in ours.weights] == [weight.path for weight in theirs.weights]

    def result_and_gradients(layer):
        targets = [x, *(weight.value for weight in layer.trainable_weights)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y**2)
        return [y, *tape.gradient(loss, targets)]

    for a, b in zip(result_and_gradients(ours), result_and_gradients(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("gpus", "convolutions"), ((0, 2), (1, 1)))
def test_on_gpus_grouped_convolution_is_one_operation(monkeypatch, gpus, convolutions):
    """cuDNN has groups; what it computes is seen in test_gpu_arithmetic.py."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind] * gpus)
    traced = tf.function(GroupedConv2D(8, 3, groups=2)).get_concrete_function(tf.TensorSpec([2, 7, 7, 6]))
    assert [operation.type for operation in traced.graph.get_operations()].count("Conv2D") == convolutions
