"""Dropout whose masks do not depend on the number of workers.

Keras' dropout, and its stochastic depth, draw one mask for a whole batch, so that an example's mask depends on where
in which worker's batch it stands.  Here the mask of an example is a pure function of (seed, step, sample, layer): the
step opens a context with the ids of its samples around the forward pass, and the layer hashes them to a key per
example.
"""

import math

import keras
import tensorflow as tf

# Keras has no public name for the one of its own networks.
from keras.src.applications.convnext import StochasticDepth

from distributed import step_context

GOLDEN = 0x9E3779B1  # odd: its multiples walk through all 32-bit numbers without meeting one twice


class LayerError(ValueError):
    """A network that cannot be trained with the same result on any number of workers; one sentence that names the
    layer and says what to do."""


class SampleDropout(keras.layers.Dropout):
    """``keras.layers.Dropout`` (Srivastava et al. 2014) with a mask keyed by (seed, step, sample).

    Attributes:
        key: what takes the seed's place where the layer has none; ``convert`` sets it.
    """

    key: int | None = None

    @property
    def __class__(self):
        # Keras asks this for what to write into files: networks are saved, and load anywhere, with Keras' own layer.
        return keras.layers.Dropout

    def call(self, inputs, training=False):
        context = step_context.current()
        if context is None or not training or self.rate == 0:
            return keras.layers.Dropout.call(self, inputs, training=training)
        return self.drop(inputs, context.step, context.sample_ids)

    def drop(self, inputs: tf.Tensor, step: tf.Tensor, sample_ids: tf.Tensor, *, first_column: int = 0) -> tf.Tensor:
        """Mask ``inputs`` of these samples in this step.

        A layer that is called again in the same step draws other masks, in the order of its calls.

        Args:
            inputs: [b, ...], of any rank.
            step: int64 scalar.
            sample_ids: int64 [b].
            first_column: of inputs [b, units]: which unit of the whole layer they begin with.

        Raises:
            LayerError: the first dimension of ``inputs``, or of the layer's ``noise_shape``, is not the samples'.
        """
        mask = self._mask_shape(inputs, sample_ids)
        assert not first_column or self.noise_shape is None
        key = self.seed if self.key is None else self.key
        return _masked(self, inputs, mask, self.rate, key, step, sample_ids, first_column)

    def _mask_shape(self, inputs: tf.Tensor, sample_ids: tf.Tensor) -> list:
        """The mask's dimensions, numbers where these are known, else int32 scalars; the first is the samples'."""
        if self.noise_shape is not None and (len(self.noise_shape) != inputs.shape.rank or self.noise_shape[0] == 1):
            raise LayerError(one_mask_for_all(self))
        _check_batch(self, inputs, sample_ids)
        batch, *rest = keras.ops.shape(inputs)
        fixed = self.noise_shape[1:] if self.noise_shape else [None] * len(rest)
        return [batch, *(size if noise is None else noise for size, noise in zip(rest, fixed, strict=True))]


class SampleStochasticDepth(StochasticDepth):
    """ConvNeXt's stochastic depth (Huang et al. 2016): an example is dropped as a whole, keyed by (seed, step, sample).

    Attributes:
        key: as ``SampleDropout`` has it; the layer has no seed of its own.
    """

    key: int | None = None

    @property
    def __class__(self):
        return StochasticDepth  # for the same reason as there

    def call(self, x, training=None):
        context = step_context.current()
        if context is None or not training or self.drop_path_rate == 0:
            return StochasticDepth.call(self, x, training=training)
        _check_batch(self, x, context.sample_ids)
        mask = [keras.ops.shape(x)[0], *(1 for _ in x.shape[1:])]
        return _masked(self, x, mask, self.drop_path_rate, self.key, context.step, context.sample_ids)


def one_mask_for_all(layer: keras.layers.Dropout) -> str:
    """The sentence about a ``noise_shape`` that leaves the batch out."""
    return (
        f"layer '{layer.name}' (Dropout) has noise_shape {layer.noise_shape}, one mask for all examples of a batch; "
        "name all dimensions of its inputs, with None for the batch"
    )


def _check_batch(layer: keras.layers.Layer, inputs: tf.Tensor, sample_ids: tf.Tensor) -> None:
    batch, samples = inputs.shape[0], sample_ids.shape[0]
    if None not in (batch, samples) and batch != samples:
        raise LayerError(
            f"layer '{layer.name}' ({layer.__class__.__name__}) was called with a tensor of shape {inputs.shape} for "
            f"{samples} examples; call it with one whose first dimension is the batch"
        )


def _masked(layer, inputs, mask: list, rate: float, key: int, step, sample_ids, first_column: int = 0) -> tf.Tensor:
    """``inputs`` with the part ``rate`` of them zero and the rest raised to keep the mean; see ``SampleDropout.drop``.

    Args:
        mask: dimensions of the mask, which is spread over ``inputs``; the first is the samples'.
        key: the layer's.
    """
    if rate == 1:
        return tf.zeros_like(inputs)
    key = (key + GOLDEN * _draws_before(layer)) & 0xFFFFFFFF
    row = _mix(tf.cast(sample_ids, tf.uint32) ^ _mix(tf.cast(step, tf.uint32) + _mix(tf.constant(key, tf.uint32))))
    column = tf.range(first_column, first_column + math.prod(mask[1:]), dtype=tf.int64)
    bits = _mix(row[:, None] + tf.cast(column * GOLDEN % 2**32, tf.uint32)[None, :])
    keep = tf.reshape(bits >= tf.constant(int(rate * 2**32), tf.uint32), mask)
    return tf.where(keep, inputs * tf.cast(1.0 / (1.0 - rate), inputs.dtype), tf.zeros((), inputs.dtype))


def _draws_before(layer: keras.layers.Layer) -> int:
    """How often the layer has drawn in this step before, and count this time."""
    context = step_context.current()
    if context is None:
        return 0
    context.draws[id(layer)] += 1
    return context.draws[id(layer)] - 1


def _mix(value: tf.Tensor) -> tf.Tensor:
    """The 32-bit finaliser of MurmurHash3 (Appleby 2016): every input bit reaches every output bit."""
    value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32))) * tf.constant(
        0x85EBCA6B, tf.uint32
    )
    value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(13, tf.uint32))) * tf.constant(
        0xC2B2AE35, tf.uint32
    )
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32)))
