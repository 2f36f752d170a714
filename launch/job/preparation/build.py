"""From settings to a compiled model: configuration stops here, below are plain arguments."""

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data.datasets import Source
from distributed import convert
from distributed.batch_norm import MovingStatistics
from distributed.gradients.aggregation import add_in_order
from distributed.gradients.cost_model import Calibration, Choice
from distributed.gradients.reduction import Exchange
from distributed.gradients.tensor_parallel import SplitPair
from distributed.metrics import METRICS, GlobalMetrics, example_losses
from distributed.model import LockstepModel
from distributed.optimizer import LockstepOptimizer, synchronize
from distributed.regularization import Penalties
from distributed.strategies import Strategy
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation import exchange as exchanges
from launch.job.preparation import freezing, optimizers
from launch.job.preparation.batch_plan import BatchPlan
from launch.job.user.network import build_network
from models import MODELS, applications, build_model


def choose_image_size(config: TrainConfig, source: Source, *, own_model: bool) -> int:
    """Side of the square images in pixels: the flag's, else the data's own if the model takes it, else the model's.

    Args:
        own_model: whether the network is the user's, of which nobody knows which sizes it takes; as is so of those of
            keras.applications.

    Raises:
        ConfigError: if there is no size to go by.
    """
    if config.image_size:
        return config.image_size
    own = source.image_size
    if own_model or config.model not in MODELS:
        if own is None or own[0] != own[1]:
            shape = "images of many sizes" if own is None else f"images of {own[0]}x{own[1]} pixels"
            model = "your model" if own_model else config.model
            raise ConfigError(
                f"the data has {shape}, and the size that {model} takes is not known; give --image-size, such as 224"
            )
        return own[0]
    architecture = MODELS[config.model]
    fits = own is not None and own[0] == own[1] >= architecture.min_size
    return own[0] if fits else architecture.default_size


def choose_monitor(config: TrainConfig, *, validated: bool) -> str:
    """The metric that decides.

    Raises:
        ConfigError: if the run will have no such metric.
    """
    if config.validation_every > 1 and not validated:
        raise ConfigError(
            f"--validation-every {config.validation_every} was given, but there is no validation set; leave it out, or "
            "raise --validation-split"
        )
    if config.monitor == "auto":
        for feature in ("early_stopping_patience", "plateau_patience", "restore_best_weights"):
            if getattr(config, feature) and not validated:
                raise ConfigError(
                    f"--{feature.replace('_', '-')} goes by a validation metric, but there is no validation set; "
                    "raise --validation-split, or name a training metric: --monitor accuracy"
                )
        return "val_accuracy" if validated else "accuracy"
    names = ["loss", *config.metrics]
    names += [f"val_{name}" for name in names] if validated else []
    if config.monitor not in names:
        why = "" if validated else " (there is no validation set: --validation-split is 0)"
        choices = ", ".join(names)
        raise ConfigError(f"--monitor {config.monitor} is not a metric of this run{why}; choose one of {choices}")
    return config.monitor


def choose_span(config: TrainConfig, strategy: Strategy) -> tuple[int | None, Strategy | None]:
    """By how many of a replica's examples batch normalisation goes (None: its micro-batch), and over whose replicas it
    takes these together (None: each replica goes by its own)."""
    if config.batch_norm_span != "global":
        return config.batch_norm_span, None
    # In exact mode micro-batches are the same on any number of workers.
    return None, None if config.exact or strategy.replicas == 1 else strategy


def build(
    config: TrainConfig,
    plan: BatchPlan,
    strategy: Strategy,
    *,
    classes: int,
    image_size: int,
    calibration: Calibration | None = None,
    own_model: Callable | None = None,
    may_split: bool = True,
    class_weights: Sequence[float] | None = None,
) -> tuple[LockstepModel, dict[str, Choice]]:
    """Build the network, the optimizer and the metrics for this worker's replicas, with weights decided by the seed.

    Args:
        own_model: the user's ``(classes, image_size) -> keras.Model``; None builds ``config.model``.
        may_split: whether layers may be divided between the workers; whoever looks at weights in mid-epoch, or changes
            them, as a callback may, would see old ones.
        class_weights: how much an example of each class counts in the loss of training; None: all alike.

    Returns:
        The model, and by dense layer how its gradient travels.
    """
    if classes == 2 and "top5" in config.metrics:
        raise ConfigError(f"--metrics {','.join(config.metrics)} asks for top5 of two classes; leave top5 out")
    if config.tf32 == "on" and not tf.config.get_visible_devices("GPU"):
        raise ConfigError("--tf32 on is a way of GPUs to multiply, and this run has none; leave it out")
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
        add_in_order()
    tf.config.experimental.enable_tensor_float_32_execution(config.allows_tf32)
    with _computing_in(config.precision), strategy.scope():
        network = create_network(config, classes=classes, image_size=image_size, own_model=own_model)
        freezing.freeze(network, config)
        span, over = choose_span(config, strategy)
        network = convert.convert(network, config.seed, span=span, strategy=over)
        if span and not convert.batch_norm_layers(network):
            raise ConfigError(
                f"--batch-norm-span {span} was given, but no BatchNormalization of the network trains; leave it out"
            )
        steps = prepare_steps(config, plan, strategy, network, calibration, may_split)
        model = LockstepModel(
            network,
            steps.optimizer,
            strategy,
            example_losses(classes, config.label_smoothing),
            GlobalMetrics([METRICS[name](classes) for name in config.metrics], strategy.sum_workers),
            steps.exchange,
            steps.moving,
            steps.penalties,
            class_weights=class_weights,
            global_batch=plan.global_batch,
            accumulate=plan.accumulate,
        )
    return model, steps.choices


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
    with _computing_in(config.precision), strategy.scope():
        steps = prepare_steps(config, plan, strategy, network, calibration, may_split)
    for variable in steps.optimizer.variables:
        if variable.path in before:
            variable.assign(np.asarray(before[variable.path]))
    model.take_up(steps.optimizer, steps.exchange, steps.moving, steps.penalties)
    return steps.choices


def create_network(
    config: TrainConfig, *, classes: int, image_size: int, own_model: Callable | None = None
) -> keras.Model:
    """The run's network as plain Keras in its precision, with weights decided by the seed."""
    # NumPy takes no more than 32 bits.
    keras.utils.set_random_seed(config.seed % 2**32)
    with _computing_in(config.precision):
        if own_model is None and config.model.startswith(applications.PREFIX):
            head = config.head and applications.Head(config.head, config.head_units or (), config.dropout or 0.0)
            return applications.build(config.model.removeprefix(applications.PREFIX), classes, image_size, head)
        if own_model is None:
            return build_model(
                config.model,
                classes=classes,
                image_size=image_size,
                dropout=config.dropout,
                seed=config.seed,
                pixels=config.pixels or "tf",
            )
        network = build_network(own_model, classes, image_size)
    regularized = sum(variable.regularizer is not None for variable in network.trainable_variables)
    if len(network.losses) > regularized or _regularizes_activities(network):
        raise ConfigError(
            "your network has losses of its own (add_loss, activity_regularizer), which the training here does not "
            "know; leave them out, or use regularizers of weights, such as kernel_regularizer"
        )
    return network


def _regularizes_activities(network: keras.Model) -> bool:
    return any(getattr(layer, "activity_regularizer", None) for layer in network._flatten_layers())


@contextlib.contextmanager
def _computing_in(precision: str):
    """Layers that are built within compute in it; what a script or notebook builds later is its own affair."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
