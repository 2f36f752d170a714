"""Gradients as float16 on the wire: half the bytes, and an approximation that does not grow with the workers.

A replica's share is its part of the global batch's mean gradient, an N-th of a mean gradient in size: of many workers'
most shares would be below what float16 can tell apart (6e-8), and much of the gradient would be lost.  So each is
multiplied by the number of replicas first, and the sum divided by it in float32, as Horovod's average does.  What the
loss was scaled by is taken out meanwhile, for the same reason.

Float16 ends at 65504, and the sum is taken in it.  What would not fit is sent as the largest value that N times does.
"""

import tensorflow as tf

LARGEST = 2.0**15  # of a sum; the other half of the range is left to the rounding of many additions


def compress(share: tf.Tensor, replicas: int, loss_scale: tf.Tensor | float = 1.0) -> tf.Tensor:
    """A replica's share as float16, to be summed over the replicas; what is not finite stays so."""
    scaled = share * (replicas / loss_scale)
    limit = LARGEST / replicas
    fitting = tf.clip_by_value(scaled, -limit, limit)
    return tf.cast(tf.where(tf.math.is_finite(scaled), fitting, scaled), tf.float16)


def decompress(total: tf.Tensor, share: tf.Tensor, replicas: int, loss_scale: tf.Tensor | float = 1.0) -> tf.Tensor:
    """The sum of ``compress``'s shares as what it stands for, in the dtype of this replica's."""
    return tf.cast(total, share.dtype) * (loss_scale / replicas)
