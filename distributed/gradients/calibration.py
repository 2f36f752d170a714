"""A short measurement of what ``cost_model.py`` goes by: the exchanges between the workers, and products.

Every operation ends in one number made on the device, and the host waits for that: results stay where training would
have them, and what is timed is the operation, not a copy of them.  The slowest worker counts.
"""

import time
from collections.abc import Callable

import tensorflow as tf

from distributed.gradients.cost_model import Calibration, Line
from distributed.gradients.matmul import kernel_gradient
from distributed.strategies import Strategy

# Bytes that a replica hands in: two small sizes tell the latency, the largest that the time allows the rate.
SMALL = (4 << 10, 256 << 10)
LARGE = tuple((4 << 20) << shift for shift in (0, 2, 4, 6))
BUDGET = 0.8  # seconds for the large sizes of a collective
ROUNDS = 3
# Side of a square kernel, and two numbers of examples: enough for a device to be busy for longer than it takes to ask.
PRODUCTS = {"CPU": (2048, 32, 512), "GPU": (8192, 256, 4096)}
CHAIN = 4  # products one after the other, so that an exchange is under way before the last of them


def calibrate(strategy: Strategy, dtype: str) -> Calibration:
    """Measure collectives and products, all workers together; two to four seconds.

    Args:
        dtype: that of the factors.
    """
    reduce, gather = exchanges(strategy)
    side, few, many = PRODUCTS["GPU" if tf.config.get_visible_devices("GPU") else "CPU"]
    products = {batch: _slowest(strategy, _product(side, batch, dtype)) / side**2 for batch in (few, many)}
    rate = max(products[many] - products[few], 0.0) / (many - few)
    multiply = Line(max(products[few] - few * rate, 0.0), rate)
    chain = _chained(_product(side, many // CHAIN, dtype))
    return Calibration(reduce, gather, multiply, _overlap(strategy, reduce, chain))


def exchanges(strategy: Strategy) -> tuple[Line, Line]:
    """Measure sums and gathers over the bytes that a replica hands in, all workers together."""

    def timed(collective: Callable) -> Callable[[int], float]:
        return lambda size: _slowest(strategy, _exchange(collective, size))

    reduce = fit_line(timed(strategy.collectives.sum_tensors))
    return reduce, fit_line(timed(strategy.collectives.gather_tensors), parts=strategy.replicas)


def fit_line(seconds_of: Callable[[int], float], parts: int = 1, budget: float = BUDGET) -> Line:
    """Latency and rate of an exchange.

    Args:
        seconds_of: bytes that a replica hands in -> seconds of the exchange, as all workers know them.
        parts: what the largest sizes are divided by: a gather joins what all replicas hand in.
        budget: seconds that the large sizes may take; a size that would take longer is not tried.
    """
    small = SMALL[0]
    points = [(size, seconds_of(size)) for size in SMALL]
    for size in (whole // parts for whole in LARGE):
        (before, fast), (last, slow) = points[-2:]
        expected = slow + max(slow - fast, 0.0) / (last - before) * (size - last)
        # Once to get ready, then to be timed.
        if size <= last or expected * (1 + ROUNDS) > budget:
            continue
        points.append((size, seconds_of(size)))
        budget -= points[-1][1] * (1 + ROUNDS)
    size, seconds = points[-1]
    rate = max(seconds - points[0][1], 0.0) / (size - small)
    return Line(max(points[0][1] - rate * small, 0.0), rate)


def _overlap(strategy: Strategy, reduce: Line, products: Callable) -> float:
    """Which part of a sum takes no time from products that are computed meanwhile."""
    computed = _slowest(strategy, products)
    # As much to exchange as takes about as long.
    size = int((computed - reduce.latency) / max(reduce.per_unit, 1e-12))
    exchange = _exchange(strategy.collectives.sum_tensors, min(max(size, SMALL[1]), LARGE[-1]))
    exchanged = _slowest(strategy, exchange)
    both = _slowest(strategy, tf.function(lambda: exchange() + products(), autograph=False))
    return min(max((computed + exchanged - both) / min(computed, exchanged), 0.0), 1.0)


def _exchange(collective: Callable, size: int) -> Callable[[], tf.Tensor]:
    numbers = tf.zeros((size // 4,), tf.float32)
    return tf.function(lambda: collective([numbers])[0][0], autograph=False)


def _product(side: int, batch: int, dtype: str) -> Callable[[], tf.Tensor]:
    left, right = (tf.cast(tf.random.stateless_normal((batch, side), (0, seed)), dtype) for seed in (0, 1))
    return tf.function(lambda: kernel_gradient(left, right)[0, 0], autograph=False)


def _chained(operation: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    def call():
        total = operation()
        for _ in range(CHAIN - 1):
            with tf.control_dependencies([total]):
                total += operation()
        return total

    return tf.function(call, autograph=False)


def _slowest(strategy: Strategy, operation: Callable[[], tf.Tensor]) -> float:
    return max(strategy.control.gather(_seconds(operation)))


def _seconds(operation: Callable[[], tf.Tensor]) -> float:
    """The shortest of some calls, after one that gets it ready."""
    operation().numpy()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        operation().numpy()
        times.append(time.perf_counter() - began)
    return min(times)
