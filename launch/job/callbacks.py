"""The callbacks that take part in training, on every worker, in this order: rate, health, decisions, notices.

Each has one job.  Saving is in ``checkpoints.py``.  Those that only look on are in ``observers.py`` and ``events.py``
and run on the chief alone.
"""

import time
from dataclasses import dataclass

import keras
import numpy as np

from distributed.control import Control
from distributed.decisions import Decisions
from distributed.model import NOTICES
from distributed.strategies import Strategy
from launch.job.batch_plan import BatchPlan


class NonFiniteLoss(Exception):
    """The loss of a replica was NaN or infinite at a step; no weight was changed by it or after it."""

    def __init__(self, step: int, replicas: list[int]):
        self.step, self.replicas = step, replicas
        who = f"rank {replicas[0]}" if replicas else "the summed gradient, with finite losses"
        super().__init__(
            f"the loss is not finite at step {step} (first seen on {who}); "
            "lower the learning rate, clip, or look at the data"
        )


@dataclass
class Progress:
    """Where the run stands: steps taken so far, the epochs that were over when this process began, and the learning
    rate of the last step."""

    step: int = 0
    epochs_before: int = 0
    learning_rate: float | None = None


class LearningRate(keras.callbacks.Callback):
    """Set the rate of each step, and count the steps."""

    def __init__(self, plan: BatchPlan, decisions: Decisions, progress: Progress):
        super().__init__()
        self.plan, self.decisions, self.progress = plan, decisions, progress

    def on_train_batch_begin(self, batch, logs=None):
        rate = self.plan.schedule.rate(self.progress.step, self.decisions.factor)
        if rate != self.progress.learning_rate:
            self.model.optimizer.learning_rate = self.progress.learning_rate = rate

    def on_train_batch_end(self, batch, logs=None):
        self.progress.step += 1


class Join(keras.callbacks.Callback):
    """Where workers own parts of layers: let steps begin from the whole weights, and make these true for all who look
    at an epoch's end.  Put before them."""

    def on_train_begin(self, logs=None):
        self.model.shard()

    def on_test_begin(self, logs=None):
        self.model.gather()

    def on_epoch_end(self, epoch, logs=None):
        self.model.gather()


class StopOnNonFinite(keras.callbacks.Callback):
    """Raise ``NonFiniteLoss`` on all workers in the same step.

    The optimizer has already refused the step (see ``distributed/optimizer.py``), so that the host may look one step
    late, when the value is there without waiting for the device; but before that step is saved or left after.
    """

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress
        self.last = None

    def on_train_batch_end(self, batch, logs=None):
        self.check()
        self.last = (self.progress.step - 1, logs)

    def on_test_begin(self, logs=None):
        self.check()

    def on_epoch_end(self, epoch, logs=None):
        self.check()

    def check(self) -> None:
        """Look now at all steps taken so far."""
        if self.last is None:
            return
        (step, logs), self.last = self.last, None
        if int(logs["halted"]):
            losses = np.asarray(logs["loss_by_replica"])
            raise NonFiniteLoss(step, [int(replica) for replica in np.flatnonzero(~np.isfinite(losses))])


class Noticed(Exception):
    """Some worker gave a notice; all workers raise this after the same step.

    ``names`` are of ``step.NOTICES``; ``metric_states`` those of the epoch that is under way, all its steps taken or
    not, and None where the last epoch has been decided and saved.
    """

    def __init__(self, names: list[str], step: int, metric_states: list | None):
        self.names, self.step, self.metric_states = names, step, metric_states
        super().__init__(f"{', '.join(names)} noticed at step {step}")


