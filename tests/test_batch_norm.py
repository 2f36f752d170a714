"""Batch normalisation over all workers: the whole batch's, in float64; what is stored moves once per step."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import HELPERS, run_command
from networks import stack
from norms import layer

from distributed.gradients.reduction import Rows
from distributed.layers.batch_norm import Moments, MovingStatistics, normalize
from distributed.layers.convert import batch_norm_layers, convert, plain
from distributed.optimization.optimizer import synchronize
from distributed.step_context import enter

layers = keras.layers
WORKERS = {
    "mirrored-2": ((), 2),
    "mirrored-3": ((), 3),
    "horovod-2": (("horovodrun", "-np", "2"), 1),
    "horovod-3": (("horovodrun", "-np", "3"), 1),
}


def numbers(*shape, mean=0.0, deviation=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, deviation, shape).astype(np.float32)


def exact(inputs, upstream, *, gamma=1.5, beta=1.0, epsilon=1e-5, axis=-1):
    """Outputs, gradients and statistics of one set of examples, in float64."""
    x, dy = (np.moveaxis(np.float64(array), axis, -1) for array in (inputs, upstream))
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    inverse = 1 / np.sqrt(variance + epsilon)
    normal = (x - mean) * inverse
    dx = gamma * inverse * (dy - dy.mean(axes) - normal * (dy * normal).mean(axes))
    return {
        "outputs": np.moveaxis(gamma * normal + beta, -1, axis),
        "inputs_gradient": np.moveaxis(dx, -1, axis),
        "gamma_gradient": (dy * normal).sum(axes),
        "beta_gradient": dy.sum(axes),
        "mean": 0.1 * mean,
        "variance": 0.9 + 0.1 * variance,
    }


def kerass(inputs, upstream, axis):
    """The same by Keras' own layer, in float32."""
    norm = layer(axis)
    norm.build(inputs.shape)
    x = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = norm(x, training=True)
        loss = tf.reduce_sum(outputs * upstream)
    gradients = tape.gradient(loss, [x, norm.gamma.value, norm.beta.value])
    names = ("outputs", "inputs_gradient", "gamma_gradient", "beta_gradient", "mean", "variance")
    values = [outputs, *gradients, norm.moving_mean, norm.moving_variance]
    return dict(zip(names, map(np.asarray, values), strict=True))


def assert_close(found, expected, tolerance):
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= tolerance * max(1, np.abs(value).max()), name


def on_replicas(folder, workers, inputs, upstream, axis):
    """What the replicas of a run make of their parts, put together; all must have one idea of what is shared."""
    launcher, devices = WORKERS[workers]
    np.savez(folder / "given.npz", inputs=inputs, upstream=upstream, axis=axis)
    done = run_command(*launcher, sys.executable, HELPERS / "norms.py", folder, devices)
    assert done.returncode == 0, done.stderr[-4000:]
    parts = [dict(np.load(folder / f"{number}.npz")) for number in range(int(workers[-1]))]
    for name in ("mean", "variance", "gamma_gradient", "beta_gradient"):
        assert all(np.array_equal(part[name], parts[0][name]) for part in parts), name
    whole = {name: np.concatenate([part[name] for part in parts]) for name in ("outputs", "inputs_gradient")}
    return parts[0] | whole


@pytest.mark.parametrize("workers", list(WORKERS))
def test_all_workers_together_are_kerass_layer_on_the_whole_batch(tmp_path, workers):
    # Each replica's share has another mean and deviation, so that none can pass its own for the whole's.
    inputs = numbers(12, 5, 6, 4) * np.linspace(0.5, 2, 12)[:, None, None, None] + np.arange(12)[:, None, None, None]
    inputs, upstream = inputs.astype(np.float32), numbers(12, 5, 6, 4, seed=1)
    found = on_replicas(tmp_path, workers, inputs, upstream, -1)
    assert_close(found, kerass(inputs, upstream, -1), 1e-5)
    assert_close(found, exact(inputs, upstream), 1e-5)


@pytest.mark.parametrize("workers", ["mirrored-3", "horovod-2"])
def test_channels_may_come_first(tmp_path, workers):
    inputs, upstream = numbers(6, 3, 4, 5, mean=2), numbers(6, 3, 4, 5, seed=1)
    found = on_replicas(tmp_path, workers, inputs, upstream, 1)
    assert_close(found, exact(inputs, upstream, axis=1), 1e-5)


