"""What looks on at the training, and what it is told: console and ``metrics.csv`` in ``epochs.py``, ``tensorboard.py``.

On the chief only; none calls a collective, none changes training, and none ends it where a log cannot be written.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from launch.job.timing.epoch_clock import RankTimes


@dataclass(frozen=True)
class Steps:
    """The steps of one compiled call.

    Attributes:
        first: number of the first one, counted from 1.
        of_epoch: steps of the epoch that are taken by now.
        losses: float32 [k], of each step's global batch.
        rates: the k learning rates.
        images_per_second: of the call, over all workers; 0 where it is not known.
    """

    first: int
    of_epoch: int
    losses: np.ndarray
    rates: list[float]
    images_per_second: float


@dataclass(frozen=True)
class Epoch:
    """An epoch that was trained, and validated and decided on where that was due.

    Attributes:
        number: counted from 1.
        step: steps that the run has taken by now.
        metrics: global metrics, those of the validation with ``val_`` before their names.
        learning_rate: of the last step.
        images_per_second, seconds: of its training steps.
        ranks: where the time went on each of them.
    """

    number: int
    step: int
    metrics: dict[str, float]
    learning_rate: float
    images_per_second: float
    seconds: float
    ranks: list[RankTimes]


class Observer:
    """What looks on; each method stands for a place in ``launch/job/loop.py``."""

    def begin(self, step: int, epochs: int) -> None:
        """Training begins, after so many steps and whole epochs that were taken before."""

    def begin_epoch(self, number: int) -> None:
        """Epoch ``number``, counted from 1, begins or goes on."""

    def before_steps(self, step: int) -> None:
        """A call is about to begin; ``step`` steps are taken."""

    def after_steps(self, steps: Steps) -> None:
        """A call is over."""

    def end_epoch(self, epoch: Epoch) -> None:
        """An epoch is over."""

    def flush(self) -> None:
        """Bring to the disk what has been logged; called before each checkpoint, so that logs are never behind it."""

    def end(self) -> None:
        """Training is over."""


def spared(method):
    """A method of an observer with ``console`` and ``path``: where the disk fails, it warns once and returns."""

    @functools.wraps(method)
    def guarded(self, *arguments):
        try:
            method(self, *arguments)
        except (OSError, tf.errors.OpError) as error:
            if not self.failed:
                # TensorFlow names its operation before, and whatever failed after it behind the cause.
                reason = getattr(error, "strerror", None) or re.sub(
                    r"{{.*?}} | \[Op:.*|\n.*", "", str(error), flags=re.S
                )
                self.console.warn(f"{self.path} cannot be written ({reason}); training goes on")
            self.failed = True

    return guarded
