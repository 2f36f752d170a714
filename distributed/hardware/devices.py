"""Choose the way to run, give this process its device and its share of the cores, and compare all workers' devices."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict

import tensorflow as tf

from distributed import control
from distributed.hardware import cuda, placement
from distributed.strategies import Horovod, Mirrored, SingleDevice, Strategy
from distributed.world import World, WorldError


def create_strategy(
    name: str, world: World, *, cpu_devices: int | None, threads: int, exact: bool = False, cpu: bool = False
) -> Strategy:
    """Create the strategy of that name; must be called before anything touches a device.

    Args:
        name: ``auto``, ``single``, ``mirrored`` or ``horovod``. ``auto`` takes ``horovod`` if the launcher began
            several processes, ``mirrored`` if this process sees several GPUs (or ``cpu_devices`` were asked for), else
            ``single``.
        world: this process's place.
        cpu_devices: how many devices to split the CPU into for ``mirrored``; None leaves the CPU whole.
        threads: cores that this process may use.
        exact: compute each operation on one core, as its result may depend on how many share it.
        cpu: compute on the CPU, also where there is a GPU.

    Raises:
        WorldError: if the choice does not fit the launcher or the machine.
    """
    if cpu:
        _set(tf.config.set_visible_devices, [], "GPU")
    gpus = [] if cpu else _visible_gpus()
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
    _set_threads(1 if exact else threads, max(2, threads) if name == "mirrored" else threads, needed=exact)
    if name == "mirrored":
        return Mirrored(world, _mirrored_devices(gpus, cpu_devices))
    place = placement.choose_gpu(world.local_rank, len(gpus))
    _set(tf.config.set_visible_devices, [] if place is None else gpus[place], "GPU")
    # TensorFlow counts those that are visible.
    device = None if place is None else "/device:GPU:0"
    return Horovod(world, device) if name == "horovod" else SingleDevice(world, device)


def check_devices(strategy: Strategy, *, cpu: bool) -> None:
    """See that each worker has a device of its own, and all have one kind of device, before any of them is used.

    NCCL would refuse two ranks on one card at length; a rank on the CPU would let all others wait for it.

    Args:
        cpu: whether the CPU is meant, also where there is a GPU.

    Raises:
        WorldError: on all workers.
    """
    mine = cards_in_use()

    def look():
        if not mine and not cpu and (problem := cuda.why_no_gpu(os.environ)):
            raise WorldError(problem)
        if len(kinds := {kind_of_device([card]) for card in mine}) > 1:
            raise WorldError(
                f"the GPUs of this process are of different kinds ({', '.join(sorted(kinds))}); "
                "choose those of one kind with CUDA_VISIBLE_DEVICES"
            )

    control.together(strategy.control, (WorldError,), look)
    control.check_agreement(strategy.control, {"device": kind_of_device(mine)})
    card = asdict(mine[0]) if mine and strategy.world.size > 1 else None
    if problem := placement.shared_cards(strategy.control.gather({"host": strategy.world.host, "card": card})):
        raise WorldError(problem)


def cards_in_use() -> list[cuda.Card]:
    """The GPUs on which this process computes."""
    visible = tf.config.get_visible_devices("GPU")
    found = cuda.cards() if visible else []
    # The number in TensorFlow's name is CUDA's.
    return [found[int(gpu.name.rpartition(":")[2])] for gpu in visible]


def kind_of_device(cards: list[cuda.Card]) -> str:
    """The kind of the first card, in words, or CPU."""
    return f"{cards[0].name} (compute capability {cards[0].capability})" if cards else "CPU"


def _set(setter: Callable, *values) -> None:
    """Set what TensorFlow takes only before it computes anything.

    Raises:
        WorldError: it has computed, with other settings.
    """
    try:
        setter(*values)
    except RuntimeError as error:
        raise WorldError(
            f"TensorFlow has computed in this process before, so that its devices and threads cannot be chosen any "
            f"more ({str(error).rstrip('.')}); call train before anything else that uses Keras or TensorFlow, or in a "
            "new process"
        ) from error


def _set_threads(of_an_operation: int, operations: int, *, needed: bool) -> None:
    """How many threads share an operation, and how many operations are computed at once; where results do not hang on
    the former, TensorFlow may keep what it has."""
    threading = tf.config.threading
    with contextlib.nullcontext() if needed else contextlib.suppress(WorldError):
        _set(threading.set_intra_op_parallelism_threads, of_an_operation)
    with contextlib.suppress(WorldError):
        _set(threading.set_inter_op_parallelism_threads, operations)


def _visible_gpus() -> list:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Take GPU memory as it is needed, so that several processes can share a device for evaluation.
        _set(tf.config.experimental.set_memory_growth, gpu, True)
    return gpus


def _mirrored_devices(gpus: list, cpu_devices: int | None) -> list[str]:
    if cpu_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        _set(tf.config.set_logical_device_configuration, cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_devices)
        return [f"CPU:{index}" for index in range(cpu_devices)]
    if not gpus:
        raise WorldError(
            cuda.why_no_gpu(os.environ)
            or "strategy mirrored found no GPU; "
            "add --cpu-devices N to split the CPU in N devices, or use --strategy single"
        )
    return [f"GPU:{index}" for index in range(len(gpus))]
