"""The training of one run, from wherever it begins to whatever ends it.

    train begins
    for each epoch:
        until its steps are taken:
            k steps, as many as fit into a tenth of a second before something is due     one compiled call
            finite?  replicas equal?  then the user's callbacks, the logs, a checkpoint   what is due
            did a worker ask to leave?
        validate
        replicas equal?  decide once and tell all
        the user's callbacks, the logs, the checkpoint
        did a worker ask to leave?
    train ends

Every worker goes through all of it in step with the others, but for the logs, which look on at the chief alone.  The
user's callbacks come before the logs, so that these show what the callbacks have seen, and the logs before the
checkpoint, so that they are never behind one.
"""

import time
from collections.abc import Sequence

import keras
import numpy as np

from distributed.decisions import Decisions
from distributed.health import heartbeat
from distributed.model import NOTICES, LockstepModel
from distributed.strategies import Strategy
from launch.job import checks
from launch.job.batch_plan import BatchPlan
from launch.job.checkpointing import Checkpoints, Progress
from launch.job.config import TrainConfig
from launch.job.inputs import Inputs
from launch.job.logs import Epoch, Observer, Steps, Stopwatch
from launch.job.steps_per_call import StepsPerCall
from launch.job.user import code as user_code
from launch.job.user.code import UserCodeError

VALIDATION_SECONDS = 0.25  # between two questions, in validation, whether a worker asked to leave


class Noticed(Exception):
    """Some worker gave a notice; all workers raise this after the same step.

    ``names`` are of ``model.NOTICES``; ``metric_states`` those of the epoch that is under way, all its steps taken or
    not, and None where the last epoch has been decided on and saved.
    """

    def __init__(self, names: list[str], metric_states: list | None):
        self.names, self.metric_states = names, metric_states
        super().__init__(", ".join(names))


class CallbackError(UserCodeError):
    """A callback of the user's raised an exception, maybe on this worker alone."""


