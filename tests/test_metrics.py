"""Metrics over all workers are what one worker would have computed on everything."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from distributed.metrics import METRICS, GlobalMetrics, example_losses


def batches(classes, count=5, size=7, seed=0):
    """Labels int32 [b], logits float32, weights of which some are 0 (padding, with values that would be seen)."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        labels = generator.integers(0, classes, size).astype(np.int32)
        logits = generator.normal(0, 2, (size, 1 if classes == 2 else classes)).astype(np.float32)
        weights = (generator.uniform(size=size) > 0.3).astype(np.float32)
        logits[weights == 0] *= 50
        yield labels, logits, weights


def feed(metrics, data, classes):
    losses = example_losses(classes, 0.0)
    for labels, logits, weights in data:
        labels, logits = tf.constant(labels), tf.constant(logits)
        metrics.update(labels, logits, losses(labels, logits), tf.constant(weights))


def alone(classes, names=tuple(METRICS)):
    return GlobalMetrics([METRICS[name](classes) for name in names], lambda arrays: arrays)


def together(*workers):
    """The first of the workers, whose exchange adds the states of the others."""
    own = [worker.sum_states() for worker in workers[1:]]
    first = workers[0]
    first._sum_workers = lambda arrays: [sum(parts) for parts in zip(arrays, *own, strict=True)]
    return first


@pytest.mark.parametrize("classes", (2, 3, 5, 6, 10))
@pytest.mark.parametrize("split", ((3, 2), (1, 1, 3), (5, 0), (0, 5)))
def test_several_workers_are_as_one(classes, split):
    data = list(batches(classes))
    one, several = alone(classes), [alone(classes) for _ in split]
    feed(one, data, classes)
    for worker, start, count in zip(several, np.cumsum((0, *split)), split, strict=False):
        feed(worker, data[start : start + count], classes)
    assert together(*several).results() == pytest.approx(one.results(), rel=1e-12)


@pytest.mark.parametrize("classes", (2, 3, 10))
def test_results_are_those_of_the_real_examples_by_numpy(classes):
    data = list(batches(classes))
    metrics = alone(
        classes, ("accuracy", "top5", "precision", "recall") if classes > 2 else ("accuracy", "precision", "recall")
    )
    feed(metrics, data, classes)
    labels, logits, weights = (np.concatenate(parts) for parts in zip(*data, strict=True))
    labels, logits = labels[weights > 0], logits[weights > 0].astype(np.float64)
    if classes == 2:
        targets, likely = labels[:, None] == 1, logits > 0
        losses = np.log1p(np.exp(-np.where(labels == 1, 1, -1) * logits[:, 0]))
        ranks = (likely != targets)[:, 0]
    else:
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        targets, likely = np.eye(classes, dtype=bool)[labels], probabilities > 0.5
        losses = -np.log(probabilities[targets])
        ranks = (logits > logits[targets][:, None]).sum(axis=1)
    hits = np.sum(targets & likely)
    expected = {"accuracy": np.mean(ranks == 0), "precision": hits / likely.sum()}
    expected |= {"top5": np.mean(ranks < 5)} if classes > 2 else {}
    expected |= {"recall": hits / targets.sum(), "loss": losses.mean(), "examples": len(labels)}
    assert metrics.results() == pytest.approx(expected, rel=1e-6)
    assert len(labels) < sum(len(weights) for _, _, weights in data)  # there was padding


def test_uneven_workers_do_not_average_their_averages():
    one, other = alone(3), alone(3)
    logits = np.float32([[9, 0, 0]])
    feed(one, [(np.int32([0]), logits, np.float32([1]))], 3)
    feed(other, [(np.int32([1] * 3), np.repeat(logits, 3, 0), np.float32([1] * 3))], 3)
    assert together(one, other).results()["accuracy"] == 0.25


def test_without_examples_the_loss_is_not_a_number_and_nothing_breaks():
    results = alone(10).results()
    assert np.isnan(results["loss"]) and results["examples"] == 0
    assert all(type(value) is float for value in results.values())


