"""The multiplications of a dense layer against float64."""

import numpy as np
import pytest
import tensorflow as tf

from distributed.gradients.matmul import multiply
from distributed.gradients.reduction import Factors


def operands(dtype, batch=12, inputs=40, outputs=24):
    random = np.random.default_rng(0)
    shapes = (batch, inputs), (inputs, outputs), (batch, outputs)
    return [tf.cast(random.normal(size=shape), dtype) for shape in shapes]


def close(actual, expected, tolerance) -> bool:
    return np.linalg.norm(np.asarray(actual, np.float64) - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(("dtype", "tolerance"), ((tf.float32, 1e-6), (tf.float16, 1e-3), (tf.bfloat16, 8e-3)))
def test_outputs_and_gradients_are_those_of_float64(dtype, tolerance):
    inputs, kernel, output_gradients = operands(dtype)
    x, w, dy = (np.asarray(part, np.float64) for part in (inputs, kernel, output_gradients))
    with tf.GradientTape() as tape:
        tape.watch((inputs, kernel))
        outputs = multiply(inputs, kernel)
    gradients = tape.gradient(outputs, (inputs, kernel), output_gradients)
    assert [part.dtype for part in (outputs, *gradients)] == [dtype] * 3
    assert close(outputs, x @ w, tolerance)
    assert close(gradients[0], dy @ w.T, tolerance) and close(gradients[1], x.T @ dy, tolerance)


@pytest.mark.parametrize("dtype", (tf.float16, tf.bfloat16))
def test_a_kernels_gradient_is_float32_and_not_rounded_to_half_precision(dtype):
    inputs, _, output_gradients = operands(dtype)
    x, dy = (np.asarray(part, np.float64) for part in (inputs, output_gradients))
    gradient = Factors(inputs, output_gradients).multiplied(0.3)
    assert gradient.dtype == tf.float32 and close(gradient, 0.3 * x.T @ dy, 1e-6)


def test_what_a_loss_scale_kept_from_underflow_survives_its_division():
    inputs, _, output_gradients = operands(tf.float64)
    scale = 2.0**15
    # Float16 ends at 6e-8: these gradients exist in it only as long as they are scaled.
    small = output_gradients * 1e-8
    factors = Factors(tf.cast(inputs, tf.float16), tf.cast(small * scale, tf.float16))
    assert close(factors.multiplied(tf.constant(1 / scale)), (tf.transpose(inputs) @ small).numpy(), 2e-3)
