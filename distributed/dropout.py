"""Dropout whose masks do not depend on the number of workers.

Keras' dropout draws one mask for a whole batch, so that an example's mask depends on where in which worker's batch it
stands.  Here the mask of an example is a pure function of (seed, step, sample, layer): the step opens a context with
the ids of its samples around the forward pass, and the layer hashes them to a key per example.
"""

import keras
import tensorflow as tf

from distributed import step_context


def _mix(value: tf.Tensor) -> tf.Tensor:
    """The 32-bit finaliser of MurmurHash3 (Appleby 2016): every input bit reaches every output bit."""
    value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32))) * tf.constant(
        0x85EBCA6B, tf.uint32
    )
    value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(13, tf.uint32))) * tf.constant(
        0xC2B2AE35, tf.uint32
    )
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32)))


class SampleDropout(keras.layers.Dropout):
    """``keras.layers.Dropout`` (Srivastava et al. 2014) with a mask keyed by (seed, step, sample)."""

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        context = step_context.current()
        if context is None:
            return super().call(inputs, training=training)
        return self.drop(inputs, context.step, context.sample_ids)

    def drop(self, inputs: tf.Tensor, step: tf.Tensor, sample_ids: tf.Tensor, *, first_column: int = 0) -> tf.Tensor:
        """Mask ``inputs`` [b, units] of these samples, which begin with unit ``first_column`` of the whole layer."""
        width = inputs.shape[-1]
        row = _mix(
            tf.cast(sample_ids, tf.uint32)
            ^ _mix(tf.cast(step, tf.uint32) + _mix(tf.constant(self.seed & 0xFFFFFFFF, tf.uint32)))
        )
        # An odd multiple of the column's number walks through all 32-bit keys without meeting one twice.
        column = tf.range(first_column, first_column + width, dtype=tf.int64)
        bits = _mix(row[:, None] + tf.cast(column * 0x9E3779B1 % 2**32, tf.uint32)[None, :])
        keep = bits >= tf.constant(int(self.rate * 2**32), tf.uint32)
        return tf.where(keep, inputs * tf.cast(1.0 / (1.0 - self.rate), inputs.dtype), tf.zeros((), inputs.dtype))
