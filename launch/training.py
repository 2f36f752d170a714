"""The fit of one run: its callbacks in their order, from wherever it begins to whatever ends it."""

from pathlib import Path

from distributed.decisions import Decisions, Rules
from distributed.planner import Choice
from distributed.saver import Saver
from distributed.step import LockstepModel
from distributed.strategies import Strategy
from launch import resume
from launch.callbacks import (
    CheckReplicas,
    Decide,
    LearningRate,
    NonFiniteLoss,
    Noticed,
    Notices,
    Progress,
    StopOnNonFinite,
)
from launch.checkpoints import Checkpoints, RestoreMetrics
from launch.config import TrainConfig
from launch.console import Console
from launch.events import TensorBoard
from launch.inputs import Inputs
from launch.observers import EpochLines, EpochTable, Stopwatch


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
        self.restore_best = config.restore_best_weights
        self.notices = Notices(self.progress)
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
            every=config.checkpoint_every_steps,
            flush_logs=self._flush_logs,
        )
        self.callbacks = [
            self.watch,
            LearningRate(plan, self.decisions, self.progress),
            StopOnNonFinite(self.progress),
            CheckReplicas(strategy, self.progress, config.check_replicas),
            self.decide,
            *self.observers,
            self.checkpoints,
            self.notices,
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
        if self.strategy.is_chief:
            self.decisions.restore(state["decisions"])
        self.decisions.factor = state["decisions"]["factor"]
        self.decide.stopped, self.decide.metrics = state["stopped"], state["epoch_metrics"]
        self.progress.step, self.progress.epochs_before = state["step"], state["epoch"]
        self.progress.learning_rate = state["learning_rate"]
        self.metric_states = state["metrics"]

    def fit(self) -> str:
        """Train to the end and return what ended it: ``epochs``, ``early_stopping`` or ``nan``.

        Raises:
            SaveFailed: on all workers, if a checkpoint could not be written.
        """
        plan = self.plan
        epoch, offset = divmod(self.progress.step, plan.steps_per_epoch)
        validation, stopped_by = self.inputs.validation(), None
        try:
            if offset:
                # The rest of a broken epoch; its metrics go on from the checkpoint's.
                more = [RestoreMetrics(self.metric_states)]
                self._fit(epoch, epoch + 1, plan.steps_per_epoch - offset, validation, more)
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
            # Why the save failed is the chief's to say, in finish.
            assert notice.names == ["save_failed"], notice
        self.checkpoints.finish()
        if self.restore_best and not stopped_by:
            self._restore_best()
        return stopped_by or ("early_stopping" if self.decide.stopped else "epochs")

    def _restore_best(self) -> None:
        folder, best_epoch = self.directory / "checkpoints", self.decisions.best_epoch
        if resume.restore_best(self.strategy, self.model, folder, self.progress.step):
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
