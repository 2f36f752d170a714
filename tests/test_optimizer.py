"""One step of all replicas: reduce, unscale, clip, decay, apply, against numpy in float64; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from distributed.optimization import optimizer as module
from distributed.optimization.optimizer import INITIAL_LOSS_SCALE, synchronize

NAN, INF = float("nan"), float("inf")
CLASSES = ("SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lamb", "Lion")
GOOD = [[0.1, -0.2], [0.3]]
GRAPHS = {}


def of_others(*gradients):
    """A sum over replicas, of which the others hold these gradients and a loss of 0."""
    return lambda tensors, _: [tensor + other for tensor, other in zip(tensors, [*gradients, 0.0], strict=True)]


def of_three(tensors, _):
    return [3 * tensor for tensor in tensors]


def alone(tensors, _):
    return list(tensors)


def make(weights=((1.0, 2.0), (3.0,)), name="SGD", *, sum_replicas=alone, clip=None, scaled=False, **settings):
    settings = {"learning_rate": 0.1} | settings
    cls = getattr(keras.optimizers, name)
    variables = [keras.Variable(np.float32(weight)) for weight in weights]
    optimizer = synchronize(cls, settings, variables, sum_replicas=sum_replicas, clip_norm=clip, scaled=scaled)
    return optimizer, variables


def step(optimizer, variables, gradients, losses=(0.0,)):
    """Take a step in a graph, as ``fit`` does; gradients are those of the unscaled loss."""

    if id(optimizer) not in GRAPHS:
        scale = optimizer.scale_loss
        GRAPHS[id(optimizer)] = tf.function(
            lambda given, losses: optimizer.step([*map(scale, given)], variables, losses)
        )
    gradients = [tf.constant(gradient, tf.float32) for gradient in gradients]
    report, halted, _ = GRAPHS[id(optimizer)](gradients, tf.constant(losses, tf.float32))
    return report.numpy().tolist(), int(halted)


def values(variables):
    return [np.asarray(variable).tolist() for variable in variables]


def reference(weights, steps, *, replicas, rate, momentum=0.0, clip=None, weight_decay=0.0):
    """SGD in float64: sum over replicas, clip by the global norm, decoupled decay, momentum."""
    weights = [np.float64(weight) for weight in weights]
    velocity = [np.zeros_like(weight) for weight in weights]
    for gradients in steps:
        gradients = [replicas * np.float64(gradient) for gradient in gradients]
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
        factor = min(1.0, clip / norm) if clip else 1.0
        for index, gradient in enumerate(gradients):
            weights[index] = weights[index] - rate * weight_decay * weights[index]
            velocity[index] = momentum * velocity[index] - rate * factor * gradient
            weights[index] = weights[index] + velocity[index]
    return weights


ALL = {"momentum": 0.9, "clip": 2.0, "weight_decay": 0.2}
SETTINGS = ({}, ALL, *({name: value} for name, value in ALL.items()))


@pytest.mark.parametrize("scaled", (False, True))
@pytest.mark.parametrize("settings", SETTINGS)
def test_sgd_is_the_reference(scaled, settings):
    weights = [np.random.default_rng(0).normal(size=size) for size in ((3, 2), (4,))]
    generator = np.random.default_rng(1)
    # Gradients small and large, so that the clip acts on some steps only.
    steps = [[size * generator.normal(size=weight.shape) for weight in weights] for size in (0.05, 1.0, 30.0, 0.2)]
    expected = reference(weights, steps, replicas=3, rate=0.1, **settings)
    optimizer, variables = make(weights, sum_replicas=of_three, scaled=scaled, **settings)
    for gradients in steps:
        assert step(optimizer, variables, gradients) == ([0.0], 0)
    for variable, weight in zip(variables, expected, strict=True):
        assert np.asarray(variable) == pytest.approx(weight, rel=2e-5, abs=1e-6)
    assert int(optimizer.iterations) == len(steps)


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in CLASSES), ("SGD", {"momentum": 0.9, "nesterov": True})]
)
def test_without_anything_to_do_a_step_is_kerass(name, settings):
    ours, mine = make(name=name, weight_decay=0.01, **settings)
    plain = getattr(keras.optimizers, name)(learning_rate=0.1, weight_decay=0.01, **settings)
    theirs = [keras.Variable(np.float32(weight)) for weight in ((1.0, 2.0), (3.0,))]
    for gradients in ([[0.1, -2.0], [3.0]], [[0.3, 1.0], [-0.5]]):
        step(ours, mine, gradients)
        plain.apply([tf.constant(gradient) for gradient in gradients], theirs)
    assert values(mine) == [pytest.approx(value, rel=1e-6) for value in values(theirs)]


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_saved_names_kerass_class(name):
    optimizer, _ = make(name=name)
    theirs = getattr(keras.optimizers, name)
    assert (type(optimizer).__name__, type(optimizer).__module__) == (theirs.__name__, theirs.__module__)
    saved = keras.optimizers.serialize(optimizer)
    assert saved["config"] == theirs(learning_rate=0.1, name=optimizer.name).get_config()
    # Keras has no way back for its own Lamb.
    assert name == "Lamb" or type(keras.optimizers.deserialize(saved)) is theirs


# Each clipped by itself, they would cancel; and a sum within the norm stays what it is.
@pytest.mark.parametrize(("others", "moved"), ((-99.0, -1.0), (-99.5, -0.5), (100.0, -1.0), (-200.0, 1.0)))
def test_the_clip_acts_on_the_sum_over_replicas(others, moved):
    optimizer, (weight,) = make([0.0], sum_replicas=of_others(others), clip=1.0, learning_rate=1.0)
    step(optimizer, [weight], [100.0])
    assert float(weight) == moved


def test_the_clip_takes_all_variables_together_and_the_decay_comes_after_it():
    optimizer, variables = make([[3.0], [4.0]], clip=1.0, learning_rate=1.0, weight_decay=0.5)
    step(optimizer, variables, [[3.0], [4.0]])
    assert values(variables) == [pytest.approx([1.5 - 0.6]), pytest.approx([2.0 - 0.8])]


def test_the_report_is_summed_over_the_replicas():
    optimizer, variables = make(sum_replicas=of_three)
    assert step(optimizer, variables, [[0.0, 0.0], [0.0]], losses=[0.5, 0.0, 0.25]) == ([1.5, 0.0, 0.75], 0)


def state(optimizer, variables):
    """Weights, slots and iterations."""
    ours = {id(optimizer.loss_scale), id(optimizer.good_steps), id(optimizer.halted)}
    return values(variables), values([variable for variable in optimizer.variables if id(variable) not in ours])


@pytest.mark.parametrize("clip", (None, 1.0))
@pytest.mark.parametrize("name", ("SGD", "Adam"))
@pytest.mark.parametrize(
    ("gradients", "losses", "scaled"),
    (
        ([[0.1, NAN], [0.3]], [0.0], False),
        ([[0.1, 0.2], [-INF]], [0.0], False),
        (GOOD, [0.5, NAN], False),
        (GOOD, [INF, 0.5], True),
        ([[0.1, NAN], [0.3]], [0.5, NAN], True),
    ),
)
def test_what_is_not_finite_changes_nothing_and_halts_for_good(gradients, losses, scaled, name, clip):
    settings = {"momentum": 0.9} if name == "SGD" else {}
    optimizer, variables = make(name=name, clip=clip, scaled=scaled, weight_decay=0.1, **settings)
    assert step(optimizer, variables, GOOD) == ([0.0], 0)
    before = state(optimizer, variables)
    assert step(optimizer, variables, gradients, losses)[1] == 1
    assert state(optimizer, variables) == before
    assert [step(optimizer, variables, GOOD) for _ in range(3)] == [([0.0], 1)] * 3
    assert state(optimizer, variables) == before and int(optimizer.iterations) == 1


def test_a_bad_gradient_of_another_replica_halts_this_one_too():
    optimizer, variables = make(sum_replicas=of_others([0.0, 0.0], [NAN]))
    before = state(optimizer, variables)
    assert step(optimizer, variables, GOOD)[1] == 1 and state(optimizer, variables) == before


def test_float16_halves_the_scale_on_overflow_and_goes_on():
    optimizer, variables = make(scaled=True, momentum=0.9)
    step(optimizer, variables, GOOD)
    before = state(optimizer, variables)
    for halvings in (1, 2, 3):
        assert step(optimizer, variables, [[INF, 0.0], [NAN]]) == ([0.0], 0)
        assert float(optimizer.loss_scale) == INITIAL_LOSS_SCALE / 2**halvings
    assert state(optimizer, variables) == before and int(optimizer.good_steps) == 0
    assert step(optimizer, variables, GOOD) == ([0.0], 0) and state(optimizer, variables) != before


def test_float16_doubles_the_scale_after_enough_good_steps_in_a_row(monkeypatch):
    monkeypatch.setattr(module, "GROWTH_INTERVAL", 3)
    optimizer, variables = make(scaled=True)
    scales = []
    for gradients in (GOOD, GOOD, [[INF, 0.0], [0.0]], GOOD, GOOD, GOOD, GOOD, GOOD, GOOD):
        step(optimizer, variables, gradients)
        scales.append(float(optimizer.loss_scale) / INITIAL_LOSS_SCALE)
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 1, 1, 2]


def test_float16_gives_up_where_no_scale_helps():
    optimizer, variables = make(scaled=True)
    assert [step(optimizer, variables, [[INF, 0.0], [0.0]])[1] for _ in range(17)] == [0] * 16 + [1]  # 2**15, ..., 1


MIRRORED = """
import json, keras, numpy as np, tensorflow as tf
from distributed.optimization.optimizer import synchronize
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
def sum_replicas(tensors, _):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
def run(steps, scaled=False, **settings):
    settings = {"learning_rate": 1.0} | settings
    with strategy.scope():
        weight = keras.Variable(0.0)
        optimizer = synchronize(
            keras.optimizers.SGD, settings, [weight], sum_replicas=sum_replicas, clip_norm=1.0, scaled=scaled
        )
    @tf.function
    def step(gradients, losses):
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            report = tf.where(tf.one_hot(index, 2) > 0, losses, tf.zeros(2))
            return optimizer.step([optimizer.scale_loss(gradients[index])], [weight], report)
        return strategy.run(replica)
    trace = []
    for gradients, losses in steps:
        report, halted, _ = step(tf.constant(gradients), tf.constant(losses))
        halted = [int(value) for value in strategy.experimental_local_results(halted)]
        copies = [float(value) for value in strategy.experimental_local_results(weight.value)]
        assert len(copies) == 2 and len({*copies}) == 1 and len({*halted}) == 1
        iterations, scale = (np.asarray(variable).item() for variable in (optimizer.iterations, optimizer.loss_scale))
        trace.append([copies[0], halted[0], iterations, scale])
    return trace
