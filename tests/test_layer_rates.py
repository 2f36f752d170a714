"""A layer at a part of the learning rate learns and decays as it would by itself at that rate."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from distributed.optimization.optimizer import synchronize

WEIGHTS = {"first": (1.0, -2.0), "last": (3.0,)}
GRADIENTS = [{"first": (0.1, -0.2), "last": (0.3,)}, {"first": (-0.4, 0.1), "last": (0.2,)}]


def trained(names, rate, optimizer_class, settings, factors=None):
    """The weights of these layers after two steps, by name."""
    variables = [keras.Variable(np.float32(WEIGHTS[name]), name=name) for name in names]
    optimizer = synchronize(
        optimizer_class,
        {"learning_rate": rate, "weight_decay": 0.2} | settings,
        variables,
        sum_replicas=lambda tensors, _: list(tensors),
        clip_norm=None,
        scaled=False,
        rate_factors=factors,
    )
    step = tf.function(lambda gradients: optimizer.step(gradients, variables, tf.zeros(1)))
    for gradients in GRADIENTS:
        step([tf.constant(gradients[name]) for name in names])
    return {name: np.asarray(variable) for name, variable in zip(names, variables, strict=True)}


@pytest.mark.parametrize(("name", "settings"), (("SGD", {}), ("SGD", {"momentum": 0.9}), ("AdamW", {}), ("Lamb", {})))
def test_a_layer_learns_as_by_itself_at_its_rate(name, settings):
    how = getattr(keras.optimizers, name), settings
    together = trained(WEIGHTS, 0.1, *how, factors={"first": 0.25})
    apart = trained(["first"], 0.025, *how) | trained(["last"], 0.1, *how)
    for layer, weights in together.items():
        np.testing.assert_allclose(weights, apart[layer], rtol=1e-6, err_msg=layer)
    assert not np.allclose(together["first"], trained(["first"], 0.1, *how)["first"], rtol=1e-3)
