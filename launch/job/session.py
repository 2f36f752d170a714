"""A run, from its configuration to its files.  Orchestration only: what is done here is done by the other rooms."""

import time
from pathlib import Path

import tensorflow as tf

from data import BUILT_ONCE, Splits, load
from data.datasets import DataError
from distributed.checkpoint.commit import CheckpointError
from distributed.control import check_agreement, together
from distributed.devices import create_strategy
from distributed.gradients.cost_model import Calibration, Choice
from distributed.health import heartbeat
from distributed.health.preemption import StopRequest, code_of
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from distributed.world import World, WorldError
from launch.job import config as configuration
from launch.job import exchange, report, resume
from launch.job.batch_plan import create_batch_plan
from launch.job.build import build, choose_image_size, choose_monitor
from launch.job.callbacks import Miscount, ReplicasDiffer
from launch.job.checkpointing import SaveFailed
from launch.job.config import ConfigError, TrainConfig
from launch.job.console import Console
from launch.job.failure import fail
from launch.job.inputs import Inputs
from launch.job.introduction import introduce
from launch.job.training import Training
from models import ModelError

USER_ERRORS = (ConfigError, DataError, ModelError, WorldError, CheckpointError)


def run(config: TrainConfig, world: World, threads: int, stop_request: StopRequest) -> int:
    """Train, and answer for what goes wrong.

    Args:
        stop_request: what becomes of signals.

    Returns:
        The exit code: 0 finished, 2 the user can mend it, 85 or 130 left on request with all saved, 1 anything else.
    """
    tf.get_logger().setLevel("INFO" if config.verbose else "ERROR")
    try:
        strategy = create_strategy(
            config.strategy, world, cpu_devices=config.cpu_devices, threads=threads, exact=config.exact
        )
    except WorldError as error:
        Console(True).error(str(error))
        return 2
    except Exception as error:
        return fail(error, world, heartbeat.die)
    heartbeat.wait_in_teardown()
    console = Console(strategy.is_chief, launched=world.launcher != "none")
    session = Session(config, strategy, console, threads, stop_request)
    try:
        return session.run()
    except USER_ERRORS as error:
        # All workers raise these together; none leaves before the chief has spoken.
        console.stop()
        console.error(str(error))
        return strategy.control.leave(2)
    except (ReplicasDiffer, Miscount, SaveFailed) as error:
        console.stop()
        console.error(str(error))
        return strategy.control.leave(1)
    except Exception as error:
        console.stop()
        return fail(error, world, strategy.control.abort, session.find_culprit)


