"""What is minimized, and by which steps."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from launch.job.settings.base import FileFunction, Positive, Settings, Share


class OptimizationSettings(Settings):
    """What is minimized, and by which steps."""

    label_smoothing: Share = 0.0
    """Part of the target spread evenly over all classes."""
    class_weights: str | None = None
    """How much an example counts in the loss of training: balanced (the fewer of its class, the more, all classes
    together the same), or a YAML or CSV file of class names and weights."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """Adds so much times the absolute values of all kernels to the loss."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Adds so much times the squares of all kernels to the loss."""
    optimizer: Literal["sgd", "rmsprop", "adam", "adamw", "adagrad", "adadelta", "adamax", "nadam", "lamb", "lion"] = (
        "sgd"
    )
    """Keras' optimizer of that name."""
    momentum: Share | None = None
    """Momentum of sgd (default 0.9) and rmsprop (default 0); the others have none."""
    nesterov: bool = False
    """sgd with Nesterov's momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay, as Keras: w -= learning rate x decay x w in each step; of adamw 0.004 unless given."""
    decay_all: bool = False
    """Let biases and the parameters of normalisation decay too, as Keras does."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of the reduced gradient."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    """Base rate, for base-batch-size examples per step."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the rate grows with global batch / base batch."""
    base_batch_size: Positive | None = None
    """Batch of the base rate; default: batch-size where given, the global batch where that was given."""
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    """Epochs over which the rate grows: from the unscaled to the scaled one where that is higher, else from a hundredth
    of it; default: 1 from the unscaled one."""
    schedule: Literal["constant", "cosine", "step", "polynomial"] | FileFunction = "cosine"
    """Shape of the rate after the warmup: step is a tenth from half of the steps on and a hundredth from three quarters
    on, polynomial the square of the part that is left. Or your own: FILE.py:FUNCTION, called with (epoch),
    (epoch, lr) or (step), all counted from 0, gives what stands in the place of learning-rate."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """The rate never falls below it."""


ADAMW_DECAY = 0.004  # Keras' default


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if c.momentum is not None and c.optimizer not in ("sgd", "rmsprop"):
        yield f"--momentum {c.momentum} has no effect on --optimizer {c.optimizer}; leave it out, or use sgd or rmsprop"
    if c.nesterov and c.optimizer != "sgd":
        yield f"--nesterov has no effect on --optimizer {c.optimizer}; leave it out, or use sgd"
    if c.nesterov and c.momentum == 0:
        yield "--nesterov is a way to apply momentum, but --momentum is 0; leave one of them out"
    if c.min_learning_rate and "." in c.schedule:
        yield (
            f"--min-learning-rate {c.min_learning_rate} has no effect on --schedule {c.schedule}; leave it out, your "
            "function says how low the rate goes"
        )
    if c.decay_all and not c.weight_decay:
        yield "--decay-all says what decays, but --weight-decay is 0; leave it out, or give both"