@pytest.mark.parametrize("workers", ["mirrored-2", "horovod-3"])
def test_a_large_mean_costs_no_digits_over_replicas(tmp_path, workers):
    inputs, upstream = numbers(48, 32, 32, 3, mean=100, deviation=0.1), numbers(48, 32, 32, 3, seed=1)
    found = on_replicas(tmp_path, workers, inputs, upstream, -1)
    expected = exact(inputs, upstream)
    assert_close(found, expected, 1e-4)
    variance = (found["variance"] - 0.9) / 0.1
    assert variance == pytest.approx(np.float64(inputs).var((0, 1, 2)), rel=1e-4)


def in_spans(inputs, upstream, span):
    x, weights = tf.constant(inputs), [tf.fill([inputs.shape[-1]], value) for value in (1.5, 1.0)]
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        outputs, moments = normalize(x, *weights, axis=-1, epsilon=1e-5, span=span)
        loss = tf.reduce_sum(outputs * upstream)
    return outputs, tape.gradient(loss, [x, *weights]), moments


@pytest.mark.parametrize("shape", ((12, 4), (12, 5, 4), (12, 3, 3, 4), (12, 2, 2, 2, 4)))
@pytest.mark.parametrize("span", (2, 3, 12, None))
def test_a_span_is_so_many_consecutive_examples(shape, span):
    inputs, upstream = numbers(*shape, mean=3), numbers(*shape, seed=1)
    outputs, gradients, moments = in_spans(inputs, upstream, span)
    step = span or 12
    sets = [exact(inputs[i : i + step], upstream[i : i + step]) for i in range(0, 12, step)]
    for name, value in (("outputs", outputs), ("inputs_gradient", gradients[0])):
        assert np.asarray(value) == pytest.approx(np.concatenate([one[name] for one in sets]), abs=1e-4)
    for name, value in (("gamma_gradient", gradients[1]), ("beta_gradient", gradients[2])):
        assert np.asarray(value) == pytest.approx(sum(one[name] for one in sets), abs=1e-4)
    whole = moments.merged()
    axes = tuple(range(len(shape) - 1))
    assert whole.mean[0].numpy() == pytest.approx(inputs.mean(axes), rel=1e-5)
    assert (whole.squares[0] / whole.count).numpy() == pytest.approx(inputs.var(axes), rel=1e-5)


def test_a_large_mean_costs_no_digits():
    inputs, upstream = numbers(64, 32, 32, 3, mean=100, deviation=0.1), numbers(64, 32, 32, 3, seed=1)
    outputs, gradients, moments = in_spans(inputs, upstream, None)
    expected = exact(inputs, upstream)
    assert np.abs(outputs - expected["outputs"]).max() < 1e-4 * np.abs(expected["outputs"]).max()
    assert np.abs(gradients[0] - expected["inputs_gradient"]).max() < 1e-4 * np.abs(expected["inputs_gradient"]).max()
    variance = (moments.squares[0] / moments.count).numpy()
    assert variance == pytest.approx(np.float64(inputs).var((0, 1, 2)), rel=1e-4)


def test_merged_parts_are_the_whole_also_where_they_are_uneven_or_empty():
    x = np.float64(numbers(30, 2, mean=100, deviation=0.1))
    parts = np.split(x, [0, 7, 8, 20])
    assert [len(part) for part in parts] == [0, 7, 1, 12, 10]
    means = [part.mean(0) if len(part) else np.zeros(2) for part in parts]
    squares = [((part - mean) ** 2).sum(0) for part, mean in zip(parts, means, strict=True)]
    given = [np.float32(value) for value in ([len(part) for part in parts], means, squares)]
    whole = Moments.unpacked(Moments(*map(tf.constant, given)).packed()).merged()
    assert whole.count.numpy().tolist() == [30]
    assert whole.mean[0].numpy() == pytest.approx(x.mean(0), rel=1e-6)
    assert whole.squares[0].numpy() == pytest.approx(((x - x.mean(0)) ** 2).sum(0), rel=1e-3)


def seen_by(network, *batches):
    """Outputs of a training step of these micro-batches, and what the moving statistics become."""
    moving = MovingStatistics(batch_norm_layers(network))
    outputs, rows = [], []
    for batch in batches:
        with enter(tf.constant(0, tf.int64), tf.range(len(batch))) as context:
            outputs.append(network(batch, training=True))
            rows.append(moving.row(context))
    return outputs, moving, moving.moved(tf.concat(rows, 0))


def test_the_step_itself_changes_nothing_and_micro_batches_move_the_statistics_once():
    network = convert(stack(layers.BatchNormalization(momentum=0.9), shape=(4,)), 0)
    before = [weight.numpy() for weight in network.weights]
    x = numbers(12, 4, mean=5)
    _, moving, (mean, variance) = seen_by(network, *np.split(x, 3))
    assert all(np.array_equal(weight, old) for weight, old in zip(network.weights, before, strict=True))
    assert [variable.path for variable in moving.variables] == [weight.path for weight in network.weights[2:]]
    assert mean.numpy() == pytest.approx(0.1 * x.mean(0), rel=1e-5)
    assert variance.numpy() == pytest.approx(0.9 + 0.1 * x.var(0), rel=1e-5)


