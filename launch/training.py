"""The fit of one run: its callbacks in their order, from wherever it begins to whatever ends it."""

from pathlib import Path

import keras

from distributed import heartbeat
from distributed.decisions import Decisions, Rules
from distributed.step import LockstepModel
from distributed.strategies import Strategy
from launch import report, resume
from launch.callbacks import (
    Checkpoints,
    CheckReplicas,
    Decide,
    LearningRate,
    NonFiniteLoss,
    Noticed,
    Notices,
    Progress,
    RestoreMetrics,
    StopOnNonFinite,
)
from launch.config import TrainConfig
from launch.console import Console
from launch.inputs import Inputs
from launch.observers import EpochLines, EpochTable, Stopwatch, TensorBoard
from launch.pulse import Saves, StepsBegin, StepsEnd


class Training:
    """A run that is ready to be trained."""

    def __init__(
        self,
        config: TrainConfig,
        strategy: Strategy,
        console: Console,
        inputs: Inputs,
        model: LockstepModel,
        *,
        directory: Path,
        monitor: str,
        fingerprint: str,
    ):
        """Args: ``monitor`` is the metric that decides, ``fingerprint`` that of the training data."""
        plan = inputs.plan
        self.strategy, self.console = strategy, console
        self.plan, self.inputs, self.model, self.directory = plan, inputs, model, directory
        rules = Rules(
            monitor=monitor,
            mode=config.monitor_mode,
            min_delta=config.min_delta,
            relative=config.threshold_mode == "rel",
            stop_patience=config.early_stopping_patience,
            stop_baseline=config.baseline,
            stop_from_epoch=config.start_from_epoch,
            plateau_patience=config.plateau_patience,
            plateau_factor=config.plateau_factor,
            plateau_cooldown=config.plateau_cooldown,
        )
        self.progress = Progress()
        validation = inputs.splits.validation
        validation_examples = len(validation) if validation else 0
        self.decisions = Decisions(rules)
        self.decide = Decide(strategy, self.decisions, validation_examples)
        self.watch = Stopwatch(plan)
        self.metric_states = None
        self.undecided = False
        self.left_by: list[str] = []
        self.restore_best = config.restore_best_weights
        facts = {
            "model": config.model,
            "seed": config.seed,
            "optimizer": config.optimizer,
            "global_batch": plan.global_batch,
            "steps_per_epoch": plan.steps_per_epoch,
            "dataset": fingerprint,
            "versions": report.versions(),
        }
        self.checkpoints = Checkpoints(
            strategy,
            directory / "checkpoints",
            facts,
            self.decide,
            self.progress,
            every=config.checkpoint_every_steps,
            keep=config.keep_checkpoints,
        )
        self.notices = Notices(self.progress, strategy.control)
        self.participants = [
            self.watch,
            LearningRate(plan, self.decisions, self.progress),
            StopOnNonFinite(self.progress),
            CheckReplicas(strategy, self.progress, config.check_replicas),
            self.decide,
        ]
        self.observers = self._create_observers(config, validation_examples) if strategy.is_chief else []

    def _create_observers(self, config: TrainConfig, validation_examples: int) -> list:
        return [
            EpochTable(self.directory / "metrics.csv", self.progress, self.watch, config.metrics),
            TensorBoard(
                self.directory / "tensorboard",
                config.model_dump(mode="json"),
                self.watch,
                self.progress,
                every=config.log_every_steps,
                histogram_epochs=config.histogram_epochs,
                profile_steps=config.profile_steps,
            ),
            EpochLines(self.console, self.plan, self.progress, self.watch, validation_examples),
        ]

    def begin_at(self, state: dict) -> None:
        """Take up the state of a checkpoint; the weights are in place already."""
        if self.strategy.is_chief:
            self.decisions.restore(state["decisions"])
        self.decisions.factor = state["decisions"]["factor"]
        self.decide.stopped = state["stopped"]
        step = self.progress.step = self.progress.began_at = state["step"]
        self.undecided = state["metrics"] is not None
        self.metric_states = state["metrics"] if self.strategy.is_chief else None
        self.progress.epochs_before = step // self.plan.steps_per_epoch
        if self.undecided and step % self.plan.steps_per_epoch == 0:
            # Left between an epoch's last step and its decision: validation is still to be done.
            self.progress.epochs_before -= 1
        if step:
            rate = self.plan.schedule.rate(step - 1, self.decisions.factor)
            self.model.optimizer.learning_rate = self.progress.learning_rate = rate

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to decide."""
        return not self.undecided and (self.decide.stopped or self.progress.step >= self.plan.total_steps)

    def fit(self) -> str:
        """Train to the end and return what ended it: ``epochs``, ``early_stopping``, ``nan`` or ``preempted``."""
        plan = self.plan
        epoch, offset = self.progress.epochs_before, self.progress.step % plan.steps_per_epoch
        validation = self.inputs.validation()
        try:
            if offset or self.undecided:
                # The rest of a broken epoch; its metrics go on from the checkpoint's, which are the chief's.
                restore = RestoreMetrics(self.metric_states)
                if offset:
                    self._fit(epoch, epoch + 1, plan.steps_per_epoch - offset, validation, [restore])
                else:
                    self._end_epoch(epoch, validation, restore)
                epoch = self.progress.epochs_before = epoch + 1
            if not self.decide.stopped and epoch < plan.epochs:
                self._fit(epoch, plan.epochs, plan.steps_per_epoch, validation)
        except Noticed as notice:
            self.undecided = notice.metric_states is not None
            if not self.finished:
                self._close()
                self.left_by = notice.names
                heartbeat.enter("saving", self.progress.step)
                self.checkpoints.commit(notice.metric_states)
                return "preempted"
        except NonFiniteLoss as error:
            self._close()
            self.console.error(str(error))
            self.progress.step = error.step
            self.checkpoints.commit(None)
            return "nan"
        if self.restore_best:
            resume.restore_best(self.strategy, self.model, self.directory / "checkpoints")
            if self.decisions.best_epoch is not None:
                self.console.say(f"the weights are those of the best epoch, {self.decisions.best_epoch + 1}, again")
        return "early_stopping" if self.decide.stopped else "epochs"

    def _close(self) -> None:
        """End in the middle: the console's bar goes, the logs are complete."""
        self.console.stop()
        for observer in self.observers:
            observer.on_train_end()

    def _callbacks(self, more: list) -> list:
        # What looks on comes before the checkpoint: lines of an epoch that was not saved are dropped on resuming,
        # whereas those of one that was must be there.
        watched = [StepsEnd(), *more, *self.participants, *self.observers, Saves(), self.checkpoints, self.notices]
        return [*watched, StepsBegin(self.progress)]

    def _end_epoch(self, epoch: int, validation: dict, restore: RestoreMetrics) -> None:
        """Validate and decide on an epoch all of whose steps were taken before."""
        callbacks = keras.callbacks.CallbackList(self._callbacks([restore]), model=self.model)
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(epoch)
        logs = self.model.get_metrics_result()
        if validation:
            data, steps = validation["validation_data"], validation["validation_steps"]
            found = self.model.evaluate(data, steps=steps, callbacks=callbacks, return_dict=True, verbose=0)
            logs |= {f"val_{name}": value for name, value in found.items()}
        callbacks.on_epoch_end(epoch, logs)
        callbacks.on_train_end(logs)

    def _fit(self, first: int, end: int, steps: int, validation: dict, more: list | None = None) -> None:
        self.model.fit(
            self.inputs.training(self.progress.step),
            initial_epoch=first,
            epochs=end,
            steps_per_epoch=steps,
            callbacks=self._callbacks(more or []),
            shuffle=False,
            verbose=0,
            **validation,
        )
