"""A sample's dropout mask depends on seed, step and sample alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications.convnext import StochasticDepth
from networks import in_step

from distributed.layers.convert import convert, plain
from distributed.layers.dropout import LayerError, SampleDropout
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


def dropped(inputs, ids, *, step=0, **settings):
    with enter(tf.constant(step, tf.int64), tf.constant(ids, tf.int64)):
        return SampleDropout(0.5, seed=1, **settings)(inputs, training=True).numpy()


def test_masks_are_those_that_trained_runs_had():
    assert np.packbits(masks([5], step=7, seed=3, width=64) > 0).tobytes().hex() == "b162d001933aa51c"


@pytest.mark.parametrize("shape", ((), (WIDTH,), (16, 16), (4, 8, 8), (2, 2, 4, 16)))
def test_inputs_of_any_rank_have_the_bits_of_their_flat_values(shape):
    ids, width = range(10, 16), int(np.prod(shape))
    left = dropped(tf.ones([6, *shape]), ids)
    assert np.array_equal(left, masks(ids, width=width).reshape([6, *shape]))
    assert np.array_equal(dropped(tf.ones([2, *shape]), [14, 11]), left[[4, 1]])


def test_dimensions_may_be_unknown_until_the_step_runs():
    layer = SampleDropout(0.5, seed=1, noise_shape=(None, None, 1))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None]), tf.TensorSpec([None], tf.int64)])
    def call(inputs, ids):
        with enter(tf.constant(0, tf.int64), ids):
            return layer(inputs, training=True)

    for ids, length in (([3, 4, 5], 7), ([5], 3)):
        left = call(tf.ones([len(ids), length, 4]), tf.constant(ids, tf.int64))
        assert np.array_equal(left, np.repeat(masks(ids, width=length)[..., None], 4, axis=2))


@pytest.mark.parametrize("noise_shape", ((None, 1, 1, 8), (6, 1, 1, 8), (99, 1, 1, None), (None, 1, 1, 1)))
def test_a_noise_shape_shares_a_mask_within_each_example(noise_shape):
    ids, inputs = range(10, 16), tf.random.stateless_normal([6, 4, 5, 8], [1, 2])
    expected = masks(ids, width=noise_shape[-1] or 8)[:, None, None, :] * inputs
    assert np.array_equal(dropped(inputs, ids, noise_shape=noise_shape), expected)
    assert np.array_equal(dropped(inputs[4:5], [14], noise_shape=noise_shape), expected[4:5])


@pytest.mark.parametrize("noise_shape", ((1, 8), (8,), (None, 1, 8)))
def test_one_mask_for_all_examples_is_refused(noise_shape):
    with pytest.raises(LayerError, match=r"'thin' \(Dropout\) has noise_shape \(.*\), one mask for all examples"):
        dropped(tf.ones([4, 8]), range(4), noise_shape=noise_shape, name="thin")


def test_inputs_that_are_not_by_example_are_refused():
    with pytest.raises(LayerError, match=r"'thin' \(Dropout\) was called with a tensor of shape \(12, 8\) for 4 exam"):
        dropped(tf.ones([12, 8]), range(4), name="thin")
    with pytest.raises(LayerError, match="for 4 examples"):  # would be repeated for each example
        dropped(tf.ones([1, 8]), range(4))


def test_called_again_in_a_step_it_draws_other_masks():
    layer = SampleDropout(0.5, seed=1)

    def three(ids, step=0):
        with enter(tf.constant(step, tf.int64), tf.constant(ids, tf.int64)):
            return np.stack([layer(tf.ones([len(ids), 4096]), training=True) for _ in range(3)])

    first = three([3, 4])
    assert np.array_equal(first[0], masks([3, 4], width=4096))
    assert all(0.45 < np.mean(first[i] == first[j]) < 0.55 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert np.array_equal(three([4]), first[:, 1:])
    assert not np.array_equal(three([3, 4], step=1), first)


def test_rate_one_drops_all_as_kerass_layer_does():
    with enter(tf.constant(0, tf.int64), tf.range(4, dtype=tf.int64)):
        assert not SampleDropout(1.0, seed=1)(tf.ones([4, WIDTH]), training=True).numpy().any()


def test_a_key_takes_the_place_of_a_seed():
    layer = SampleDropout(0.5)
    layer.key = 3
    with enter(tf.constant(0, tf.int64), tf.constant([5], tf.int64)):
        assert np.array_equal(layer(tf.ones([1, WIDTH]), training=True), masks([5], seed=3))


def test_stochastic_depth_drops_examples_as_a_whole_whoever_computes_them():
    def network():
        inputs = keras.Input((4, 4, 2))
        return convert(keras.Model(inputs, StochasticDepth(0.5, name="depth")(inputs)), seed=1)

    ones, ids = tf.ones([64, 4, 4, 2]), np.arange(64)
    (whole,) = in_step(network(), ones, ids)
    assert {part.min() for part in whole} == {part.max() for part in whole} == {0.0, 2.0}
    for part in (ids[:5], ids[[7, 3]]):
        assert np.array_equal(in_step(network(), ones[: len(part)], part)[0], whole[part])
    assert not np.array_equal(in_step(network(), ones, ids, step=4)[0], whole)
    # In files, and out of a step, it is Keras' own.
    layer = network().get_layer("depth")
    assert layer.__class__ is StochasticDepth and np.array_equal(layer(ones, training=False), ones)
    assert type(plain(network()).get_layer("depth")) is StochasticDepth


def test_stochastic_depth_leaves_the_masks_of_dropout_where_they_were():
    def network(*between):
        x = inputs = keras.Input((8,))
        for layer in (*between, keras.layers.Dropout(0.5)):
            x = layer(x)
        return convert(keras.Model(inputs, x), seed=1)

    ones, ids = tf.ones([16, 8]), np.arange(16)
    without = in_step(network(), ones, ids)[0]
    assert np.array_equal(in_step(network(StochasticDepth(0.0)), ones, ids)[0], without)
