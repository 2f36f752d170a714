"""One prediction, from files to a table; all workers go through it together."""

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.diagnose import diagnose
from data.files.source import FileSource
from data.pictures.check import look_at
from data.pictures.decode import described
from data.pipeline import prediction_batches
from data.views import evaluation_images
from distributed.checkpoint.disk import whole_file
from distributed.control import check_agreement
from launch.evaluation import sheet
from launch.job.preparation import same_data
from launch.prediction.files import Answers, as_csv, as_json, printable
from launch.prediction.inputs import collect
from launch.trained.answers import BATCH, answer_all, probabilities
from launch.trained.load import Found, find, load_network
from launch.trained.program import OutputError, Workers, check_writable

FORMATS = {".csv": as_csv, ".json": as_json}


def predict(options: argparse.Namespace, workers: Workers) -> int:
    """Predict; the options are those of ``launch/predict.py``.  Returns the exit code."""
    console, strategy = workers.console, workers.strategy
    workers.together(lambda: check_options(options))
    found = workers.together(lambda: find(options.run, options.checkpoint))
    record = found.record
    # Standard input is the chief's alone; nor need others look at the files.
    inputs = workers.on_chief(lambda: _find(options.inputs, workers))
    check_agreement(strategy.control, {"weights": found.weights_sha256})
    with strategy.scope():
        network = workers.together(lambda: load_network(found))
    paths = inputs["paths"]
    if inputs["passed_over"]:
        console.note(f"passed over, as no pictures by their names: {inputs['passed_over']:,}")
    refused = dict(inputs["refused"])
    readable_paths = [os.devnull if index in refused else path for index, path in enumerate(paths)]
    source = FileSource("files", record.classes, "", readable_paths, np.zeros(len(paths)))
    if strategy.world.size > 1:  # or another host would answer for pictures of its own
        same_data.check(strategy, [source], workers.together)

    def batches(order, share):
        return prediction_batches(
            source,
            order=order,
            share=share,
            augment=found.config.augment,
            image_size=record.image_size,
            threads=workers.threads,
            decoding=described(record.pixels),
        )

    batch = options.batch_size or found.config.micro_batch_size or BATCH
    logits, readable, rate = answer_all(workers, network, source, batches, batch=batch, title="predicting")

    def leave() -> int:
        unread = np.flatnonzero(readable == 0).tolist()
        errors = {index: refused.get(index) or _reason(source, index) for index in unread}
        for index in np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist():
            errors.setdefault(index, "the network's answer is not finite")
        answers = Answers(paths, record.classes, probabilities(logits), errors, options.top)
        _leave(options, console, found, source, answers)
        console.note(f"{len(paths) - len(errors):,} of {len(paths):,} pictures, {rate:,.0f} images/s")
        if errors:
            first = min(errors)
            more = f" and {len(errors) - 1:,} more" if len(errors) > 1 else ""
            console.error(f"no answer for {paths[first]} ({errors[first]}){more}; the rest is done")
        return 2 if errors else 0

    return workers.on_chief(leave)


def _find(words: Sequence[str], workers: Workers) -> dict:
    """The pictures, and which of them, by index, are not even to be read, as they cannot be pictures or would take too
    much memory."""
    inputs = collect(words)
    source = FileSource("files", [], "", inputs.paths, np.zeros(len(inputs.paths)))
    refused = look_at(source, workers.opening).problems
    workers.console.stop()
    return vars(inputs) | {"refused": list(refused.items())}


def check_options(options: argparse.Namespace) -> None:
    """Raise ``OutputError`` for what cannot be done, before anything is."""
    for flag, suffixes in (("out", tuple(FORMATS)), ("sheet", (".png",))):
        path = getattr(options, flag) and Path(getattr(options, flag))
        if path and path.suffix.lower() not in suffixes:
            raise OutputError(f"--{flag} {path} is of no known kind; end it with {' or '.join(suffixes)}")
        if not path:
            continue
        check_writable(path.absolute().parent, f"--{flag}")
        if not os.path.isdir(path.absolute().parent):
            raise OutputError(f"--{flag} {path}: there is no folder {path.absolute().parent}; make it first")
        if os.path.isdir(path):
            raise OutputError(f"--{flag} {path} is a folder; name a file")


def _reason(source: FileSource, index: int) -> str:
    found = diagnose(source, [index]) or "cannot be decoded"
    return found.removeprefix(f"{source.where(index)}: ")


def _leave(options: argparse.Namespace, console, found: Found, source: FileSource, answers: Answers) -> None:
    """Write the files that are asked for; without any, a line per picture on the console."""
    with contextlib.ExitStack() as files:  # all, or none
        if options.sheet:
            _draw(files.enter_context(whole_file(Path(options.sheet))), found, source, answers)
        if options.out:
            out = Path(options.out)
            text = FORMATS[out.suffix.lower()](answers)
            files.enter_context(whole_file(out)).write_text(printable(text), encoding="utf-8", newline="")
    if options.out or options.sheet:
        return
    for path, pairs, error in answers.rows():
        words = "  ".join(f"{name} {float(value):.4f}" for name, value in pairs)
        console.say(printable(f"{path}  {words or 'error: ' + error}"))


def _draw(path: Path, found: Found, source: FileSource, answers: Answers) -> None:
    tiles = [
        sheet.Tile(index, pairs[0][0], None, float(pairs[0][1]), place)
        for index, (place, pairs, _) in enumerate(answers.rows())
        if pairs
    ]
    size, augment, decoding = found.record.image_size, found.config.augment, described(found.record.pixels)

    def picture(index: int) -> np.ndarray:
        return evaluation_images(source, [index], augment, size, decoding)[0].numpy()

    sheet.draw(path, tiles, picture, str(found.path))
