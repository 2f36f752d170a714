"""Two dense layers in a row, divided between the workers: tensor parallelism (Shoeybi et al. 2019, section 3).

Of ``relu(X A + a) B + b`` each of N workers owns N-th parts: columns of A and of a, and the rows of B that belong to
them.  It gathers the inputs of all workers, computes its part of the hidden units for the whole global batch, and the
partial products with its rows of B are summed and dealt back, each worker its own examples:

    X [b, in] -gather-> [N b, in] -> hidden [N b, h/N] -> partial [N b, out] -sum and scatter-> Y [b, out]

The backward pass is the mirror image.  The multiplications are no more than without other workers, the gradients of A
and B need no exchange at all, and each worker updates an N-th of them; the result differs in the order of sums only.

The model stays a plain Keras model.  Its own kernels, and the optimizer's own slots for them, are *wholes*: true
between ``gather`` and the next step, stale while training goes on, since steps work on *parts*.  ``shard`` takes the
parts from the wholes, ``gather`` the wholes from the parts; checkpoints, validation and comparisons read wholes only.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from distributed import step_context
from distributed.gradients.matmul import multiply
from distributed.health.heartbeat import waiting
from distributed.layers import dropout
from distributed.strategies import Strategy

# Activations of a unit that do not look at the others (as softmax does), which another worker may own.
UNIT_BY_UNIT = (keras.activations.relu, keras.activations.linear)


class Part(NamedTuple):
    """What this worker owns of a variable: an N-th along ``axis``."""

    part: keras.Variable
    whole: keras.Variable
    axis: int


class SplitPair:
    """Two layers that ``find_pair`` has found, divided between the workers in training steps, plain otherwise."""

    def __init__(self, first: keras.layers.Dense, second: keras.layers.Dense, between: Sequence, strategy: Strategy):
        """Args: ``between`` are the layers of dropout between the two; their ``call`` is wrapped as the others' is."""
        self._strategy, self._replicas = strategy, strategy.replicas
        divided = [(first.kernel, 1), (second.kernel, 0)]
        if first.bias is not None:
            divided.append((first.bias, 0))
        self._parts = {}
        for whole, axis in divided:
            with contextlib.ExitStack() as scopes:  # paths, and so names of slots, are those of the wholes
                for name in whole.path.split("/")[:-1]:
                    scopes.enter_context(keras.name_scope(name))
                self._parts[id(whole)] = Part(keras.Variable(self._own(whole, axis), name=whole.name), whole, axis)
        self._slots: list[Part] = []
        first.call = self._first(first)
        second.call = self._second(second)
        for layer in between:
            layer.call = self._dropout(layer)

    def part_of(self, variable: keras.Variable) -> keras.Variable | None:
        """What this worker trains in the place of ``variable``; None where it trains all of it."""
        entry = self._parts.get(id(variable))
        return entry and entry.part

    @property
    def parts(self) -> list[keras.Variable]:
        return [entry.part for entry in self._parts.values()]

    def add_slots(self, parts: Sequence[keras.Variable], wholes: Sequence[keras.Variable]) -> None:
        """Make known the optimizer's state for the parts, and that for the wholes, both with the same paths."""
        by_path = {whole.path: whole for whole in wholes}
        axes = {entry.whole.path.replace("/", "_"): entry.axis for entry in self._parts.values()}
        for part in parts:
            (axis,) = [axis for name, axis in axes.items() if f"/{name}_" in part.path]
            self._slots.append(Part(part, by_path[part.path], axis))

    def shard(self) -> None:
        """Take the parts from the wholes."""
        for part, whole, axis in [*self._parts.values(), *self._slots]:
            part.assign(self._own(whole, axis))

    @waiting()
    def gather(self) -> None:
        """Gather the wholes from all workers' parts; all workers must call it."""
        for part, whole, axis in [*self._parts.values(), *self._slots]:
            (rows,) = self._strategy.collectives.gather_tensors([tf.convert_to_tensor(part.value)])
            stacked = tf.reshape(rows, [self._replicas, *part.shape])
            whole.assign(tf.concat(tf.unstack(stacked), axis))

    def _own(self, whole: keras.Variable, axis: int) -> np.ndarray:
        return np.split(np.asarray(whole), self._replicas, axis)[self._strategy.world.rank]

    def _gather(self, rows: tf.Tensor) -> tf.Tensor:
        """[b, k] of each worker -> [N b, k]; a gradient is summed over the workers and dealt back."""

        gathered, scattered = self._awaited()

        @tf.custom_gradient
        def gather(rows):
            (joined,) = gathered([rows])
            return joined, scattered

        return gather(rows)

    def _scatter_sum(self, rows: tf.Tensor) -> tf.Tensor:
        """[N b, k] of each worker -> the sum's rows that are this worker's, [b, k]; gradients are gathered."""

        gathered, scattered = self._awaited()

        @tf.custom_gradient
        def scatter(rows):
            return scattered(rows), lambda up: gathered([up])[0]

        return scatter(rows)

    def _awaited(self):
        """The two exchanges; nothing else can be computed until they are over."""
        awaited = step_context.current().awaited
        return awaited(self._strategy.gather_replicas), awaited(self._strategy.scatter_sum_replicas)

    def _first(self, layer: keras.layers.Dense):
        plain = layer.call

        def call(inputs, training=None):
            if step_context.current() is None:
                return plain(inputs, training=training)
            hidden = multiply(self._gather(inputs), self.part_of(layer.kernel).value)
            if layer.bias is not None:
                hidden += self.part_of(layer.bias).value
            # As many numbers as the plain layer puts out, and in its shape, which Keras holds the next layer to.
            return tf.reshape(layer.activation(hidden), [inputs.shape[0], layer.units])

        return call

    def _dropout(self, layer: dropout.SampleDropout):
        plain = layer.call

        def call(inputs, training=False):
            context = step_context.current()
            if context is None or not training:
                return plain(inputs, training=training)
            (all_ids,) = self._strategy.gather_replicas([context.sample_ids])
            hidden = self._all_examples(inputs)
            first = self._strategy.world.rank * hidden.shape[1]
            return tf.reshape(layer.drop(hidden, context.step, all_ids, first_column=first), inputs.shape)

        return call

    def _second(self, layer: keras.layers.Dense):
        plain = layer.call

        def call(inputs, training=None):
            if step_context.current() is None:
                return plain(inputs, training=training)
            outputs = self._scatter_sum(multiply(self._all_examples(inputs), self.part_of(layer.kernel).value))
            if layer.bias is not None:
                outputs += layer.bias.value
            return layer.activation(outputs)

        return call

    def _all_examples(self, inputs: tf.Tensor) -> tf.Tensor:
        """What ``_first`` has put into the shape [b, h] is [N b, h/N]."""
        batch, units = inputs.shape
        return tf.reshape(inputs, [batch * self._replicas, units // self._replicas])


def find_pair(
    nodes: Sequence, dense: Sequence[keras.layers.Dense], replicas: int
) -> tuple[keras.layers.Dense, keras.layers.Dense, list] | None:
    """Two of the ``dense`` layers with nothing but dropout between them, whose hidden units divide by ``replicas`` and
    are activated one by one, without constraints of their weights, and that dropout; None if there are none.

    Args:
        nodes: the calls of the network's layers, see ``dense_layers.graph_nodes``.
        dense: in the order of the network, each called once.
    """
    readers = {}
    for node in nodes:
        # What leaves a nested network is read outside of it.
        for tensor in node.operation.outputs if isinstance(node.operation, keras.Model) else ():
            readers.setdefault(id(tensor), []).append(node)
        for tensor in node.arguments.keras_tensors:
            readers.setdefault(id(tensor), []).append(node)
    calls = Counter(id(node.operation) for node in nodes)
    outputs = {id(node.operation): node.outputs[0] for node in nodes}
    for first in dense:
        between, output = [], outputs[id(first)]
        # What lies between may be read by the next layer alone, since it will not be what it was.
        while len(readers.get(id(output), ())) == 1:
            (node,) = readers[id(output)]
            layer = node.operation
            if type(layer) is dropout.SampleDropout and layer.noise_shape is None and calls[id(layer)] == 1:
                between.append(layer)
                (output,) = node.outputs
                continue
            divides = not first.units % replicas and first.activation in UNIT_BY_UNIT
            if divides and any(layer is other for other in dense) and not _constrained(first, layer):
                return first, layer, between
            break
    return None


def _constrained(first: keras.layers.Dense, second: keras.layers.Dense) -> bool:
    """Whether one of the weights that would be divided is to be constrained, such as in its norm, by all of it."""
    divided = (first.kernel, first.bias, second.kernel)
    return any(weight is not None and weight.constraint is not None for weight in divided)
