"""Which form of a gradient the replicas exchange: its sum, or for dense layers the two factors it is the product of.

The gradient of a dense layer's kernel is ``X^T dY``, summed over all examples of the global batch.  An all-reduce
moves ``in x out`` numbers.  Gathering the factors ``X [b, in]`` and ``dY [b, out]`` of all replicas and multiplying
them on each moves ``b x (in + out)``: far fewer for the layers that hold nearly all parameters of AlexNet and VGG.
Both give the same gradient but for the order of summation; nothing is approximated.

In *exact* mode not even that order depends on the number of replicas.  The run's global batch is computed in
micro-batches of one fixed size, so that every kernel sees the same shapes; factors are gathered in the order of the
examples and multiplied once, all other gradients are gathered by micro-batch and summed in the order of these.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from distributed.gradients.compression import compress, decompress
from distributed.gradients.dense_layers import dense_layers, record
from distributed.gradients.matmul import kernel_gradient, times
from distributed.gradients.tensor_parallel import SplitPair
from distributed.strategies import Strategy


class Factors(NamedTuple):
    """A kernel's gradient that is not multiplied out: a replica's share of it, or the sum over all of them.

    Attributes:
        inputs: the layer's inputs, [b, in].
        output_gradients: the loss' gradient by what the layer puts out before its activation, [b, out].
    """

    inputs: tf.Tensor
    output_gradients: tf.Tensor

    def bound(self) -> tf.Tensor:
        """A number that is finite only if the gradient is, and no smaller than its norm; reads the factors alone."""
        norms = [tf.norm(tf.cast(part, tf.float32)) for part in self]
        return norms[0] * norms[1]

    def multiplied(self, scale: tf.Tensor | float = 1.0) -> tf.Tensor:
        """The gradient times ``scale``, float32 [in, out]."""
        return kernel_gradient(self.inputs, self.output_gradients, scale)


class Owned(NamedTuple):
    """The gradient of this worker's part of a variable, that of the whole global batch: nothing is left to sum.

    Attributes:
        gradient: float32, of the part's shape.
        square: the sum of the squares of all workers' parts, once these have exchanged it.
    """

    gradient: tf.Tensor
    square: tf.Tensor

    def bound(self) -> tf.Tensor:
        """The norm of the whole gradient."""
        return tf.sqrt(self.square)

    def multiplied(self, scale: tf.Tensor | float = 1.0) -> "Owned":
        """The gradient times ``scale``."""
        return Owned(times(self.gradient, scale), self.square)


class Rows(NamedTuple):
    """What is not summed but joined, in the order of the examples: a row per micro-batch.

    Attributes:
        values: [k, w].
    """

    values: tf.Tensor


class Exchange:
    """Takes gradients from a tape in the form in which they travel, and sums them over the replicas.

    Attributes:
        unconnected: variables that the loss does not depend on, once a step is traced.
    """

    def __init__(
        self,
        network: keras.Model,
        strategy: Strategy,
        schemes: Mapping[str, str],
        *,
        exact: bool = False,
        compress: bool = False,
        split: SplitPair | None = None,
        unroll: bool = False,
    ):
        """
        Args:
            network: a plain Keras model; the ``call`` of its dense layers is wrapped, nothing else changes.
            strategy: how the replicas exchange.
            schemes: dense layer's name -> ``factors``, ``allreduce`` or ``split``; one that is missing is all-reduced.
            exact: whether gradients must not depend on the number of replicas, to the last bit.
            compress: whether what is all-reduced travels as float16: half the bytes, and an approximation.
            split: two of the layers, divided between the workers.
            unroll: whether micro-batches must not be computed in a loop of the graph, since they exchange something
                that the strategy cannot exchange there.
        """
        assert not (exact and (compress or split))
        self._strategy, self._exact, self.split, self._unroll = strategy, exact, split, unroll
        self._compress = compress and strategy.replicas > 1
        self.unconnected: list[keras.Variable] = []
        layers = {name: layer for name, layer in dense_layers(network).items() if schemes.get(name) != "split"}
        self._names = {id(layer.kernel): name for name, layer in layers.items()}
        self._factored = {id(layer.kernel): layer for name, layer in layers.items() if schemes.get(name) == "factors"}
        for name, layer in layers.items():
            record(layer, name)

    def gradients(self, tape: tf.GradientTape, loss, recorded: Mapping, variables: Sequence[keras.Variable]) -> list:
        """This replica's shares: for each variable a tensor of its shape, ``Factors`` or ``Owned``.

        Args:
            tape: has seen ``loss`` computed.
            recorded: what the dense layers have left in the step's context.
        """
        entries = [recorded.get(self._names.get(id(variable))) for variable in variables]
        parts = [self.split and self.split.part_of(variable) for variable in variables]
        targets = [
            entry[1] if entry else (variable if part is None else part).value
            for variable, entry, part in zip(variables, entries, parts, strict=True)
        ]

        def share(variable, gradient, entry, part):
            # Of a table of which rows were looked up, such as an Embedding's, a tape gives the rows.
            gradient = tf.convert_to_tensor(gradient)
            if part is not None:
                return Owned(gradient, 2 * tf.nn.l2_loss(gradient))
            if entry is None:
                return gradient
            factors = Factors(entry[0], gradient)
            return factors if id(variable) in self._factored else factors.multiplied()

        gradients = tape.gradient(loss, targets)
        self.unconnected = [pair[0] for pair in zip(variables, gradients, strict=True) if pair[1] is None]
        gradients = [
            tf.zeros_like(target) if gradient is None else gradient
            for target, gradient in zip(targets, gradients, strict=True)
        ]
        return list(map(share, variables, gradients, entries, parts))

    def accumulate(self, count: int, compute: Callable, variables: Sequence[keras.Variable]) -> tuple:
        """Compute the shares of ``count`` micro-batches, one after the other, and join them.

        Args:
            count: micro-batches per step of this replica.
            compute: micro-batch's number, int32 -> (loss, shares as ``gradients`` gives them, or ``Rows``).
            variables: those that ``compute`` gives shares for, None in the place of ``Rows``.

        Returns:
            The summed loss, and shares of the whole batch for ``sum``.
        """
        if count == 1:
            loss, shares = compute(tf.constant(0))
            return loss, [share[None] if self._is_stacked(share) else share for share in shares]

        # A loop, not an unrolled graph: TensorFlow would run unrolled micro-batches side by side and hold all their
        # activations.
        def add(index, loss, sums):
            more_loss, shares = compute(index)
            return index + 1, loss + more_loss, [self._add(*pair, index) for pair in zip(sums, shares, strict=True)]

        start = (tf.constant(0), tf.zeros(()), [self._nothing(count, variable) for variable in variables])
        if self._unroll:
            state = start
            for index in range(count):
                arrays = tf.nest.flatten(state[1:])
                # One after the other here too.
                with tf.control_dependencies([getattr(part, "flow", part) for part in arrays]):
                    state = add(tf.constant(index), *state[1:])
            _, loss, sums = state
        else:
            _, loss, sums = tf.while_loop(lambda index, *_: index < count, add, start, parallel_iterations=1)
        return loss, [self._joined(share) for share in sums]

    def sum(self, shares: Sequence, loss_scale: tf.Tensor | float = 1.0) -> list:
        """Sum over all replicas, inside a step: shares as ``accumulate`` gives them, and behind them one plain tensor
        of any shape that travels along.

        Args:
            loss_scale: what the loss was multiplied by.

        Returns:
            The sums in the same order; what came as ``Factors`` or ``Rows`` is that of all replicas, what came as
            ``Owned`` stays but for its square.
        """
        *shares, report = shares
        if owned := [share for share in shares if isinstance(share, Owned)]:
            others = [share for share in shares if not isinstance(share, Owned)]
            squares = tf.stack([share.square for share in owned])
            *others, report = self.sum([*others, tf.concat([report, squares], 0)], loss_scale)
            report, squares = tf.split(report, [-1, len(owned)])
            others, owned = iter(others), map(Owned, (share.gradient for share in owned), tf.unstack(squares))
            return [*(next(owned if isinstance(share, Owned) else others) for share in shares), report]
        shares = [*shares, report[None] if self._exact else report]
        plain = [share for share in shares if not isinstance(share, Factors | Rows)]
        factors = [part for share in shares if isinstance(share, Factors | Rows) for part in share]
        if self._exact:
            gathered = self._strategy.gather_replicas([*factors, *plain])
            factors, plain = gathered[: len(factors)], [tf.reduce_sum(part, 0) for part in gathered[len(factors) :]]
        else:
            # The factors of the dense layers are known first in a backward pass, and need not wait for the rest.
            factors, plain = self._strategy.gather_replicas(factors), self._sum_plain(plain, loss_scale)
        factors, plain = iter(factors), iter(plain)

        def joined(share):
            kind = type(share)
            return kind(*(next(factors) for _ in kind._fields)) if kind in (Factors, Rows) else next(plain)

        return list(map(joined, shares))

    def _sum_plain(self, tensors: list, loss_scale: tf.Tensor | float) -> list:
        if not self._compress:
            return self._strategy.sum_replicas(tensors)
        (*gradients, report), scale = tensors, (self._strategy.replicas, loss_scale)
        *sums, report = self._strategy.sum_replicas([*(compress(part, *scale) for part in gradients), report])
        return [*(decompress(*pair, *scale) for pair in zip(sums, gradients, strict=True)), report]

    def _is_stacked(self, share) -> bool:
        return self._exact and not isinstance(share, Factors | Rows)

    def _nothing(self, count: int, variable: keras.Variable | None):
        """What micro-batches are added to: a sum, or for what must keep its order a list."""
        if variable is None:
            return Rows(tf.TensorArray(tf.float32, count))
        layer = self._factored.get(id(variable))
        if layer is not None:
            return Factors(*(tf.TensorArray(layer.compute_dtype, count) for _ in Factors._fields))
        return tf.TensorArray(variable.dtype, count) if self._exact else tf.zeros(variable.shape, variable.dtype)

    def _add(self, sums, share, index):
        if isinstance(share, Factors | Rows):
            return type(share)(*(array.write(index, part) for array, part in zip(sums, share, strict=True)))
        return sums.write(index, share) if self._exact else sums + share

    def _joined(self, sums):
        if isinstance(sums, Factors | Rows):
            return type(sums)(*(array.concat() for array in sums))
        return sums.stack() if self._exact else sums
