"""Sums in one fixed order: without TensorFlow's AddN, whose last bit depends on what else has run."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop
from tensorflow.python.ops import gradients_util

from distributed.gradients.aggregation import add_in_order, global_norm


def add_as_tensorflow_does():
    importlib.reload(gradients_util)
    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})


@pytest.fixture
def in_order():
    add_in_order()
    yield
    add_as_tensorflow_does()


@pytest.fixture
def by_itself():
    """Other tests of this process may have trained deterministically."""
    add_as_tensorflow_does()


def often(x):
    return tf.reduce_sum(x * 1e8) + tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(x * -1e8) + tf.reduce_sum(x * 3.0)


def gradient(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = often(x)
    return tape.gradient(y, x)


def operations():
    graph = tf.function(gradient).get_concrete_function(tf.TensorSpec([4], tf.float32)).graph
    return [operation.type for operation in graph.get_operations()]


def test_gradients_of_what_is_used_often_are_added_one_after_the_other(in_order):
    assert "AddN" not in operations() and operations().count("AddV2") >= 3
    # Which would make one of every chain of additions.
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is False


def graphs(nested):
    """All operations, also of functions, of the gradient of what is used often within a function, condition or loop."""
    within = {
        "function": lambda x: tf.function(often)(x),
        "condition": lambda x: tf.cond(x[0] > 0, lambda: often(x), lambda: 0.0),
        "loop": lambda x: tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, y + often(x)), (0, 0.0))[1],
    }

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = within[nested](x)
        return tape.gradient(y, x)

    graph = tf.function(slope).get_concrete_function(tf.TensorSpec([4], tf.float32)).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return [node.op for node in nodes]


@pytest.mark.parametrize("nested", ["function", "condition", "loop"])
def test_so_they_are_within_functions_conditions_and_loops(in_order, nested):
    assert "AddN" not in graphs(nested) and graphs(nested).count("AddV2") >= 2


def test_by_itself_tensorflow_uses_addn(by_itself):
    assert "AddN" in operations()
    assert all("AddN" in graphs(nested) for nested in ("function", "condition", "loop"))


def test_binary_losses_have_such_a_tensor(by_itself):
    """Which is why two classes once had other bits on two workers: the logit is used three times."""
    with tf.Graph().as_default() as graph:
        logits = tf.compat.v1.placeholder(tf.float32, [4])
        loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.ones([4]), logits)
        tf.gradients(loss, logits)
    assert any(len(node.inputs) > 2 for node in graph.get_operations() if node.type == "AddN")


def test_the_norm_is_tensorflows():
    tensors = [tf.constant(np.random.default_rng(n).standard_normal(50 + n), tf.float32) for n in range(7)]
    assert float(global_norm(tensors)) == pytest.approx(float(tf.linalg.global_norm(tensors)), rel=1e-6)
