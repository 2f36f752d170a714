"""How often the host is in the way: what it reads, runs and assigns per optimizer step, counted and not timed."""

import json
from collections import Counter
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from conftest import BIN, HELPERS, run_command
from host_work import CALLS, Host
from jobs import tiny
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from distributed.strategies import SingleDevice
from distributed.world import World
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.preparation.build import build


@cache
def prepared(precision: str, accumulate: int = 1):
    """A model that has taken its first step, and its batches."""
    config = TrainConfig(
        precision=precision, global_batch_size=4, accumulate_steps=accumulate, momentum=0.9, clip_norm=1.0
    )
    plan = create_batch_plan(config, examples=400, replicas=1)
    model, _ = build(config, plan, SingleDevice(World()), classes=3, image_size=16, own_model=tiny(0.5, 0))
    images, labels = np.zeros((4, 16, 16, 3), np.uint8), np.arange(4, dtype=np.int32) % 3
    batches = iter(tf.data.Dataset.from_tensors((images, labels, np.arange(4))).repeat())
    model.shard()
    model.steps(batches, np.full(1, 0.01))
    return model, batches


def test_a_call_is_one_look_however_many_steps_it_takes():
    model, batches = prepared("float32")
    counts = {}
    for steps in (1, 16):
        with Host() as host:
            model.steps(batches, np.full(steps, 0.01))
        counts[steps] = dict(host.counts)
    assert counts[1] == counts[16]
    assert counts[16]["reads"] == 1 and "assigns" not in counts[16], counts


def test_twice_as_many_steps_between_two_looks_are_no_more_work_for_the_host(tmp_path, tiny_data):
    """The whole program: loop, logs, checkpoint."""
    ended = run_command(BIN / "python", HELPERS / "host_work.py", tmp_path, tiny_data)
    assert ended.returncode == 0, ended.stderr[-3000:]
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["4"] == counts["8"]
    assert counts["8"]["reads"] >= CALLS


@pytest.mark.parametrize("precision", ("float32", "bfloat16", "float16"))
def test_a_step_asks_the_host_once_whether_to_apply_itself(precision):
    """By the one condition of the optimizer (see there), and by nothing else; no Python runs in it."""
    model, _ = prepared(precision)
    functions = model._training.get_concrete_function().graph.as_graph_def().library.function
    nodes = Counter(node.op for function in functions for node in function.node_def)
    conditions = {op: count for op, count in nodes.items() if op in ("If", "StatelessIf", "Case", "StatelessCase")}
    assert conditions == {"If": 1}
    assert not {op for op in nodes if "PyFunc" in op} and nodes["While"] == 0


@pytest.mark.parametrize("accumulate", (1, 2))
def test_labels_that_wait_on_a_gpu_stay_there(accumulate):
    """TensorFlow's kernels for GPUs take some int32 from the host, which would wait for all that the GPU has to do."""
    model, _ = prepared("float32", accumulate)
    functions = model._training.get_concrete_function().graph.as_graph_def().library.function
    (step,) = [function for function in functions if "_train_on" in function.signature.name]
    _, labels, _ = (argument.name for argument in step.signature.input_arg[:3])
    takers = [node for node in step.node_def if labels in node.input]
    assert takers
    for node in takers:
        takes = op_def_registry.get(node.op).input_arg[list(node.input).index(labels)].name
        assert not [kernel for kernel in kernels_for_gpus(node) if takes in kernel.host_memory_arg], node


def kernels_for_gpus(node) -> list:
    """Those of TensorFlow's wheel, which was built for CUDA, for that operation with these types: for GPUs, or for any
    device."""
    return [
        kernel
        for kernel in get_registered_kernels_for_op(node.op).kernel
        if kernel.device_type in ("GPU", "DEFAULT")
        and all(node.attr[c.name].type in c.allowed_values.list.type for c in kernel.constraint)
    ]


@pytest.mark.parametrize("precision", ("float32", "bfloat16", "float16"))
def test_every_operation_of_a_step_has_a_kernel_for_gpus(precision):
    model, _ = prepared(precision)
    functions = model._training.get_concrete_function().graph.as_graph_def().library.function
    # Where one names the CPU, it is meant: the time is stamped there, and nothing is computed.
    on_host = [node for function in functions for node in function.node_def if "CPU" in node.device]
    assert {node.op for node in on_host} <= {"Timestamp", "Pack", "Sub"}, {node.op for node in on_host}
    nodes = [node for function in functions for node in function.node_def if "CPU" not in node.device]
    without = {(node.op, str(dict(node.attr))[:300]) for node in nodes if not kernels_for_gpus(node)}
    assert sorted({op for op, _ in without}) == [], without
