"""How gradients of dense layers travel in this run: measured once per set of workers, chosen, said aloud, kept."""

import contextlib
import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import tensorflow as tf

from distributed.gradients import cost_model
from distributed.gradients.calibration import calibrate
from distributed.gradients.cost_model import Calibration, Choice, Line, Rest
from distributed.gradients.dense_layers import dense_layers, graph_nodes
from distributed.gradients.tensor_parallel import find_pair
from distributed.optimization.regularization import Penalties
from distributed.strategies import Strategy
from launch.job.config import TrainConfig
from launch.job.preparation import optimizers
from launch.job.preparation.batch_plan import BatchPlan

FILE = "exchange.json"


@dataclass(frozen=True)
class Measured:
    """A measurement, and the set of workers that it holds for, as a JSON value."""

    workers: dict
    calibration: Calibration


def measure(config: TrainConfig, strategy: Strategy, directory: Path, threads: int) -> Measured | None:
    """Measure what ``--exchange auto`` decides by, or read what ``directory/exchange.json`` has of these workers.

    Returns:
        None where nothing is to be measured: one process, the GPUs of one host, a choice by flag, or
        ``--deterministic``, since a choice that hangs on a measurement would not be the same in every run.
    """
    decided = strategy.shares_memory or config.exchange != "auto" or config.deterministic
    if decided or _on_gpus_of_one_host(strategy):
        return None
    workers = {"hosts": strategy.control.gather(strategy.world.host), "threads": threads, "dtype": config.precision}
    kept = strategy.control.agree(_read(directory / FILE, workers) if strategy.is_chief else None)
    if kept is not None:
        lines = {name: Line(**kept[name]) for name in ("reduce", "gather", "multiply")}
        return Measured(workers, Calibration(**lines, overlap=kept["overlap"]))
    return Measured(workers, calibrate(strategy, config.precision))


def choose(
    config: TrainConfig,
    plan: BatchPlan,
    strategy: Strategy,
    network: keras.Model,
    pair: tuple | None,
    calibration: Calibration | None,
) -> dict[str, Choice]:
    """Dense layer's name -> how its gradient travels.

    Args:
        pair: what ``find_split`` has found.
    """
    exchange, dense = config.exchange, dense_layers(network)
    names = {id(layer): name for name, layer in dense.items()}
    if not config.exact and plan.replicas > 1:
        # In one memory summing costs less than multiplying for all of them.
        if exchange in ("auto", "split") and strategy.shares_memory:
            exchange = "allreduce"
        if exchange == "auto" and _on_gpus_of_one_host(strategy):
            exchange = "allreduce"
    kernels = {id(layer.kernel) for layer in dense.values()}
    numbers = sum(math.prod(it.shape) for it in network.trainable_variables if id(it) not in kernels)
    backward = 0.0
    if calibration is not None:
        # Two products for each of the forward pass, by the rate of those that were measured.
        examples = plan.global_batch / plan.replicas
        backward = 2 * multiplications(network, kernels) * examples * calibration.multiply.per_unit
    return cost_model.choose(
        {name: tuple(layer.kernel.shape) for name, layer in dense.items()},
        exchange=exchange,
        global_batch=plan.global_batch,
        replicas=plan.replicas,
        item_bytes=4 if config.precision == "float32" else 2,
        calibration=calibration,
        pair=pair and (names[id(pair[0])], names[id(pair[1])]),
        gather_every=min(filter(None, (plan.steps_per_epoch, config.checkpoint_every_steps, config.check_replicas))),
        rest=Rest(numbers, backward),
    )


def find_split(
    config: TrainConfig, plan: BatchPlan, strategy: Strategy, network: keras.Model, penalties: Penalties
) -> tuple | None:
    """The two dense layers that this run may divide between its workers, and the dropout between them; or None."""
    if obstacle(config, plan, strategy, penalties):
        return None
    return find_pair(graph_nodes(network), [*dense_layers(network).values()], plan.replicas)


