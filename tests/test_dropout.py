"""A sample's dropout mask depends on seed, step and sample alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from distributed.dropout import SampleDropout
from distributed.step_context import enter

WIDTH = 256


def masks(ids, *, step=0, seed=1, rate=0.5, width=WIDTH):
    """What of a batch of ones is left, as the layer gives it: float32 [b, width]."""
    with enter(tf.constant(step, tf.int64), tf.constant(ids, tf.int64)):
        return SampleDropout(rate, seed=seed)(tf.ones([len(ids), width]), training=True).numpy()


def test_a_sample_has_the_same_mask_in_any_batch_at_any_place():
    whole = masks(range(100))
    assert np.array_equal(masks([17]), whole[[17]])
    order = np.random.default_rng(0).permutation(100)
    assert np.array_equal(masks(order), whole[order])
    assert np.array_equal(masks([5, 5, 99]), whole[[5, 5, 99]])


def test_the_same_in_a_graph_with_a_step_that_changes_and_batches_of_any_size():
    layer = SampleDropout(0.5, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int64)])
    def call(step, ids):
        with enter(step, ids):
            return layer(tf.ones([tf.size(ids), WIDTH]), training=True)

    for step, ids in ((0, [3, 4, 5]), (7, [5, 2**40]), (2**31 + 1, [3])):
        assert np.array_equal(call(step, tf.constant(ids, tf.int64)), masks(ids, step=step))


@pytest.mark.parametrize(
    ("one", "other"),
    (
        ({"ids": [3]}, {"ids": [4]}),
        ({"ids": [3]}, {"ids": [3 + 2**31]}),
        ({"ids": [3], "step": 0}, {"ids": [3], "step": 1}),
        ({"ids": [3], "seed": 1}, {"ids": [3], "seed": 2}),
        ({"ids": [1], "step": 2}, {"ids": [2], "step": 1}),
        ({"ids": [1], "seed": 2}, {"ids": [2], "seed": 1}),
        ({"ids": [0], "step": 5, "seed": 1}, {"ids": [0], "step": 1, "seed": 5}),
    ),
)
def test_differs_by_sample_step_and_seed(one, other):
    agree = np.mean(masks(**one, width=4096) == masks(**other, width=4096))
    assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(4096)  # as two fair coins do


@pytest.mark.parametrize("rate", (0.1, 0.5, 0.9))
def test_drops_that_part_of_all_and_keeps_the_mean(rate):
    left = masks(range(1000), rate=rate)
    deviation = np.sqrt(rate * (1 - rate) / left.size)
    assert abs(np.mean(left == 0) - rate) < 5 * deviation
    assert np.unique(left).tolist() == pytest.approx([0, 1 / (1 - rate)], rel=1e-6)
    assert abs(left.mean() - 1) < 5 * deviation / (1 - rate)
    # and of each sample, of each column, and over the steps
    steps = np.stack([masks([7], step=step, rate=rate, width=64)[0] for step in range(100)])
    for axis, values in ((0, left), (1, left), (0, steps), (1, steps)):
        count = values.shape[axis]
        assert np.abs((values == 0).mean(axis=axis) - rate).max() < 5.5 * np.sqrt(rate * (1 - rate) / count)


def correlations(kept):
    """Absolute correlation of all pairs of rows, times the root of the row's length: about |N(0, 1)| if independent."""
    found = np.corrcoef(kept) * np.sqrt(kept.shape[1])
    return np.abs(found[np.triu_indices(len(kept), 1)])


def test_columns_samples_and_steps_are_not_correlated():
    left = masks(range(4000)) > 0
    steps = np.stack([masks([7], step=step, width=4000)[0] for step in range(100)]) > 0
    for kept in (left.T, left[:200], steps, steps.T[:100]):
        found = correlations(kept)
        assert found.max() < 6.0 and abs(np.mean(found**2) - 1) < 0.05
    # neither are the neighbours in the hash's walk: column c of sample i and column c + k of sample j
    for shift in (1, 2, 3, 64):
        agree = np.mean(left[:-1, shift:] == left[1:, :-shift])
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(left.size)


def test_without_training_or_rate_inputs_pass_unchanged():
    inputs = tf.random.stateless_normal([4, WIDTH], [1, 2])
    with enter(tf.constant(0, tf.int64), tf.range(4, dtype=tf.int64)):
        assert np.array_equal(SampleDropout(0.5, seed=1)(inputs, training=False), inputs)
        assert np.array_equal(SampleDropout(0.5, seed=1)(inputs), inputs)
        assert np.array_equal(SampleDropout(0.0, seed=1)(inputs, training=True), inputs)


def test_the_gradient_passes_where_the_value_does():
    inputs = tf.Variable(tf.random.stateless_normal([4, WIDTH], [1, 2]))
    with enter(tf.constant(3, tf.int64), tf.range(4, dtype=tf.int64)), tf.GradientTape() as tape:
        total = tf.reduce_sum(SampleDropout(0.25, seed=1)(inputs, training=True))
    assert np.allclose(tape.gradient(total, inputs), masks(range(4), step=3, rate=0.25))


def test_what_is_dropped_is_zero_even_if_it_was_not_finite():
    inputs = tf.fill([2, WIDTH], float("inf"))
    with enter(tf.constant(0, tf.int64), tf.constant([0, 1], tf.int64)):
        left = SampleDropout(0.5, seed=1)(inputs, training=True).numpy()
    assert np.array_equal(left == 0, masks([0, 1]) == 0) and not np.isnan(left).any()


@pytest.mark.parametrize("policy", ("mixed_bfloat16", "mixed_float16"))
def test_half_precision_has_the_same_masks(policy):
    layer = SampleDropout(0.5, seed=1, dtype=policy)
    with enter(tf.constant(0, tf.int64), tf.range(8, dtype=tf.int64)):
        left = layer(tf.ones([8, WIDTH]), training=True)
    assert left.dtype == layer.compute_dtype != "float32"
    assert np.array_equal(tf.cast(left, tf.float32), masks(range(8)))


def test_layers_of_a_network_have_masks_of_their_own_and_large_seeds_count():
    seen = [masks([3], seed=seed, width=4096) for seed in (1, 2, 2**31 - 1, 2**31 - 2)]
    assert all(0.45 < np.mean(a == b) < 0.55 for i, a in enumerate(seen) for b in seen[:i])


def test_outside_of_a_step_it_is_kerass_dropout():
    keras.utils.set_random_seed(0)
    left = SampleDropout(0.5, seed=1)(tf.ones([4, WIDTH]), training=True).numpy()
    assert set(np.unique(left)) == {0, 2} and not np.array_equal(left, masks(range(4)))
    with enter(tf.constant(0, tf.int64), tf.range(4, dtype=tf.int64)):
        pass
    assert np.array_equal(SampleDropout(0.5, seed=1)(tf.ones([4, WIDTH]), training=True), left)  # the context is gone


def test_a_saved_model_loads_with_kerass_layer():
    config = SampleDropout(0.5, seed=3, name="fc6_dropout").get_config()
    assert keras.layers.Dropout.from_config(config).get_config() == config
