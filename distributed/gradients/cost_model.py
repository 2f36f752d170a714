"""Choose for each dense layer how its gradient travels, from a cost model and a short measurement of this machine.

Per step a layer's gradient costs a replica, with a global batch of ``B`` examples on ``N`` replicas:

* *allreduce*: ``2 (N-1)/N in out`` numbers on the wire (the bandwidth-optimal all-reduce of Patarasuk and Yuan 2009),
  and the product over its own ``B/N`` examples;
* *factors*: ``(N-1)/N B (in + out)`` numbers on the wire, and the product over all ``B`` examples;
* *split*, of two layers in a row (see ``split.py``): ``2 (N-1)/N B in`` of the first and ``2 (N-1)/N B out`` of the
  second, in four exchanges that the step waits for, and an N-th of the products over all ``B`` examples.

Seconds follow from the measured time per byte of both collectives and from the measured rate of such products.  The
latency of the sums is not counted: other gradients are summed in the same exchange anyway.  That of the gathers is,
once for all layers: they share one exchange, which a step without factors does not have.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from distributed.gradients.matmul import kernel_gradient
from distributed.strategies import Strategy

# Two sizes of message tell latency and rate apart: bytes per replica.
_SMALL, _LARGE = 1 << 16, 1 << 22
_ROUNDS = 3
_COPIES = 3  # of each weight that a join gathers: itself, and the optimizer's state
_BUDGET = 1.5  # seconds for the large message of a collective; on a slow link it is left out


@dataclass(frozen=True)
class Line:
    """Time of one operation over its size: ``latency + per_unit * size``, in seconds."""

    latency: float
    per_unit: float

    def seconds(self, size: float) -> float:
        return self.latency + self.per_unit * size


@dataclass(frozen=True)
class Calibration:
    """What exchanging and multiplying cost here: lines over the bytes that a replica hands in, and for the product of
    factors over the examples, per number of the kernel."""

    reduce: Line
    gather: Line
    multiply: Line


@dataclass(frozen=True)
class Choice:
    """How one layer's gradient travels, and what each way was predicted to cost per step and replica."""

    scheme: str
    bytes: int  # on the wire, sent by each replica
    allreduce_bytes: int
    seconds: float | None = None  # None: decided by bytes alone
    allreduce_seconds: float | None = None


def choose(
    layers: dict[str, tuple[int, int]],
    *,
    exchange: str,
    global_batch: int,
    replicas: int,
    item_bytes: int,
    calibration: Calibration | None,
    pair: tuple[str, str] | None = None,
    gather_every: int = 1,
) -> dict[str, Choice]:
    """Choose for each layer.

    Args:
        layers: name -> (in, out) of the kernel.
        exchange: ``auto``, or the one way for all layers; ``split`` is that of the pair, the others' is chosen.
        global_batch: examples per optimizer step.
        replicas: copies of the model that exchange.
        item_bytes: size of one number of the factors; gradients travel as float32.
        calibration: None decides ``auto`` by bytes alone, the same for any number of replicas, and never to split.
        pair: names of two layers in a row that may be split.
        gather_every: steps after which what is split is gathered, to be saved or compared.
    """
    choices = {}
    for name, (inputs, outputs) in layers.items():
        numbers, factors = inputs * outputs, global_batch * (inputs + outputs)
        summed_bytes = 2 * 4 * numbers * (replicas - 1) // replicas
        factor_bytes = item_bytes * factors * (replicas - 1) // replicas
        if calibration is None:
            cheaper, seconds, summed_seconds = factors < 2 * numbers, None, None
        else:
            own = numbers * calibration.multiply.seconds(global_batch / replicas)
            summed_seconds = calibration.reduce.per_unit * 4 * numbers + own
            everything = numbers * calibration.multiply.seconds(global_batch)
            seconds = calibration.gather.per_unit * item_bytes * factors / replicas + everything
            cheaper = seconds < summed_seconds
        by_factors = cheaper if exchange in ("auto", "split") else exchange == "factors"
        scheme, used = ("factors", factor_bytes) if by_factors else ("allreduce", summed_bytes)
        choices[name] = Choice(scheme, used, summed_bytes, seconds if by_factors else summed_seconds, summed_seconds)
    if exchange == "auto" and calibration and _saved(choices) <= calibration.gather.latency:
        choices = {name: _summed(choice) for name, choice in choices.items()}
    if pair and exchange in ("auto", "split"):
        divided = _split(pair, layers, choices, global_batch, replicas, calibration, gather_every)
        if exchange == "split" or (calibration and _total(divided) < _total({name: choices[name] for name in pair})):
            choices |= divided
    return choices


