"""The stages of a run before its first step, each a function that other programs can call.

All workers go through them together: what one of them cannot do, none does, and all raise the same sentence.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras

from data import Splits
from data.datasets import DataError
from data.pictures import decode
from data.views import AUGMENTATIONS
from distributed import control
from distributed.checkpoint.commit import CheckpointError
from distributed.gradients.cost_model import Choice
from distributed.hardware.devices import check_devices
from distributed.health import heartbeat
from distributed.layers.convert import LayerError
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from distributed.world import WorldError
from launch.job import environment, identity
from launch.job.config import ConfigError, TrainConfig
from launch.job.logs.console import Console
from launch.job.preparation import exchange
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.preparation.build import build, choose_image_size, choose_monitor
from launch.job.preparation.inputs import Inputs
from launch.job.run_directory import earlier, resume
from launch.job.run_directory.create import create
from launch.job.run_directory.lock import RunDirectoryLock, acquire
from launch.job.user.call import UserCodeError
from launch.job.user.class_weights import weigh
from launch.job.user.given import UserCode
from launch.job.weights import pixels
from launch.job.weights.stored import WeightsError
from launch.trained.record import LOGITS, ONE_LOGIT, Record, RecordError
from models import ModelError

USER_ERRORS = (ConfigError, DataError, ModelError, LayerError, WorldError, CheckpointError, UserCodeError)
USER_ERRORS += (RecordError, WeightsError)


def together(strategy: Strategy, function: Callable):
    """Call ``function`` on every worker; where it fails on any of them, fail on all with the first one's sentence; and
    its traceback, if that is in the user's own code."""

    def call():
        try:
            return function()
        except UserCodeError as error:
            raise UserCodeError(f"{error.sentence}\n{error.traceback}".rstrip(), error.traceback) from error.__cause__

    heartbeat.beat()
    return control.together(strategy.control, USER_ERRORS, call)


def load_user_code(config: TrainConfig, strategy: Strategy, given: dict) -> UserCode:
    """What the user brings along: Python objects, or functions of the files that the settings name."""
    code = together(strategy, lambda: UserCode.load(config, **given))
    return replace(code, has_callbacks=any(strategy.control.gather(bool(code.callbacks))))


def agree_on_settings(config: TrainConfig, strategy: Strategy, code: UserCode) -> None:
    """See that all workers run the same settings, versions and files of the user, each on a device of its own, all on
    one kind of device."""
    check_devices(strategy, cpu=environment.on_cpu(config))
    files = {f"file of --{flag}": digest for flag, digest in code.sha256.items()}
    control.check_agreement(strategy.control, config.model_dump(mode="json") | identity.versions() | files)


def plan_inputs(
    config: TrainConfig,
    strategy: Strategy,
    splits: Splits,
    threads: int,
    code: UserCode,
    before: tuple[int, int] | None,
) -> tuple[Inputs, str]:
    """The arithmetic of batches and steps, the size of the images, and the metric that decides; ``before`` is of
    ``create_batch_plan``."""

    def plan():
        monitor = choose_monitor(config, validated=splits.validation is not None)
        batches = create_batch_plan(
            config,
            examples=len(splits.train),
            replicas=strategy.replicas,
            own_schedule=code.schedule,
            before=before,
        )
        size = choose_image_size(config, splits.train, own_model=code.model is not None)
        return Inputs(config, batches, strategy, splits, size, threads, decode.Decoding(config.exif)), monitor

    inputs, monitor = together(strategy, plan)
    if inputs.plan.schedule.given is not None:
        # A function that draws random numbers, or looks at the clock, would give each worker others.
        digest = hashlib.sha256(repr(inputs.plan.schedule.given).encode()).hexdigest()
        control.check_agreement(strategy.control, {f"learning rates of --schedule {config.schedule}": digest})
    return inputs, monitor


def weigh_classes(config: TrainConfig, strategy: Strategy, splits: Splits, code: UserCode) -> tuple[float, ...] | None:
    """How much an example of each class counts in training; None: all alike.  They follow from the training data and
    from a file, which all workers are seen to have alike."""
    return together(strategy, lambda: weigh(config.class_weights, code.class_weights, splits.train))


