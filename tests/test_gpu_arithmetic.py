"""What only a GPU can show of products and convolutions."""

import numpy as np
import pytest
import tensorflow as tf

from distributed.gradients.matmul import kernel_gradient
from models.layers import GroupedConv2D

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="no GPU"),
]


@pytest.fixture(params=(True, False), ids=("tf32", "float32"))
def tf32(request):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(request.param)
    yield request.param
    tf.config.experimental.enable_tensor_float_32_execution(before)


def error(actual, expected) -> float:
    return np.linalg.norm(np.asarray(actual, np.float64) - expected) / np.linalg.norm(expected)


def factors(dtype):
    return [tf.cast(tf.random.stateless_normal((256, side), (0, side)), dtype) for side in (1024, 512)]


@pytest.mark.parametrize("dtype", (tf.float16, tf.bfloat16))
def test_a_kernels_gradient_loses_nothing_of_16_bit_factors(dtype, tf32):
    left, right = factors(dtype)
    x, dy = (np.asarray(part, np.float64) for part in (left, right))
    assert error(kernel_gradient(left, right, tf.constant(0.3)), 0.3 * x.T @ dy) < 1e-5


def test_float32_is_float32_where_tf32_is_off(tf32):
    left, right = factors(tf.float32)
    x, dy = (np.asarray(part, np.float64) for part in (left, right))
    # Cards before compute capability 8.0 have no TF32.
    assert error(kernel_gradient(left, right), x.T @ dy) < (2e-3 if tf32 else 2e-6)


@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "float16"))
def test_grouped_convolution_is_that_of_single_groups(dtype):
    tf.config.experimental.enable_tensor_float_32_execution(False)
    x = tf.cast(tf.random.stateless_normal((4, 27, 27, 96), (1, 2)), dtype)
    layer = GroupedConv2D(256, 5, groups=2, padding="same", dtype=dtype)
    layer.build(x.shape)

    def result_and_gradients(call):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = call(x, tf.cast(layer.kernel.value, dtype))
        return [outputs, *tape.gradient(outputs, [x, layer.kernel.value], tf.ones_like(outputs))]

    def by_groups(inputs, kernel):
        pairs = zip(tf.split(inputs, 2, -1), tf.split(kernel, 2, -1), strict=True)
        return tf.concat([tf.nn.conv2d(part, filters, 1, "SAME") for part, filters in pairs], -1)

    for ours, theirs in zip(*map(result_and_gradients, (layer.convolution_op, by_groups)), strict=True):
        assert error(ours, np.asarray(theirs, np.float64)) < {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}[dtype]
