"""Compute the features of all examples, every worker its share, or find them where an earlier start has left them."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data import Splits
from data.diagnose import is_of_input
from data.features import FeatureSource
from data.order import SequentialOrder, Share
from data.pipeline import validation_batches
from distributed.health import heartbeat
from distributed.inference import Inference
from distributed.strategies import Strategy
from launch.job.config import ConfigError, TrainConfig
from launch.job.features import choose, store
from launch.job.features.choose import Pass
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
    between: Callable[[], None] | None = None,
) -> Features | None:
    """Features of both splits, if the run is better off with them; all workers must call it.

    Args:
        wanted: ``auto``, ``on`` or ``off``.
        network: converted, with the weights that the frozen layers keep.
        directory: the run's.
        steps: of the phase in which these layers are frozen, whatever part of it is over: a run that goes on must do
            what it did before.
        fingerprints: of the splits.
        between: called by all workers after each piece but the last one of an array; what it raises ends the work.

    Returns:
        None where the network is to be trained on pictures.

    Raises:
        ConfigError: on all workers, where ``--cache-features on`` or ``--cache-views`` cannot be had.
        UnreadableExample: on the worker that found one.
    """
    if wanted == "off" or (config.augment != "none" and config.cache_views is None):
        return None
    found, folder = cut(network), config.features_dir or directory / store.FOLDER
    batch, passes = inputs.plan.micro_batch if config.exact else BATCH, choose.passes(config, inputs, fingerprints)
    why = choose.why_not(config, found, len(inputs.splits.train), steps * inputs.plan.global_batch, wanted)
    full, names = None, []
    if why is None:
        names = [strategy.control.agree(choose.name(config, inputs, found.trunk, one, batch)) for one in passes]
        full = strategy.control.agree(_look(config, found, folder, names, passes) if strategy.is_chief else None)
    if why or full:
        _do_without(config, console, found, wanted, why, full)
        return None
    began, arrays, computed = time.perf_counter(), [], 0
    for name, one in zip(names, passes, strict=True):
        array = _find(strategy, folder / name, found, one)
        if array is None:
            computed += len(one.source)
            array = _compute(strategy, inputs, found, one, folder / name, console, batch, between)
        arrays.append(array)
    if strategy.is_chief and config.features_dir is None:
        store.remove_others(folder, set(names))
    _say(config, console, found, [len(array) for array in arrays], computed, time.perf_counter() - began, folder)
    views = config.cache_views or 1
    sources = [FeatureSource(inputs.splits.train, arrays[:views], found.shape), None]
    if inputs.splits.validation is not None:
        sources[1] = FeatureSource(inputs.splits.validation, arrays[views:], found.shape)
    return Features(replace(inputs, splits=Splits(*sources)), found.head)


def _do_without(
    config: TrainConfig, console: Console, found: Cut | None, wanted: str, why: str | None, full: str | None
) -> None:
    """Say that features are not computed once, and why, or raise ``ConfigError`` where the run needs them."""
    views = config.cache_views
    if wanted == "on" and why:
        flag, instead = "--cache-features on", "use auto or off"
        if views is not None:
            flag, instead = f"--cache-views {views}", "leave it out"
        raise ConfigError(f"{flag} cannot be had: {why}; {instead}")
    if full and (wanted == "on" or config.exact or views is not None):
        # Without, last bits would be others, or the views: neither must hang on a disk.
        instead = "use --cache-features off" if views is None else "leave --cache-views out"
        raise ConfigError(f"features of frozen layers have no room: {full}; make some, or {instead}")
    anew = "" if views is None else ", and pictures are augmented anew in each epoch"
    if found is not None or views is not None:
        console.note(f"features are computed in every step: {why or full}{anew}")


def _look(config: TrainConfig, found: Cut, folder: Path, names: list[str], passes: list[Pass]) -> str | None:
    """Remove what a killed start has left, and say why the disk cannot take what is to be computed, if so."""
    store.remove_unfinished(folder, shared=config.features_dir is not None)
    return choose.no_room(found, folder, [(name, len(one.source)) for name, one in zip(names, passes, strict=True)])


def _find(strategy: Strategy, path: Path, found: Cut, one: Pass) -> np.ndarray | None:
    """The array that an earlier start has left, where all workers see it; mapped from the file."""
    array = store.open_array(path, len(one.source), int(np.prod(found.shape)))
    return array if all(strategy.control.gather(array is not None)) else None


def _compute(
    strategy: Strategy,
    inputs: Inputs,
    found: Cut,
    one: Pass,
    path: Path,
    console: Console,
    batch: int,
    between: Callable[[], None] | None,
) -> np.ndarray:
    """float32 [n, width]: mapped from the file where this host sees it, else in memory."""
    rows, width = len(one.source), int(np.prod(found.shape))
    hosts = strategy.control.gather(strategy.world.host)
    keeps = hosts[0] != strategy.world.host
    kept, done, writer, failure = [], 0, None, None
    if strategy.is_chief:
        try:
            writer = store.Writer(path, rows, width)
        except OSError as error:
            failure = f"{path.parent} cannot be written ({error.strerror}); mend that, or use --cache-features off"
    if failure := strategy.control.agree(failure):
        raise ConfigError(failure)
    try:
        for answers in _answers(strategy, inputs, found.trunk, one, console, batch):
            if writer:
                writer.add(answers)
            if keeps:
                kept.append(answers)
            done += len(answers)
            if between and done < rows:
                between()
        if writer:
            writer.commit()
    except BaseException:
        if writer:
            writer.drop()
        raise
    strategy.control.gather(None)  # the file is whole now
    return np.concatenate(kept) if keeps else store.open_array(path, rows, width)


def _answers(strategy: Strategy, inputs: Inputs, trunk: keras.Model, one: Pass, console: Console, batch: int):
    """The features of a pass in its source's order, piece by piece, the same on all workers."""
    source, config = one.source, inputs.config
    # In exact mode each batch has a core, so that several are computed side by side: on all workers as many.
    cores = strategy.control.gather(inputs.threads if config.exact else 1)
    side_by_side = max(1, min(*cores, -(-len(source) // (batch * strategy.replicas))))
    order = SequentialOrder(examples=len(source), replica_batch=batch * side_by_side, replicas=strategy.replicas)

    def batches(first: int, stride: int) -> tf.data.Dataset:
        return validation_batches(
            source,
            order=order,
            share=Share(first, stride),
            augment=config.augment,
            image_size=inputs.image_size,
            threads=inputs.threads,
            decoding=inputs.decoding,
            trained=None if one.view is None else (config.seed, one.view),
        )

    with strategy.scope():
        inference = Inference(trunk, strategy, batch=batch, side_by_side=side_by_side)
    stream, done, began = iter(strategy.distribute(batches)), 0, time.perf_counter()
    title = "" if one.view is None else f", view {one.view + 1} of {config.cache_views}"
    console.start_epoch(f"computing features{title}", len(source))
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


def _say(
    config: TrainConfig, console: Console, found: Cut, rows: list[int], computed: int, seconds: float, folder: Path
) -> None:
    shape, total = "x".join(map(str, found.shape)), sum(rows)
    views = "," if config.cache_views is None else f", {config.cache_views} views of each of {rows[0]:,} to train on,"
    there = f"; {total - computed:,} were there already" if computed < total else ""
    console.say(
        f"features: {len(found.layers)} frozen layers computed once for {total:,} images{views} {shape} numbers each "
        f"({choose.size(found, total) / 1e6:,.0f} MB in {folder}), in {seconds:.0f} s{there}"
    )
    if (k := config.cache_views) is not None:
        console.say(f"augmented views: {k}, not endless; each epoch has the next one, epoch {k + 1} the first again")
