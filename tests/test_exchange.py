"""Gradients by factors, micro-batches and compression: the same sums by every way."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs, summary
from safetensors.numpy import load_file

from distributed.gradients.dense_layers import dense_layers
from distributed.gradients.reduction import Exchange, Factors
from distributed.step_context import enter
from distributed.world import World
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.preparation.exchange import choose


class Replicas:
    """Two replicas in one process: what the other one adds is known beforehand."""

    replicas = 2

    def __init__(self, others):
        self.others = others

    def sum_replicas(self, tensors):
        others = self.others.pop(0)
        return [mine + other for mine, other in zip(tensors, others, strict=True)]

    def gather_replicas(self, tensors):
        others = self.others.pop(0) if tensors else []
        return [tf.concat([mine, other], 0) for mine, other in zip(tensors, others, strict=True)]


def network(policy="float32"):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv", dtype=policy)(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32, activation="relu", name="wide", dtype=policy)(x)
    x = keras.layers.Dense(32, activation="tanh", use_bias=False, name="unbiased", dtype=policy)(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="last", dtype=policy)(x))


def shares(exchange, model, images, count=1):
    """This replica's shares of the gradient of the mean loss over 16 examples, in ``count`` micro-batches."""
    parts = tf.reshape(images, [count, -1, *images.shape[1:]])

    def compute(index):
        with enter(tf.constant(0, tf.int64), tf.range(parts.shape[1])) as context, tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.cast(model(parts[index], training=True), tf.float32))) / 16
        return loss, exchange.gradients(tape, loss, context.recorded, model.trainable_variables)

    return tf.function(lambda: exchange.accumulate(count, compute, model.trainable_variables))()


def reference(model, images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(tf.cast(model(images, training=True), tf.float32))) / 16
    return loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])


def multiplied(gradient):
    return gradient.multiplied() if isinstance(gradient, Factors) else gradient


def exchanged(mine, other, exact):
    """The other replica's tensors in the order in which they are exchanged."""
    factors = [tensor for part in other if isinstance(part, tuple) for tensor in part]
    plain = [part for part in other if not isinstance(part, tuple)]
    return [[*factors, *plain, mine]] if exact else [*([factors] if factors else []), [*plain, mine]]


@pytest.mark.parametrize("exact", (False, True))
@pytest.mark.parametrize("count", (1, 2, 4))
@pytest.mark.parametrize(
    "schemes", ({}, {"wide": "factors"}, {"wide": "factors", "unbiased": "factors", "last": "factors"})
)
def test_two_replicas_sum_to_the_gradient_of_the_whole_batch(schemes, count, exact):
    images = tf.constant(np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype("float32"))
    model = network()
    loss, expected = reference(model, images)
    strategy = Replicas([])
    exchange = Exchange(model, strategy, schemes, exact=exact)
    first, mine = shares(exchange, model, images[:8], count)
    second, other = shares(exchange, model, images[8:], count)
    report = tf.constant([1.0, 2.0])
    strategy.others = exchanged(report[None] if exact else report, other, exact)
    *gradients, total = exchange.sum([*mine, report])
    assert float(first + second) == pytest.approx(float(loss), rel=1e-6)
    assert list(np.asarray(total)) == [2.0, 4.0]
    for gradient, value in zip(map(multiplied, gradients), expected, strict=True):
        assert np.linalg.norm(gradient - value) <= 1e-6 * np.linalg.norm(value)


def test_micro_batches_of_one_size_give_the_same_bits_on_one_and_two_replicas():
    images = tf.constant(np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype("float32"))
    model = network()
    strategy, alone = Replicas([]), Replicas([])
    alone.sum_replicas = alone.gather_replicas = list
    report = tf.zeros(1)
    exchange = Exchange(model, alone, {"wide": "factors"}, exact=True)
    _, whole = shares(exchange, model, images, 4)
    expected = exchange.sum([*whole, report])
    exchange._strategy = strategy
    (_, mine), (_, other) = (shares(exchange, model, half, 2) for half in (images[:8], images[8:]))
    strategy.others = exchanged(report[None], other, True)
    for actual, value in zip(exchange.sum([*mine, report]), expected, strict=True):
        assert np.array_equal(multiplied(actual), multiplied(value))


@pytest.mark.parametrize("scale", (1.0, 0.25))
@pytest.mark.parametrize("bad", (None, float("nan"), float("inf")))
def test_factors_say_whether_their_product_is_finite_and_how_large_it_may_be(bad, scale):
    random = np.random.default_rng(0)
    left, right = random.normal(size=(6, 5)).astype("float32"), random.normal(size=(6, 3)).astype("float32")
    if bad is not None:
        right[4, 1] = bad
    factors = Factors(tf.constant(left), tf.constant(right))
    product = factors.multiplied(tf.constant(scale) if scale != 1.0 else scale)
    assert np.allclose(product, left.T @ right * scale, rtol=1e-5, equal_nan=True)
    bound = float(factors.bound())
    assert np.isfinite(bound) == (bad is None)
    assert bad is not None or bound >= np.linalg.norm(left.T @ right)


def test_factors_leave_the_model_a_plain_keras_model(tmp_path):
    model, images = network(), np.ones((2, 6, 6, 2), np.float32)
    before = model.to_json()
    expected = model.predict(images, verbose=0)
    Exchange(model, Replicas([]), dict.fromkeys(("wide", "unbiased", "last"), "factors"))
    assert model.to_json() == before
    model.save(tmp_path / "model.keras")
    assert np.array_equal(keras.saving.load_model(tmp_path / "model.keras").predict(images, verbose=0), expected)


