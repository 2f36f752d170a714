"""Settings -> Keras' optimizer: its class, its arguments, and what its weight decay leaves alone."""

from collections.abc import Sequence

import keras

from distributed.optimization.regularization import biases_and_scales
from launch.job.config import TrainConfig

OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "adamax": keras.optimizers.Adamax,
    "nadam": keras.optimizers.Nadam,
    "lamb": keras.optimizers.Lamb,
    "lion": keras.optimizers.Lion,
}
DEFAULT_MOMENTUM = {"sgd": 0.9, "rmsprop": 0.0}
# Those whose step on a variable needs all of it, or may be taken once only: nadam keeps a running product that each of
# its updates multiplies, lamb divides by the norms of the whole variable and of its update.
UNDIVIDED = ("nadam", "lamb")


def arguments(config: TrainConfig, learning_rate: float) -> dict:
    """What the constructor of the settings' optimizer is called with."""
    # Keras would number the names of optimizers in a process, and checkpoints go by names.
    found = {"name": config.optimizer, "learning_rate": learning_rate}
    # Keras' AdamW wants a number.
    found["weight_decay"] = config.weight_decay if config.optimizer == "adamw" else config.weight_decay or None
    if config.optimizer in DEFAULT_MOMENTUM:
        default = DEFAULT_MOMENTUM[config.optimizer]
        found["momentum"] = default if config.momentum is None else config.momentum
    if config.nesterov:
        found["nesterov"] = True
    return found


def undecayed(config: TrainConfig, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Those of the trained variables that weight decay leaves alone."""
    return [] if config.decay_all else biases_and_scales(variables)
