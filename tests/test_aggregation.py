"""Sums in one fixed order: without TensorFlow's AddN, whose last bit depends on what else has run."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop

from distributed.gradients.aggregation import add_in_order, global_norm


@pytest.fixture
def in_order():
    add_in_order()
    yield
    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})


def gradient(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(x * 1e8) + tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(x * -1e8) + tf.reduce_sum(x * 3.0)
    return tape.gradient(y, x)


def operations():
    graph = tf.function(gradient).get_concrete_function(tf.TensorSpec([4], tf.float32)).graph
    return [operation.type for operation in graph.get_operations()]


def test_gradients_of_what_is_used_often_are_added_one_after_the_other(in_order):
    assert "AddN" not in operations() and operations().count("AddV2") >= 3
    # Which would make one of every chain of additions.
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is False


def test_by_itself_tensorflow_uses_addn():
    assert "AddN" in operations()


def test_binary_losses_have_such_a_tensor():
    """Which is why two classes once had other bits on two workers: the logit is used three times."""
    with tf.Graph().as_default() as graph:
        logits = tf.compat.v1.placeholder(tf.float32, [4])
        loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.ones([4]), logits)
        tf.gradients(loss, logits)
    assert any(len(node.inputs) > 2 for node in graph.get_operations() if node.type == "AddN")


def test_the_norm_is_tensorflows():
    tensors = [tf.constant(np.random.default_rng(n).standard_normal(50 + n), tf.float32) for n in range(7)]
    assert float(global_norm(tensors)) == pytest.approx(float(tf.linalg.global_norm(tensors)), rel=1e-6)
