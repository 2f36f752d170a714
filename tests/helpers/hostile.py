"""What strangers may send, read one after the other by one process, as Lockstep's programs read it: python
tests/helpers/hostile.py FOLDER EVERY OFFSET, under strace.

Of all inputs every EVERY-th, from the OFFSET-th on, is made in FOLDER/inputs/NUMBER, read with FOLDER/run as working
directory, and answered for in FOLDER/answers.jsonl.  The trace has a look at a file ``/reading/NUMBER`` before each
input and at ``/read`` after the last one.
"""

import contextlib
import faulthandler
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # some inputs are those of test_weights.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import hostile_arrays as arrays
import hostile_files as files
import hostile_folders as folders
import hostile_pictures as pictures
import hostile_records as records
import hostile_weights as weights
import numpy as np
import tensorflow as tf
from test_weights import network

from data import DatasetConfig, load
from data.datasets import DataError, Source
from data.diagnose import diagnose
from data.pictures import decode, exif
from launch.comparison.files import ComparisonError
from launch.comparison.runs import read_runs
from launch.data_check.examine import examine_file
from launch.job.arguments import parse_arguments
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation.stages import USER_ERRORS
from launch.job.run_directory import resume
from launch.job.user.class_weights import read_weights
from launch.job.weights.begin import begin
from launch.prediction.inputs import collect
from launch.trained.load import load_run
from launch.trained.program import OutputError

ERRORS = (*USER_ERRORS, OutputError, ComparisonError)
SECONDS = 240  # after which an input counts as one that is waited for
ADDRESSES = 6 << 30  # bytes beyond those of a process that has loaded all: so that a bomb ends it, not the machine


class Hostile(NamedTuple):
    """One input.

    Attributes:
        kind: a key of READERS.
        name: what it is.
        make: fills an empty folder, and may give the place to read instead of it.
        either: whether a sound reader may take it.
    """

    kind: str
    name: str
    make: Callable[[Path], Path | None]
    either: bool


def corpus() -> list[Hostile]:
    """All inputs, in an order in which every n-th is a bit of everything."""
    groups = {
        "pictures": ({}, {}),
        "folder trees": (folders.REFUSED_TREES, folders.EITHER_TREES),
        "TFRecords": (records.REFUSED_RECORDS, records.EITHER_RECORDS),
        "npz": (arrays.REFUSED_NPZ, arrays.EITHER_NPZ),
        "HDF5": (arrays.REFUSED_HDF5, arrays.EITHER_HDF5),
        "CIFAR-10": (arrays.REFUSED_CIFAR, {}),
        "tables": (files.REFUSED_TABLES, files.EITHER_TABLES),
        "settings": (files.REFUSED_SETTINGS, files.EITHER_SETTINGS),
        "class weights": (files.REFUSED_CLASS_WEIGHTS, {}),
        "weights": (weights.REFUSED_WEIGHTS, weights.EITHER_WEIGHTS),
        "runs": (weights.REFUSED_RUNS, {}),
        "comparisons": (weights.REFUSED_COMPARISONS, {}),
    }
    listed = [Hostile("pictures", name, folders.with_picture(name, content), either)
              for name, content, either in pictures.pictures()]  # fmt: skip
    for kind, (refused, either) in groups.items():
        listed += [Hostile(kind, name, make, False) for name, make in refused.items()]
        listed += [Hostile(kind, name, make, True) for name, make in either.items()]
    return listed


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def shown(content):
    """A picture as training shows it."""
    return decode.central_decode(content, exif.orientations(content[None])[0], 16, 8, decode.NOW)


def look_at(source: Source | None) -> None:
    """See all examples as a run does, and say which cannot be read as a run does."""
    for number in range(min(len(source), 20) if source else 0):
        try:
            image = source.read(tf.constant([number], tf.int64))[0]
            if source.encoded:
                shown(image)
        except (tf.errors.OpError, ValueError, OSError) as error:
            raise DataError(diagnose(source, [number]) or f"not diagnosed: {error}") from error


def read_data(dataset: str, place: Path) -> None:
    for source in load(DatasetConfig(dataset, str(place), seed=0, validation_split=0)):
        if source:
            source.fingerprint()
            look_at(source)


def read_pictures(place: Path) -> None:
    """By training, by the check of a data set and by a prediction: all of them must come back."""
    if place.is_dir():
        for path in collect([str(place)]).paths[:20]:
            examine_file(path)
    read_data("image_folder", place)


def read_weights_of_classes(place: Path) -> None:
    found = read_weights(str(place))
    if set(found.weights) != {"a", "b"}:
        raise ConfigError(f"other classes: {len(found.weights)}")


def read_run(place: Path) -> None:
    resume.began_with("auto", place / "checkpoints")
    load_run(place)


TRAINED = network(seed=1)
READERS: dict[str, Callable[[Path], object]] = {
    "pictures": read_pictures,
    "folder trees": read_pictures,
    "TFRecords": lambda place: read_data("tfrecord", place),
    "npz": lambda place: read_data("npz", place),
    "HDF5": lambda place: read_data("hdf5", place),
    "CIFAR-10": lambda place: read_data("cifar10", place),
    "tables": lambda place: read_data("csv", place),
    "settings": lambda place: parse_arguments(["--config", str(place)], program="train.py", description=""),
    "class weights": read_weights_of_classes,
    "weights": lambda place: begin(TrainConfig(weights=str(place)), TRAINED),
    "runs": read_run,
    "comparisons": lambda place: read_runs([place]),
}


def answer(kind: str, place: Path) -> tuple[int, str]:
    """Exit code and what is said."""
    try:
        READERS[kind](place)
    except ERRORS as error:
        return 2, str(error)
    except Exception:
        return 1, traceback.format_exc()
    return 0, ""


def peak() -> int:
    """The most memory that this process has held since it was last told to forget it, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def read_all(folder: Path, chosen: list[tuple[int, Hostile, Path]]) -> Iterator[dict]:
    (folder / "run").mkdir(exist_ok=True)
    os.chdir(folder / "run")
    # The process's addresses, and not its memory: what counts is what it asks for.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number, hostile, place in chosen:
        os.access(f"/reading/{number}", os.F_OK)
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        code, said = answer(hostile.kind, place)
        faulthandler.cancel_dump_traceback_later()
        taken = (peak() - before) >> 10
        yield {"number": number, "kind": hostile.kind, "name": hostile.name, "either": hostile.either,
               "code": code, "said": said, "MiB": taken}  # fmt: skip
    os.access("/read", os.F_OK)


def main(folder: Path, every: int, offset: int) -> None:
    # The first picture is sound: what is loaded when it is first needed is loaded then.
    shown(tf.constant(pictures.jpeg()))
    shown(tf.constant(pictures.png()))
    chosen = []
    for number, hostile in enumerate(corpus()):
        if number % every == offset:
            home = folder / "inputs" / str(number)
            home.mkdir(parents=True)
            chosen.append((number, hostile, hostile.make(home) or home))
    with open(folder / "answers.jsonl", "w", buffering=1) as file, contextlib.suppress(KeyboardInterrupt):
        for found in read_all(folder, chosen):
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
