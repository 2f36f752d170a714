"""The training of one run, from wherever it begins to whatever ends it.

    train begins
    for each epoch:
        frozen layers thaw, where this is the epoch
        until its steps are taken:
            k steps, as many as fit into a tenth of a second before something is due     one compiled call
            finite?  replicas equal?  then the user's callbacks, the logs, a checkpoint   what is due
            did a worker ask to leave?
        validate, decide once and tell all                                          in every epoch, or every N-th
        the user's callbacks;  replicas equal?  then the logs, the checkpoint
        did a worker ask to leave?
    train ends

Every worker goes through all of it in step with the others, but for the logs, which look on at the chief alone.  The
user's callbacks come before the logs, so that these show what the callbacks have seen, and the logs before the
checkpoint, so that they are never behind one.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from distributed.decisions import Decisions
from distributed.health import heartbeat
from distributed.model import LockstepModel
from distributed.step_report import StepReport
from distributed.strategies import Strategy
from launch.job import checks
from launch.job.config import TrainConfig
from launch.job.logs.observer import Epoch, Observer, Steps
from launch.job.notices import Noticed, Notices
from launch.job.preparation.freezing import UNFREEZE_FACTOR
from launch.job.preparation.inputs import Inputs
from launch.job.run_directory.checkpointing import Checkpoints, Progress
from launch.job.timing.epoch_clock import EpochClock
from launch.job.timing.steps_per_call import StepsPerCall
from launch.job.timing.stopwatch import Stopwatch
from launch.job.user.callbacks import call_all
from launch.job.validation import Validation


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
        notices: Notices,
        callbacks: Sequence[keras.callbacks.Callback],
        observers: Sequence[Observer],
        thaw: Callable[[], None] | None = None,
    ):
        """
        Args:
            progress: where it begins; goes on here.
            notices: what this worker has to tell the others.
            callbacks: the user's, which know their model.
            observers: what looks on; empty but on the chief.
            thaw: lets frozen layers train; called by all workers before the epoch of ``--unfreeze-epoch``.
        """
        self.config, self.strategy, self.inputs, self.model = config, strategy, inputs, model
        self.plan, self.decisions, self.progress = inputs.plan, decisions, progress
        self.checkpoints, self.notices, self.callbacks, self.observers = checkpoints, notices, callbacks, observers
        self.thaw = thaw
        self.watch = Stopwatch(self.plan.global_batch)
        self.clock = EpochClock(strategy, model)
        self.compiled = False  # whether the steps that come next have been taken once; nobody is slow who compiles
        given = None if config.steps_per_call == "auto" else config.steps_per_call
        self.steps_per_call = StepsPerCall(given, strategy.control)
        self.validation = Validation(inputs, model, notices, self._call)
        self.metric_states: list | None = None  # of an epoch that is under way, where a checkpoint has brought them
        self.under_way = 1  # steps of the call that is under way, or was last
        self.epoch_end = 0  # the step at which the epoch that is under way has all its steps
        self.batches: Iterator | None = None

    @property
    def thaws_next(self) -> bool:
        """Whether the epoch that is to come, or to go on, begins with a thaw."""
        epoch = self.config.unfreeze_epoch
        return self.thaw is not None and not self.progress.thawed and self.progress.epoch + 1 >= epoch

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
            CallbackError: on those workers where a callback of the user's failed.
        """
        for observer in self.observers:
            observer.begin(self.progress.step, self.progress.epoch)
        self._call("on_train_begin")
        self.model.shard()
        self.batches = iter(self.inputs.training(self.progress.step))
        while not self.finished:
            self._begin_epoch()
            while self.progress.step < self.epoch_end:
                self._take_steps(upto=min(self._next_stops()))
            self.model.gather()
            self.watch.end_steps()
            metrics = self.model.results() | self.model.regularization()
            decided = self._is_decided_on(self.progress.epoch)
            if decided and self.inputs.validation_steps:
                with self.clock.spent_on("validation"):
                    metrics |= {f"val_{name}": value for name, value in self.validation.run().items()}
            self._end_epoch(metrics, decided)
        self._call("on_train_end", dict(self.progress.epoch_metrics))

    def look_at(self, inputs: Inputs) -> None:
        """Train on these from now on, the same examples as pictures or as features; before or between epochs."""
        if inputs is self.inputs:
            return
        self.inputs = inputs
        self.validation.look_at(inputs)
        if self.batches is not None:
            self.batches = iter(inputs.training(self.progress.step))

    def close(self) -> None:
        """Let go of the input and let the observers finish, however training ended."""
        self.batches = None
        for observer in self.observers:
            observer.end()

    def _call(self, event: str, *arguments) -> None:
        """Let the user's callbacks have their say at one of Keras' events."""
        if self.callbacks:
            phase = heartbeat.phase()
            heartbeat.enter("callback")
            call_all(self.callbacks, event, *arguments)
            heartbeat.enter(phase)

    def _begin_epoch(self) -> None:
        epoch = self.progress.epoch
        if self.thaws_next:
            self.progress.thawed = True
            self.thaw()
            self.model.shard()
            self.compiled = False
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

    def _next_stops(self):
        """Steps at which something is due, each the next of its kind."""
        step = self.progress.step
        yield self.epoch_end
        for every in (self.config.check_replicas, self.config.checkpoint_every_steps):
            if every:
                yield step // every * every + every
        if self.config.profile_steps:
            first, last = self.config.profile_steps
            yield from (border for border in (first - 1, last) if border > step)

    def _take_steps(self, upto: int) -> None:
        """One compiled call, and what is due after it."""
        progress, first = self.progress, self.progress.step
        report, rates, began = self._compiled_call(self.steps_per_call.upto(upto - first))
        checks.check_finite(report, first)
        self.steps_per_call.took(len(rates), began)
        images_per_second = self.watch.took(len(rates))
        if not self.compiled:
            self.compiled = True
            self.clock.begin()
        progress.step, progress.learning_rate = first + len(rates), rates[-1]
        if self.config.check_replicas and progress.step % self.config.check_replicas == 0:
            checks.check_replicas(self.strategy, self.model, progress.step)
        of_epoch = progress.step - progress.epoch * self.plan.steps_per_epoch
        self._call("on_train_batch_end", of_epoch - 1, {"loss": float(report.loss[-1])})
        for observer in self.observers:
            observer.after_steps(Steps(first + 1, of_epoch, report.loss, rates, images_per_second))
        every = self.config.checkpoint_every_steps
        if every and progress.step % every == 0 and progress.step < self.epoch_end:
            heartbeat.enter("saving")
            with self.clock.spent_on("saving"):
                self.checkpoints.commit(self.model.metric_states())
        heartbeat.enter("training", progress.step)
        if report.heard:
            raise Noticed(report.heard, self.model.metric_states())

    def _compiled_call(self, count: int) -> tuple[StepReport, list[float], float]:
        """So many steps; what is to be known of them, their rates, and ``time.perf_counter()`` as they began."""
        first, self.under_way = self.progress.step, count
        factor = self.decisions.factor
        if self.progress.thawed:
            factor *= self.config.unfreeze_learning_rate_factor or UNFREEZE_FACTOR
        rates = [self.plan.schedule.rate(first + index, factor) for index in range(count)]
        self.notices.tell(self.model)
        self._call("on_train_batch_begin", first - self.progress.epoch * self.plan.steps_per_epoch)
        for observer in self.observers:
            observer.before_steps(first)
        # A step, once begun, waits for the gradients of the other workers.
        phase = "training" if self.watch.traced else "first step"
        heartbeat.enter(phase, first, waiting=True, expected=count * self.steps_per_call.seconds_per_step)
        began = time.perf_counter()
        report = self.model.steps(self.batches, np.asarray(rates, np.float32))
        # Whatever hangs from here on hangs in this process.
        heartbeat.enter("training")
        return report, rates, began

    def _is_decided_on(self, epoch: int) -> bool:
        """Whether the epoch, counted from 0, is validated, as far as there is a validation set, and decided on."""
        number, every = epoch + 1, self.config.validation_every
        return number % every == 0 or number == self.plan.epochs

    def _decide(self, epoch: int, metrics: dict[str, float]) -> dict:
        """The verdict on an epoch, the same on all workers."""
        checks.check_count(self.strategy, self.model, metrics.get("val_examples", 0), self.inputs.validation_examples)
        verdict = self.decisions.end_epoch(epoch, metrics) if self.strategy.is_chief else None
        verdict = self.strategy.control.agree(verdict)
        self.decisions.factor = verdict["factor"]
        return verdict

    def _end_epoch(self, metrics: dict[str, float], decided: bool) -> None:
        """Decide on an epoch that was trained and validated, tell everybody, and save; where it was not validated,
        nothing is decided."""
        heartbeat.enter("training")
        progress, epoch = self.progress, self.progress.epoch
        verdict = self._decide(epoch, metrics) if decided else {"improved": None, "stop": False}
        self._call("on_epoch_end", epoch, dict(metrics))
        if self.config.check_replicas is None:
            checks.check_replicas(self.strategy, self.model, progress.step)
        # A callback of any worker may have asked for the end as Keras' own EarlyStopping does.
        asks = bool(getattr(self.model.network, "stop_training", False))
        names, answers = self.notices.ask([asks, self.clock.end()])
        stops, times = zip(*answers, strict=True)
        progress.epoch, progress.epoch_metrics = epoch + 1, metrics
        progress.stopped_by_callback = any(stops)
        progress.stopped = verdict["stop"] or any(stops)
        watch, rate = self.watch, progress.learning_rate
        ranks = self.clock.ended(times)
        result = Epoch(epoch + 1, progress.step, metrics, rate, watch.images_per_second, watch.seconds, ranks)
        for observer in self.observers:
            observer.end_epoch(result)
        heartbeat.enter("saving")
        with self.clock.spent_on("saving"):
            self.checkpoints.commit(improved=verdict["improved"])
        heartbeat.enter("training", progress.step)
        if names and not self.finished:
            raise Noticed(names, None)