def _saved(choices: dict[str, Choice]) -> float:
    """Seconds per step that factors save, but for the latency of their exchange."""
    return sum(choice.allreduce_seconds - choice.seconds for choice in choices.values())


def _summed(choice: Choice) -> Choice:
    return replace(choice, scheme="allreduce", bytes=choice.allreduce_bytes, seconds=choice.allreduce_seconds)


def _total(choices: dict[str, Choice]) -> float:
    return sum(choice.seconds for choice in choices.values())


def _split(pair, layers, choices, global_batch, replicas, calibration: Calibration | None, gather_every: int) -> dict:
    """The choices for a pair that is divided between the workers."""
    split = {}
    for name, width in zip(pair, (layers[pair[0]][0], layers[pair[1]][1]), strict=True):
        seconds, numbers = None, layers[name][0] * layers[name][1]
        if calibration is not None:
            rows = 4 * global_batch * width
            # A gather of a worker's rows, and half an all-reduce of all rows.
            exchanged = calibration.gather.seconds(rows / replicas) + calibration.reduce.seconds(rows / 2)
            joined = calibration.gather.seconds(4 * _COPIES * numbers / replicas) / gather_every
            seconds = exchanged + joined + numbers / replicas * calibration.multiply.seconds(global_batch)
        moved = 2 * 4 * global_batch * width * (replicas - 1) // replicas
        split[name] = replace(choices[name], scheme="split", bytes=moved, seconds=seconds)
    return split


def calibrate(strategy: Strategy, dtype: str) -> Calibration:
    """Measure collectives and products, all workers together; one to three seconds.  The slowest worker counts.

    Args:
        dtype: that of the factors.
    """
    sum_, gather = strategy.collectives.sum_tensors, strategy.collectives.gather_tensors
    reduce = _line(strategy, lambda size: _exchange(sum_, size))
    gather = _line(strategy, lambda size: _exchange(gather, size))
    return Calibration(reduce, gather, _multiply_line(strategy, dtype))


def _multiply_line(strategy: Strategy, dtype: str) -> Line:
    """Seconds per number of a kernel over the examples: writing the product costs, however few there are."""
    side, times = 2048, {}
    for batch in (32, 128):
        left, right = (tf.cast(tf.random.stateless_normal((batch, side), (0, seed)), dtype) for seed in (0, 1))
        multiply = tf.function(lambda left=left, right=right: kernel_gradient(left, right))
        multiply()
        times[batch] = _slowest(strategy, min(_seconds(multiply) for _ in range(_ROUNDS))) / side**2
    rate = max(times[128] - times[32], 0.0) / 96
    return Line(max(times[32] - 32 * rate, 0.0), rate)


def _exchange(collective: Callable, size: int) -> Callable:
    numbers = tf.zeros((size // 4,), tf.float32)
    return tf.function(lambda: collective([numbers]))


def _line(strategy: Strategy, operation_of_size: Callable) -> Line:
    def measured(size):
        operation = operation_of_size(size)
        operation()
        return _slowest(strategy, min(_seconds(operation) for _ in range(_ROUNDS)))

    small = measured(_SMALL)
    # By what the slowest worker saw, which all know: all leave it out, or none.
    if small * _LARGE / _SMALL * (1 + _ROUNDS) > _BUDGET:
        return Line(0.0, small / _SMALL)
    rate = max(measured(_LARGE) - small, 0.0) / (_LARGE - _SMALL)
    return Line(max(small - rate * _SMALL, 0.0), rate)


def _seconds(operation: Callable) -> float:
    began = time.perf_counter()
    np.asarray(tf.nest.flatten(operation())[0])
    return time.perf_counter() - began


def _slowest(strategy: Strategy, seconds: float) -> float:
    return max(strategy.control.gather(seconds))
