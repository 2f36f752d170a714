"""Sums in one fixed order, for the same bits in every run.

TensorFlow's ``AddN`` begins with whichever of its inputs lies in memory that it may overwrite, so that the last bit of
a sum of three depends on what else has just been computed.  It adds up the gradients of a tensor that is used more than
twice, as logits are in a binary cross-entropy and feature maps in a DenseNet; and grappler's arithmetic optimization
makes one of every chain of additions.
"""

import functools

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop
from tensorflow.python.ops import gradients_util


def add_in_order() -> None:
    """From now on, in this process: gradients are added one after the other, and graphs keep additions as they are."""
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    # TensorFlow has no public way to say how a tape adds.
    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace._replace(aggregate_fn=_aggregated))
    # Nor how functions, conditions and loops within the network do.
    gradients_util._MultiDeviceAddN = lambda gradients, _: _aggregated(gradients)


def _aggregated(gradients: list):
    if all(isinstance(gradient, tf.Tensor) for gradient in gradients):
        return functools.reduce(tf.add, gradients)
    return backprop._aggregate_grads(gradients)


def global_norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """The norm of all tensors together, as ``tf.linalg.global_norm`` computes it but for the order."""
    squares = [tf.nn.l2_loss(tensor) for tensor in tensors]
    return tf.sqrt(2.0 * tf.reduce_sum(tf.stack(squares)))
