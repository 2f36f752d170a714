"""From settings to a model: what is built is the run's, and Keras is left as it was."""

import keras
import numpy as np
import pytest

from distributed.strategies import SingleDevice
from distributed.world import World
from launch.job.config import ConfigError, TrainConfig
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