class Loop:
    """A run that is ready to be trained."""

    def __init__(
        self,
        config: TrainConfig,
        strategy: Strategy,
        inputs: Inputs,
        model: LockstepModel,
        *,
        decisions: Decisions,
        progress: Progress,
        checkpoints: Checkpoints,
        notices: set[str],
        callbacks: Sequence[keras.callbacks.Callback],
        observers: Sequence[Observer],
    ):
        """
        Args:
            progress: where it begins; goes on here.
            notices: what this worker has to tell the others; a signal or another thread may add to it at any time.
            callbacks: the user's, which know their model.
            observers: what looks on; empty but on the chief.
        """
        self.config, self.strategy, self.inputs, self.model = config, strategy, inputs, model
        self.plan: BatchPlan = inputs.plan
        self.decisions, self.progress, self.checkpoints, self.notices = decisions, progress, checkpoints, notices
        self.observers = observers
        self.watch = Stopwatch(self.plan.global_batch)
        given = None if config.steps_per_call == "auto" else config.steps_per_call
        self.steps_per_call = StepsPerCall(given, strategy.control)
        self.callbacks = list(callbacks)
        self.metric_states: list | None = None  # of an epoch that is under way, where a checkpoint has brought them
        self._told: set[str] = set()
        self._validated = False

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to decide on."""
        decided = self.metric_states is None
        return decided and (self.progress.stopped or self.progress.step >= self.plan.total_steps)

    def run(self) -> None:
        """Train to the end.

        Raises:
            Noticed: on all workers, if one of them asked to leave; the metrics of an epoch under way are in it.
            checks.NonFiniteLoss, checks.ReplicasDiffer, checks.Miscount: on all workers.
        """
        for observer in self.observers:
            observer.begin(self.progress.step, self.progress.epoch)
        self._call("on_train_begin")
        self.model.shard()
        self.batches = iter(self.inputs.training(self.progress.step))
        while not self.finished:
            self._begin_epoch()
            while self.progress.step < self.epoch_end:
                self._take_steps(min(self._due()) - self.progress.step)
            metrics = self._validate()
            self._end_epoch(metrics)
        self._call("on_train_end", dict(self.progress.epoch_metrics))

    def close(self) -> None:
        """Let the observers finish, however training ended."""
        for observer in self.observers:
            observer.end()

    def _call(self, event: str, *arguments) -> None:
        """Let the user's callbacks have their say at one of Keras' events."""
        for callback in self.callbacks:
            name = type(callback).__name__
            try:
                user_code.call(f"{name}.{event}", user_code.defined_in(callback), getattr(callback, event), *arguments)
            except UserCodeError as error:
                raise CallbackError(error.sentence, error.traceback) from error.__cause__

    def _begin_epoch(self) -> None:
        epoch = self.progress.epoch
        self.epoch_end = (epoch + 1) * self.plan.steps_per_epoch
        self.model.reset_metrics()
        if self.metric_states is not None:
            # The rest of a broken epoch adds to what its first part had.
            self.model.restore_metric_states(self.metric_states)
            self.metric_states = None
        self._call("on_epoch_begin", epoch)
        for observer in self.observers:
            observer.begin_epoch(epoch + 1)
        self.watch.begin_epoch()

    def _due(self):
        """The steps before which something must be done, all of them ahead."""
        step = self.progress.step
        yield self.epoch_end
        for every in (self.config.check_replicas, self.config.checkpoint_every_steps):
            if every:
                yield step // every * every + every
        first, last = self.config.profile_steps or (0, 0)
        yield from (border for border in (first, last + 1) if border > step)

    def _take_steps(self, due: int) -> None:
        """One compiled call, and what follows from it."""
        progress, first = self.progress, self.progress.step
        count = self.steps_per_call.upto(due)
        rates = [self.plan.schedule.rate(first + index, self.decisions.factor) for index in range(count)]
        self._tell()
        of_epoch = first % self.plan.steps_per_epoch
        self._call("on_train_batch_begin", of_epoch)
        for observer in self.observers:
            observer.before_steps(first)
        # A step, once begun, waits for the gradients of the other workers.
        expected = count * self.steps_per_call.seconds_per_step
        phase = "training" if self.watch.traced else "first step"
        heartbeat.enter(phase, first, waiting=True, expected=expected)
        began = time.perf_counter()
        report = self.model.steps(self.batches, np.asarray(rates, np.float32))
        # Whatever hangs from here on hangs in this process.
        heartbeat.enter("training")
        checks.check_finite(report, first)
        self.steps_per_call.took(count, began)
        images_per_second = self.watch.took(count)
        progress.step, progress.learning_rate = first + count, rates[-1]
        if self.config.check_replicas and progress.step % self.config.check_replicas == 0:
            checks.check_replicas(self.strategy, self.model, progress.step)
        self._call("on_train_batch_end", of_epoch + count - 1, {"loss": float(report.loss[-1])})
        steps = Steps(first + 1, of_epoch + count, report.loss, rates, images_per_second)
        for observer in self.observers:
            observer.after_steps(steps)
        every = self.config.checkpoint_every_steps
        if every and progress.step % every == 0 and progress.step < self.epoch_end:
            heartbeat.enter("saving")
            self.checkpoints.commit(self.model.metric_states())
        if report.heard:
            raise Noticed(report.heard, self.model.metric_states())

    def _tell(self) -> None:
        """What this worker has to say travels with the next steps' gradients."""
        if mine := self.notices - self._told:
            self._told |= mine
            self.model.tell(self._told)

    def _validate(self) -> dict[str, float]:
        """The epoch's global metrics, with those of the validation, if there is one, under ``val_...``."""
        self.model.gather()
        self.watch.end_steps()
        metrics = self.model.results()
        if not self.inputs.validation_steps:
            return metrics
        # From here on the metrics are those of the validation: whoever leaves takes those of the training along.
        training_states = self.model.metric_states()
        self.model.reset_metrics()
        self._call("on_test_begin")
        batches, done, count = iter(self.inputs.validation_batches()), 0, 1
        while done < self.inputs.validation_steps:
            # The first call of the first validation holds the tracing of the graph.
            heartbeat.enter("validation" if self._validated else "first validation")
            began = time.perf_counter()
            count = min(count, self.inputs.validation_steps - done)
            self._call("on_test_batch_begin", done)
            self.model.evaluate(batches, count)
            self._validated, done = True, done + count
            heartbeat.enter("validation")
            self._call("on_test_batch_end", done - 1)
            # No gradients travel here, which could carry a notice along: the workers ask each other.
            answers = self.strategy.control.gather([sorted(self.notices), (time.perf_counter() - began) / count])
            if names := names_of(answers):
                raise Noticed(names, training_states)
            # From answers that are the same everywhere, so that all take calls of one length.
            count = max(1, min(4 * count, int(VALIDATION_SECONDS / max(seconds for _, seconds in answers))))
        found = self.model.results()
        self._call("on_test_end", dict(found))
        return metrics | {f"val_{name}": value for name, value in found.items()}

    def _end_epoch(self, metrics: dict[str, float]) -> None:
        heartbeat.enter("training")
        progress, epoch = self.progress, self.progress.epoch
        checks.check_count(self.strategy, self.model, metrics.get("val_examples", 0), self.inputs.validation_examples)
        if self.config.check_replicas is None:
            checks.check_replicas(self.strategy, self.model, progress.step)
        verdict = self.decisions.end_epoch(epoch, metrics) if self.strategy.is_chief else None
        verdict = self.strategy.control.agree(verdict)
        self.decisions.factor = verdict["factor"]
        self._call("on_epoch_end", epoch, dict(metrics))
        progress.epoch, progress.epoch_metrics = epoch + 1, metrics
        # A worker may have something to tell, or a callback of its may have set ``model.stop_training``, as Keras' own
        # EarlyStopping does.
        stops = bool(getattr(self.model.network, "stop_training", False))
        answers = self.strategy.control.gather([sorted(self.notices), stops])
        progress.stopped_by_callback = any(stops for _, stops in answers)
        progress.stopped = verdict["stop"] or progress.stopped_by_callback
        result = Epoch(
            epoch + 1,
            progress.step,
            metrics,
            progress.learning_rate,
            self.watch.images_per_second,
            self.watch.seconds,
        )
        for observer in self.observers:
            observer.end_epoch(result)
        heartbeat.enter("saving")
        self.checkpoints.commit(improved=verdict["improved"])
        heartbeat.enter("training", progress.step)
        if names := names_of(answers):
            raise Noticed(names, None)


def names_of(answers: list) -> list[str]:
    """Those of ``NOTICES`` that stand first in any worker's answer."""
    return [name for name in NOTICES if any(name in told for told, _ in answers)]
