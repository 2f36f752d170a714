"""Plain Keras networks become Lockstep's and stay what they were; what is saved of them is plain Keras."""

import json
import sys
import zipfile

import h5py
import keras
import numpy as np
import tensorflow as tf
from conftest import ROOT, run_command
from networks import flat, in_step, noise, stack

from distributed.gradients.reduction import Exchange
from distributed.layers.convert import convert, plain
from distributed.layers.dropout import SampleDropout
from distributed.strategies import SingleDevice
from distributed.world import World

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")


class Block(layers.Layer):
    """Holds dropout in every way in which a layer may, and cannot be built again from its configuration."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.first, self.more = layers.Dropout(0.5), [layers.Dropout(0.4)]
        self.named = {"last": layers.Dropout(0.3, seed=8)}
        self.dense = layers.Dense(4)

    def build(self, shape):
        self.late = layers.Dropout(0.2)
        self.dense.build(shape)
        super().build(shape)

    def call(self, inputs, training=None):
        x = self.activation(self.dense(inputs))
        for dropout in (self.first, *self.more, self.named["last"], self.late):
            x = dropout(x, training=training)
        return x


def own():
    """A network with most of what Keras lets one write."""
    keras.utils.set_random_seed(1)
    keras.backend.clear_session()  # names count from one
    trunk = keras.Sequential([layers.Conv2D(4, 3), layers.Dropout(0.5, noise_shape=(None, 1, 1, None))], name="trunk")
    inner = keras.Input((4,), name="inner")
    head = keras.Model(inner, layers.Dropout(0.2)(layers.Dense(4, name="frozen")(inner)), name="head")
    statistics, shared, dropout = layers.Normalization(), layers.Dense(4, name="shared"), layers.Dropout(0.5, name="d")
    statistics.adapt(IMAGES)

    pixels = keras.Input((8, 8, 3))
    x = trunk(statistics(pixels))
    x = layers.BatchNormalization(trainable=False)(x)
    x = keras.ops.relu(layers.GlobalAveragePooling2D()(x)) + 1.0
    left, right = dropout(shared(x)), dropout(shared(layers.Lambda(lambda x: 2 * x)(x)))
    x = layers.Dense(4, dtype="mixed_bfloat16", name="half")(layers.Concatenate()([left, right]))
    x = layers.TimeDistributed(layers.Dropout(0.1))(layers.RepeatVector(3)(Block(tf.nn.elu)(x)))
    x = layers.Dropout(0.0, name="idle")(head(layers.Flatten()(x)[:, :4]))
    network = keras.Model(pixels, [layers.Dense(2, name="one")(x), layers.Dense(3, name="two")(left)], name="own")
    head.trainable = False
    head.get_layer("dropout_1").trainable = shared.trainable = True
    network.get_layer("block").dense.trainable = False
    for number, weight in enumerate(network.weights):
        if weight.path.endswith("bias"):
            weight.assign(weight + number)
    return network


def dropouts(network):
    return [layer for layer in flat(network) if isinstance(layer, layers.Dropout)]


def facts(network):
    """All that a conversion must leave alone."""
    return {
        "layers": [(layer.name, id(layer), layer.trainable, layer.dtype_policy.name) for layer in flat(network)],
        "weights": [(w.path, w.trainable, w.dtype, id(w), w.numpy().tobytes()) for w in network.weights],
        "variables": [(variable.path, id(variable)) for variable in network.variables],
        "trainable": [id(weight) for weight in network.trainable_weights],
        "config": [layer.get_config() for layer in dropouts(network)],
        "inference": [output.numpy().tobytes() for output in network(IMAGES, training=False)],
    }


def test_a_network_stays_what_it_was():
    network = own()
    before = facts(network)
    assert convert(network, 1) is network
    assert facts(network) == before
    kinds = {layer.name: type(layer) for layer in dropouts(network)}
    assert len(kinds) == 9 and kinds.pop("idle") is layers.Dropout and set(kinds.values()) == {SampleDropout}


def test_what_a_sample_gives_in_a_step_does_not_depend_on_the_others():
    network = convert(own(), 1)
    whole = in_step(network, IMAGES, range(10, 16))
    assert not np.allclose(whole[0], network(IMAGES, training=False)[0], atol=1e-2)
    for mine in ([0, 1, 2], [3, 4, 5], [5], [4, 0]):
        for output, expected in zip(in_step(network, IMAGES[mine], [10 + i for i in mine]), whole, strict=True):
            # One of its units more or less is far more.
            np.testing.assert_allclose(output, expected[mine], rtol=2e-2, atol=2e-2)
    assert all(np.array_equal(*pair) for pair in zip(in_step(network, IMAGES, range(10, 16)), whole, strict=True))
    assert not np.allclose(in_step(network, IMAGES, range(10, 16), step=4)[0], whole[0], atol=1e-2)


def test_outside_of_a_step_it_trains_as_in_keras():
    converted, untouched = convert(own(), 1), own()
    keras.utils.set_random_seed(0)
    for _ in range(2):
        for output, expected in zip(converted(IMAGES, training=True), untouched(IMAGES, training=True), strict=True):
            assert np.array_equal(output, expected)


def test_nothing_to_convert_is_left_alone():
    network = stack(layers.Dense(3), layers.Dropout(0))
    before = [dict(vars(layer)) for layer in flat(network)]
    assert convert(network, 1) is network and [vars(layer) for layer in flat(network)] == before


def test_a_seed_is_the_key():
    network = convert(stack(layers.Dropout(0.5, seed=3)), 1)
    assert np.array_equal(noise(network), noise(SampleDropout(0.5, seed=3)))
    assert np.array_equal(noise(network), noise(convert(stack(layers.Dropout(0.5, seed=3)), 2)))


def test_without_a_seed_the_key_is_of_the_run_and_the_place():
    def build():
        return stack(layers.Dropout(0.1), stack(layers.Dropout(0.2)), layers.Dense(3), layers.Dropout(0.3))

    def keys(seed):
        return [layer.key for layer in dropouts(convert(build(), seed))]

    # whatever was built before in this process, and in any other: these are of another one
    assert keys(7) == keys(7) == [1009178997, 1060258595, 957986155]
    assert len({*keys(7), *keys(8)}) == 6
    again = convert(convert(build(), 8), 7)
    assert [layer.key for layer in dropouts(again)] == keys(7)


def test_two_dropouts_without_a_seed_differ_and_one_that_is_shared_does_too():
    inputs, once = keras.Input((4096,)), layers.Dropout(0.5)
    network = convert(keras.Model(inputs, [layers.Dropout(0.5)(inputs), once(inputs), once(inputs)]), 1)
    outputs = in_step(network, tf.ones([1, 4096]), [5])
    assert all(0.45 < np.mean(a == b) < 0.55 for i, a in enumerate(outputs) for b in outputs[:i])


def test_saved_files_load_in_keras_alone(tmp_path):
    inputs = keras.Input((64,))
    x = layers.Dense(8)(layers.Dropout(0.5, noise_shape=(None, 64))(inputs))
    network = keras.Model(inputs, stack(layers.Dropout(0.2, seed=3), shape=(8,))(x))
    network.save(tmp_path / "before.keras")
    convert(network, 1)
    noise(network)
    network.save(tmp_path / "after.keras")

    def inside(name):
        with zipfile.ZipFile(tmp_path / name) as archive, archive.open("model.weights.h5") as weights:
            found = {}
            h5py.File(weights).visititems(lambda path, item: found.update({path: getattr(item, "shape", None)}))
            return json.loads(archive.read("config.json")), found

    assert inside("after.keras") == inside("before.keras")
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).normal(size=(4, 64)))
    code = f"""