def obstacle(config: TrainConfig, plan: BatchPlan, strategy: Strategy, penalties: Penalties) -> str | None:
    """Why no layers of any network may be divided between this run's workers, in words; None where they may."""
    if strategy.shares_memory:
        return "all replicas are in one process"
    if config.exact:
        return "--deterministic with --micro-batch-size asks for the same bits on any number of workers"
    if config.precision != "float32":
        # Sums of half-precision products would be rounded once more than one worker rounds them.
        return f"--precision {config.precision} would round sums of products once more than one worker does"
    if plan.accumulate > 1:
        return f"each replica takes its examples in {plan.accumulate} micro-batches"
    if config.optimizer in optimizers.UNDIVIDED:
        return f"--optimizer {config.optimizer} needs the whole of a layer for its step"
    return None if penalties.divisible else "a regularizer of the network is neither L1 nor L2"


def why_not_split(
    config: TrainConfig, plan: BatchPlan, strategy: Strategy, network: keras.Model, may_split: bool
) -> str:
    """Why ``--exchange split`` has split nothing, in words."""
    if not may_split:
        return "callbacks may look at weights in mid-epoch"
    penalties = Penalties(network.trainable_variables, config.l1, config.l2)
    return obstacle(config, plan, strategy, penalties) or (
        "there are no two dense layers in a row that train without constraints, with nothing but dropout and an "
        f"activation such as relu between them, and a number of units that {plan.replicas} workers can share out evenly"
    )


def multiplications(network: keras.Model, without: Collection[int]) -> int:
    """How often a forward pass multiplies for one example by kernels that are trained, but for those whose ids are in
    ``without``: each number of a kernel is used once for each place of the output.  What is frozen has hardly a
    backward pass."""
    trained, total = {id(variable) for variable in network.trainable_variables} - set(without), 0
    for node in graph_nodes(network):
        kernel = getattr(node.operation, "kernel", None)
        if id(kernel) in trained:
            shape = node.outputs[0].shape
            channels_first = getattr(node.operation, "data_format", None) == "channels_first"
            places = shape[2:] if channels_first else shape[1:-1]
            total += math.prod(place or 1 for place in places) * math.prod(kernel.shape)
    return total


def _on_gpus_of_one_host(strategy: Strategy) -> bool:
    """Whether all replicas are GPUs side by side: they sum faster than they would multiply for each other.  That is a
    rule, not a measurement, until the measurement has been seen on such a machine."""
    world = strategy.world
    return world.size == world.local_size and bool(tf.config.get_visible_devices("GPU"))


def keep(measured: Measured | None, directory: Path) -> None:
    """Leave the measurement in ``directory`` for the next run; call it on the chief."""
    # It only saves a second: a folder that cannot be written is not this file's to complain about.
    with contextlib.suppress(OSError):
        if measured is not None:
            (directory / FILE).write_text(json.dumps(asdict(measured), indent=1) + "\n")


def sentence(choices: dict[str, Choice]) -> str:
    """Who travels how, and the bytes per step."""
    if not choices:
        return "exchange: all gradients summed; there is no dense layer to train"
    ways = []
    for scheme, words in (("split", "split between the workers"), ("factors", "by factors"), ("allreduce", "summed")):
        if names := [name for name, choice in choices.items() if choice.scheme == scheme]:
            ways.append(f"{', '.join(names)} {words}")
    used, summed = (
        sum(getattr(choice, field) for choice in choices.values()) / 1e6 for field in ("bytes", "allreduce_bytes")
    )
    return (
        f"exchange: {'; '.join(ways)}; {used:,.1f} MB per step and replica for dense layers "
        f"instead of {summed:,.1f} MB all summed"
    )


def _read(path: Path, workers: dict) -> dict | None:
    try:
        kept = json.loads(path.read_text())
        calibration = kept["calibration"]
        # Without an overlap it was measured by an older Lockstep, which timed copies of results as well.
        return calibration if kept["workers"] == workers and "overlap" in calibration else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