class Notices(keras.callbacks.Callback):
    """Carry what one worker has to tell to all of them, and raise ``Noticed`` on all in the same step.

    Put last: a notice that is seen at an epoch's end finds the epoch decided, noted and saved.  In validation, where
    no gradients travel, the workers ask each other about once a second.
    """

    def __init__(self, progress: Progress, control: Control, health: StopOnNonFinite):
        super().__init__()
        self.progress, self.control, self.health = progress, control, health
        self.mine: set[str] = set()  # a signal handler or another thread may add to it at any time
        self.told: set[str] = set()
        self.last = None

    def on_train_batch_begin(self, batch, logs=None):
        if mine := self.mine - self.told:
            self.told |= mine
            self.model.notices.assign([float(name in self.told) for name in NOTICES])

    def on_train_batch_end(self, batch, logs=None):
        if names := self._heard():
            self.health.check()
            raise Noticed(names, self.progress.step, self.model.metric_states())
        self.last = logs["notices"]

    def on_test_begin(self, logs=None):
        # Keras is about to begin the metrics anew: those of the epoch's training must be kept for the checkpoint.
        self.metric_states = self.model.metric_states()
        if names := self._heard():
            raise Noticed(names, self.progress.step, self.metric_states)
        self.interval, self.asked_at, self.asked = 1, 0, time.monotonic()

    def on_test_batch_end(self, batch, logs=None):
        if (batches := batch + 1 - self.asked_at) < self.interval:
            return
        seconds = time.monotonic() - self.asked
        answers = self.control.gather([sorted(self.mine), seconds])
        if names := [name for name in NOTICES if any(name in told for told, _ in answers)]:
            raise Noticed(names, self.progress.step, self.metric_states)
        # From answers that are the same everywhere, so that all ask again after the same batch.
        slowest = max(seconds for _, seconds in answers) / batches
        self.interval = max(1, min(2 * self.interval, int(1 / max(slowest, 1e-6))))
        self.asked_at, self.asked = batch + 1, time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if names := self._heard():
            raise Noticed(names, self.progress.step, None)

    def _heard(self) -> list[str]:
        # One step late, when the value is there without waiting for the device.
        heard = [] if self.last is None else np.asarray(self.last)
        self.last = None
        return [name for name, count in zip(NOTICES, heard, strict=False) if count]


class Miscount(Exception):
    """A validation did not see each example once."""


class Decide(keras.callbacks.Callback):
    """Let the chief decide on an epoch, and do as it says on every worker."""

    def __init__(self, strategy: Strategy, decisions: Decisions, validation_examples: int):
        super().__init__()
        self.strategy, self.decisions, self.validation_examples = strategy, decisions, validation_examples
        self.improved = self.stopped = False
        self.metrics = {}

    def on_epoch_end(self, epoch, logs=None):
        self.metrics = metrics = {name: float(value) for name, value in logs.items()}
        seen = metrics.get("val_examples", 0)
        if seen != self.validation_examples:
            counts = self.strategy.control.gather(self.model.examples_here())
            by_rank = ", ".join(f"rank {rank}: {count}" for rank, count in enumerate(counts))
            raise Miscount(
                f"validation saw {seen:.0f} examples of {self.validation_examples} ({by_rank}), so that its metrics "
                "would be wrong; this is a bug of the program, please report it with this line"
            )
        verdict = self.decisions.end_epoch(epoch, metrics) if self.strategy.is_chief else None
        verdict = self.strategy.control.agree(verdict)
        self.decisions.factor = verdict["factor"]
        self.improved = verdict["improved"]
        self.stopped = self.model.stop_training = verdict["stop"]


class ReplicasDiffer(Exception):
    """The replicas no longer hold the same weights: something outside of the program has gone wrong."""


class CheckReplicas(keras.callbacks.Callback):
    """Compare weights and optimizer state over all replicas, and end the run where they differ."""

    def __init__(self, strategy: Strategy, progress: Progress, every: int | None):
        """Args: steps between two comparisons; None compares at each epoch's end, 0 never."""
        super().__init__()
        self.strategy, self.progress, self.every = strategy, progress, every

    def on_train_batch_end(self, batch, logs=None):
        if self.every and self.progress.step % self.every == 0:
            self.check()

    def on_epoch_end(self, epoch, logs=None):
        if self.every is None:
            self.check()

    def check(self) -> None:
        """Raise ``ReplicasDiffer`` on all workers if any two replicas differ."""
        variables = [*self.model.network.weights, *self.model.optimizer.variables]
        if self.strategy.replicas == 1:
            return
        self.model.gather()
        digests = self.strategy.replica_digests(variables)
        for variable, by_replica in zip(variables, zip(*digests, strict=True), strict=True):
            usual = max(by_replica, key=by_replica.count)
            if other := [replica for replica, digest in enumerate(by_replica) if digest != usual]:
                raise ReplicasDiffer(
                    f"at step {self.progress.step} {variable.path} of replica "
                    f"{', '.join(map(str, other))} differs from "
                    "the others'; look at the memory of that machine, then go on from the last checkpoint"
                )