import importlib.util, keras, numpy, os, sys
sys.path[:] = [place for place in sys.path if not os.path.exists(os.path.join(place, "distributed"))]
assert importlib.util.find_spec("distributed") is None
network = keras.models.load_model("{tmp_path}/after.keras")
found = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
assert [type(layer) for layer in found] == 2 * [keras.layers.Dropout]
numpy.save("{tmp_path}/outputs.npy", network(numpy.load("{tmp_path}/inputs.npy"), training=False))
"""
    done = run_command(sys.executable, "-I", "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.array_equal(np.load(tmp_path / "outputs.npy"), network(np.load(tmp_path / "inputs.npy"), training=False))


def test_plain_takes_out_all_that_lockstep_has_put_in():
    network, untouched = own(), own()
    before = facts(network)
    Exchange(convert(network, 1), SingleDevice(World()), {"one": "factors"})
    assert plain(network) is network and facts(network) == before
    assert [type(layer) for layer in flat(network)] == [type(layer) for layer in flat(untouched)]
    assert not any({"key", "call"} & set(vars(layer)) for layer in flat(network))
    assert plain(untouched) is untouched


def test_a_mirrored_network_is_converted_in_scope():
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], 2 * [tf.config.LogicalDeviceConfiguration()]
)
from distributed.layers.convert import convert
from distributed.step_context import enter
strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
with strategy.scope():
    inputs, shared = keras.Input((64,)), keras.layers.Dropout(0.5)
    x = shared(keras.layers.Dense(64)(inputs))
    x = keras.layers.BatchNormalization(beta_initializer="ones", trainable=False)(x)
    network = keras.Model(inputs, shared(keras.layers.Dropout(0.2)(x)))
    before = [(id(variable.value), variable.path, variable.numpy().tobytes()) for variable in network.variables]
    convert(network, 1)
    assert before == [(id(variable.value), variable.path, variable.numpy().tobytes()) for variable in network.variables]
pixels, ids = tf.random.stateless_normal([8, 64], [1, 2]), tf.range(8, dtype=tf.int64)

def step(pixels, ids):
    with enter(tf.constant(3, tf.int64), ids):
        return network(pixels, training=True)

def halves(value):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.split(value, 2)[context.replica_id_in_sync_group]
    )

both = tf.function(lambda *given: strategy.run(step, given))(halves(pixels), halves(ids))
both = np.concatenate(strategy.experimental_local_results(both))
alone = step(pixels, ids).numpy()
assert np.array_equal(both == 0, alone == 0) and 0.5 < np.mean(alone == 0) < 0.7, (both, alone)
"""
    done = run_command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