def test_one_exchange_for_everything():
    exchanges = []
    metrics = alone(10)
    metrics._sum_workers = lambda arrays: exchanges.append(arrays) or arrays
    feed(metrics, batches(10), 10)
    metrics.results()
    assert len(exchanges) == 1 and all(array.dtype == np.float64 for array in exchanges[0])


def test_the_loss_keeps_its_digits_over_many_examples():
    metrics = alone(3)
    for _ in range(100):
        metrics.update(tf.zeros([1], tf.int32), tf.zeros([1, 3]), tf.constant([2.0**15 + 2.0**-8]), tf.ones([1]))
    assert metrics.results()["loss"] == 2.0**15 + 2.0**-8


@pytest.mark.parametrize("classes", (2, 10))
def test_counts_are_exact_beyond_what_float32_counts(classes):
    """2**24 + 1 is not a float32."""
    metrics = alone(classes, METRICS if classes > 2 else [name for name in METRICS if name != "top5"])
    (batch,) = batches(classes, count=1)
    feed(metrics, [batch], classes)
    counted = [np.array(variable) for metric in metrics.others for variable in metric.variables]
    for metric in metrics.others:
        for variable in metric.variables:
            variable.assign(variable + 2.0**24)
    feed(metrics, [batch], classes)
    _, _, *states = metrics.sum_states()
    assert all((state == 2.0**24 + 2 * count).all() for state, count in zip(states, counted, strict=True))
    assert any(count.any() for count in counted)


def test_a_result_is_that_of_all_counts():
    metrics = alone(3, ("accuracy",))
    hits, seen = metrics.others[0].variables
    hits.assign(2.0**24 + 1)
    seen.assign(2.0**25 + 2)
    assert metrics.results()["accuracy"] == 0.5


def test_states_are_reset():
    second = alone(10)
    feed(second, batches(10), 10)
    for metric in second.all:
        metric.reset_state()
    assert second.results()["examples"] == 0


@pytest.mark.parametrize("smoothing", (0.0, 0.1, 0.5))
@pytest.mark.parametrize("classes", (2, 3, 10))
def test_losses_are_kerass(classes, smoothing):
    ((labels, logits, _),) = batches(classes, count=1, size=20)
    if classes == 2:
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        expected = loss(labels[:, None], logits)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        expected = loss(keras.ops.one_hot(labels, classes), logits)
    losses = example_losses(classes, smoothing)(tf.constant(labels), tf.constant(logits))
    assert losses.shape == (20,) and losses.dtype == tf.float32
    assert losses.numpy() == pytest.approx(np.asarray(expected), rel=1e-5, abs=1e-6)


def test_smoothing_has_its_least_loss_at_the_smoothed_target():
    logits = tf.Variable(np.log(np.float32([[0.9 + 0.1 / 4, 0.025, 0.025, 0.025]])))
    with tf.GradientTape() as tape:
        loss = example_losses(4, 0.1)(tf.constant([0]), logits)
    assert np.abs(tape.gradient(loss, logits)).max() < 1e-6


@pytest.mark.parametrize("classes", (2, 3, 10))
def test_auc_of_perfect_and_of_useless_logits(classes):
    labels = np.arange(40, dtype=np.int32) % classes
    perfect = 8.0 * (2 * labels[:, None] - 1 if classes == 2 else np.eye(classes)[labels])
    for logits, area in ((perfect, 1.0), (np.zeros_like(perfect), 0.5), (-perfect, 0.0)):
        metrics = alone(classes, ("auc",))
        feed(metrics, [(labels, logits.astype(np.float32), np.ones(40, np.float32))], classes)
        assert metrics.results()["auc"] == pytest.approx(area, abs=1e-6)


def test_a_metric_bears_the_name_it_is_chosen_by():
    assert [METRICS[name](classes).name for classes in (2, 10) for name in METRICS] == [*METRICS] * 2
