"""From settings to a compiled model: configuration stops here, below are plain arguments."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from data.datasets import Source
from distributed.gradients.aggregation import add_in_order
from distributed.gradients.cost_model import Calibration, Choice
from distributed.gradients.max_pool import pool_by_one_kernel
from distributed.layers import convert
from distributed.metrics import METRICS, GlobalMetrics, example_losses
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation import freezing
from launch.job.preparation.batch_plan import BatchPlan
from launch.job.preparation.steps import choose_span, computing_in, prepare_steps
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
        if not tf.config.get_visible_devices("GPU"):
            pool_by_one_kernel()
    tf.config.experimental.enable_tensor_float_32_execution(config.allows_tf32)
    with computing_in(config.precision), strategy.scope():
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


def create_network(
    config: TrainConfig, *, classes: int, image_size: int, own_model: Callable | None = None
) -> keras.Model:
    """The run's network as plain Keras in its precision, with weights decided by the seed."""
    # NumPy takes no more than 32 bits.
    keras.utils.set_random_seed(config.seed % 2**32)
    with computing_in(config.precision):
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
        network = build_network(own_model, classes, image_size, config.pixels)
    regularized = sum(variable.regularizer is not None for variable in network.trainable_variables)
    if len(network.losses) > regularized or _regularizes_activities(network):
        raise ConfigError(
            "your network has losses of its own (add_loss, activity_regularizer), which the training here does not "
            "know; leave them out, or use regularizers of weights, such as kernel_regularizer"
        )
    return network


def _regularizes_activities(network: keras.Model) -> bool:
    return any(getattr(layer, "activity_regularizer", None) for layer in network._flatten_layers())
