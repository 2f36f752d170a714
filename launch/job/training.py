"""A run on one worker, stage by stage, and the answer to what goes wrong in it."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import tensorflow as tf

from data import Splits
from distributed import convert
from distributed.checkpoint.saver import Saver
from distributed.decisions import Decisions, Rules
from distributed.devices import create_strategy
from distributed.gradients.cost_model import Choice
from distributed.health import heartbeat
from distributed.health.preemption import StopRequest, code_of
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from distributed.world import World, WorldError
from launch.job import config as configuration
from launch.job.checks import Miscount, NonFiniteLoss, ReplicasDiffer
from launch.job.config import TrainConfig
from launch.job.failure import fail
from launch.job.logs import report
from launch.job.logs.console import Console
from launch.job.logs.epochs import EpochLines, EpochTable
from launch.job.logs.observer import Observer
from launch.job.logs.tensorboard import TensorBoard
from launch.job.loop import Loop
from launch.job.notices import Noticed, Notices
from launch.job.preparation import exchange, stages
from launch.job.preparation.inputs import Inputs
from launch.job.run import Result
from launch.job.run_directory import resume
from launch.job.run_directory.checkpointing import Checkpoints, Progress, SaveFailed
from launch.job.run_directory.lock import RunDirectoryLock
from launch.job.user.callbacks import CallbackError, call_all, on_chief_only
from launch.job.user.given import UserCode


@dataclass
class Training:
    """What a run on one worker is made of; the later parts come as the stages bring them."""

    config: TrainConfig
    strategy: Strategy
    console: Console
    threads: int
    began: float  # time.perf_counter()
    code: UserCode = field(default_factory=UserCode)
    splits: Splits | None = None
    inputs: Inputs | None = None
    monitor: str | None = None
    directory: Path | None = None
    lock: RunDirectoryLock | None = None
    model: LockstepModel | None = None
    choices: dict[str, Choice] = field(default_factory=dict)
    decisions: Decisions | None = None
    progress: Progress = field(default_factory=Progress)
    checkpoints: Checkpoints | None = None
    loop: Loop | None = None
    notices: Notices | None = None


def execute(
    config: TrainConfig, world: World, threads: int, stop_request: StopRequest, given: dict, raises: bool
) -> tuple[int, Result | None]:
    """Train, and answer for what goes wrong; see ``run.run``.

    Args:
        given: ``model``, ``data`` and ``callbacks`` as Python objects, each None or empty where the settings decide.
    """
    tf.get_logger().setLevel("INFO" if config.verbose else "ERROR")
    began = time.perf_counter()
    try:
        strategy = create_strategy(
            config.strategy, world, cpu_devices=config.cpu_devices, threads=threads, exact=config.exact
        )
    except Exception as error:
        if raises:
            raise
        if isinstance(error, WorldError):
            Console(True).error(str(error))
            return 2, None
        return fail(error, world, heartbeat.die), None
    heartbeat.wait_in_teardown()
    console = Console(strategy.is_chief, launched=world.launcher != "none")
    training = Training(config, strategy, console, threads, began)
    try:
        return train(training, stop_request, given)
    except Exception as error:
        console.stop()
        # Here and not later: leaving may end this process at once.
        release_directory(training)
        if raises:
            raise
        expected = {**dict.fromkeys(stages.USER_ERRORS, 2), ReplicasDiffer: 1, Miscount: 1, SaveFailed: 1}
        for kind, code in expected.items():
            if isinstance(error, kind):
                # All workers raise these together; none leaves before the chief has spoken.
                console.error(str(error))
                return strategy.control.leave(code), None
        return fail(error, world, strategy.control.abort, lambda error: find_culprit(training, error)), None
    except BaseException:
        release_directory(training)
        raise


def train(training: Training, stop_request: StopRequest, given: dict) -> tuple[int, Result | None]:
    """All stages of a run, in order; the exit code is 0, 1 if the loss was not finite, or that of a run that left."""
    config, strategy, console = training.config, training.strategy, training.console
    training.code = code = stages.load_user_code(config, strategy, given)
    stages.agree_on_settings(config, strategy, code)
    training.splits, fingerprints = stages.open_data(config, strategy, console, code)
    training.inputs, training.monitor = stages.plan_inputs(config, strategy, training.splits, training.threads, code)
    training.directory, training.lock = stages.take_directory(config, strategy, console, code)
    measured = exchange.measure(config, strategy, training.directory, training.threads)
    training.model, training.choices = stages.build_model(config, strategy, training.inputs, measured, code)
    prepare_loop(training, fingerprints[0])
    if begin(training):
        summary = strategy.control.agree(report.read(training.directory) if strategy.is_chief else None)
        release_directory(training)
        return 0, result_of(training, summary)
    if strategy.is_chief:
        # Only now: a run that is refused must not touch what an earlier one has left.
        settings = config.model_copy(update={"run_dir": training.directory} | code.named(config))
        configuration.save(settings, training.directory / "config.yaml")
        exchange.keep(measured, training.directory)
    report.introduce(training)
    stop_request.deliver_to(training.notices.add)
    stopped_by = run_loop(training)
    return finish(training, stopped_by, stop_request)


def prepare_loop(training: Training, fingerprint: str) -> None:
    """Put together what trains, decides, saves and looks on."""
    config, strategy, inputs, directory = training.config, training.strategy, training.inputs, training.directory
    training.decisions = Decisions(
        Rules(
            monitor=training.monitor,
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
    )
    observers = create_observers(training) if strategy.is_chief else []
    training.notices = Notices(strategy.control)
    saver = Saver(
        directory / "checkpoints", config.keep_checkpoints, on_failure=lambda: training.notices.add("save_failed")
    )

    def before_save() -> None:
        # What another run has taken over meanwhile is not to be written to: a look tells the saver.
        training.lock.is_held()
        # So that a run that goes on from this checkpoint finds no gap in the logs.
        for observer in observers:
            observer.flush()

    if training.lock:
        training.lock.on_lost = saver.refuse
        if training.lock.lost:
            saver.refuse(training.lock.lost)
    training.checkpoints = Checkpoints(
        strategy,
        training.model,
        saver,
        resume.describe(config, inputs.plan, strategy, fingerprint, training.code),
        training.decisions,
        training.progress,
        before_save,
    )
    callbacks = prepare_callbacks(training)
    training.loop = Loop(
        config,
        strategy,
        inputs,
        training.model,
        decisions=training.decisions,
        progress=training.progress,
        checkpoints=training.checkpoints,
        notices=training.notices,
        callbacks=callbacks,
        observers=observers,
    )


def prepare_callbacks(training: Training) -> list[keras.callbacks.Callback]:
    """Those of the user's callbacks that run on this worker, with what Keras' ``fit`` tells them before it begins."""
    plan, network = training.inputs.plan, training.model.network
    network.optimizer = training.model.optimizer
    params = {"epochs": plan.epochs, "steps": plan.steps_per_epoch, "verbose": 0, "exchange": training.choices}
    callbacks = [
        callback for callback in training.code.callbacks if training.strategy.is_chief or not on_chief_only(callback)
    ]
    call_all(callbacks, "set_model", network)
    call_all(callbacks, "set_params", params)
    return callbacks


def create_observers(training: Training) -> list[Observer]:
    """What looks on, on the chief."""
    config, console, inputs, directory = training.config, training.console, training.inputs, training.directory
    return [
        EpochTable(directory / "metrics.csv", console, config.metrics),
        TensorBoard(
            directory / "tensorboard",
            console,
            config.model_dump(mode="json"),
            training.model.network,
            every=config.log_every_steps,
            histogram_epochs=config.histogram_epochs,
            profile_steps=config.profile_steps,
        ),
        EpochLines(
            console,
            epochs=inputs.plan.epochs,
            steps_per_epoch=inputs.plan.steps_per_epoch,
            validation_examples=inputs.validation_examples,
        ),
    ]


def begin(training: Training) -> bool:
    """Give every worker the weights and the state with which training begins; True if nothing is left to do."""
    config, strategy, model, progress = training.config, training.strategy, training.model, training.progress
    plan, folder, console = training.inputs.plan, training.directory / "checkpoints", training.console
    state = stages.together(
        strategy, lambda: resume.restore(config, plan, strategy, model, folder, training.checkpoints.facts)
    )
    state = strategy.control.agree(state)
    strategy.broadcast([*model.network.variables, *model.optimizer.variables])
    if state is None:
        return False
    training.decisions.restore(state["decisions"])
    progress.step, progress.epoch = state["step"], state["epoch"]
    progress.learning_rate, progress.epoch_metrics = state["learning_rate"], state["epoch_metrics"]
    # More patience than then lets a run go on that had been stopped, and so does leaving out the callback that did it.
    progress.stopped_by_callback = state.get("stopped_by_callback", False) and training.code.has_callbacks
    progress.stopped = state["stopped"] and (training.decisions.out_of_patience or progress.stopped_by_callback)
    training.loop.metric_states = state["metrics"]
    for note in state["notes"]:
        console.say(note)
    done = progress.step - progress.epoch * plan.steps_per_epoch
    of_all = f"{done} of {plan.steps_per_epoch} steps done"
    console.say(f"resumed from {state['path']}: epoch {progress.epoch + 1}, {of_all}")
    if state["reported"] and training.loop.finished:
        if progress.stopped_by_callback:
            advice = "leave out the callback that stopped it"
        else:
            advice = f"raise {'--early-stopping-patience' if progress.stopped else '--epochs'}"
        console.say(
            f"{training.directory} is already finished; {advice} to train on, or begin anew in another --run-dir"
        )
        return True
    return False


def run_loop(training: Training) -> str | list[str]:
    """Train to the end, and see that all is saved.

    Returns:
        What ended it: ``epochs``, ``early_stopping``, ``nan``, or the notices of a run that was asked to leave.

    Raises:
        SaveFailed: on all workers, if a checkpoint could not be written.
    """
    loop, progress, checkpoints = training.loop, training.progress, training.checkpoints
    stopped_by = None
    try:
        loop.run()
    except NonFiniteLoss as error:
        training.console.stop()
        training.console.error(str(error))
        progress.step = error.step
        checkpoints.commit()
        stopped_by = "nan"
    except Noticed as notice:
        training.console.stop()
        loop.metric_states = notice.metric_states
        if not loop.finished:
            stopped_by = notice.names
            # After a save that has failed, this does nothing; why it did is the chief's to say, in finish.
            checkpoints.commit(notice.metric_states)
    finally:
        loop.close()
    heartbeat.enter("saving", progress.step)
    checkpoints.finish()
    if training.config.restore_best_weights and not stopped_by:
        restore_best(training)
    return stopped_by or ("early_stopping" if progress.stopped else "epochs")


def restore_best(training: Training) -> None:
    """End with the weights of the best epoch, if its checkpoint is there."""
    folder, best_epoch = training.directory / "checkpoints", training.decisions.best_epoch
    found = resume.restore_best(training.strategy, training.model, folder, training.progress.step)
    if best_epoch is None:
        return  # only the chief knows, and says it
    if found:
        training.progress.epoch_metrics = training.decisions.best_metrics
        training.console.say(f"the weights are those of the best epoch, {best_epoch + 1}, again")
    else:
        training.console.say(
            f"warning: epoch {best_epoch + 1} was the best, but its checkpoint is not in {folder}; "
            "the weights are the last ones"
        )


def finish(training: Training, stopped_by: str | list[str], stop_request: StopRequest) -> tuple[int, Result | None]:
    """Report, and leave together."""
    heartbeat.enter("ending")
    strategy, code = training.strategy, {"nan": 1}.get(str(stopped_by), 0)
    if isinstance(stopped_by, list):
        stopped_by, code = "preempted", code_of(stopped_by)
    summary = None
    if strategy.is_chief:
        summary = report.summarize(training, stopped_by, time.perf_counter() - training.began)
        if not report.leave(summary, training.directory, training.monitor, training.console):
            code = 1
    release_directory(training)
    if stopped_by == "preempted":
        stop_request.saved()
    summary = strategy.control.agree(summary)
    # Also a run that ends well: srun gives the last task only seconds after the first has gone.
    code = strategy.control.leave(code)
    return code, result_of(training, summary)


def result_of(training: Training, summary: dict) -> Result:
    """What the caller of ``train`` gets: nothing of Lockstep's is left in the network."""
    network = convert.plain(training.model.network)
    del network.optimizer
    return Result(network, summary, training.directory)


def release_directory(training: Training) -> None:
    """Let another run have the run directory, once nothing is written to it any more; leave none that is empty."""
    if training.checkpoints:
        training.checkpoints.saver.wait()
    if training.lock:
        training.lock.release()
        training.lock.remove_if_empty()


def find_culprit(training: Training, error: Exception) -> str | None:
    """What the user can mend, in words, if that may be what the error is about; it may take its time."""
    if isinstance(error, CallbackError):
        return f"{error.sentence}\n{error.traceback}".rstrip()
    out_of_memory = isinstance(error, tf.errors.ResourceExhaustedError)
    if training.loop is None or not isinstance(error, tf.errors.OpError) or out_of_memory:
        return None
    validating = heartbeat.phase() in ("first validation", "validation")
    loop = training.loop
    return training.inputs.find_culprit(None if validating else loop.progress.step, loop.under_way)
