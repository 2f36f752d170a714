"""Batch normalisation whose statistics do not depend on the number of workers.

Keras' layer normalises by the examples that happen to lie on one worker.  Here the statistics of a training step are
those of a *span* of examples: the micro-batch over all replicas, or a fixed number of consecutive examples, which needs
no exchange.  The moving statistics follow from the whole global batch, once per optimizer step.

A variance is never E[x^2] - E[x]^2.  Within a span it comes from the corrected two-pass algorithm, and parts are merged
from (count, mean, sum of squared deviations): Chan, Golub and LeVeque 1983, "Algorithms for computing the sample
variance".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from distributed import step_context
from distributed.layers.dropout import LayerError
from distributed.step_context import StepContext
from distributed.strategies import Strategy


class Moments(NamedTuple):
    """Statistics of k sets of numbers per channel, all float32.

    Attributes:
        count: numbers per channel, [k].
        mean: [k, c].
        squares: the sum of squared deviations from the mean, [k, c].
    """

    count: tf.Tensor
    mean: tf.Tensor
    squares: tf.Tensor

    def merged(self) -> "Moments":
        """Those of all sets together, k = 1; sets of count 0 say nothing."""
        total = tf.reduce_sum(self.count, keepdims=True)
        weights = tf.math.divide_no_nan(self.count, total)[:, None]
        # From the first one's, so that a large mean does not cost the digits of the small differences.
        mean = self.mean[:1] + tf.reduce_sum(weights * (self.mean - self.mean[:1]), 0, keepdims=True)
        between = self.count[:, None] * tf.square(self.mean - mean)
        return Moments(total, mean, tf.reduce_sum(self.squares + between, 0, keepdims=True))

    def packed(self) -> tf.Tensor:
        """One tensor, [k, 1 + 2c]."""
        return tf.concat([self.count[:, None], self.mean, self.squares], 1)

    @classmethod
    def unpacked(cls, rows: tf.Tensor) -> "Moments":
        """What ``packed`` gave."""
        count, mean, squares = tf.split(rows, [1, rows.shape[1] // 2, rows.shape[1] // 2], 1)
        return cls(count[:, 0], mean, squares)


class SpanBatchNorm(keras.layers.BatchNormalization):
    """``keras.layers.BatchNormalization`` (Ioffe and Szegedy 2015) over a span of examples; its moving statistics are
    left to ``MovingStatistics``.

    Attributes:
        span: examples per set of statistics; None: all of the replica's micro-batch.
        strategy: whose replicas share their statistics; None: each replica has its own.
    """

    span: int | None = None
    strategy: Strategy | None = None

    @property
    def __class__(self):
        # Keras asks this for what to write into files: networks are saved, and load anywhere, with Keras' own layer.
        return keras.layers.BatchNormalization

    def call(self, inputs, training=None, mask=None):
        context = step_context.current()
        if context is None or not training or not self.trainable:
            return keras.layers.BatchNormalization.call(self, inputs, training=training, mask=mask)
        if mask is not None:
            raise LayerError(
                f"layer '{self.name}' (BatchNormalization) was called with a mask, which batch normalisation over "
                "several workers does not know; leave the mask out"
            )
        ones = tf.ones([inputs.shape[self.axis]])
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else ones
        beta = tf.convert_to_tensor(self.beta) if self.center else 0 * ones
        outputs, moments = normalize(
            tf.cast(inputs, tf.float32),
            gamma,
            beta,
            axis=self.axis,
            epsilon=self.epsilon,
            span=self.span,
            strategy=self.strategy,
            awaited=context.awaited,
        )
        context.moments[id(self)].append(moments)
        return tf.cast(outputs, self.compute_dtype)


def normalize(
    inputs: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    axis: int,
    epsilon: float,
    span: int | None = None,
    strategy: Strategy | None = None,
    awaited: Callable = StepContext.awaited,
) -> tuple[tf.Tensor, Moments]:
    """Bring each channel to mean ``beta`` and deviation ``gamma`` over each span of examples.

    Over all replicas that is one exchange forward, of the moments, and one backward, of the two sums in the gradient.

    Args:
        inputs: float32 [b, ...]; ``span`` divides b.
        gamma: float32 [c], and ``beta`` too; their gradients are this replica's shares.
        axis: that of the channels.
        epsilon: added to the variance.
        span: examples of a set; None: b.
        strategy: with whose replicas to share, inside a step; ``span`` is then None.
        awaited: see ``StepContext``.

    Returns:
        What ``inputs`` become, and the moments of this replica's sets, through which no gradient flows.
    """
    assert span is None or strategy is None
    whole, axis = tf.shape(inputs), axis % inputs.shape.rank + 1
    sets = 1 if span is None else inputs.shape[0] // span
    inputs = tf.reshape(inputs, tf.concat([[sets, -1], whole[1:]], 0))
    inputs.set_shape([sets, None, *inputs.shape[2:]])
    axes = [place for place in range(1, inputs.shape.rank) if place != axis]
    channels = gamma.shape[0]
    per_channel = [channels if place == axis else 1 for place in range(inputs.shape.rank)]
    # As a factor for all numbers of a set: [sets, 1, ..., c, ..., 1].
    per_set = [sets, *per_channel[1:]]

    @tf.custom_gradient
    def normalized(inputs, gamma, beta):
        count = tf.cast(tf.size(inputs) // (sets * channels), tf.float32)
        shift = tf.reduce_mean(inputs, axes, keepdims=True)
        centred = inputs - shift
        # A mean of many float32 numbers is itself rounded: the correction of the two-pass algorithm.
        rest = tf.reduce_mean(centred, axes, keepdims=True)
        squares = tf.reduce_sum(tf.square(centred), axes, keepdims=True) - count * tf.square(rest)
        mine = Moments(
            tf.fill([sets], count), *(tf.reshape(part, [sets, channels]) for part in (shift + rest, squares))
        )
        shared = mine
        if strategy is not None:
            (rows,) = awaited(strategy.gather_replicas)([mine.packed()])
            shared = Moments.unpacked(rows).merged()
        total = tf.reshape(shared.count, [-1] + [1] * (len(per_set) - 1))
        rest = tf.reshape(shared.mean, per_set) - shift
        inverse = tf.math.rsqrt(tf.reshape(shared.squares, per_set) / total + epsilon)
        scale = tf.reshape(gamma, per_channel) * inverse

        def gradient(upstream, *_):
            sums = tf.reduce_sum(upstream, axes, keepdims=True)
            products = inverse * (tf.reduce_sum(upstream * centred, axes, keepdims=True) - rest * sums)
            shares = [tf.reduce_sum(tf.reshape(part, [sets, channels]), 0) for part in (products, sums)]
            if strategy is not None:
                (both,) = awaited(strategy.sum_replicas)([tf.stack([sums, products])])
                sums, products = tf.unstack(both)
            slope = scale * inverse * products / total
            return scale * upstream - slope * centred + (slope * rest - scale * sums / total), *shares

        return (centred * scale + (tf.reshape(beta, per_channel) - rest * scale), *mine), gradient

    outputs, *moments = normalized(inputs, gamma, beta)
    return tf.reshape(outputs, whole), Moments(*map(tf.stop_gradient, moments))


class MovingStatistics:
    """The moving means and variances of a network's layers, which follow the whole global batch of each step.

    They move once per optimizer step, however many micro-batches it has, so that ``momentum`` counts steps; and only
    with a step that is taken: one that the optimizer refuses leaves them as they are.
    """

    def __init__(self, layers: Sequence[SpanBatchNorm]):
        self._layers = layers

    @property
    def variables(self) -> list[keras.Variable]:
        """Mean and variance of each layer in turn."""
        return [variable for layer in self._layers for variable in (layer.moving_mean, layer.moving_variance)]

    def row(self, context: StepContext) -> tf.Tensor:
        """What the layers have seen of a micro-batch, float32 [1, w]: nothing where one was not called."""

        def seen(layer):
            if not (calls := context.moments.get(id(layer))):
                return tf.zeros([1, 1 + 2 * layer.moving_mean.shape[0]])
            return Moments(*(tf.concat(parts, 0) for parts in zip(*calls, strict=True))).merged().packed()

        return tf.concat([seen(layer) for layer in self._layers], 1)

    def moved(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """What ``variables`` become.

        Args:
            rows: those of all micro-batches of the step, in the order of their examples, float32 [k, w].
        """
        widths = [1 + 2 * layer.moving_mean.shape[0] for layer in self._layers]
        values = []
        for layer, part in zip(self._layers, tf.split(rows, widths, 1), strict=True):
            seen = Moments.unpacked(part).merged()
            momentum = tf.where(seen.count > 0, layer.momentum, 1.0)
            variance = tf.math.divide_no_nan(seen.squares[0], seen.count)
            for variable, value in ((layer.moving_mean, seen.mean[0]), (layer.moving_variance, variance)):
                values.append(variable.value * momentum + value * (1.0 - momentum))
        return values
