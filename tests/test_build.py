"""From settings to a model: what is built is the run's, and Keras is left as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from distributed.strategies import SingleDevice
from distributed.world import World
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation import exchange
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.preparation.build import build


@pytest.mark.parametrize("raises", (False, True))
def test_the_precision_is_the_layers_and_keras_own_stays_as_it_was(raises):
    seen = []

    def network(classes: int, image_size: int) -> keras.Model:
        seen.append(keras.config.dtype_policy().name)
        inputs = keras.Input((image_size, image_size, 3), dtype="uint8")
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        if raises:
            raise KeyError("lost")
        return keras.Model(inputs, keras.layers.Dense(classes, dtype="float32")(x))

    config, before = TrainConfig(precision="bfloat16"), keras.config.dtype_policy().name
    plan = create_batch_plan(config, examples=200, replicas=1)
    try:
        model, _ = build(config, plan, SingleDevice(World()), classes=3, image_size=8, own_model=network)
        assert not raises and model.network.layers[1].compute_dtype == "bfloat16"
    except KeyError:
        assert raises
    assert set(seen) == {"mixed_bfloat16"} and keras.config.dtype_policy().name == before == "float32"


def regularized(**settings):
    def network(classes: int, image_size: int) -> keras.Model:
        inputs = keras.Input((image_size, image_size, 3), dtype="uint8")
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        return keras.Model(inputs, keras.layers.Dense(classes, **settings)(x))

    return network


def test_regularizers_of_weights_are_taken_and_others_refused():
    config = TrainConfig(l1=0.5)
    plan = create_batch_plan(config, examples=200, replicas=1)
    settings = {"classes": 3, "image_size": 8}
    own = regularized(kernel_regularizer="l2", bias_regularizer="l1")
    model, _ = build(config, plan, SingleDevice(World()), **settings, own_model=own)
    kernel = np.asarray(model.network.layers[-1].kernel)
    expected = 0.01 * (kernel**2).sum() + 0.5 * np.abs(kernel).sum()
    assert model.regularization() == {"regularization": pytest.approx(expected, rel=1e-5)}
    with pytest.raises(ConfigError, match="has losses of its own .add_loss, activity_regularizer."):
        build(config, plan, SingleDevice(World()), **settings, own_model=regularized(activity_regularizer="l2"))
def tiny(classes: int, image_size: int) -> keras.Model:
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, name="last")(x))


@pytest.mark.parametrize(
    ("settings", "on"),
    (
        ({}, True),
        ({"deterministic": True}, False),
        ({"deterministic": True, "tf32": "on"}, True),
        ({"tf32": "off"}, False),
    ),
)
def test_tensorfloat_32_is_off_where_float32_is_promised(monkeypatch, settings, on):
    """The switch alone: that it does something is seen in test_gpu_arithmetic.py."""
    switched = []
    monkeypatch.setattr(tf.config.experimental, "enable_tensor_float_32_execution", switched.append)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [kind])
    config = TrainConfig(**settings)
    plan = create_batch_plan(config, examples=200, replicas=1)
    build(config, plan, SingleDevice(World()), classes=3, image_size=8, own_model=tiny)
    assert switched == [on]


def test_tensorfloat_32_is_not_asked_of_cpus():
    config = TrainConfig(tf32="on")
    plan = create_batch_plan(config, examples=200, replicas=1)
    with pytest.raises(ConfigError, match="--tf32 on is a way of GPUs .* this run has none; leave it out"):
        build(config, plan, SingleDevice(World()), classes=3, image_size=8, own_model=tiny)


class Workers:
    """What the choice asks of a strategy."""

    shares_memory, is_chief = False, True

    def __init__(self, hosts: int):
        self.world = World(size=4, local_size=4 // hosts)


@pytest.mark.parametrize(
    ("device", "hosts", "settings", "scheme"),
    (
        ("GPU", 1, {}, "allreduce"),
        ("GPU", 2, {}, "factors"),
        ("CPU", 1, {}, "factors"),
        ("GPU", 1, {"exchange": "factors"}, "factors"),
        # The same on any number of workers.
        ("GPU", 1, {"deterministic": True, "micro_batch_size": 2, "global_batch_size": 8}, "factors"),
    ),
)
def test_gpus_of_one_host_sum(monkeypatch, device, hosts, settings, scheme):
    """Where nothing is measured, and without measuring."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [kind] if kind == device else [])
    config = TrainConfig(**({"global_batch_size": 8} | settings))
    plan = create_batch_plan(config, examples=200, replicas=4)
    (choice,) = exchange.choose(config, plan, Workers(hosts), tiny(64, 16), None, None).values()
    assert choice.scheme == scheme
    if device == "GPU" and hosts == 1:
        assert exchange.measure(config, Workers(hosts), None, 1) is None


def test_multiplications_of_a_forward_pass_are_counted():
    layers = keras.layers
    inputs = keras.Input((8, 8, 6))
    x = layers.Conv2D(4, 3, padding="same", strides=2)(inputs)  # 4 x 4 places of 3 x 3 x 6 x 4
    x = layers.Conv2D(8, 3, padding="valid", groups=2)(x)  # 2 x 2 of 3 x 3 x 2 x 8
    x = layers.DepthwiseConv2D(2, padding="valid")(x)  # 1 x 1 of 2 x 2 x 8
    x = layers.Reshape((2, 4))(x)
    x = layers.Dense(5)(x)  # 2 of 4 x 5
    dense = layers.Dense(3, name="last")
    network = keras.Model(inputs, dense(layers.Flatten()(x)))
    assert exchange.multiplications(network, [dense]) == 16 * 216 + 4 * 144 + 32 + 40
