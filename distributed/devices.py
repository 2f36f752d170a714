"""Choose the way to run, and give this process its device and its share of the cores."""

import tensorflow as tf

from distributed.strategies import Horovod, Mirrored, SingleDevice, Strategy
from distributed.world import World, WorldError


def create_strategy(name: str, world: World, *, cpu_devices: int | None, threads: int, exact: bool = False) -> Strategy:
    """Create the strategy of that name; must be called before anything touches a device.

    Args:
        name: ``auto``, ``single``, ``mirrored`` or ``horovod``. ``auto`` takes ``horovod`` if the launcher began
            several processes, ``mirrored`` if this process sees several GPUs (or ``cpu_devices`` were asked for), else
            ``single``.
        world: this process's place.
        cpu_devices: how many devices to split the CPU into for ``mirrored``; None leaves the CPU whole.
        threads: cores that this process may use.
        exact: compute each operation on one core, as its result may depend on how many share it.

    Raises:
        WorldError: if the choice does not fit the launcher or the machine.
    """
    gpus = _visible_gpus()
    if name == "auto":
        name = "horovod" if world.size > 1 else "mirrored" if cpu_devices or len(gpus) > 1 else "single"
    if world.size > 1 and name != "horovod":
        raise WorldError(
            f"strategy {name} runs in one process, but {world.launcher} started {world.size} ({world.seen}); "
            "use --strategy horovod or auto, or start it with plain python"
        )
    if cpu_devices and name != "mirrored":
        raise WorldError(
            f"--cpu-devices {cpu_devices} splits the CPU for mirrored, but the strategy is {name}; "
            "use --strategy mirrored"
        )
    tf.config.threading.set_intra_op_parallelism_threads(1 if exact else threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, threads) if name == "mirrored" else threads)
    if name == "mirrored":
        return Mirrored(world, _mirrored_devices(gpus, cpu_devices))
    # A scheduler that shows each task only its own GPU leaves one to choose from.
    mine = gpus[world.local_rank % len(gpus) :][:1] if gpus else []
    if len(gpus) > 1 and world.local_size > len(gpus):
        raise WorldError(
            f"{world.local_size} processes on {world.host} share {len(gpus)} GPUs; start at most one process per GPU"
        )
    tf.config.set_visible_devices(mine, "GPU")
    return Horovod(world) if name == "horovod" else SingleDevice(world)


def _visible_gpus() -> list:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Take GPU memory as it is needed, so that several processes can share a device for evaluation.
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def _mirrored_devices(gpus: list, cpu_devices: int | None) -> list[str]:
    if cpu_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_devices)
        return [f"CPU:{index}" for index in range(cpu_devices)]
    if not gpus:
        raise WorldError(
            "strategy mirrored found no GPU; "
            "add --cpu-devices N to split the CPU in N devices, or use --strategy single"
        )
    return [f"GPU:{index}" for index in range(len(gpus))]
