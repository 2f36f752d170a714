"""Where a sample stands in the run: pure arithmetic, no state, the same on every worker.

A *replica* is one model copy; the run has `replicas` of them over all workers. Every optimizer step takes
`replica_batch` examples per replica (all micro-batches together), `global_batch = replicas * replica_batch` in all.
*Element* e of the endless training stream is what replica e % replicas eats in step e // replicas:

    element          0      1      2   |   3      4      5   |   6 ...       3 replicas, 4 examples each
    step             0                 |   1                 |   2
    positions       0-3    4-7    8-11 | 12-15  16-19  20-23 |   0-3 ...     2 steps per epoch: position 0 again

So the global order does not know how the global batch is cut. Where a replica's examples are dealt in several *turns*,
as micro-batches may be, each turn of all replicas together holds consecutive positions:

    positions       0 1 6 7   2 3 8 9   4 5 10 11                            2 turns

`Order` is this stream, `SequentialOrder` one pass in the source's order, `Share` what one worker reads of either. Their
methods that take `element` accept an int or an int64 scalar tensor, and work inside a graph.
"""

from dataclasses import dataclass

import tensorflow as tf

from data.datasets import DataError

# Rounds of the block cipher behind the shuffle. tf.random.experimental.index_shuffle fixes 4, which is a bijection
# but not a good shuffle: orders of consecutive epochs correlate by 0.75. From 8 on no statistic told it from numpy's
# permutation; 16 leaves a margin and costs a quarter of a microsecond per index (where n is tiny more: 0.3 ms at 10).
SHUFFLE_ROUNDS = 16


@dataclass(frozen=True)
class Share:
    """One worker's part of a stream, which `count` workers read together: the elements index, index + count, ...

    Horovod rank r of n has Share(r, n). One process, MirroredStrategy's too, has Share(0, 1): all elements in order.
    """

    index: int
    count: int

    def __post_init__(self):
        assert 0 <= self.index < self.count, f"share {self.index} of {self.count}: expected 0 <= index < count"

    def elements(self, replicas: int, first_step: int, end_step: int) -> range:
        """The elements of this share in the steps first_step..end_step - 1, equally many in each of them."""
        assert replicas % self.count == 0, f"{replicas} replicas do not divide by {self.count} shares"
        return range(first_step * replicas + self.index, end_step * replicas, self.count)


@dataclass(frozen=True, kw_only=True)
class Order:
    """The endless training stream: in each epoch another order of the examples.

    Attributes:
        examples: size of the source.
        seed: any integer, of which the low 64 bits count; with the epoch it chooses the order.
        replica_batch: examples per replica and step.
        replicas: model copies in the run.
        turns: equal parts in which the examples of a step are dealt.
        cap: the most steps of an epoch; None for all full ones.
        fill: the least steps of an epoch, also where the examples are too few: behind the last position of an epoch its
            first ones come again. None for full ones alone.

    Raises:
        DataError: if there is not one full global batch.
    """

    examples: int
    seed: int
    replica_batch: int
    replicas: int
    turns: int = 1
    cap: int | None = None
    fill: int | None = None

    def __post_init__(self):
        _check_batch(self.replica_batch, self.replicas)
        assert self.replica_batch % self.turns == 0, f"{self.replica_batch} examples in {self.turns} turns"
        assert self.steps_per_epoch >= 1, f"a cap of {self.cap} steps per epoch: expected 1 or more, or None"

    @property
    def global_batch(self) -> int:
        """Examples per step of all replicas."""
        return self.replica_batch * self.replicas

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.examples, self.global_batch, self.cap, self.fill)

    def positions(self, element):
        """The epoch of an element (like `element`) and its positions in that epoch (int64 [replica_batch])."""
        step = element // self.replicas
        in_epoch, replica = step % self.steps_per_epoch, element % self.replicas
        hand, first = self.replica_batch // self.turns, in_epoch * self.global_batch
        # The places of a turn's examples, and how far turns lie apart: no tensors, for this is done for each batch.
        places = [turn * self.replicas * hand + place for turn in range(self.turns) for place in range(hand)]
        return step // self.steps_per_epoch, first + replica * hand + tf.constant(places, tf.int64)

    def indices(self, element):
        """The epoch of an element and the examples that it holds (int64 [replica_batch], indices into the source)."""
        epoch, positions = self.positions(element)
        return epoch, sample_indices(positions % self.examples, self.examples, self.seed, epoch)


@dataclass(frozen=True, kw_only=True)
class SequentialOrder:
    """One pass over a source in its own order, with padding to equal steps of all replicas.

    Attributes:
        examples: size of the source, perhaps 0.
        replica_batch: examples per replica and step.
        replicas: model copies in the run.
    """

    examples: int
    replica_batch: int
    replicas: int

    def __post_init__(self):
        assert self.examples >= 0, f"{self.examples} examples: expected 0 or more"
        _check_batch(self.replica_batch, self.replicas)

    @property
    def steps(self) -> int:
        """Elements that every replica eats so that all examples are covered; the last ones may hold padding."""
        return -(-self.examples // (self.replica_batch * self.replicas))

    def indices(self, element):
        """The examples of an element (int64 [replica_batch]) and their weights (float32 [replica_batch]).

        A position past the end is padding: example 0 with weight 0.
        """
        positions = element * self.replica_batch + tf.range(self.replica_batch, dtype=tf.int64)
        real = positions < self.examples
        return tf.where(real, positions, tf.zeros_like(positions)), tf.cast(real, tf.float32)


def _check_batch(replica_batch: int, replicas: int) -> None:
    assert min(replica_batch, replicas) >= 1, f"{replica_batch} examples x {replicas} replicas: expected 1 or more each"


def steps_per_epoch(n: int, global_batch: int, cap: int | None = None, fill: int | None = None) -> int:
    """Full global batches in `n` training examples, at least `fill` and at most `cap`.

    The remainder (fewer than `global_batch` examples, others in each epoch) is left out, so that all replicas take
    the same number of full steps. Raises DataError if there is not one full batch, or with `fill` not one example.
    """
    if n < (1 if fill else global_batch):
        raise DataError(
            f"{n} training examples are fewer than one global batch of {global_batch}; "
            f"give more examples or lower the batch size (or the number of workers) to at most {n} examples per step."
        )
    steps = max(n // global_batch, fill or 0)
    return steps if cap is None else min(steps, cap)


def sample_indices(positions: tf.Tensor, n: int, seed: int, epoch) -> tf.Tensor:
    """The examples at `positions` of the shuffled epoch: int64 [b] in 0..n-1 -> int64 [b] in 0..n-1.

    For each (seed, epoch) this is a bijection of 0..n-1, computed for the asked positions only: a block cipher (Simon,
    Beaulieu et al. 2013), repeated until the value is below n. No list of n, no shuffle buffer. Only the low 64 bits of
    `seed` and the low 32 bits of `epoch` count.
    """
    high, low = (seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF  # the op keeps 32 bits of each key word
    key = tf.stack([tf.constant(high, tf.int64), tf.constant(low, tf.int64), tf.cast(epoch, tf.int64)])
    last = tf.constant(n - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=positions, seed=key, max_index=last, rounds=SHUFFLE_ROUNDS)
