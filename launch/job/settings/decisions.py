"""What is measured, and what follows from it."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from launch.job.settings.base import Count, FileFunction, Positive, Settings


class DecisionSettings(Settings):
    """What is measured, and what follows from it."""

    metrics: Annotated[tuple[Literal["accuracy", "top5", "precision", "recall", "auc"], ...], Field(min_length=1)] = (
        "accuracy",
    )
    """Comma-separated: accuracy, top5, precision, recall, auc; of training and validation, exact over all workers. The
    last three are over all pairs of example and class, at 0.5 where a threshold is needed."""
    validation_every: Positive = 1
    """Epochs between two validations, as Keras' validation_freq; the last epoch has one in any case. Best, stop and
    plateau are decided there alone, so that their patience counts validations."""
    monitor: str = "auto"
    """Metric that decides on best, stop and plateau; auto: val_accuracy, or accuracy without validation."""
    monitor_mode: Literal["auto", "min", "max"] = "auto"
    """Whether less or more of it is better."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest change that counts as an improvement."""
    threshold_mode: Literal["abs", "rel"] = "abs"
    """Whether min-delta is a difference or a part of the best value."""
    early_stopping_patience: Count = 0
    """Epochs without improvement after which training stops; 0: never."""
    start_from_epoch: Count = 0
    """Epochs at the beginning that early stopping does not look at."""
    baseline: float | None = None
    """Value that the monitored metric must improve on for early stopping to go on waiting."""
    restore_best_weights: bool = False
    """End with the weights of the best epoch, not of the last."""
    plateau_patience: Count = 0
    """Epochs without improvement after which the rate is reduced; 0: never."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the rate is then multiplied by."""
    plateau_cooldown: Count = 0
    """Epochs after a reduction in which none is counted."""
    callbacks: FileFunction | None = None
    """FILE.py:FUNCTION, called without arguments, returns a list of your own Keras callbacks."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if "accuracy" not in c.metrics:
        yield f"--metrics {','.join(c.metrics)} lacks accuracy, which every run reports; add it"
    if c.early_stopping_patience == 0 and (c.baseline is not None or c.start_from_epoch):
        flag = "--baseline" if c.baseline is not None else "--start-from-epoch"
        yield f"{flag} was given without --early-stopping-patience, to which it belongs; give both"
    if c.plateau_patience == 0:
        for name in ("plateau_factor", "plateau_cooldown"):
            if getattr(c, name) != DecisionSettings.model_fields[name].default:
                flag = f"--{name.replace('_', '-')}"
                yield f"{flag} was given without --plateau-patience, to which it belongs; give both"
