"""The fit of one run: its callbacks in their order, from wherever it begins to whatever ends it."""

from pathlib import Path

from distributed.decisions import Decisions, Rules
from distributed.planner import Choice
from distributed.step import LockstepModel
from distributed.strategies import Strategy
from launch import report, resume
from launch.callbacks import (
    Checkpoints,
    CheckReplicas,
    Decide,
    LearningRate,
    NonFiniteLoss,
    Notices,
    Progress,
    RestoreMetrics,
    StopOnNonFinite,
)
from launch.config import TrainConfig
from launch.console import Console
from launch.inputs import Inputs
from launch.observers import EpochLines, EpochTable, Stopwatch, TensorBoard


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
        self.notices = Notices(self.progress)
        self.participants = [
            self.watch,
            LearningRate(plan, self.decisions, self.progress),
            StopOnNonFinite(self.progress),
            CheckReplicas(strategy, self.progress, config.check_replicas),
            self.decide,
            self.checkpoints,
            self.notices,
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
        self.progress.step = self.progress.began_at = state["step"]
        self.metric_states = state["metrics"]

    def fit(self) -> str:
        """Train to the end and return what ended it: ``epochs``, ``early_stopping`` or ``nan``."""
        plan = self.plan
        epoch, offset = divmod(self.progress.step, plan.steps_per_epoch)
        validation = self.inputs.validation()
        try:
            if offset:
                # The rest of a broken epoch; its metrics go on from the checkpoint's, which are the chief's.
                states = self.metric_states if self.strategy.is_chief else None
                self._fit(epoch, epoch + 1, plan.steps_per_epoch - offset, validation, [RestoreMetrics(states)])
                epoch += 1
            if not self.decide.stopped and epoch < plan.epochs:
                self._fit(epoch, plan.epochs, plan.steps_per_epoch, validation)
        except NonFiniteLoss as error:
            self.console.stop()
            self.console.error(str(error))
            self.progress.step = error.step
            self.checkpoints.commit(None)
            return "nan"
        if self.restore_best:
            resume.restore_best(self.strategy, self.model, self.directory / "checkpoints")
            if self.decisions.best_epoch is not None:
                self.console.say(f"the weights are those of the best epoch, {self.decisions.best_epoch + 1}, again")
        return "early_stopping" if self.decide.stopped else "epochs"

    def _fit(self, first: int, end: int, steps: int, validation: dict, more: list | None = None) -> None:
        self.model.fit(
            self.inputs.training(self.progress.step),
            initial_epoch=first,
            epochs=end,
            steps_per_epoch=steps,
            callbacks=[*(more or []), *self.participants, *self.observers],
            shuffle=False,
            verbose=0,
            **validation,
        )
