"""The fit of one run: its callbacks in their order, from wherever it begins to whatever ends it."""

from pathlib import Path

import keras

from distributed.checkpoint.saver import Saver
from distributed.decisions import Decisions, Rules
from distributed.gradients.cost_model import Choice
from distributed.health import heartbeat
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from launch.job import resume
from launch.job.callbacks import (
    CheckReplicas,
    Decide,
    Join,
    LearningRate,
    NonFiniteLoss,
    Noticed,
    Notices,
    Progress,
    StopOnNonFinite,
)
from launch.job.checkpointing import Checkpoints, RestoreMetrics
from launch.job.config import TrainConfig
from launch.job.console import Console
from launch.job.inputs import Inputs
from launch.job.logs import EpochLines, EpochTable, Stopwatch
from launch.job.pulse import Saves, StepsBegin, StepsEnd
from launch.job.tensorboard import TensorBoard


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
        choices: dict[str, Choice],
    ):
        """Args: ``monitor`` is the metric that decides, ``fingerprint`` that of the training data, ``choices`` how the
        gradients of dense layers travel."""
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
        self.choices = choices
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
        health = StopOnNonFinite(self.progress)
        self.notices = Notices(self.progress, strategy.control, health)
        self.observers = self._create_observers(config, validation_examples) if strategy.is_chief else []
        self.checkpoints = Checkpoints(
            strategy,
            Saver(
                directory / "checkpoints",
                config.keep_checkpoints,
                on_failure=lambda: self.notices.mine.add("save_failed"),
            ),
            resume.describe(config, plan, strategy, fingerprint),
            self.decide,
            self.progress,
            health,
            every=config.checkpoint_every_steps,
            flush_logs=self._flush_logs,
        )
        self.callbacks = [
            StepsEnd(),
            Join(),
            self.watch,
            LearningRate(plan, self.decisions, self.progress),
            health,
            CheckReplicas(strategy, self.progress, config.check_replicas),
            self.decide,
            *self.observers,
            Saves(),
            self.checkpoints,
            self.notices,
            StepsBegin(self.progress),
        ]

    def _create_observers(self, config: TrainConfig, validation_examples: int) -> list:
        return [
            EpochTable(self.directory / "metrics.csv", self.console, self.progress, self.watch, config.metrics),
            TensorBoard(
                self.directory / "tensorboard",
                self.console,
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
        self.decisions.restore(state["decisions"])
        # More patience than then lets a run go on that had been stopped.
        self.decide.stopped = state["stopped"] and self.decisions.out_of_patience
        self.decide.metrics = state["epoch_metrics"]
        self.progress.step, self.progress.epochs_before = state["step"], state["epoch"]
        self.progress.learning_rate = state["learning_rate"]
        self.metric_states = state["metrics"]
        self.undecided = self.metric_states is not None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to decide."""
        return not self.undecided and (self.decide.stopped or self.progress.step >= self.plan.total_steps)

    def fit(self) -> str:
        """Train to the end and return what ended it: ``epochs``, ``early_stopping``, ``nan`` or ``preempted``.

        Raises:
            SaveFailed: on all workers, if a checkpoint could not be written.
        """
        plan = self.plan
        epoch, offset = self.progress.epochs_before, self.progress.step % plan.steps_per_epoch
        validation, stopped_by = self.inputs.validation(), None
        try:
            if offset or self.undecided:
                # The rest of a broken epoch; its metrics go on from the checkpoint's.
                restore = RestoreMetrics(self.metric_states)
                if offset:
                    self._fit(epoch, epoch + 1, plan.steps_per_epoch - offset, validation, [restore])
                else:
                    self._end_epoch(epoch, validation, restore)
                epoch += 1
            if not self.decide.stopped and epoch < plan.epochs:
                self._fit(epoch, plan.epochs, plan.steps_per_epoch, validation)
        except NonFiniteLoss as error:
            self.console.stop()
            self.console.error(str(error))
            self.progress.step = error.step
            self.checkpoints.commit(None)
            stopped_by = "nan"
        except Noticed as notice:
            self.console.stop()
            self.undecided = notice.metric_states is not None
            if not self.finished:
                stopped_by, self.left_by = "preempted", notice.names
                # After a save that has failed, this does nothing; why it did is the chief's to say, in finish.
                self.checkpoints.commit(notice.metric_states)
        heartbeat.enter("saving", self.progress.step)
        self.checkpoints.finish()
        if self.restore_best and not stopped_by:
            self._restore_best()
        return stopped_by or ("early_stopping" if self.decide.stopped else "epochs")

    def _restore_best(self) -> None:
        folder, best_epoch = self.directory / "checkpoints", self.decisions.best_epoch
        if resume.restore_best(self.strategy, self.model, folder, self.progress.step):
            if best_epoch is None:
                return  # only the chief knows, and says it
            self.console.say(f"the weights are those of the best epoch, {best_epoch + 1}, again")
        elif best_epoch is not None:
            self.restore_best = False
            self.console.say(
                f"warning: epoch {best_epoch + 1} was the best, but its checkpoint is not in {folder}; "
                "the weights are the last ones"
            )

    def _flush_logs(self) -> None:
        for observer in self.observers:
            observer.flush()

    def _end_epoch(self, epoch: int, validation: dict, restore: RestoreMetrics) -> None:
        """Validate and decide on an epoch all of whose steps were taken before."""
        callbacks = keras.callbacks.CallbackList([restore, *self.callbacks], model=self.model)
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
            callbacks=[*(more or []), *self.callbacks],
            shuffle=False,
            verbose=0,
            **validation,
        )
