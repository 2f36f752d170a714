"""The multiplications of a dense layer against float64."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from distributed.gradients.matmul import kernel_gradient, multiply
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


@pytest.mark.parametrize("dtype", (tf.float16, tf.bfloat16))
def test_numbers_of_16_bits_are_numbers_of_tensorfloat_32(dtype):
    """So that widened factors lose nothing on tensor cores: all 65,536 of them, but for what is not a number."""
    every = tf.cast(tf.bitcast(np.arange(1 << 16, dtype=np.uint16), dtype), tf.float32).numpy()
    assert not (every[np.isfinite(every)].view(np.uint32) & 0x1FFF).any()


def test_no_kernel_on_gpus_multiplies_16_bits_into_32():
    """Once TensorFlow has one, ``kernel_gradient`` should take it."""
    for kernel in kernels.get_registered_kernels_for_op("BatchMatMulV3").kernel:
        dtypes = [part.allowed_values.list.type[0] for part in kernel.constraint]
        assert kernel.device_type != "GPU" or len(set(dtypes)) == 1, kernel


@pytest.mark.parametrize("dtype", (tf.float16, tf.bfloat16))
def test_on_gpus_factors_of_16_bits_reach_the_product_unscaled(monkeypatch, dtype):
    """Only the way that is taken there: what it is worth is seen in test_gpu_arithmetic.py."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    inputs, _, output_gradients = operands(dtype)
    product = tf.function(lambda x, dy: kernel_gradient(x, dy, tf.constant(0.3))).get_concrete_function(
        inputs, output_gradients
    )
    (multiplied,) = [operation for operation in product.graph.get_operations() if operation.type == "MatMul"]
    assert [source.op.type for source in multiplied.inputs] == ["Cast", "Cast"]
    x, dy = (np.asarray(part, np.float64) for part in (inputs, output_gradients))
    assert close(product(inputs, output_gradients), 0.3 * x.T @ dy, 1e-6)
