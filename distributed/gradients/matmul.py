"""The multiplications of a dense layer and of its gradients, each by TensorFlow's fastest kernel for it.

TensorFlow offers two for float32: ``MatMul`` (Eigen) and the one behind ``einsum`` (oneDNN's).  Neither is the better
in all three directions; of AlexNet's fc6 (batch 16, 9216 x 4096, two cores) they take, in milliseconds,

    outputs             x w      MatMul  7.7   einsum 13.0
    input gradient      dy w^T   MatMul 37.0   einsum  9.0
    kernel's gradient   x^T dy   MatMul  8.3   einsum  8.1

where Keras' own layer, and its gradient, is all MatMul.  Of a kernel of 72 x 16 (batch 8) the last one takes 60
microseconds by einsum, all of it getting ready, and 6 by MatMul; the bits are the same.

On GPUs no kernel of TensorFlow's takes 16 bits and puts out 32.  But a float32 product whose factors may be rounded to
TensorFloat-32 (``--tf32``; compute capability 8.0 on) is one of tensor cores, and all numbers of float16 and bfloat16
are numbers of TensorFloat-32: widened, nothing of them is rounded, and the sum is float32.  Not seen on a GPU yet.
"""

import tensorflow as tf

SMALL = 1 << 17  # numbers of a kernel up to which its gradient is MatMul's


@tf.custom_gradient
def multiply(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[b, in] times [in, out], both of one dtype: [b, out]."""

    def gradients(output_gradients):
        input_gradient = tf.einsum("bo,io->bi", output_gradients, kernel)
        return input_gradient, tf.cast(kernel_gradient(inputs, output_gradients), kernel.dtype)

    return tf.matmul(inputs, kernel), gradients


def kernel_gradient(inputs: tf.Tensor, output_gradients: tf.Tensor, scale: tf.Tensor | float = 1.0) -> tf.Tensor:
    """The sum over examples of [b, in] by [b, out], times ``scale``: float32 [in, out].

    Factors of 16 bits are widened first: a product in 16 bits would be rounded to them, and to widen tens of millions
    of numbers takes longer than to multiply in float32.  ``scale`` is applied in float32 too: what float16's loss scale
    has kept from underflow must not underflow when it is divided by it.
    """
    half, inputs = output_gradients.dtype.size == 2, tf.cast(inputs, tf.float32)
    output_gradients = tf.cast(output_gradients, tf.float32)
    if half and tf.config.get_visible_devices("GPU"):
        # Scaled before, they would have more bits than tensor cores take.
        return times(tf.matmul(inputs, output_gradients, transpose_a=True), scale)
    output_gradients = times(output_gradients, scale)
    if inputs.shape[1] * output_gradients.shape[1] <= SMALL:
        return tf.matmul(inputs, output_gradients, transpose_a=True)
    return tf.einsum("bi,bo->io", inputs, output_gradients)


def times(tensor: tf.Tensor, scale: tf.Tensor | float) -> tf.Tensor:
    """The tensor times ``scale``; for the number 1.0 the tensor itself, unread."""
    return tensor if isinstance(scale, float) and scale == 1.0 else tensor * tf.cast(scale, tensor.dtype)
