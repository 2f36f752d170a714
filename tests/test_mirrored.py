"""MirroredStrategy's exchange by TensorFlow's collectives, as on GPUs; on CPUs it copies, see ``strategies.py``."""

import sys

from conftest import ROOT, run_command

# Two devices are a process's own affair.
PACKS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import tensorflow as tf
from tensorflow.python.distribute import collective_util, cross_device_ops, cross_device_utils
from distributed.collectives import BUCKET
from distributed.strategies import Mirrored
from distributed.world import World

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
mirrored = Mirrored(World(), ["CPU:0", "CPU:1"])
mirrored._strategy.extended._cross_device_ops = cross_device_ops.CollectiveAllReduce(
    devices=("/device:CPU:0", "/device:CPU:1"),
    group_size=2,
    options=collective_util.Options(),
    collective_keys=cross_device_utils.CollectiveKeys(group_key_start=77),
)
tensors = [tf.fill([BUCKET // 8], float(number)) for number in range(5)]  # of half a pack each
step = tf.function(lambda: mirrored._strategy.run(lambda: mirrored.sum_replicas(tensors)))
operations = step.get_concrete_function().graph.get_operations()
print(len([operation for operation in operations if operation.type.startswith("CollectiveReduce")]))
print([float(total.values[0][0]) for total in step()])
"""


def test_sums_travel_in_packs():
    """So that the last layers' are on their way while the first ones are computed; TensorFlow's own is one pack."""
    done = run_command(sys.executable, "-c", PACKS, KERAS_BACKEND="tensorflow")
    assert done.returncode == 0, done.stderr
    count, totals = done.stdout.splitlines()
    assert int(count) == 4, "two packs of each of two replicas"
    assert totals == str([0.0, 2.0, 4.0, 6.0, 8.0])
