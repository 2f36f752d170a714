"""The global order: cut alike for any number of replicas, every sample at most once, well shuffled."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from data import order
from data.datasets import DataError
from data.order import Order, SequentialOrder, Share

PINNED = [6, 1, 9, 8, 2, 0, 3, 7, 4, 5]  # n = 10, seed 0, epoch 0


def shuffled(n, seed, epoch):
    return order.sample_indices(tf.range(n, dtype=tf.int64), n, seed, epoch).numpy()


@pytest.mark.parametrize(
    ("index", "count", "replicas", "steps", "elements"),
    [
        (0, 1, 1, (0, 3), [0, 1, 2]),  # one process: an element is a step
        (0, 1, 3, (0, 2), [0, 1, 2, 3, 4, 5]),  # Mirrored: all elements in order, dealt to 3 replicas in turn
        (0, 3, 3, (0, 2), [0, 3]),  # Horovod: rank 0 of 3, one element per step
        (2, 3, 3, (0, 2), [2, 5]),
        (1, 2, 4, (0, 2), [1, 3, 5, 7]),  # two processes of two replicas each: two elements per step
        (2, 3, 3, (4, 6), [14, 17]),  # from a later step on
        (2, 3, 3, (4, 4), []),  # no step, no element
    ],
)
def test_elements_of_a_share(index, count, replicas, steps, elements):
    assert list(Share(index, count).elements(replicas, *steps)) == elements


@pytest.mark.parametrize(
    ("element", "epoch", "positions"),
    [
        (0, 0, [0, 1, 2, 3]),
        (2, 0, [8, 9, 10, 11]),  # the last replica's part of the first step
        (3, 0, [12, 13, 14, 15]),
        (5, 0, [20, 21, 22, 23]),  # 24 to 30 are left out of this epoch
        (6, 1, [0, 1, 2, 3]),  # the next epoch, in another order
        (17, 2, [20, 21, 22, 23]),
    ],
)
def test_positions_of_an_element(element, epoch, positions):
    """The picture at the head of order.py: 3 replicas, 4 examples each, 2 steps per epoch."""
    made = Order(examples=31, seed=0, replica_batch=4, replicas=3)
    assert (made.global_batch, made.steps_per_epoch) == (12, 2)
    at, got = made.positions(element)
    assert (at, got.numpy().tolist()) == (epoch, positions)
    traced = tf.function(made.positions)(tf.constant(element, tf.int64))
    assert [x.numpy().tolist() for x in traced] == [epoch, positions] and traced[0].dtype == tf.int64


def test_turns_of_all_replicas_hold_consecutive_positions():
    """Micro-batch i of all replicas together is the same on any number of them."""
    made = Order(examples=31, seed=0, replica_batch=4, replicas=3, turns=2)
    dealt = [made.positions(element)[1].numpy().tolist() for element in (0, 1, 2, 5)]
    assert dealt == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [16, 17, 22, 23]]


GOOD = Order(examples=31, seed=0, replica_batch=4, replicas=3)
PASS = SequentialOrder(examples=31, replica_batch=4, replicas=3)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Share(3, 3), AssertionError, "share 3 of 3"),
        (lambda: Share(-1, 3), AssertionError, "share -1 of 3"),
        (lambda: Share(0, 0), AssertionError, "share 0 of 0"),
        (lambda: Share(0, 3).elements(4, 0, 1), AssertionError, "4 replicas .* 3 shares"),  # steps of 2, 1 and 1
        (lambda: Share(0, 2).elements(1, 0, 1), AssertionError, "1 replicas .* 2 shares"),  # nothing for the second
        (lambda: dataclasses.replace(GOOD, replica_batch=0), AssertionError, "0 examples x 3 replicas"),
        (lambda: dataclasses.replace(GOOD, replicas=-3), AssertionError, "4 examples x -3 replicas"),
        (lambda: dataclasses.replace(GOOD, cap=0), AssertionError, "cap of 0 steps"),
        (lambda: dataclasses.replace(GOOD, examples=11), DataError, r"\b11 training examples .* batch of 12\b"),
        (lambda: dataclasses.replace(PASS, replicas=0), AssertionError, "4 examples x 0 replicas"),
        (lambda: dataclasses.replace(PASS, examples=-1), AssertionError, "-1 examples"),
    ],
)
def test_values_that_cannot_be_say_both_numbers(make, error, said):
    with pytest.raises(error, match=said):
        make()


@pytest.mark.parametrize("value", [Share(0, 1), GOOD, PASS])
def test_values_are_equal_by_content_and_do_not_change(value):
    assert value == dataclasses.replace(value) and len({value, dataclasses.replace(value)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 1)


@pytest.mark.parametrize(
    ("n", "global_batch", "cap", "steps"),
    [(12, 12, None, 1), (23, 12, None, 1), (24, 12, None, 2), (100, 32, None, 3), (100, 32, 2, 2), (100, 32, 9, 3)],
)
def test_steps_per_epoch(n, global_batch, cap, steps):
    assert order.steps_per_epoch(n, global_batch, cap) == steps
    made = Order(examples=n, seed=0, replica_batch=global_batch // 4, replicas=4, cap=cap)
    assert made.steps_per_epoch == steps


def test_fewer_examples_than_a_batch_names_both_numbers():
    with pytest.raises(DataError, match=r"\b11\b.*\b12\b"):
        order.steps_per_epoch(11, 12)


@pytest.mark.parametrize(
    ("n", "batch", "replicas", "steps"),
    [(0, 4, 3, 0), (1, 4, 3, 1), (2, 1, 3, 1), (12, 4, 3, 1), (13, 4, 3, 2), (25, 4, 3, 3), (7, 4, 1, 2)],
)
def test_validation_covers_every_example_once(n, batch, replicas, steps):
    made = SequentialOrder(examples=n, replica_batch=batch, replicas=replicas)
    assert made.steps == steps
    seen = []
    for element in range(steps * replicas):
        indices, weights = (x.numpy() for x in made.indices(element))
        assert len(indices) == batch and set(weights) <= {0.0, 1.0}
        assert (indices[weights == 0] == 0).all()
        seen.extend(indices[weights == 1])
    assert seen == list(range(n))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 6])
def test_training_positions_do_not_depend_on_the_number_of_replicas(replicas):
    global_batch, steps = 12, 3
    made = Order(examples=40, seed=0, replica_batch=global_batch // replicas, replicas=replicas)
    for step in range(7):
        got = []
        for element in range(step * replicas, (step + 1) * replicas):
            epoch, positions = made.positions(element)
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
