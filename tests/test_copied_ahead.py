"""Batches are copied to the device ahead of the steps that take them; a second device of the CPU stands for a GPU."""

import json
import sys

import pytest
from conftest import HELPERS, run_command
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from distributed.strategies import AHEAD


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the helper has seen: how a CPU is divided is a process's own affair."""
    folder = tmp_path_factory.mktemp("ahead")
    ended = run_command(sys.executable, HELPERS / "copied_ahead.py", folder, KERAS_BACKEND="tensorflow")
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def test_batches_wait_on_the_device_and_are_the_same(found):
    for split in ("training", "validation"):
        for way in ("single", "horovod"):
            assert set(found[split][way]["devices"]) == {"CPU:1"}, (split, way)
            assert found[split][way]["digest"] == found[split]["made"]["digest"]
        assert set(found[split]["made"]["devices"]) == {"CPU:0"}


def test_so_many_wait_there(found):
    assert found["waiting"] == {"CPU:0": 0, "CPU:1": AHEAD}


def test_steps_that_take_them_end_with_the_same_bits(found):
    losses = found["losses"]
    assert len(set(losses["made"])) > 1 and losses["ahead"] == losses["made"]


def test_an_example_that_cannot_be_read_is_the_same_error(found):
    assert found["errors"]["ahead"] == found["errors"]["made"] != "none"


def test_one_process_of_a_gpu_has_it_and_a_cpu_copies_nothing(found):
    assert found["chosen"] == {"a GPU": "/device:GPU:0", "none": None}
    assert found["a CPU gets the very dataset that was made"]


@pytest.mark.parametrize(
    "operation",
    ("GeneratorDataset", "PrefetchDataset", "OptionsDataset", "AnonymousIteratorV3", "MakeIterator", "RemoteCall"),
)
def test_what_copies_has_kernels_for_gpus(operation):
    kinds = {kernel.device_type for kernel in get_registered_kernels_for_op(operation).kernel}
    assert kinds & {"GPU", "DEFAULT"}