def test_a_layer_called_twice_sees_both_and_one_that_is_not_called_stays():
    shared, idle = layers.BatchNormalization(momentum=0.5), layers.BatchNormalization()
    inputs = keras.Input((4,))
    network = keras.Model(inputs, [shared(inputs) + shared(2 * inputs), idle(inputs)])
    convert(network, 0)
    x = numbers(8, 4)
    moving = MovingStatistics([shared, idle])
    with enter(tf.constant(0, tf.int64), tf.range(8)) as context:
        shared(shared(x, training=True) * 0 + x, training=True), shared(2 * x, training=True)
        moved = [value.numpy() for value in moving.moved(moving.row(context))]
    both = np.concatenate([x, x, 2 * x])
    assert moved[0] == pytest.approx(0.5 * both.mean(0), abs=1e-5)
    assert moved[1] == pytest.approx(0.5 + 0.5 * both.var(0), rel=1e-5)
    assert moved[2].tolist() == [0] * 4 and moved[3].tolist() == [1] * 4


@pytest.mark.parametrize("good", (True, False))
def test_a_step_that_is_refused_leaves_the_moving_statistics(good):
    network = convert(stack(layers.BatchNormalization(momentum=0.9), shape=(4,)), 0)
    x, variables = numbers(12, 4, mean=5), network.trainable_variables
    _, moving, expected = seen_by(network, x)
    optimizer = synchronize(
        keras.optimizers.SGD,
        {"learning_rate": 0.1},
        variables,
        sum_replicas=lambda shares, _: shares,
        clip_norm=None,
        scaled=True,
        moving=moving,
    )
    before = [np.asarray(variable) for variable in moving.variables]

    def step(x):
        with enter(tf.constant(0, tf.int64), tf.range(12)) as context:
            network(x, training=True)
        gradients = [tf.fill([4], 1.0 if good else float("inf")) for _ in variables]
        return optimizer.step(gradients, variables, tf.zeros([1]), Rows(moving.row(context)))

    tf.function(step)(tf.constant(x))
    for variable, old, new in zip(moving.variables, before, expected, strict=True):
        assert np.asarray(variable) == pytest.approx(new.numpy() if good else old, rel=1e-6)


def test_frozen_layers_go_by_what_they_have_stored():
    frozen = layers.BatchNormalization(trainable=False, moving_mean_initializer="ones")
    network = convert(stack(frozen, layers.Dense(2), shape=(4,)), 0)
    assert batch_norm_layers(network) == []
    x = numbers(8, 4, mean=3)
    with enter(tf.constant(0, tf.int64), tf.range(8)) as context:
        assert np.allclose(frozen(x, training=True), (x - 1) / np.sqrt(1.001), atol=1e-5)
    assert not context.moments


@pytest.mark.parametrize("policy", ("mixed_bfloat16", "mixed_float16"))
def test_half_precision_has_statistics_in_float32(policy):
    network = convert(stack(layers.BatchNormalization(momentum=0.0, dtype=policy), shape=(64, 64, 2)), 0)
    x = tf.cast(numbers(8, 64, 64, 2, mean=3), network.layers[0].compute_dtype)
    (outputs,), _, (mean, variance) = seen_by(network, x)
    assert outputs.dtype == x.dtype and mean.dtype == tf.float32
    whole = tf.cast(x, tf.float64).numpy()
    assert mean.numpy() == pytest.approx(whole.mean((0, 1, 2)), rel=1e-5)
    assert variance.numpy() == pytest.approx(whole.var((0, 1, 2)), rel=1e-5)


def test_outside_of_a_step_and_in_files_it_is_kerass_and_plain_takes_it_out(tmp_path):
    network = convert(stack(layers.BatchNormalization(scale=False), shape=(4,)), 0, span=2)
    x = numbers(8, 4, mean=3)
    expected = keras.layers.BatchNormalization(scale=False)
    assert np.allclose(network(x, training=True), expected(x, training=True))
    assert np.array_equal(network(x), expected(x))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert type(loaded.layers[0]) is layers.BatchNormalization
    assert np.array_equal(loaded(x), network(x))
    assert type(plain(network).layers[0]) is layers.BatchNormalization
    assert not {"span", "strategy"} & vars(network.layers[0]).keys()
