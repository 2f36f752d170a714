"""The gradient of max pooling by one kernel, for the same bits in every run on CPUs.

TensorFlow has two there, its own and oneDNN's, and they add up in another order what lies in several windows.  It takes
oneDNN's where its rewriting of the graph has come to the pooling before it comes to the gradient.  In a loop either can
come first, by chance: by the addresses of the graph's nodes.  A function of its own has no loop; within it the order is
given.  Pooling once more there costs a twentieth of the two, to take TensorFlow's own kernel would cost four times as
much (AlexNet's first one, batch 8, one core).
"""

import tensorflow as tf
from tensorflow.python.framework import ops

# TensorFlow has no public way to give an operation another gradient.
GRADIENTS, POOLING = ops.gradient_registry._registry, "MaxPool"
ATTRIBUTES = ("ksize", "strides", "padding", "explicit_paddings", "data_format")


def pool_by_one_kernel() -> None:
    """From now on, in this process: graphs compute the gradient of ``MaxPool`` so."""
    GRADIENTS[POOLING]["type"] = _gradient


def _gradient(operation, output_gradient: tf.Tensor) -> tf.Tensor:
    """What TensorFlow asks a gradient function for: of the operation's input."""
    given = {name: operation.get_attr(name) for name in ATTRIBUTES}
    # A function is traced once for each of its settings, which must be hashable.
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return _input_gradient(operation.inputs[0], output_gradient, **settings)


# Were it made part of the graph that calls it, it would lie in that graph's loop.
@tf.function(autograph=False, experimental_attributes={"_noinline": True})
def _input_gradient(images, output_gradient, **settings):
    pooled = tf.raw_ops.MaxPool(input=images, **settings)
    return tf.raw_ops.MaxPoolGrad(orig_input=images, orig_output=pooled, grad=output_gradient, **settings)
