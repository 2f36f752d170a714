"""Compute the features of all examples, every worker its share, or find them where an earlier start has left them."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data import Splits
from data.datasets import Source
from data.diagnose import is_of_input
from data.features import FeatureSource
from data.order import SequentialOrder, Share
from data.pipeline import validation_batches
from distributed.health import heartbeat
from distributed.inference import Inference
from distributed.strategies import Strategy
from launch.job.config import ConfigError, TrainConfig
from launch.job.features import store
from launch.job.features.cut import Cut, cut
from launch.job.logs.console import Console
from launch.job.preparation.inputs import Inputs, find_unreadable

BATCH = 32  # images that the trunk sees at once; in exact mode those of a micro-batch


class UnreadableExample(Exception):
    """A picture that could not be read while features were computed; its message is one sentence."""


class Features(NamedTuple):
    """
    Attributes:
        inputs: the run's data with features in the place of pictures.
        head: what is trained on them.
    """

    inputs: Inputs
    head: keras.Model


def prepare(
    config: TrainConfig,
    strategy: Strategy,
    inputs: Inputs,
    network: keras.Model,
    directory: Path,
    console: Console,
    *,
    wanted: str,
    steps: int,
    fingerprints: list[str | None],
) -> Features | None:
    """Features of both splits, if the run is better off with them; all workers must call it.

    Args:
        wanted: ``auto``, ``on`` or ``off``.
        network: converted, with the weights that the frozen layers keep.
        steps: of the phase in which these layers are frozen, whatever part of it is over: a run that goes on must do
            what it did before.
        fingerprints: of the splits.

    Returns:
        None where the network is to be trained on pictures.

    Raises:
        ConfigError: on all workers, where ``--cache-features on`` cannot be had.
        UnreadableExample: on the worker that found one.
    """
    if wanted == "off" or config.augment != "none":
        return None
    found = cut(network)
    sizes = [0 if source is None else len(source) for source in inputs.splits]
    why = _why_not(found, sizes[0], steps * inputs.plan.global_batch, wanted)
    if why is None:
        why = strategy.control.agree(_no_room(found, sum(sizes), directory) if strategy.is_chief else None)
        if why and config.exact:
            # Their last bits may be others than those of every step, which must not hang on a disk.
            raise ConfigError(f"features of frozen layers have no room: {why}; make some, or use --cache-features off")
    if why is not None:
        if wanted == "on":
            raise ConfigError(f"--cache-features on cannot be had: {why}; use auto or off")
        if found is not None:
            console.note(f"features are computed in every step: {why}")
        return None
    batch = inputs.plan.micro_batch if config.exact else BATCH
    sources, began = [], time.perf_counter()
    names = []
    for source, fingerprint in zip(inputs.splits, fingerprints, strict=True):
        if source is None:
            sources.append(None)
            continue
        facts = {"data": fingerprint, "size": inputs.image_size, "batch": batch, "precision": config.precision}
        facts["decoding"] = list(inputs.decoding)
        name = strategy.control.agree(store.name_of(found.trunk, facts | {"exact": config.exact}))
        names.append(name)
        path = directory / store.FOLDER / name
        features = _of_split(strategy, inputs, found, source, path, console, batch)
        sources.append(FeatureSource(source, features, found.shape))
    if strategy.is_chief:
        store.remove_others(directory / store.FOLDER, set(names))
    _say(console, found, sum(sizes), time.perf_counter() - began, directory)
    return Features(replace(inputs, splits=Splits(*sources)), found.head)


def _why_not(found: Cut | None, examples: int, used: int, wanted: str) -> str | None:
    """Why features are not to be computed once, in words; the same on all workers.

    Args:
        examples: of the training data.
        used: training examples over all steps.
    """
    if found is None:
        return "no layer with weights is frozen before all that trains"
    return "they are used less than twice" if wanted == "auto" and used < 2 * examples else None


def _no_room(found: Cut, examples: int, directory: Path) -> str | None:
    needed, free = _bytes(found, examples), shutil.disk_usage(directory).free
    if needed <= free // 2:
        return None
    return f"they take {needed / 1e9:.1f} GB, and {directory} has {free / 1e9:.1f} GB free, of which half may go"


def _bytes(found: Cut, examples: int) -> int:
    return 4 * examples * int(np.prod(found.shape))


def _of_split(
    strategy: Strategy, inputs: Inputs, found: Cut, source: Source, path: Path, console: Console, batch: int
) -> np.ndarray:
    """float32 [n, width]: mapped from the file where this host sees it, else in memory."""
    rows, width = len(source), int(np.prod(found.shape))
    array = store.open_array(path, rows, width)
    if all(strategy.control.gather(array is not None)):
        return array
    hosts = strategy.control.gather(strategy.world.host)
    keeps = hosts[0] != strategy.world.host
    kept, writer, failure = [], None, None
    if strategy.is_chief:
        try:
            writer = store.Writer(path, rows, width)
        except OSError as error:
            failure = f"{path.parent} cannot be written ({error.strerror}); mend that, or use --cache-features off"
    if failure := strategy.control.agree(failure):
        raise ConfigError(failure)
    try:
        for answers in _answers(strategy, inputs, found.trunk, source, console, batch):
            if writer:
                writer.add(answers)
            if keeps:
                kept.append(answers)
        if writer:
            writer.commit()
    except BaseException:
        if writer:
            writer.drop()
        raise
    strategy.control.gather(None)  # the file is whole now
    return np.concatenate(kept) if keeps else store.open_array(path, rows, width)


def _answers(
    strategy: Strategy, inputs: Inputs, trunk: keras.Model, source: Source, console: Console, batch: int
):
    """The features of a source in its order, piece by piece, the same on all workers."""
    # In exact mode each batch has a core, so that several are computed side by side.
    side_by_side = inputs.threads if inputs.config.exact else 1
    side_by_side = max(1, min(side_by_side, -(-len(source) // (batch * strategy.replicas))))
    order = SequentialOrder(examples=len(source), replica_batch=batch * side_by_side, replicas=strategy.replicas)

    def batches(first: int, stride: int) -> tf.data.Dataset:
        return validation_batches(
            source,
            order=order,
            share=Share(first, stride),
            augment="none",
            image_size=inputs.image_size,
            threads=inputs.threads,
            decoding=inputs.decoding,
        )

    with strategy.scope():
        inference = Inference(trunk, strategy, batch=batch, side_by_side=side_by_side)
    stream, done, began = iter(strategy.distribute(batches)), 0, time.perf_counter()
    console.start_epoch("computing features", len(source))
    try:
        for step in range(order.steps):
            so_far = (time.perf_counter() - began) / max(step, 1)
            heartbeat.enter("validation" if step else "first validation", waiting=True, expected=so_far)
            try:
                answers, _ = inference.answer(stream)
            except tf.errors.OpError as error:
                culprit = find_unreadable(source, order, strategy.share, step) if is_of_input(error) else None
                if culprit is None:
                    raise
                raise UnreadableExample(f"{culprit}; replace or remove it") from error
            answers = answers[: len(source) - done]
            done += len(answers)
            console.advance(done, f"{done / (time.perf_counter() - began):,.0f} images/s")
            yield answers
    finally:
        console.stop()


def _say(console: Console, found: Cut, examples: int, seconds: float, directory: Path) -> None:
    shape = "x".join(map(str, found.shape))
    size = f"{_bytes(found, examples) / 1e6:,.0f} MB in {directory / store.FOLDER}"
    console.say(
        f"features: {len(found.layers)} frozen layers computed once for {examples:,} images, {shape} numbers each "
        f"({size}), in {seconds:.0f} s"
    )