def test_dense_layers_are_found_by_kind_and_rank():
    inputs = keras.Input((3, 4))
    x = keras.layers.Dense(2, name="on_sequences")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="on_vectors")(keras.layers.Flatten()(x)))
    assert [*dense_layers(model)] == ["on_vectors"]


def nested(frozen=()):
    """Dense layers in networks that are layers: a functional one, one that is called twice, and two of one name."""
    keras.utils.set_random_seed(1)

    def inner(name, *layers):
        return keras.Sequential([keras.Input((8,)), *layers], name=name)

    dense = keras.layers.Dense
    one = inner("one", dense(8, "relu", name="fc"), inner("deep", dense(8, "tanh", name="deepest")))
    two, twice = inner("two", dense(8, name="fc")), inner("twice", dense(8, name="shared"))
    images = keras.Input((8,))
    network = keras.Model(images, dense(3, name="last")(twice(twice(two(one(images))))))
    for layer in network._flatten_layers():
        if layer.name in frozen:
            layer.trainable = False
    return network


def test_dense_layers_of_nested_networks_are_found_unless_frozen_or_called_twice():
    assert {*dense_layers(nested())} == {"one/fc", "deepest", "two/fc", "last"}
    assert {*dense_layers(nested(frozen=("one",)))} == {"fc", "last"}
    assert {*dense_layers(nested(frozen=("deepest", "last")))} == {"one/fc", "two/fc"}


@pytest.mark.parametrize("frozen", ((), ("one",), ("last",)))
def test_gradients_of_nested_and_frozen_networks_are_those_of_the_tape(frozen):
    images, model = tf.random.stateless_normal((16, 8), (1, 2)), nested(frozen)
    loss, expected = reference(model, images)
    exchange = Exchange(model, Replicas([]), dict.fromkeys(dense_layers(model), "factors"))
    actual_loss, gradients = shares(exchange, model, images)
    assert sum(isinstance(gradient, Factors) for gradient in gradients) == len(dense_layers(model))
    np.testing.assert_allclose(actual_loss, loss, rtol=1e-5)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(multiplied(gradient), other, rtol=1e-4, atol=1e-6)


def test_a_layer_that_is_called_twice_has_a_plain_gradient():
    """Its factors would be those of one call only."""
    inputs, shared = keras.Input((6,)), keras.layers.Dense(6, "tanh", name="shared")
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(shared(shared(inputs))))
    assert [*dense_layers(model)] == ["last"]
    images = tf.random.stateless_normal((16, 6), (0, 1))
    loss, expected = reference(model, images)
    exchange = Exchange(model, Replicas([]), {"shared": "factors", "last": "factors"})
    our_loss, ours = shares(exchange, model, images)
    np.testing.assert_allclose(our_loss, loss, rtol=1e-6)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(multiplied(one), other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("gpus", "hosts", "scheme"), ((1, 1, "allreduce"), (0, 1, "factors"), (1, 2, "factors")), ids=str
)
def test_the_gpus_of_one_host_sum_until_it_was_measured_on_some(monkeypatch, gpus, hosts, scheme):
    """Where a large layer of 8 examples would travel as factors."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind] * gpus)
    config, workers = TrainConfig(batch_size=4), SimpleNamespace(shares_memory=False)
    workers.world = World(0, 2, 0, 2 // hosts, "mpirun")
    plan = create_batch_plan(config, examples=80, replicas=2)
    large = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, name="large")])
    assert choose(config, plan, workers, large, None, None)["large"].scheme == scheme


def test_compressed_gradients_are_near_and_a_measurement_is_kept(tmp_path, tiny_data):
    line = ["--dataset", "npz", "--data-dir", tiny_data, "--global-batch-size", 12, "--epochs", 1, "--dropout", 0]
    line += ["--learning-rate", 0.02]
    jobs = {
        "measured": line,
        "plain": [*line, "--exchange", "allreduce"],
        "compressed": [*line, "--exchange", "allreduce", "--compression", "fp16"],
    }
    assert run_jobs(tmp_path, jobs, "horovodrun", "-np", "2") == dict.fromkeys(jobs, 0)
    plain, near = (
        load_file(tmp_path / name / "checkpoints/step-00000016/weights.safetensors") for name in ("plain", "compressed")
    )
    assert not (tmp_path / "compressed" / "exchange.json").exists()
    distances = [
        np.linalg.norm(near[name] - plain[name]) / np.linalg.norm(plain[name]) for name in plain if "kernel" in name
    ]
    # More than the order of the sums could do.
    assert 3e-6 < max(distances) < 1e-2
    assert {entry["scheme"] for entry in summary(tmp_path / "compressed")["exchange"].values()} == {"allreduce"}
    # What was measured is believed when the run goes on: all-reducing a byte is said to take a second here.
    path = tmp_path / "measured" / "exchange.json"
    measured = json.loads(path.read_text())
    assert measured["workers"]["threads"] >= 1 and len(measured["workers"]["hosts"]) == 2
    measured["calibration"]["reduce"]["per_unit"] = 1.0
    path.write_text(json.dumps(measured))
    longer = [*line, "--epochs", 2, "--run-dir", path.parent]
    assert run_jobs(tmp_path / "again", {"longer": longer}, "horovodrun", "-np", "2") == {"longer": 0}
    schemes = [summary(path.parent)["exchange"][name]["scheme"] for name in ("fc6", "fc7")]
    assert "allreduce" not in schemes
