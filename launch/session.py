"""A run from its configuration to its files (DESIGN: the way of a run).  Orchestration only; what is done is done elsewhere."""

import time
import traceback
from pathlib import Path

import keras
import tensorflow as tf

from data import Splits, load
from data.errors import DataError
from data.order import validation_steps
from data.pipeline import diagnose, training_batches, validation_batches
from distributed.checkpoint import CheckpointError
from distributed.control import check_agreement, together
from distributed.decisions import Decisions, Rules
from distributed.dropout import SampleDropout
from distributed.errors import WorldError
from distributed.metrics import GlobalMetrics, classification_metrics, example_losses
from distributed.optimizer import synchronize
from distributed.step import LockstepModel
from distributed.strategies import Strategy, create_strategy
from distributed.world import World
from launch import config as configuration
from launch import report, resume
from launch.callbacks import Checkpoints, Decide, LearningRate, NonFiniteLoss, Progress, RestoreMetrics, StopOnNonFinite
from launch.config import ConfigError, TrainConfig
from launch.console import Console
from launch.observers import EpochLines, EpochTable, Stopwatch, TensorBoard
from launch.plan import Plan, create_plan
from models import MODELS, ModelError, build_model

USER_ERRORS = (ConfigError, DataError, ModelError, WorldError, CheckpointError)
OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "adamax": keras.optimizers.Adamax,
    "nadam": keras.optimizers.Nadam,
}


def run(config: TrainConfig, world: World, threads: int) -> int:
    """Train, and answer for what goes wrong.

    Returns:
        The exit code: 0 finished, 2 the user can mend it, 1 anything else.
    """
    tf.get_logger().setLevel("INFO" if config.verbose else "ERROR")
    try:
        strategy = create_strategy(config.strategy, world, cpu_devices=config.cpu_devices, threads=threads)
    except WorldError as error:
        Console(True).error(str(error))
        return 2
    console = Console(strategy.is_chief)
    job = Job(config, strategy, console, threads)
    try:
        return job.run()
    except USER_ERRORS as error:
        # All workers raise these together (see `together`); none leaves before the chief has spoken.
        console.stop()
        console.error(str(error))
        strategy.control.agree(None)
        return 2
    except Exception as error:
        # This worker failed alone: the others wait in a collective and must be taken down.
        console.stop()
        culprit = job.find_culprit() if isinstance(error, tf.errors.OpError) else None
        rank = f"rank {world.rank} on {world.host}: " if world.size > 1 else ""
        if culprit is None:
            traceback.print_exc()
        Console(True).error(f"{rank}{culprit or f'{type(error).__name__}: {error}'}")
        code = 1 if culprit is None else 2
        if world.size > 1:
            strategy.control.abort(code)
        return code


