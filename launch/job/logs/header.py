"""What a run says before its first step: the model, the workers, the data, the batch arithmetic, the exchange."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from data.datasets import Source
from data.splits import test_place
from distributed.layers import convert
from launch.job.preparation import exchange, freezing
from launch.job.settings.idle import idle

if TYPE_CHECKING:
    from launch.job.preparation.assemble import Training

SHOWN = 6  # classes that are named


def introduce(training: "Training") -> None:
    """Say what is about to run."""
    config, inputs, say = training.config, training.inputs, training.console.say
    plan, (train, validation) = inputs.plan, training.splits
    parameters = f"{training.model.network.count_params():,} parameters"
    say(f"model: {training.code.model_name(config)}, {parameters}, {config.precision}")
    frozen = freezing.sentence(training.model.network)
    for sentence in (*training.begun_with, frozen):
        if sentence:
            say(sentence)
    say(workers_sentence(training))
    for warning in training.cores.warnings:
        training.console.warn(warning)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    if not config.exact and 0 < threads < training.cores.threads:
        # It cannot be changed any more.
        say(f"note: each operation has {threads} of these cores, as an earlier run of this process left it")
    held_out = f"{len(validation):,} validation" if validation else "no validation"
    classes, size = f"{len(train.classes)} classes", f"{inputs.image_size}x{inputs.image_size}"
    say(f"data: {training.code.data_name(config)}, {len(train):,} training and {held_out} images, {classes}, {size}")
    say(f"classes: {class_counts(train, validation)}")
    if training.class_weights is not None:
        say(f"class weights: {shown_weights(train, training.class_weights)} ({config.class_weights})")
    if note := train.note:
        say(f"note: {note}")
    if turned := train.turned:
        done = {"apply": "by which they are turned upright", "ignore": "which is ignored, as --exif says"}[config.exif]
        say(f"note: {turned:,} photograph{'s have' if turned > 1 else ' has'} an orientation tag (EXIF), {done}")
    data_dir = config.data_dir and str(config.data_dir)
    if training.code.data is None and (place := test_place(config.dataset, data_dir)):
        say(f"note: training leaves the test split ({place}) alone; launch/evaluate.py uses it")
    say(plan.sentence())
    if norms := convert.batch_norm_layers(training.model.network):
        whole = plan.micro_batch if config.exact else plan.micro_batch * plan.replicas
        span = whole if config.batch_norm_span == "global" else config.batch_norm_span
        say(f"batch normalisation: {len(norms)} layer{'s' * (len(norms) > 1)}, each by {span} examples")
    if plan.replicas > 1:
        say(exchange.sentence(training.choices))
    if config.exchange == "split" and all(choice.scheme != "split" for choice in training.choices.values()):
        network, may_split = training.model.network, not training.code.has_callbacks
        why = exchange.why_not_split(config, plan, training.strategy, network, may_split)
        training.console.warn(f"--exchange split cannot be had: {why}")
    for sentence in idle(config, plan.total_steps, freezes=bool(frozen)):
        training.console.warn(sentence)
    say(f"run directory: {training.directory}")


def workers_sentence(training: "Training") -> str:
    """Who computes, and on what."""
    replicas, size, threads = training.inputs.plan.replicas, training.strategy.world.size, training.cores.threads
    gpus = tf.config.get_visible_devices("GPU")
    device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    who = f"{replicas} replica{'s' * (replicas > 1)} in {size} process{'es' * (size > 1)}"
    return f"workers: {training.strategy.name}, {who} ({device}, {threads} core{'s' * (threads > 1)} per process)"


def class_counts(train: Source, validation: Source | None) -> str:
    """The first classes with how many training (and validation) examples they have, in words: a wrong folder level or
    order shows here before an hour is spent."""
    counts = np.bincount(train.labels, minlength=len(train.classes))
    held_out = np.zeros_like(counts) if validation is None else np.bincount(validation.labels, minlength=len(counts))
    plus = [f" + {count:,}" if validation is not None else "" for count in held_out]
    of_each = zip(train.classes[:SHOWN], counts, plus, strict=False)
    shown = [f"{name} {count:,}{more}" for name, count, more in of_each]
    rest = len(counts) - SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def shown_weights(train: Source, weights: Sequence[float]) -> str:
    """The first classes with their weights, in words."""
    shown = [f"{name} {weight:.4g}" for name, weight in zip(train.classes[:SHOWN], weights, strict=False)]
    rest = len(weights) - SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