class Session:
    """One run on one worker."""

    def __init__(
        self, config: TrainConfig, strategy: Strategy, console: Console, threads: int, stop_request: StopRequest
    ):
        self.config, self.strategy, self.console, self.threads = config, strategy, console, threads
        self.stop_request = stop_request
        self.splits: Splits | None = None
        self.training: Training | None = None

    def run(self) -> int:
        """Prepare, train, report; the exit code is 0, 1 if the loss was not finite, or that of a run that left."""
        began = time.perf_counter()
        check_agreement(self.strategy.control, self.config.model_dump(mode="json") | report.versions())
        self.splits = self._load()
        fingerprints = self._together(lambda: [source and source.fingerprint() for source in self.splits])
        check_agreement(self.strategy.control, {"training data": fingerprints[0], "validation data": fingerprints[1]})
        inputs, monitor = self._together(self._plan)
        directory = self._open_directory()
        measured = exchange.measure(self.config, self.strategy, directory, self.threads)
        model, choices = self._together(lambda: self._build(inputs, measured and measured.calibration))
        check_agreement(self.strategy.control, {"model": report.model_sha256(model.network)})
        self.training = Training(
            self.config,
            self.strategy,
            self.console,
            inputs,
            model,
            directory=directory,
            monitor=monitor,
            fingerprint=fingerprints[0],
            choices=choices,
        )
        if self._resume(self.training):
            return 0
        if self.strategy.is_chief:
            # Only now: a run that is refused must not touch what an earlier one has left.
            configuration.save(self.config.model_copy(update={"run_dir": directory}), directory / "config.yaml")
            exchange.keep(measured, directory)
        introduce(self.console, self.config, self.strategy, inputs, self.splits, model, choices)
        self.console.say(f"run directory: {directory}")
        self.stop_request.deliver_to(self.training.notices.mine.add)
        stopped_by = self.training.fit()
        heartbeat.enter("ending")
        code = {"nan": 1, "preempted": code_of(self.training.left_by)}.get(stopped_by, 0)
        if self.strategy.is_chief:
            seconds = time.perf_counter() - began
            summary = report.summarize(self.config, self.strategy, self.training, stopped_by, seconds)
            if not report.leave(summary, directory, monitor, self.console):
                code = 1
        if stopped_by == "preempted":
            self.stop_request.saved()
        # Also a run that ends well: srun gives the last task only seconds after the first has gone.
        return self.strategy.control.leave(code)

    def find_culprit(self, error: Exception) -> str | None:
        """The example that cannot be read, in words, if that may be what the error is about."""
        out_of_memory = isinstance(error, tf.errors.ResourceExhaustedError)
        if self.training is None or not isinstance(error, tf.errors.OpError) or out_of_memory:
            return None
        validating = heartbeat.phase() in ("first validation", "validation")
        return self.training.inputs.find_culprit(None if validating else self.training.progress.step)

    def _show_indexing(self, done: int, total: int) -> None:
        heartbeat.beat()
        self.console.indexing(done, total)

    def _together(self, function):
        heartbeat.beat()
        return together(self.strategy.control, USER_ERRORS, function)

    def _load(self) -> Splits:
        """Open the data; where that builds something to keep, one process of each host goes first."""
        config, first = self.config, self.strategy.world.local_rank == 0
        place = config.data_dir and str(config.data_dir)

        def open_data():
            return load(
                config.dataset,
                place,
                seed=config.seed,
                validation_split=config.validation_split,
                progress=self._show_indexing,
            )

        if config.dataset not in BUILT_ONCE:
            return self._together(open_data)
        splits = self._together(lambda: open_data() if first else None)
        return self._together(lambda: splits or open_data())

    def _plan(self) -> tuple[Inputs, str]:
        train, validation = self.splits
        monitor = choose_monitor(self.config, validated=validation is not None)
        plan = create_batch_plan(self.config, examples=len(train), replicas=self.strategy.replicas)
        size = choose_image_size(self.config, train)
        return Inputs(self.config, plan, self.strategy, self.splits, size, self.threads), monitor

    def _build(self, inputs: Inputs, calibration: Calibration | None) -> tuple[LockstepModel, dict[str, Choice]]:
        return build(
            self.config,
            inputs.plan,
            self.strategy,
            classes=len(self.splits.train.classes),
            image_size=inputs.image_size,
            calibration=calibration,
        )

    def _open_directory(self) -> Path:
        config = self.config
        name = f"{config.model}-{config.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        directory = Path(self.strategy.control.agree(str(config.run_dir or Path("runs") / name)))

        def prepare():
            if not self.strategy.is_chief:
                return
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = f"--run-dir {directory} cannot be written ({error.strerror})"
                raise ConfigError(f"{problem}; name a folder you may write to") from None

        self._together(prepare)
        return directory

    def _resume(self, training: Training) -> bool:
        """Give every worker the weights and the state with which training begins; True if nothing is left to do."""
        model, checkpoints = training.model, training.directory / "checkpoints"
        state = self._together(
            lambda: resume.restore(
                self.config, training.plan, self.strategy, model, checkpoints, training.checkpoints.facts
            )
        )
        state = self.strategy.control.agree(state)
        self.strategy.broadcast([*model.network.variables, *model.optimizer.variables])
        if state is None:
            return False
        training.begin_at(state)
        steps, epoch = training.plan.steps_per_epoch, state["epoch"]
        for note in state["notes"]:
            self.console.say(note)
        self.console.say(
            f"resumed from {state['path']}: epoch {epoch + 1}, {state['step'] - epoch * steps} of {steps} steps done"
        )
        if state["reported"] and training.finished:
            flag = "--early-stopping-patience" if training.decide.stopped else "--epochs"
            advice = f"raise {flag} to train on, or begin anew in another --run-dir"
            self.console.say(f"{training.directory} is already finished; {advice}")
            return True
        return False
