"""The gradient of max pooling is computed by one kernel, whatever the graph looks like around it."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs
from parity import COMMON, EXACT, merged

from distributed.gradients.max_pool import GRADIENTS, POOLING, pool_by_one_kernel


@pytest.fixture
def one_kernel():
    before = GRADIENTS[POOLING]["type"]
    pool_by_one_kernel()
    yield
    GRADIENTS[POOLING]["type"] = before


TENSORFLOWS = GRADIENTS[POOLING]["type"]


def gradient(images, window=3, padding="VALID", data_format="NHWC"):
    with tf.GradientTape() as tape:
        tape.watch(images)
        pooled = tf.nn.max_pool2d(images, window, 2, padding, data_format)
        loss = tf.reduce_sum(tf.sin(pooled))
    return tape.gradient(loss, images)


def windows(images):
    """What overlapping windows of 3, 2 apart, give by plain arithmetic."""
    wanted = np.zeros_like(images)
    for place in np.ndindex(images.shape[0], (images.shape[1] - 1) // 2, (images.shape[2] - 1) // 2, images.shape[3]):
        example, row, column, channel = place
        window = images[example, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3, channel]
        at = np.unravel_index(window.argmax(), window.shape)
        wanted[example, 2 * row + at[0], 2 * column + at[1], channel] += np.cos(window[at])
    return wanted


def test_overlapping_windows_add_up(one_kernel):
    images = np.random.default_rng(0).standard_normal((2, 9, 7, 3))
    found = tf.function(gradient)(tf.constant(images, tf.float32))
    np.testing.assert_allclose(found, windows(images.astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", [(3, "SAME"), (2, "VALID"), (3, [[0, 0], [1, 1], [1, 0], [0, 0]])])
def test_it_is_tensorflows(one_kernel, settings, dtype):
    images = tf.cast(np.random.default_rng(1).standard_normal((2, 9, 7, 3)), dtype)
    found = [tf.function(gradient)(images, *settings).numpy(), gradient(images, *settings).numpy()]
    GRADIENTS[POOLING]["type"] = TENSORFLOWS
    for values in found:
        np.testing.assert_array_equal(values, tf.function(gradient)(images, *settings).numpy())


def test_a_loop_calls_it_and_does_not_hold_it(one_kernel):
    def loop(images):
        return tf.while_loop(lambda index, _: index < 3, lambda index, x: (index + 1, gradient(x)), (0, images))

    traced = tf.function(loop, autograph=False).get_concrete_function(tf.TensorSpec([2, 9, 9, 3], tf.float32))
    functions = traced.graph.as_graph_def().library.function
    (body,) = [one for one in functions if "body" in one.signature.name]
    assert any(node.op == "MaxPool" for node in body.node_def)
    assert all(node.op != "MaxPoolGrad" for node in body.node_def)
    called = {node.attr["f"].func.name for node in body.node_def if node.op == "PartitionedCall"}
    (holder,) = [one for one in functions if one.signature.name in called]
    assert [node.op for node in holder.node_def if node.op.startswith("MaxPool")] == ["MaxPool", "MaxPoolGrad"]
    assert holder.attr["_noinline"].b


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_many_runs_on_more_ranks_than_cores_have_the_same_bits(tmp_path, tiny_data):
    """About one graph in a hundred once had the other kernel, which is one run in ten to thirty: three times in four or
    more one of so many shows it."""
    line = merged(COMMON.split(), [*EXACT["exact_steps_auto"].split(), "--data-dir", tiny_data])
    jobs = {f"run{number}": line for number in range(40)}
    assert set(run_jobs(tmp_path / "runs", jobs, "horovodrun", "-np", "4", timeout=880).values()) == {0}
    digests = {json.loads((tmp_path / "runs" / name / "summary.json").read_text())["weights_sha256"] for name in jobs}
    assert len(digests) == 1, digests
