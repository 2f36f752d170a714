"""Where a sample stands in the run: pure arithmetic, no state, the same on every worker.

A *replica* is one model copy; the run has `replicas` of them over all workers. Every optimizer step takes
`replica_batch` examples per replica (all micro-batches together), `global_batch = replicas * replica_batch` in all.
*Element* e of the endless training stream is what replica e % replicas eats in step e // replicas:

    element          0      1      2   |   3      4      5   |   6 ...       3 replicas, 4 examples each
    step             0                 |   1                 |   2
    positions       0-3    4-7    8-11 | 12-15  16-19  20-23 |   0-3 ...     2 steps per epoch: position 0 again

So the global order does not know how the global batch is cut. Horovod rank r reads elements r, r + replicas, ...;
a single process or MirroredStrategy reads all of them in order.
Everything that takes `element` accepts an int or an int64 scalar tensor, and works inside a graph.
"""

import tensorflow as tf

from data.datasets import DataError

# Rounds of the block cipher behind the shuffle. tf.random.experimental.index_shuffle fixes 4, which is a bijection
# but not a good shuffle: orders of consecutive epochs correlate by 0.75. From 8 on no statistic told it from numpy's
# permutation; 16 leaves a margin and costs a quarter of a microsecond per index (where n is tiny more: 0.3 ms at 10).
SHUFFLE_ROUNDS = 16


def steps_per_epoch(n: int, global_batch: int, cap: int | None = None) -> int:
    """Full global batches in `n` training examples, at most `cap`.

    The remainder (fewer than `global_batch` examples, others in each epoch) is left out, so that all replicas take
    the same number of full steps. Raises DataError if there is not one full batch.
    """
    if n < global_batch:
        raise DataError(
            f"{n} training examples are fewer than one global batch of {global_batch}; "
            f"give more examples or lower the batch size (or the number of workers) to at most {n} examples per step."
        )
    steps = n // global_batch
    return steps if cap is None else min(steps, cap)


def validation_steps(n: int, replica_batch: int, replicas: int) -> int:
    """Elements that every replica evaluates so that `n` examples are all covered; the last may hold padding."""
    return -(-n // (replica_batch * replicas))


def training_positions(element, *, replica_batch: int, replicas: int, steps_per_epoch: int):
    """The epoch (like `element`) of a training element and its positions in that epoch (int64 [replica_batch])."""
    step = element // replicas
    start = (step % steps_per_epoch) * (replica_batch * replicas) + (element % replicas) * replica_batch
    return step // steps_per_epoch, start + tf.range(replica_batch, dtype=tf.int64)


def training_indices(element, *, n: int, seed: int, replica_batch: int, replicas: int, steps_per_epoch: int):
    """The epoch of a training element and the examples it holds (int64 [replica_batch], indices into the source)."""
    epoch, positions = training_positions(
        element, replica_batch=replica_batch, replicas=replicas, steps_per_epoch=steps_per_epoch
    )
    return epoch, sample_indices(positions, n, seed, epoch)


def validation_indices(element, *, n: int, replica_batch: int):
    """The examples of a validation element (int64 [replica_batch]) and their weights (float32 [replica_batch]).

    Validation keeps the source's order. A position past the end is padding: example 0 with weight 0.
    """
    positions = element * replica_batch + tf.range(replica_batch, dtype=tf.int64)
    real = positions < n
    return tf.where(real, positions, tf.zeros_like(positions)), tf.cast(real, tf.float32)


def sample_indices(positions: tf.Tensor, n: int, seed: int, epoch) -> tf.Tensor:
    """The examples at `positions` of the shuffled epoch: int64 [b] in 0..n-1 -> int64 [b] in 0..n-1.

    For each (seed, epoch) this is a bijection of 0..n-1, computed for the asked positions only: a block cipher (Simon,
    Beaulieu et al. 2013), repeated until the value is below n. No list of n, no shuffle
    buffer. Only the low 64 bits of `seed` and the low 32 bits of `epoch` count.
    """
    high, low = (seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF  # the op keeps 32 bits of each key word
    key = tf.stack([tf.constant(high, tf.int64), tf.constant(low, tf.int64), tf.cast(epoch, tf.int64)])
    last = tf.constant(n - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=positions, seed=key, max_index=last, rounds=SHUFFLE_ROUNDS)
