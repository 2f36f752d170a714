"""From settings to a compiled model: configuration stops here, below are plain arguments."""

import contextlib
from collections.abc import Callable

import keras
import tensorflow as tf

from data.datasets import Source
from distributed import convert
from distributed.batch_norm import MovingStatistics
from distributed.gradients import cost_model
from distributed.gradients.cost_model import Calibration, Choice
from distributed.gradients.reduction import Exchange, dense_layers, graph_nodes
from distributed.gradients.tensor_parallel import SplitPair, find_pair
from distributed.metrics import METRICS, GlobalMetrics, example_losses
from distributed.model import LockstepModel
from distributed.optimizer import synchronize
from distributed.regularization import Penalties
from distributed.strategies import Strategy
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation import optimizers
from launch.job.preparation.batch_plan import BatchPlan
from launch.job.user.network import build_network
from models import MODELS, build_model


def choose_image_size(config: TrainConfig, source: Source, *, own_model: bool) -> int:
    """Side of the square images in pixels: the flag's, else the data's own if the model takes it, else the model's.

    Args:
        own_model: whether the network is the user's, of which nobody knows which sizes it takes.

    Raises:
        ConfigError: if there is no size to go by.
    """
    if config.image_size:
        return config.image_size
    own = source.image_size
    if own_model:
        if own is None or own[0] != own[1]:
            shape = "images of many sizes" if own is None else f"images of {own[0]}x{own[1]} pixels"
            raise ConfigError(
                f"the data has {shape}, and the size that your model takes is not known; give --image-size"
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


def choose_exchange(
    config: TrainConfig,
    plan: BatchPlan,
    strategy: Strategy,
    network: keras.Model,
    pair: tuple | None,
    calibration: Calibration | None,
) -> dict[str, Choice]:
    """Dense layer's name -> how its gradient travels."""
    exchange = config.exchange
    if exchange in ("auto", "split") and not config.exact and strategy.shares_memory and plan.replicas > 1:
        # In one memory summing costs less than multiplying for all of them.
        exchange = "allreduce"
    return cost_model.choose(
        {layer.name: tuple(layer.kernel.shape) for layer in dense_layers(network)},
        exchange=exchange,
        global_batch=plan.global_batch,
        replicas=plan.replicas,
        item_bytes=4 if config.precision == "float32" else 2,
        calibration=calibration,
        pair=pair and (pair[0].name, pair[1].name),
        gather_every=min(filter(None, (plan.steps_per_epoch, config.checkpoint_every_steps, config.check_replicas))),
    )


def find_split(
    config: TrainConfig, plan: BatchPlan, strategy: Strategy, network: keras.Model, penalties: Penalties
) -> tuple | None:
    """The two dense layers that this run may divide between its workers, and the dropout between them; or None."""
    if strategy.shares_memory or config.exact or config.precision != "float32" or plan.accumulate > 1:
        # Sums of half-precision products would be rounded once more than one worker rounds them.
        return None
    if config.optimizer in optimizers.UNDIVIDED or not penalties.divisible:
        return None
    return find_pair(graph_nodes(network), dense_layers(network), plan.replicas)


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
) -> tuple[LockstepModel, dict[str, Choice]]:
    """Build the network, the optimizer and the metrics for this worker's replicas, with weights decided by the seed.

    Args:
        own_model: the user's ``(classes, image_size) -> keras.Model``; None builds ``config.model``.
        may_split: whether layers may be divided between the workers; whoever looks at weights in mid-epoch, or changes
            them, as a callback may, would see old ones.

    Returns:
        The model, and by dense layer how its gradient travels.
    """
    if classes == 2 and "top5" in config.metrics:
        raise ConfigError(f"--metrics {','.join(config.metrics)} asks for top5 of two classes; leave top5 out")
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    with _computing_in(config.precision), strategy.scope():
        network = create_network(config, classes=classes, image_size=image_size, own_model=own_model)
        span, over = choose_span(config, strategy)
        network = convert.convert(network, config.seed, span=span, strategy=over)
        norms = convert.batch_norm_layers(network)
        if span and not norms:
            raise ConfigError(
                f"--batch-norm-span {span} was given, but no BatchNormalization of the network trains; leave it out"
            )
        moving = MovingStatistics(norms) if norms else None
        trained = network.trainable_variables
        penalties = Penalties(trained, config.l1, config.l2)
        pair = find_split(config, plan, strategy, network, penalties) if may_split else None
        choices = choose_exchange(config, plan, strategy, network, pair, calibration)
        schemes = {name: choice.scheme for name, choice in choices.items()}
        split = SplitPair(*pair, strategy) if "split" in schemes.values() else None
        compress = config.compression == "fp16"
        exchange = Exchange(
            network,
            strategy,
            schemes,
            exact=config.exact,
            compress=compress,
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
        )
        model = LockstepModel(
            network,
            optimizer,
            strategy,
            example_losses(classes, config.label_smoothing),
            GlobalMetrics([METRICS[name](classes) for name in config.metrics], strategy.sum_workers),
            exchange,
            moving,
            penalties,
            global_batch=plan.global_batch,
            accumulate=plan.accumulate,
        )
    return model, choices


def create_network(
    config: TrainConfig, *, classes: int, image_size: int, own_model: Callable | None = None
) -> keras.Model:
    """The run's network as plain Keras in its precision, with weights decided by the seed."""
    # NumPy takes no more than 32 bits.
    keras.utils.set_random_seed(config.seed % 2**32)
    with _computing_in(config.precision):
        if own_model is None:
            return build_model(
                config.model, classes=classes, image_size=image_size, dropout=config.dropout, seed=config.seed
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
