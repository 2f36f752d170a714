"""The multiplications of a dense layer and of its gradients, each by TensorFlow's fastest kernel for it on CPUs.

TensorFlow offers two for float32: ``MatMul`` (Eigen) and the one behind ``einsum`` (oneDNN's).  Neither is the better
in all three directions; of AlexNet's fc6 (batch 16, 9216 x 4096, two cores) they take, in milliseconds,

    outputs             x w      MatMul  7.7   einsum 13.0
    input gradient      dy w^T   MatMul 37.0   einsum  9.0
    kernel's gradient   x^T dy   MatMul  8.3   einsum  8.1

where Keras' own layer, and its gradient, is all MatMul.
"""

import tensorflow as tf


@tf.custom_gradient
def multiply(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[b, in] times [in, out], both of one dtype: [b, out]."""

    def gradients(output_gradients):
        return tf.einsum("bo,io->bi", output_gradients, kernel), kernel_gradient(inputs, output_gradients)

    return tf.matmul(inputs, kernel), gradients


def kernel_gradient(inputs: tf.Tensor, output_gradients: tf.Tensor) -> tf.Tensor:
    """The sum over examples of [b, in] by [b, out]: [in, out]."""
    return tf.einsum("bi,bo->io", inputs, output_gradients)
