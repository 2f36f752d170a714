"""A run on one worker, stage by stage, and the answer to what goes wrong in it."""

import time

import tensorflow as tf

from data.diagnose import is_of_input, reason
from distributed.hardware.devices import create_strategy
from distributed.hardware.placement import Cores
from distributed.health import heartbeat
from distributed.health.preemption import StopRequest, code_of
from distributed.layers import convert
from distributed.world import World, WorldError
from launch.job import environment
from launch.job.checks import Miscount, NonFiniteLoss, ReplicasDiffer
from launch.job.config import TrainConfig
from launch.job.failure import fail
from launch.job.features.compute import UnreadableExample
from launch.job.logs import header, report
from launch.job.logs.console import Console
from launch.job.notices import Noticed
from launch.job.preparation import exchange, opening, phases, stages
from launch.job.preparation.assemble import Training, begin, prepare_loop
from launch.job.run import Result
from launch.job.run_directory import data_changes, held_out, resume
from launch.job.run_directory.checkpointing import SaveFailed
from launch.job.timing.startup import Startup
from launch.job.user.callbacks import CallbackError


def execute(
    config: TrainConfig,
    world: World,
    cores: Cores,
    stop_request: StopRequest,
    given: dict,
    raises: bool,
    startup: Startup,
) -> tuple[int, Result | None]:
    """Train, and answer for what goes wrong; see ``run.run``.

    Args:
        given: ``model``, ``data`` and ``callbacks`` as Python objects, each None or empty where the settings decide.
        startup: its imports are over.
    """
    tf.get_logger().setLevel("INFO" if config.verbose else "ERROR")
    began = time.perf_counter()
    try:
        strategy = create_strategy(
            config.strategy,
            world,
            cpu_devices=config.cpu_devices,
            threads=cores.threads,
            exact=config.exact,
            cpu=environment.on_cpu(config),
        )
    except Exception as error:
        if raises:
            raise
        if isinstance(error, WorldError):
            # Where all workers find it, one of each host says it.
            if heartbeat.accuse():
                Console(True).error(str(error))
            return 2, None
        return fail(error, world, heartbeat.die), None
    heartbeat.wait_in_teardown()
    console = Console(strategy.is_chief, launched=world.launcher != "none")
    training = Training(config, strategy, console, cores, began, startup)
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
    config, strategy, console, threads = training.config, training.strategy, training.console, training.cores.threads
    training.code = code = stages.load_user_code(config, strategy, given)
    stages.agree_on_settings(config, strategy, code)
    training.startup.end("workers")
    opened = opening.open_data(config, strategy, console, code)
    training.splits, training.fingerprints = opened.splits, opened.fingerprints
    training.inputs, training.monitor = stages.plan_inputs(
        config, strategy, training.splits, threads, code, opened.before
    )
    training.class_weights = stages.weigh_classes(config, strategy, training.splits, code)
    training.startup.end("data")
    training.directory, training.lock = stages.take_directory(config, strategy, console, code)
    training.config = config = stages.inherit_settings(config, strategy, console, training.directory, code)
    config, training.inputs = stages.keep_decoding(config, strategy, console, training.inputs, training.directory)
    training.config = config
    training.startup.end("directory")
    measured = exchange.measure(config, strategy, training.directory, threads)
    training.calibration = measured and measured.calibration
    training.startup.end("exchange")
    training.model, training.choices = stages.build_model(
        config, strategy, training.inputs, measured, code, training.class_weights
    )
    training.record = stages.describe(config, training.inputs, training.model.network, training.fingerprints[0], code)
    prepare_loop(training)
    finished = begin(training)
    if strategy.is_chief and not finished:
        # Only now: a run that is refused must not touch what an earlier one has left.
        settings = config.model_copy(update={"run_dir": training.directory} | code.named(config))
        report.keep_settings(settings, training.directory, console)
        exchange.keep(measured, training.directory)
        # Before the listing of today, which would draw others.
        held_out.keep(opened.held_out, training.directory, config, console)
        data_changes.keep(opened.listing, training.directory, console)
    del opened  # the listing is as large as all names together
    if strategy.is_chief:
        # Also where nothing is left to do: a run of an older Lockstep has none.
        report.keep_record(training.record, training.model.network, training.directory, console)
    if finished:
        summary = strategy.control.agree(report.read(training.directory) if strategy.is_chief else None)
        if config.restore_best_weights:
            restore_best(training)
        release_directory(training)
        return 0, result_of(training, summary)
    header.introduce(training)
    training.startup.end("build")
    if not training.loop.thaws_next:  # which looks for those that the next steps need
        phases.look_at_features(training)
    training.startup.end("features")
    stop_request.deliver_to(training.notices.add)
    stopped_by = run_loop(training)
    return finish(training, stopped_by, stop_request)


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
        checkpoints.commit(training.model.metric_states())
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
    if isinstance(error, UnreadableExample):
        return str(error)
    if isinstance(error, CallbackError):
        return f"{error.sentence}\n{error.traceback}".rstrip()
    out_of_memory = isinstance(error, tf.errors.ResourceExhaustedError)
    if training.loop is None or not is_of_input(error) or out_of_memory:
        return None
    validating = heartbeat.phase() in ("first validation", "validation")
    loop, world = training.loop, training.strategy.world
    who = f"rank {world.rank} on {world.host}" if world.size > 1 else "this process"
    Console(True).note(f"{who} could not read an example ({reason(error)}); looking for it, which may take minutes")
    return training.inputs.find_culprit(None if validating else loop.progress.step, loop.under_way)
