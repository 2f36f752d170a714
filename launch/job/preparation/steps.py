"""By what steps are taken of those layers that train: an optimizer and an exchange, at the beginning and again where
layers thaw."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np

from distributed.gradients.cost_model import Calibration, Choice
from distributed.gradients.reduction import Exchange
from distributed.gradients.tensor_parallel import SplitPair
from distributed.layers import convert
from distributed.layers.batch_norm import MovingStatistics
from distributed.model import LockstepModel
from distributed.optimization.optimizer import LockstepOptimizer, synchronize
from distributed.optimization.regularization import Penalties
from distributed.strategies import Strategy
from launch.job.config import TrainConfig
from launch.job.preparation import exchange as exchanges
from launch.job.preparation import freezing, optimizers
from launch.job.preparation.batch_plan import BatchPlan


class Steps(NamedTuple):
    """What the steps of those layers are taken by that train.

    Attributes:
        choices: by dense layer how its gradient travels.
    """

    optimizer: LockstepOptimizer
    exchange: Exchange
    moving: MovingStatistics | None
    penalties: Penalties
    choices: dict[str, Choice]


def prepare_steps(
    config: TrainConfig,
    plan: BatchPlan,
    strategy: Strategy,
    network: keras.Model,
    calibration: Calibration | None,
    may_split: bool,
) -> Steps:
    """The optimizer and the exchange of the layers of a converted network that train; call it in the strategy's scope,
    arguments as for ``build``."""
    norms = convert.batch_norm_layers(network)
    moving = MovingStatistics(norms) if norms else None
    trained = network.trainable_variables
    penalties = Penalties(trained, config.l1, config.l2)
    pair = exchanges.find_split(config, plan, strategy, network, penalties) if may_split else None
    choices = exchanges.choose(config, plan, strategy, network, pair, calibration)
    schemes = {name: choice.scheme for name, choice in choices.items()}
    split = SplitPair(*pair, strategy) if "split" in schemes.values() else None
    _, over = choose_span(config, strategy)
    exchange = Exchange(
        network,
        strategy,
        schemes,
        exact=config.exact,
        compress=config.compression == "fp16",
        split=split,
        unroll=bool(norms and over and not strategy.exchanges_in_loops),
    )
    optimizer = synchronize(
        optimizers.OPTIMIZERS[config.optimizer],
        optimizers.arguments(config, plan.schedule.base),
        trained,
        sum_replicas=exchange.sum,
        clip_norm=config.clip_norm,
        scaled=config.precision == "float16",
        split=split,
        moving=moving,
        penalties=penalties,
        undecayed=optimizers.undecayed(config, trained),
        rate_factors=freezing.rate_factors(network, config.layer_decay),
    )
    return Steps(optimizer, exchange, moving, penalties, choices)


def thaw(
    config: TrainConfig,
    plan: BatchPlan,
    strategy: Strategy,
    model: LockstepModel,
    calibration: Calibration | None,
    may_split: bool,
) -> dict[str, Choice]:
    """Let the layers train that ``--unfreeze`` names, from the next step on; all workers must call it, at the same
    step, with whole weights (``LockstepModel.gather``).

    What the optimizer knows of the layers that train already stays; for the others it begins from nothing.

    Returns:
        By dense layer how its gradient travels.
    """
    network, before = model.network, {variable.path: variable for variable in model.optimizer.variables}
    convert.unwrap(network)
    freezing.thaw(network, config)
    with computing_in(config.precision), strategy.scope():
        steps = prepare_steps(config, plan, strategy, network, calibration, may_split)
    for variable in steps.optimizer.variables:
        if variable.path in before:
            variable.assign(np.asarray(before[variable.path]))
    model.take_up(steps.optimizer, steps.exchange, steps.moving, steps.penalties)
    return steps.choices


def choose_span(config: TrainConfig, strategy: Strategy) -> tuple[int | None, Strategy | None]:
    """By how many of a replica's examples batch normalisation goes (None: its micro-batch), and over whose replicas it
    takes these together (None: each replica goes by its own)."""
    if config.batch_norm_span != "global":
        return config.batch_norm_span, None
    # In exact mode micro-batches are the same on any number of workers.
    return None, None if config.exact or strategy.replicas == 1 else strategy


@contextlib.contextmanager
def computing_in(precision: str):
    """Layers that are built within compute in it; what a script or notebook builds later is its own affair."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
