"""What a run on one worker is made of; its last parts put together: what trains, decides, saves and looks on."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import keras

from data import Splits
from distributed.checkpoint.commit import CheckpointError
from distributed.checkpoint.saver import Saver
from distributed.decisions import Decisions, Rules
from distributed.gradients.cost_model import Calibration, Choice
from distributed.hardware.placement import Cores
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from launch.job.config import TrainConfig
from launch.job.logs.console import Console
from launch.job.logs.epochs import EpochLines, EpochTable, StartLine, UnconnectedLine
from launch.job.logs.observer import Observer
from launch.job.logs.times import TimesTable
from launch.job.loop import Loop
from launch.job.notices import Notices
from launch.job.preparation import phases, stages
from launch.job.preparation.batch_plan import BatchPlan
from launch.job.preparation.inputs import Inputs
from launch.job.run_directory import compatibility, data_changes, resume
from launch.job.run_directory.checkpointing import Checkpoints, Progress
from launch.job.run_directory.lock import RunDirectoryLock
from launch.job.timing.startup import Startup
from launch.job.user.callbacks import call_all, on_chief_only
from launch.job.user.given import UserCode
from launch.trained.record import Record


@dataclass
class Training:
    """What a run on one worker is made of; the later parts come as the stages bring them."""

    config: TrainConfig
    strategy: Strategy
    console: Console
    cores: Cores
    began: float  # time.perf_counter()
    startup: Startup
    code: UserCode = field(default_factory=UserCode)
    splits: Splits | None = None
    fingerprints: list = field(default_factory=list)  # of the splits
    inputs: Inputs | None = None
    monitor: str | None = None
    class_weights: tuple[float, ...] | None = None
    directory: Path | None = None
    lock: RunDirectoryLock | None = None
    model: LockstepModel | None = None
    record: Record | None = None
    begun_with: list[str] = field(default_factory=list)  # what --weights has given, in sentences
    calibration: Calibration | None = None
    choices: dict[str, Choice] = field(default_factory=dict)
    decisions: Decisions | None = None
    progress: Progress = field(default_factory=Progress)
    checkpoints: Checkpoints | None = None
    loop: Loop | None = None
    notices: Notices | None = None


def prepare_loop(training: Training) -> None:
    """Put together what trains, decides, saves and looks on."""
    config, strategy, inputs, directory = training.config, training.strategy, training.inputs, training.directory
    training.decisions = Decisions(create_rules(config, training.monitor))
    observers = create_observers(training) if strategy.is_chief else []
    training.notices = Notices(strategy.control)
    saver = Saver(
        directory / "checkpoints", config.keep_checkpoints, on_failure=lambda: training.notices.add("save_failed")
    )

    def before_save() -> None:
        # What another run has taken over meanwhile is not to be written to.
        if not training.lock.is_held() and training.lock.lost:
            saver.refuse(training.lock.lost)
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
        compatibility.describe(
            config,
            inputs.plan,
            strategy,
            training.record,
            training.code,
            data_changes.describe(training.splits, training.fingerprints),
        ),
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
        thaw=None if config.unfreeze_epoch is None else lambda: phases.thaw(training),
    )


def create_rules(config: TrainConfig, monitor: str) -> Rules:
    """By what the run decides, going by the metric ``monitor``."""
    return Rules(
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


def prepare_callbacks(training: Training) -> list[keras.callbacks.Callback]:
    """Those of the user's callbacks that run on this worker, with what Keras' ``fit`` tells them before it begins."""
    plan, network = training.inputs.plan, training.model.network
    network.optimizer, network.stop_training = training.model.optimizer, False
    params = {"epochs": plan.epochs, "steps": plan.steps_per_epoch, "verbose": 0, "exchange": training.choices}
    callbacks = [
        callback for callback in training.code.callbacks if training.strategy.is_chief or not on_chief_only(callback)
    ]
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.restore_best_weights:
            training.console.say(
                "note: EarlyStopping(restore_best_weights=True) puts weights back once all is saved: they are those of "
                f"the network in memory alone; on disk the best are those by {training.monitor}"
            )
    call_all(callbacks, "set_model", network)
    call_all(callbacks, "set_params", params)
    return callbacks


def create_observers(training: Training) -> list[Observer]:
    """What looks on, on the chief."""
    from launch.job.logs.tensorboard import TensorBoard  # loads TensorBoard, which the other workers need not wait for

    config, console, inputs, directory = training.config, training.console, training.inputs, training.directory
    return [
        EpochTable(directory / "metrics.csv", console, config.metrics, penalized=bool(training.model.regularization())),
        TimesTable(directory / "times.csv", console),
        TensorBoard(
            directory / "tensorboard",
            console,
            config.model_dump(mode="json"),
            training.model.network,
            every=config.log_every_steps,
            histogram_epochs=config.histogram_epochs,
            profile_steps=config.profile_steps,
        ),
        StartLine(console, training.startup),
        UnconnectedLine(console, training.model),
        EpochLines(
            console,
            epochs=inputs.plan.epochs,
            steps_per_epoch=inputs.plan.steps_per_epoch,
            validation_examples=inputs.validation_examples,
        ),
    ]


def keep_warmup(training: Training, start: str) -> None:
    """A run that goes on ends its warm-up as it began it; those of before all began at the base rate."""
    plan = training.inputs.plan
    training.loop.plan = replace(plan, schedule=replace(plan.schedule, warmup_from=start))
    training.checkpoints.facts["warmup_from"] = start


def _refuse_to_end_in_the_past(state: dict | None, plan: BatchPlan) -> None:
    """Raise ``CheckpointError`` where training would go on in the middle of an epoch behind the last one."""
    if state is not None and state["metrics"] is not None and state["epoch"] >= plan.epochs:
        raise CheckpointError(
            f"{state['path']} lies in epoch {state['epoch'] + 1}, and --epochs is {plan.epochs}; give --epochs "
            f"{state['epoch'] + 1} to end with that one, or more"
        )


def begin(training: Training) -> bool:
    """Give every worker the weights and the state with which training begins; True if nothing is left to do."""
    config, strategy, model, progress = training.config, training.strategy, training.model, training.progress
    plan, folder, console = training.inputs.plan, training.directory / "checkpoints", training.console
    if strategy.control.agree(stages.together(strategy, lambda: resume.has_thawed(config, strategy, folder))):
        # What it knows of the optimizer is of the layers that trained then.
        phases.thaw(training)
        progress.thawed = True
    state = stages.together(
        strategy,
        lambda: resume.restore(config, plan, strategy, model, folder, training.checkpoints.facts, training.splits),
    )
    state = strategy.control.agree(state)
    stages.together(strategy, lambda: _refuse_to_end_in_the_past(state, plan))
    if state is None:
        phases.begin_with_weights(training)
    elif digest := state.get("files", {}).get("weights"):
        training.checkpoints.facts["files"]["weights"] = digest
    strategy.broadcast([*model.network.variables, *model.optimizer.variables])
    if state is None:
        return False
    # By other examples nobody can say what is better than before; only what became of the rate stays.
    memory = state["decisions"]
    training.decisions.restore({"factor": memory["factor"]} if state["validates_others"] else memory)
    progress.step, progress.epoch = state["step"], state["epoch"]
    progress.learning_rate, progress.epoch_metrics = state["learning_rate"], state["epoch_metrics"]
    # More patience than then lets a run go on that had been stopped, and so does leaving out the callback that did it.
    progress.stopped_by_callback = state.get("stopped_by_callback", False) and training.code.has_callbacks
    progress.stopped = state["stopped"] and (training.decisions.out_of_patience or progress.stopped_by_callback)
    training.loop.metric_states = state["metrics"]
    keep_warmup(training, state.get("warmup_from", "base"))
    for note in state["notes"]:
        console.say(note)
    if (full := plan.steps_per_epoch * plan.global_batch) > (examples := len(training.splits.train)):
        console.say(
            f"note: an epoch keeps its {plan.steps_per_epoch} steps, which take {full:,} of the {examples:,} training "
            f"examples: its first {full - examples:,} come again at its end"
        )
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