class Job:
    """One run on one worker, in the order of its methods."""

    def __init__(self, config: TrainConfig, strategy: Strategy, console: Console, threads: int):
        self.config, self.strategy, self.console, self.threads = config, strategy, console, threads
        self.progress = Progress()
        self.splits: Splits | None = None

    def run(self) -> int:
        """Do it all; the exit code is 0, or 1 if the loss was not finite."""
        began = time.perf_counter()
        config, strategy = self.config, self.strategy
        check_agreement(strategy.control, config.model_dump(mode="json") | report.versions())
        self.splits = together(strategy.control, USER_ERRORS, self._load)
        check_agreement(strategy.control, {"training data": self.splits.train.fingerprint()})
        self.plan = together(strategy.control, USER_ERRORS, self._plan)
        self.model = together(strategy.control, USER_ERRORS, self._build)
        self._open_run_directory()
        self._create_callbacks()
        resumed = self._resume()
        if resumed and (self.progress.step >= self.plan.total_steps or self.decide.stopped):
            self.console.say(f"{self.run_dir} is already finished; raise --epochs to train on, or begin anew in another --run-dir")
            return 0
        stopped_by = self._fit()
        self._report(stopped_by, time.perf_counter() - began)
        return 1 if stopped_by == "nan" else 0

    def _load(self) -> Splits:
        config = self.config
        return load(config.dataset, config.data_dir and str(config.data_dir), seed=config.seed, validation_split=config.validation_split)

    def _plan(self) -> Plan:
        train, validation = self.splits
        own, architecture = train.image_size, MODELS[self.config.model]
        natural = own[0] if own and own[0] == own[1] and own[0] >= architecture.min_size else architecture.default_size
        self.image_size = self.config.image_size or natural
        names = ["loss", *(metric.name for metric in classification_metrics(len(train.classes)))]
        names += [f"val_{name}" for name in names] if validation else []
        self.monitor = ("val_accuracy" if validation else "accuracy") if self.config.monitor == "auto" else self.config.monitor
        if self.monitor not in names:
            why = "" if validation else " (there is no validation set: --validation-split is 0)"
            raise ConfigError(f"--monitor {self.monitor} is not a metric of this run{why}; choose one of {', '.join(names)}")
        return create_plan(self.config, examples=len(train), replicas=self.strategy.replicas)

    def _build(self) -> LockstepModel:
        config, plan, classes = self.config, self.plan, len(self.splits.train.classes)
        keras.utils.set_random_seed(config.seed)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.config.set_dtype_policy("float32" if config.precision == "float32" else f"mixed_{config.precision}")
        settings = {"learning_rate": plan.schedule.base, "weight_decay": config.weight_decay or None}
        if config.optimizer in ("sgd", "rmsprop"):
            settings["momentum"] = config.momentum if config.momentum is not None else 0.9 if config.optimizer == "sgd" else 0.0
        with self.strategy.scope():
            network = build_model(
                config.model, classes=classes, image_size=self.image_size, dropout=config.dropout, dropout_layer=SampleDropout, seed=config.seed
            )
            optimizer = synchronize(
                OPTIMIZERS[config.optimizer], settings,
                sum_replicas=self.strategy.sum_replicas, clip_norm=config.clip_norm, scaled=config.precision == "float16",
            )
            optimizer.build(network.trainable_variables)
            metrics = GlobalMetrics(classification_metrics(classes), self.strategy.sum_workers)
            losses = example_losses(classes, config.label_smoothing)
            model = LockstepModel(network, self.strategy, losses, metrics, global_batch=plan.global_batch, accumulate=plan.accumulate)
            model.compile(optimizer=optimizer, auto_scale_loss=False, jit_compile=False)
        return model

    def _open_run_directory(self) -> None:
        config = self.config
        name = f"{config.model}-{config.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.run_dir = Path(self.strategy.control.agree(str(config.run_dir or Path("runs") / name)))

        def prepare():
            if self.strategy.is_chief:
                try:
                    self.run_dir.mkdir(parents=True, exist_ok=True)
                    configuration.save(config.model_copy(update={"run_dir": self.run_dir}), self.run_dir / "config.yaml")
                except OSError as error:
                    raise ConfigError(f"--run-dir {self.run_dir} cannot be written ({error.strerror}); name a folder you may write to") from None

        together(self.strategy.control, USER_ERRORS, prepare)

    def _create_callbacks(self) -> None:
        config, plan, strategy = self.config, self.plan, self.strategy
        rules = Rules(
            monitor=self.monitor, mode=config.monitor_mode, min_delta=config.min_delta,
            stop_patience=config.early_stopping_patience, plateau_patience=config.plateau_patience,
            plateau_factor=config.plateau_factor, plateau_cooldown=config.plateau_cooldown,
        )
        self.decisions = Decisions(rules)
        self.facts = {
            "model": config.model, "seed": config.seed, "optimizer": config.optimizer, "global_batch": plan.global_batch,
            "steps_per_epoch": plan.steps_per_epoch, "dataset": self.splits.train.fingerprint(), "versions": report.versions(),
        }
        self.decide = Decide(strategy, self.decisions)
        self.checkpoints = Checkpoints(
            strategy, self.run_dir / "checkpoints", self.facts, self.decide, self.progress,
            every=config.checkpoint_every_steps, keep=config.keep_checkpoints,
        )
        self.watch = Stopwatch(plan)
        validation_examples = len(self.splits.validation) if self.splits.validation else 0
        observers = [
            EpochTable(self.run_dir / "metrics.csv", self.progress, self.watch),
            TensorBoard(
                self.run_dir / "tensorboard", config.model_dump(mode="json"), self.watch, self.progress,
                every=config.log_every_steps, histogram_epochs=config.histogram_epochs, profile_steps=config.profile_steps,
            ),
            EpochLines(self.console, plan, self.progress, self.watch, validation_examples),
        ]
        participants = [LearningRate(plan, self.decisions, self.progress), StopOnNonFinite(self.progress), self.decide, self.checkpoints]
        self.callbacks = [self.watch, *participants, *(observers if strategy.is_chief else [])]

    def _resume(self) -> bool:
        """Give every worker the weights, and the state, with which training begins."""
        state = together(
            self.strategy.control, USER_ERRORS,
            lambda: resume.restore(self.config, self.strategy, self.model, self.decisions, self.run_dir / "checkpoints", self.facts),
        )
        state = self.strategy.control.agree(state)
        self.strategy.broadcast([*self.model.network.variables, *self.model.optimizer.variables])
        self.metric_states = None
        if state is None:
            return False
        self.decisions.restore(state["decisions"])
        self.progress.step = self.progress.began_at = state["step"]
        self.metric_states, self.decide.stopped = state["metrics"], state["stopped"]
        epoch, step = divmod(state["step"], self.plan.steps_per_epoch)
        self.console.say(f"resumed from {state['path']}: epoch {epoch + 1}, step {step} of {self.plan.steps_per_epoch}")
        return True

    def _fit(self) -> str:
        """Train to the end and return what ended it."""
        self._introduce()
        plan, validation = self.plan, self.splits.validation
        arguments = {"verbose": 0, "shuffle": False, "callbacks": self.callbacks}
        if validation:
            arguments |= {
                "validation_data": self.strategy.distribute(self._validation_batches),
                "validation_steps": validation_steps(len(validation), plan.replica_batch, plan.replicas),
            }
        epoch, offset = divmod(self.progress.step, plan.steps_per_epoch)
        try:
            if offset:
                # The rest of the broken epoch; its metrics go on from the checkpoint's.
                rest = RestoreMetrics(self.metric_states if self.strategy.is_chief else None)
                broken = arguments | {"callbacks": [rest, *self.callbacks]}
                self.model.fit(self._training_data(), initial_epoch=epoch, epochs=epoch + 1, steps_per_epoch=plan.steps_per_epoch - offset, **broken)
                epoch += 1
            if not self.decide.stopped and epoch < plan.epochs:
                self.model.fit(self._training_data(), initial_epoch=epoch, epochs=plan.epochs, steps_per_epoch=plan.steps_per_epoch, **arguments)
        except NonFiniteLoss as error:
            self.console.stop()
            self.console.error(str(error))
            self.progress.step = error.step
            self.checkpoints.commit(None)
            return "nan"
        return "early_stopping" if self.decide.stopped else "epochs"

    def _training_data(self):
        def batches(first: int, stride: int) -> tf.data.Dataset:
            return training_batches(
                self.splits.train, seed=self.config.seed, replica_batch=self.plan.replica_batch, replicas=self.plan.replicas, first=first, stride=stride,
                start_step=self.progress.step, steps_per_epoch=self.plan.steps_per_epoch, augment=self.config.augment, image_size=self.image_size, threads=self.threads,
            )

        return self.strategy.distribute(batches)

    def _validation_batches(self, first: int, stride: int) -> tf.data.Dataset:
        return validation_batches(
            self.splits.validation, replica_batch=self.plan.replica_batch, replicas=self.plan.replicas, first=first, stride=stride,
            augment=self.config.augment, image_size=self.image_size, threads=self.threads,
        )

    def _introduce(self) -> None:
        """Say what is about to run."""
        config, world, plan = self.config, self.strategy.world, self.plan
        train, validation = self.splits
        where = f"{plan.replicas} replica{'s' * (plan.replicas > 1)} in {world.size} process{'es' * (world.size > 1)}"
        devices = "GPU" if tf.config.get_visible_devices("GPU") else f"CPU, {self.threads} threads per process"
        self.console.say(f"lockstep: {config.model}, {self.model.network.count_params():,} parameters, {config.precision}, on {where} ({self.strategy.name}; {devices})")
        held_out = f"{len(validation):,} validation" if validation else "no validation"
        self.console.say(f"data: {config.dataset}, {len(train):,} training and {held_out} images of {len(train.classes)} classes, {self.image_size}x{self.image_size}")
        self.console.say(plan.sentence())
        self.console.say(f"run directory: {self.run_dir}")

    def _report(self, stopped_by: str, seconds: float) -> None:
        """Write ``summary.json`` and ``curves.png``, and say where everything is."""
        if not self.strategy.is_chief:
            return
        config, plan, decisions, watch = self.config, self.plan, self.decisions, self.watch
        final = self.decide.metrics
        rates = sorted(watch.rates)
        best = {} if decisions.best_epoch is None else {"epoch": decisions.best_epoch + 1} | report.split_metrics(decisions.best_metrics)
        summary = {
            "strategy": self.strategy.name, "model": config.model, "parameters": self.model.network.count_params(), "dataset": config.dataset,
            "world_size": self.strategy.world.size, "replicas": plan.replicas, "global_batch_size": plan.global_batch,
            "epochs": self.progress.step // plan.steps_per_epoch, "steps": self.progress.step,
            "final": report.split_metrics(final), "best": best, "validation_examples": int(final.get("val_examples", 0)),
            "images_per_second": round(rates[len(rates) // 2], 1) if rates else None, "seconds": round(seconds, 1),
            "stopped_by": stopped_by, "learning_rate": self.progress.learning_rate,
            "weights_sha256": report.weights_sha256(self.model.network), "versions": report.versions(),
        }
        report.write_json(self.run_dir / "summary.json", summary)
        report.draw_curves(self.run_dir / "metrics.csv", self.run_dir / "curves.png")
        if best:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in best.items() if name != "epoch" and value is not None)
            self.console.say(f"best epoch {best['epoch']} of {summary['epochs']} by {self.monitor}: {shown}")
        self.console.say(f"finished in {seconds:.0f} s ({stopped_by}); curves: {self.run_dir}/curves.png, best weights: {self.run_dir}/checkpoints/best")
        self.console.say(f"look at it: tensorboard --logdir {self.run_dir}/tensorboard")

    def find_culprit(self) -> str | None:
        """After an input error: the example that cannot be read, among those this worker was about to read, then among all."""
        if self.splits is None:
            return None
        for source in self.splits:
            if source is not None and (sentence := diagnose(source, range(len(source)))):
                return f"{sentence}; replace or remove it"
        return None
