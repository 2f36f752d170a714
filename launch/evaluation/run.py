"""One evaluation, from a run and a split to its files; all workers go through it together."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.datasets import DataError, Source, Subset
from data.diagnose import reason
from data.pictures.decode import described
from data.pipeline import validation_batches
from distributed.control import check_agreement
from launch.evaluation import files, leakage, projector, results
from launch.evaluation.split import Data, open_together, open_training
from launch.job.config import ConfigError
from launch.job.user.call import UserCodeError
from launch.trained.answers import BATCH, answer_all
from launch.trained.load import Found, find, load_network
from launch.trained.program import OutputError, Workers

# Looking for leakage may take so much unasked: a part of the evaluation's time, or seconds.
AFFORDABLE, AT_ONCE = 0.1, 1.0


def evaluate(options: argparse.Namespace, workers: Workers) -> int:
    """Evaluate a run; the options are those of ``launch/evaluate.py``.  Returns the exit code."""
    console, strategy = workers.console, workers.strategy
    found = workers.together(lambda: find(options.run, options.checkpoint))
    data = open_together(options, found, workers)
    source, record = data.part.source, found.record
    if options.projector and not found.run:
        raise OutputError(f"--projector needs the run directory of {found.path}; give that as RUN")
    folder = Path(options.out) if options.out else _default_folder(found, data)
    workers.on_chief(lambda: files.check_replaceable(folder))
    fingerprint = workers.together(source.fingerprint)
    check_agreement(strategy.control, {"weights": found.weights_sha256, "pictures": fingerprint})
    with strategy.scope():
        network = workers.together(lambda: load_network(found))
    console.say(f"run: {found.path}, {record.model}, {len(record.classes)} classes")
    with strategy.scope():
        hidden = results.last_hidden(network) if options.projector else None
    console.say(f"data: {data.data_dir or data.dataset}, {data.part.split}, {_counts(source)}")

    began = time.perf_counter()
    batch = options.batch_size or found.config.micro_batch_size or BATCH
    logits, rate = _answers(workers, found, network, source, batch, "evaluating")
    seconds = time.perf_counter() - began
    console.say(f"{len(logits):,} of {len(source):,} pictures evaluated, {rate:,.0f} images/s")
    shown, features = projector.sampled(len(source)), None
    if hidden is not None:
        features, _ = _answers(workers, found, hidden, Subset(source, shown), batch, "last hidden layer")

    def leave() -> int:
        judged = results.judge(found.config, source.labels, logits, batch)
        return _leave(options, workers, found, data, judged, features, folder, seconds)

    return workers.on_chief(leave)


def _answers(
    workers: Workers, found: Found, network: keras.Model, source: Source, batch: int, title: str
) -> tuple[np.ndarray, float]:
    def batches(order, share):
        return validation_batches(
            source,
            order=order,
            share=share,
            augment=found.config.augment,
            image_size=found.record.image_size,
            threads=workers.threads,
            decoding=described(found.record.pixels),
        )

    answers, _, rate = answer_all(workers, network, source, batches, batch=batch, title=title)
    return answers, rate


def _default_folder(found: Found, data: Data) -> Path:
    place = os.path.basename(os.path.abspath(data.data_dir or data.dataset)).replace(":", "-")
    name = data.part.split if data.own else f"{place}-{data.part.split}"
    return (found.run or Path.cwd()) / f"evaluation-{name}"


def _counts(source: Source) -> str:
    counts = np.bincount(source.labels, minlength=len(source.classes))
    present = int((counts > 0).sum())
    words = f"{len(source):,} pictures"
    return words if present == len(counts) else f"{words} of {present} of the run's {len(counts)} classes"


def _leave(
    options: argparse.Namespace,
    workers: Workers,
    found: Found,
    data: Data,
    judged: results.Judged,
    features: np.ndarray | None,
    folder: Path,
    seconds: float,
) -> int:
    """Print, then write: what is known is said also where it cannot be written; on the chief."""
    console, record, source = workers.console, found.record, data.part.source
    for line in results.lines(judged.report, record.classes):
        console.say(line)
    labels = source.labels
    about = {
        "checkpoint": found.path.name,
        "step": found.state["step"],
        "model": record.model,
        "dataset": data.dataset,
        "split": data.part.split,
        "training_metrics": judged.training_metrics,
    }
    places = [source.where(index) for index in range(len(source))] if source.encoded else range(len(source))
    with files.whole_folder(folder) as writing:
        files.write(writing, judged.report, labels, judged.probabilities, record.classes, places, about)
        _look_for_leakage(options.check_leakage, workers, writing, found, data, places, seconds)
        results.draw(writing, found, source, data.part.split, judged.report, judged.probabilities)
    board = found.run and found.run / "tensorboard"
    if board and (board.is_dir() or features is not None):
        try:
            results.show_in_tensorboard(board, folder, found, source, judged.report, features)
        except OSError as error:
            console.warn(f"{board} cannot be written ({error.strerror or error}); the rest is there")
    console.say(f"files: {folder}/ (metrics.json, per_class.csv, predictions.csv, confusion.png, worst.png)")
    if features is not None:
        console.say(f"projector: tensorboard --logdir {board} and choose PROJECTOR")
    return 0


def _look_for_leakage(
    how: str, workers: Workers, folder: Path, found: Found, data: Data, places: Sequence[str | int], seconds: float
) -> None:
    """Find evaluated pictures that are training pictures; say so, and leave their list."""
    console, source = workers.console, data.part.source
    if how == "off" or data.own and data.part.split == "train":
        return
    try:
        twins, training = _twins(how, workers, found, data, seconds)
    except (leakage.NotLookedFor, ConfigError, DataError, UserCodeError, OSError, tf.errors.OpError) as error:
        # The evaluation is done: training data that is gone or damaged must not cost it.
        console.say(f"leakage: not looked for, {reason(error)}")
        return
    finally:
        console.stop()
    if not twins:
        console.say(f"leakage: none of the {len(source):,} pictures is a training picture")
        return
    leaked = [places[twin.evaluated] for twin in twins]
    files.write_leakage(folder, twins, leaked, [training.where(twin.training) for twin in twins])
    shown = ", ".join(map(str, leaked[:3])) + (f" and {len(leaked) - 3} more" if len(leaked) > 3 else "")
    of_all = f"{len(twins):,} of {len(source):,} pictures"
    console.say(f"leakage: {of_all} found among the training pictures: {shown}; see leakage.csv")


def _twins(
    how: str, workers: Workers, found: Found, data: Data, seconds: float
) -> tuple[list[leakage.Twin], Source]:
    """The evaluated pictures that are training pictures, and these.

    Raises:
        leakage.NotLookedFor, or what opening or reading raises: why that was not done.
    """
    source = data.part.source
    began = time.perf_counter()
    evaluated = list(leakage.stored_digests(source))
    of_each = (time.perf_counter() - began) / len(source)

    def weigh(count: int) -> None:
        if how == "auto" and of_each * count > max(AT_ONCE, AFFORDABLE * seconds):
            raise leakage.NotLookedFor(f"as it would take about {of_each * count:.0f} s; --check-leakage on does it")

    weigh(found.training_examples)  # before these are opened, which takes as long
    training = open_training(found, data, workers.opening)
    if how == "auto" and source.encoded != training.encoded:
        raise leakage.NotLookedFor(
            "as files differ from arrays however alike their pixels are; --check-leakage on compares these"
        )
    weigh(len(training))
    twins = leakage.twins(evaluated, leakage.stored_digests(training))
    if how == "on":
        same_pixels = leakage.twins(leakage.decoded_digests(source), leakage.decoded_digests(training))
        found_twice = {twin.evaluated: twin for twin in (*same_pixels, *twins)}
        twins = [found_twice[index] for index in sorted(found_twice)]
    return twins, training
