"""A converted batch normalisation on the replicas of this run: python tests/helpers/norms.py FOLDER DEVICES.

FOLDER/given.npz holds ``inputs`` and ``upstream`` gradients [b, ...], of which each replica takes its part in order.
Each leaves what came of it as FOLDER/REPLICA.npz.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


def layer(axis):
    """The layer under test, with weights that are not those of the beginning."""
    import keras

    made = keras.layers.BatchNormalization(axis=axis, momentum=0.9, epsilon=1e-5, beta_initializer="ones")
    made.gamma_initializer = keras.initializers.Constant(1.5)
    return made


def main(folder: Path, devices: int) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    from distributed.layers.batch_norm import MovingStatistics
    from distributed.layers.convert import batch_norm_layers, convert
    from distributed.step_context import enter
    from distributed.strategies import Horovod, Mirrored
    from distributed.world import World

    world = World.from_environment(os.environ)
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, devices * [tf.config.LogicalDeviceConfiguration()])
        strategy = Mirrored(world, [f"cpu:{number}" for number in range(devices)])
    else:
        strategy = Horovod(world)
    given = dict(np.load(folder / "given.npz"))
    axis = int(given.pop("axis"))
    with strategy.scope():
        norm = layer(axis)
        network = keras.Sequential([keras.Input(given["inputs"].shape[1:]), norm])
        convert(network, 0, strategy=strategy)
        moving = MovingStatistics(batch_norm_layers(network))

    def step(inputs, upstream):
        with enter(tf.constant(0, tf.int64), tf.range(inputs.shape[0])) as context, tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = network(inputs, training=True)
            loss = tf.reduce_sum(outputs * upstream)
        weights = [variable.value for variable in network.trainable_variables]
        gradients = tape.gradient(loss, [inputs, *weights])
        (rows,) = strategy.gather_replicas([moving.row(context)])
        return [outputs, gradients[0], *strategy.sum_replicas(gradients[1:]), *moving.moved(rows)]

    def part(name, replica):
        return tf.constant(np.split(given[name], strategy.replicas)[replica])

    names = ("outputs", "inputs_gradient", "gamma_gradient", "beta_gradient", "mean", "variance")
    if devices > 1:
        mirrored = strategy._strategy
        parts = [
            mirrored.experimental_distribute_values_from_function(
                lambda context, name=name: part(name, context.replica_id_in_sync_group)
            )
            for name in ("inputs", "upstream")
        ]
        found = tf.function(lambda *given: mirrored.run(step, given))(*parts)
        columns = [mirrored.experimental_local_results(values) for values in found]
    else:
        columns = [[value] for value in tf.function(step)(part("inputs", world.rank), part("upstream", world.rank))]
    for number, row in enumerate(zip(*columns, strict=True)):
        arrays = [value.numpy() for value in row]
        np.savez(folder / f"{world.rank + number}.npz", **dict(zip(names, arrays, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
