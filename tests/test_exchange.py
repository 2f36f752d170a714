"""Gradients by factors, micro-batches and compression: the same sums by every way, and the choice between them."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs, summary
from safetensors.numpy import load_file

from distributed.dropout import SampleDropout
from distributed.gradients.cost_model import Calibration, Line, choose
from distributed.gradients.reduction import Exchange, Factors, dense_layers, graph_nodes
from distributed.gradients.tensor_parallel import find_pair
from distributed.step_context import enter


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
    assert [layer.name for layer in dense_layers(model)] == ["on_vectors"]


LAYERS = {"large": (4096, 4096), "small": (64, 8)}
FREE = Line(0.0, 0.0)


def test_bytes_of_both_ways():
    summed = choose(LAYERS, exchange="allreduce", global_batch=128, replicas=4, item_bytes=4, calibration=None)
    assert summed["large"].bytes == 2 * 3 * 4096 * 4096  # 2 (N-1)/N of 4 in out bytes
    factors = choose(LAYERS, exchange="factors", global_batch=128, replicas=4, item_bytes=2, calibration=None)
    assert factors["large"].bytes == 2 * 128 * 8192 * 3 // 4
    assert factors["large"].allreduce_bytes == summed["large"].bytes


@pytest.mark.parametrize(
    ("calibration", "schemes"),
    (
        (None, {"large": "factors", "small": "allreduce"}),
        # The link costs, products are free.
        (Calibration(Line(0, 1e-8), Line(0, 1e-8), FREE), {"large": "factors", "small": "allreduce"}),
        # The link is free: what is multiplied for all replicas is wasted.
        (Calibration(FREE, FREE, Line(0, 1e-12)), {"large": "allreduce", "small": "allreduce"}),
    ),
)
def test_auto_takes_the_cheaper_way(calibration, schemes):
    choices = choose(LAYERS, exchange="auto", global_batch=128, replicas=2, item_bytes=4, calibration=calibration)
    assert {name: choice.scheme for name, choice in choices.items()} == schemes
    for choice in choices.values():
        assert choice.seconds is None or choice.seconds <= choice.allreduce_seconds


CHEAP = Calibration(Line(1e-4, 1e-10), Line(1e-4, 1e-10), Line(0, 5e-12))  # what a link moves costs less than products


@pytest.mark.parametrize(
    ("exchange", "calibration", "gather_every", "scheme"),
    (
        ("auto", CHEAP, 500, "split"),
        ("auto", CHEAP, 1, "factors"),  # a checkpoint in every step gathers all of it
        ("auto", Calibration(Line(1, 0), Line(1e-4, 1e-10), CHEAP.multiply), 500, "factors"),  # waiting costs more
        ("auto", None, 500, "factors"),
        ("split", None, 1, "split"),
        ("factors", CHEAP, 500, "factors"),
    ),
)
def test_a_pair_is_split_where_that_is_cheaper(exchange, calibration, gather_every, scheme):
    layers = {"first": (1024, 4096), "second": (4096, 4096), "last": (4096, 10)}
    settings = {"global_batch": 128, "replicas": 2, "item_bytes": 4, "gather_every": gather_every}
    choices = choose(layers, exchange=exchange, calibration=calibration, pair=("first", "second"), **settings)
    assert [choices[name].scheme for name in ("first", "second")] == [scheme, scheme]
    assert choices["last"].scheme != "split"
    if scheme == "split":
        # X and its gradient; Y and its gradient: half of each is of the other worker.
        assert choices["first"].bytes == 4 * 128 * 1024 and choices["second"].bytes == 4 * 128 * 4096


def test_pairs_are_found_by_what_lies_between():
    def find(*between, replicas=2, activation="relu"):
        inputs = keras.Input((4,))
        x = keras.layers.Dense(8, activation, name="first")(inputs)
        for layer in between:
            x = layer(x)
        network = keras.Model(inputs, keras.layers.Dense(3, name="second")(x))
        return find_pair(graph_nodes(network), dense_layers(network), replicas)

    found = find(SampleDropout(0.5, seed=1))
    assert [layer.name for layer in found[:2]] == ["first", "second"] and len(found[2]) == 1
    assert find(replicas=4) is not None and find(activation=None) is not None
    assert find(replicas=3) is None  # 8 units do not divide
    assert find(keras.layers.BatchNormalization()) is None
    assert find(activation="softmax") is None  # needs all units


def test_a_pair_is_read_by_nobody_else():
    def find(build):
        inputs = keras.Input((4,))
        first, dropout = keras.layers.Dense(8, "relu", name="first"), SampleDropout(0.5, seed=1)
        second = keras.layers.Dense(3, name="second")
        network = keras.Model(inputs, build(inputs, first, dropout, second))
        return find_pair(graph_nodes(network), dense_layers(network), 2)

    add = keras.layers.Add()
    assert find(lambda x, first, dropout, second: second(dropout(first(x)))) is not None
    assert find(lambda x, first, dropout, second: [second(hidden := first(x)), add([hidden, hidden])]) is None
    assert find(lambda x, first, dropout, second: [second(dropout(first(x))), dropout(x)]) is None
    assert find(lambda x, first, dropout, second: add([second(first(x)), second(first(x))])) is None


def test_layers_of_a_sequential_network_count_once():
    stack = [keras.Input((6,)), keras.layers.Dense(4, "relu", name="first"), keras.layers.Dense(3, name="last")]
    network = keras.Sequential(stack)
    assert [layer.name for layer in dense_layers(network)] == ["first", "last"]
    assert find_pair(graph_nodes(network), dense_layers(network), 2) is not None
    network.add(keras.layers.Dense(2, name="more"))
    assert [layer.name for layer in dense_layers(network)] == ["first", "last", "more"]


def test_a_layer_that_is_called_twice_has_a_plain_gradient():
    """Its factors would be those of one call only."""
    inputs, shared = keras.Input((6,)), keras.layers.Dense(6, "tanh", name="shared")
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(shared(shared(inputs))))
    assert [layer.name for layer in dense_layers(model)] == ["last"]
    images = tf.random.stateless_normal((16, 6), (0, 1))
    loss, expected = reference(model, images)
    exchange = Exchange(model, Replicas([]), {"shared": "factors", "last": "factors"})
    our_loss, ours = shares(exchange, model, images)
    np.testing.assert_allclose(our_loss, loss, rtol=1e-6)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(multiplied(one), other, rtol=1e-4, atol=1e-6)


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