def take_directory(
    config: TrainConfig, strategy: Strategy, console: Console, code: UserCode
) -> tuple[Path, RunDirectoryLock | None]:
    """The run directory, which from now on belongs to this run alone; the chief holds the lock."""

    def take():
        if not strategy.is_chief:
            return None, None
        # A function may have a name that is none for a file, such as <lambda>.
        name = re.sub(r"[^\w.-]", "", f"{code.model_name(config)}-{code.data_name(config)}")
        directory = config.run_dir or create(Path("runs"), name, time.time())
        return str(directory), acquire(directory, say=console.say)

    with heartbeat.waiting():
        directory, lock = together(strategy, take)
    return Path(strategy.control.agree(directory)), lock


def keep_decoding(
    config: TrainConfig, strategy: Strategy, console: Console, inputs: Inputs, directory: Path
) -> tuple[TrainConfig, Inputs]:
    """Settings and inputs with the way in which files became pixels when the run began: what is gone on from fits no
    other."""
    began = together(
        strategy, lambda: resume.began_with(config.resume, directory / "checkpoints") if strategy.is_chief else None
    )
    began = strategy.control.agree(began)
    if began is None or (decoding := decode.described(began)) == inputs.decoding:
        return config, inputs
    if decoding.exif != config.exif:
        console.say(f"note: this run began with --exif {decoding.exif} and keeps it")
    if decoding.precise != inputs.decoding.precise:
        console.say("note: pictures are decoded and resized as by the Lockstep that began this run, see docs/data.md")
    return config.model_copy(update={"exif": decoding.exif}), replace(inputs, decoding=decoding)


def inherit_settings(
    config: TrainConfig, strategy: Strategy, console: Console, directory: Path, code: UserCode
) -> TrainConfig:
    """The settings with those that follow from what the run begins with: how its pixels are scaled, and what a
    checkpoint of an earlier version was trained by without a choice."""

    def look():
        if not strategy.is_chief:
            return {}
        checkpoint, _ = resume.find(config.resume, directory / "checkpoints")
        scaling = {"pixels": pixels.choose(config, code.model is not None, checkpoint)}
        return earlier.inherited(config, checkpoint) | scaling

    more = strategy.control.agree(together(strategy, look))
    if "decay_all" in more:
        console.say("note: biases and normalisation decay too, as when this run began; --no-decay-all ends that")
    if more["pixels"] != config.pixels:
        console.say(f"note: pixels are scaled as {more['pixels']}, as those were that the weights were trained on")
    return config.model_copy(update=more)


def build_model(
    config: TrainConfig,
    strategy: Strategy,
    inputs: Inputs,
    measured: exchange.Measured | None,
    code: UserCode,
    class_weights: tuple[float, ...] | None,
) -> tuple[LockstepModel, dict[str, Choice]]:
    """The network, converted and with its optimizer, and by dense layer how its gradient travels; all workers' are
    seen to be of one architecture."""
    model, choices = together(
        strategy,
        lambda: build(
            config,
            inputs.plan,
            strategy,
            classes=len(inputs.splits.train.classes),
            image_size=inputs.image_size,
            calibration=measured and measured.calibration,
            own_model=code.model,
            may_split=not code.has_callbacks,
            class_weights=class_weights,
        ),
    )
    control.check_agreement(strategy.control, {"model": identity.model_sha256(model.network)})
    return model, choices


def describe(config: TrainConfig, inputs: Inputs, network: keras.Model, fingerprint: str, code: UserCode) -> Record:
    """What the run's network takes and answers; ``fingerprint`` is that of the training data."""
    return Record(
        classes=inputs.splits.train.classes,
        image_size=inputs.image_size,
        pixels=decode.description(AUGMENTATIONS[config.augment].eighths, inputs.decoding),
        outputs=ONE_LOGIT if network.output_shape[-1] == 1 else LOGITS,
        model=code.model_name(config),
        model_sha256=identity.model_sha256(network),
        dataset=code.data_name(config),
        data_sha256=fingerprint,
        versions=identity.versions(),
    )