nan, inf, fine = float("nan"), float("inf"), [0.5, 0.5]
print(json.dumps({
    "clip": run([([100.0, -99.0], fine), ([100.0, -99.75], fine)]),
    "momentum": run([([1.0, 0.0], fine)] * 2, momentum=0.5, weight_decay=0.5),
    "gradient": run([([0.5, 0.0], fine), ([0.0, nan], fine), ([0.5, 0.0], fine)]),
    "loss": run([([0.5, 0.0], [0.5, nan]), ([0.5, 0.0], fine)]),
    "overflow": run([([0.5, 0.0], fine), ([0.0, inf], fine), ([0.25, 0.0], fine)], scaled=True),
}))
"""


# [weight, halted, iterations, loss scale] after each step
TRACES = {
    "clip": [[-1.0, 0, 1, 1.0], [-1.25, 0, 2, 1.0]],
    "momentum": [[-1.0, 0, 1, 1.0], [-2.0, 0, 2, 1.0]],
    "gradient": [[-0.5, 0, 1, 1.0], [-0.5, 1, 1, 1.0], [-0.5, 1, 1, 1.0]],
    "loss": [[0.0, 1, 0, 1.0], [0.0, 1, 0, 1.0]],
    "overflow": [[-0.5, 0, 1, 2.0**15], [-0.5, 0, 1, 2.0**14], [-0.75, 0, 2, 2.0**14]],
}


def test_mirrored_replicas_step_as_one():
    """In a process of its own, since a CPU must be split before anything runs on it."""
    root = Path(__file__).parent.parent
    ended = subprocess.run([sys.executable, "-c", MIRRORED], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads(ended.stdout.splitlines()[-1]) == TRACES
