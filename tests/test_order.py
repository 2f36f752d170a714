"""The global order: cut alike for any number of replicas, every sample at most once, well shuffled."""

import numpy as np
import pytest
import tensorflow as tf

from data import order
from data.datasets import DataError

PINNED = [6, 1, 9, 8, 2, 0, 3, 7, 4, 5]  # n = 10, seed 0, epoch 0


def shuffled(n, seed, epoch):
    return order.sample_indices(tf.range(n, dtype=tf.int64), n, seed, epoch).numpy()


@pytest.mark.parametrize(
    ("n", "global_batch", "cap", "steps"),
    [(12, 12, None, 1), (23, 12, None, 1), (24, 12, None, 2), (100, 32, None, 3), (100, 32, 2, 2), (100, 32, 9, 3)],
)
def test_steps_per_epoch(n, global_batch, cap, steps):
    assert order.steps_per_epoch(n, global_batch, cap) == steps


def test_fewer_examples_than_a_batch_names_both_numbers():
    with pytest.raises(DataError, match=r"\b11\b.*\b12\b"):
        order.steps_per_epoch(11, 12)


@pytest.mark.parametrize(
    ("n", "batch", "replicas", "steps"),
    [(0, 4, 3, 0), (1, 4, 3, 1), (2, 1, 3, 1), (12, 4, 3, 1), (13, 4, 3, 2), (25, 4, 3, 3), (7, 4, 1, 2)],
)
def test_validation_covers_every_example_once(n, batch, replicas, steps):
    assert order.validation_steps(n, batch, replicas) == steps
    seen = []
    for element in range(steps * replicas):
        indices, weights = (x.numpy() for x in order.validation_indices(element, n=n, replica_batch=batch))
        assert len(indices) == batch and set(weights) <= {0.0, 1.0}
        assert (indices[weights == 0] == 0).all()
        seen.extend(indices[weights == 1])
    assert seen == list(range(n))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 6])
def test_training_positions_do_not_depend_on_the_number_of_replicas(replicas):
    global_batch, steps = 12, 3
    for step in range(7):
        got = []
        for element in range(step * replicas, (step + 1) * replicas):
            epoch, positions = order.training_positions(
                element, replica_batch=global_batch // replicas, replicas=replicas, steps_per_epoch=steps
            )
            assert epoch == step // steps
            got.extend(positions.numpy())
        assert got == list(range(step % steps * global_batch, (step % steps + 1) * global_batch))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 127, 128, 129, 5000])
def test_shuffle_is_a_bijection(n):
    assert sorted(shuffled(n, seed=5, epoch=2)) == list(range(n))


def test_shuffle_is_pinned():
    """The order is part of what a seed means: another machine or version must not change it silently."""
    assert shuffled(10, seed=0, epoch=0).tolist() == PINNED
    part = tf.function(lambda at, epoch: order.sample_indices(at, 10, 0, epoch))
    assert part(tf.constant([7, 2], tf.int64), tf.constant(0, tf.int64)).numpy().tolist() == [PINNED[7], PINNED[2]]


@pytest.mark.parametrize("other", [(1, 0), (0, 1), (2**32, 0), (-1, 0)])
def test_seed_and_epoch_change_the_order(other):
    assert (shuffled(1000, 0, 0) == shuffled(1000, *other)).mean() < 0.02


def test_consecutive_epochs_are_unrelated():
    n = 4096
    orders = [shuffled(n, 7, epoch) for epoch in range(4)]
    for before, after in zip(orders, orders[1:], strict=False):
        assert abs(np.corrcoef(before, after)[0, 1]) < 0.08  # 5 standard deviations; 0.75 with the op's own 4 rounds
    for one in orders:
        assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.08


def test_batches_of_sorted_classes_are_mixed():
    """Image folders list class after class; a batch must look like a random draw all the same."""
    n, classes, batch = 12800, 10, 128
    labels = np.arange(n) * classes // n
    counts = np.stack([np.bincount(labels[b], minlength=classes) for b in shuffled(n, 3, 1).reshape(-1, batch)])
    chi2 = ((counts - batch / classes) ** 2 / (batch / classes)).sum(1).mean()
    assert 7.5 < chi2 < 10.5  # nine degrees of freedom, mean of 100 batches
