"""One check of a data set, from its files to what is said of them."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data import NEEDS_NO_DATA_DIR, DatasetConfig, open_sources
from data.classes import choose_classes, read_classes
from data.datasets import Source, UnlabelledError
from data.diagnose import reason
from data.files.source import FileSource
from data.splits import open_test_source
from launch.data_check import files
from launch.data_check.examine import Seen, examine_all, processes
from launch.data_check.problems import Picture, Problem, counts, emptied, find_problems, table
from launch.evaluation.leakage import pixel_digest
from launch.prediction.files import printable
from launch.trained.program import OutputError

READ = 256  # pictures of shards or arrays that are in memory at a time


def check(options: argparse.Namespace) -> int:
    """Check a data set; the options are those of ``launch/check_data.py``.  Returns the exit code."""
    tf.config.set_visible_devices([], "GPU")
    if options.move_to and options.dataset != "image_folder":
        raise OutputError(
            f"--move-to is for image_folder, as {options.dataset} would then name pictures that are gone; use --list"
        )
    if options.list:
        files.check_list(options.list)
    sources = _open(options)
    if options.move_to:
        files.check_target(options.move_to, Path(options.data_dir))
    pictures = [
        Picture(split, source.classes[label], printable(source.where(index)))
        for split, source in sources.items()
        for index, label in enumerate(source.labels.tolist())
    ]
    print(f"{options.data_dir or options.dataset}: {len(pictures):,} pictures in {', '.join(sources)}")
    if note := next(iter(sources.values())).note:
        print(f"note: {printable(note)}")
    began = time.perf_counter()
    seen = _examined(sources, options.workers or processes(), len(pictures))
    seconds = time.perf_counter() - began
    print(f"read and decoded in {seconds:.1f} s, {len(pictures) / seconds:,.0f} images/s")
    problems = find_problems(pictures, seen)
    if not problems:
        print("nothing is wrong")
        return 0
    for line in table(pictures, problems):
        print(line)
    print(f"{len(problems):,} of {len(pictures):,} pictures should go: {counts(problems)}")
    _act(options, sources, pictures, problems)
    return 2


def _open(options: argparse.Namespace) -> dict[str, Source]:
    """The splits by name, of which files are not looked at yet."""
    classes = read_classes(options.classes) if options.classes else None
    features = (options.image_feature, options.label_feature)
    config = DatasetConfig(
        options.dataset, options.data_dir, seed=0, validation_split=0, classes=classes, features=features
    )
    train, validation = open_sources(config)
    found = {"train": train, "val": validation}
    if options.dataset not in NEEDS_NO_DATA_DIR:  # of which validation is the test split, or there is none
        try:
            found["test"] = open_test_source(config, train.classes)
        except UnlabelledError as error:
            print(f"note: the test split is not looked at: {printable(str(error))}")
    if classes is not None and not isinstance(train, FileSource):  # files of other classes were not opened at all
        found["train"], found["val"] = choose_classes(train, validation, classes)
    return {name: source for name, source in found.items() if source is not None}


def _examined(sources: dict[str, Source], workers: int, total: int) -> list[Seen]:
    console = Console()
    speed = TextColumn("{task.fields[rate]}")
    columns = TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn()
    seen, began = [], time.perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=total, rate="")
        for source in sources.values():
            for one in _examined_source(source, workers):
                seen.append(one)
                rate = len(seen) / (time.perf_counter() - began)
                bar.update(task, advance=1, rate=f"{rate:,.0f} images/s")
    return seen


def _examined_source(source: Source, workers: int) -> Iterator[Seen]:
    if isinstance(source, FileSource):
        yield from examine_all([source.where(index) for index in range(len(source))], workers)
        return
    for start in range(0, len(source), READ):
        try:
            content = source.read(tf.constant(np.arange(start, min(start + READ, len(source))))).numpy()
        except (OSError, tf.errors.OpError) as error:
            raise OutputError(
                f"{source.where(start)}, or a picture soon after, cannot be read ({reason(error)}); restore the file"
            ) from error
        if source.encoded:
            yield from examine_all(list(content), 1)
        else:
            yield from (Seen(None, "", pixel_digest(pixels)) for pixels in content)


def _act(
    options: argparse.Namespace, sources: dict[str, Source], pictures: list[Picture], problems: list[Problem]
) -> None:
    """List or move what should go, as was asked for, and say what follows."""
    places = [source.where(index) for source in sources.values() for index in range(len(source))]
    going = [places[one.picture] for one in problems]
    if options.list:
        lines = [(place, f"{one.kind}: {one.reason}") for place, one in zip(going, problems, strict=True)]
        files.write_list(options.list, lines)
        print(f"listed in {options.list}")
    if options.move_to:
        try:
            files.move(going, Path(options.data_dir), options.move_to)
            print(f"moved to {options.move_to}, each to the place that it had")
            for split, label in emptied(pictures, problems):
                print(f"note: no picture of class {label} is left in {split}; remove its folder, or bring others")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(files.moved(going)) from None
    elif not options.list:
        move = "--move-to DIR moves them away" if options.dataset == "image_folder" else "mend or remove them"
        print(f"{move}; --list FILE lists them")
