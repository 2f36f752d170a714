"""The folder of an evaluation: whole, or as it was before.

It is written under a temporary name beside the others, flushed to the disk, and renamed.  The same evaluation gives
the same bytes in every file, whenever and on however many workers it was made.  No TensorFlow in here.
"""

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from distributed.checkpoint import disk
from launch.evaluation.classification import TOP, EvaluationError, Report
from launch.evaluation.leakage import Twin
from launch.trained.program import check_writable

METRICS, PER_CLASS, PREDICTIONS, LEAKAGE = "metrics.json", "per_class.csv", "predictions.csv", "leakage.csv"
CONFUSION, WORST = "confusion.png", "worst.png"
NAMES = {METRICS, PER_CLASS, PREDICTIONS, LEAKAGE, CONFUSION, WORST}
FORMAT = "lockstep evaluation 1"


def check_replaceable(target: Path) -> None:
    """Refuse a folder that cannot be written, or that an evaluation must not replace; worth asking before the work is
    done.

    Raises:
        OutputError: nothing can be made there.
        EvaluationError: ``target`` is there, and it is neither an empty folder nor an earlier evaluation alone.
    """
    check_writable(target.absolute().parent, "--out")
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise EvaluationError(f"{target} is not a folder; move it away or give another name")
    found = {entry.name for entry in target.iterdir()}
    foreign = sorted(found - NAMES)
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise EvaluationError(
            f"{target} holds {foreign[0]}{more}, which no evaluation has written; move it away or give another folder"
        )
    if found and not _is_evaluation(target):
        raise EvaluationError(f"{target} has no {METRICS} of an evaluation; move it away or give another folder")


def _is_evaluation(folder: Path) -> bool:
    try:
        return json.loads((folder / METRICS).read_text()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes ``target`` when the block ends, and is gone when the block fails.

    An earlier evaluation of that name is replaced only then.

    Raises:
        OutputError, EvaluationError: as ``check_replaceable``.
        OSError: what could not be written; ``target`` is as it was.
    """
    target = Path(os.path.abspath(target))
    writing, former = (target.with_name(f".{what}-{target.name}") for what in ("writing", "former"))
    if former.is_dir() and not target.exists():
        os.rename(former, target)  # a crash came between the last two renames
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (writing, former):
        shutil.rmtree(leftover, ignore_errors=True)
    writing.mkdir()
    try:
        yield writing
        for path in writing.iterdir():
            disk.flush(path)
        disk.flush(writing)
        # Once more: an evaluation takes long, and somebody may have put something there.
        check_replaceable(target)
        if target.exists():
            os.rename(target, former)
        os.rename(writing, target)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    disk.flush(target.parent)
    shutil.rmtree(former, ignore_errors=True)


def write(
    folder: Path,
    report: Report,
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    places: Sequence[str | int],
    about: dict,
) -> None:
    """Write ``metrics.json``, ``per_class.csv`` and ``predictions.csv`` into a folder.

    Args:
        report: over ``labels``, int32 [n], and ``probabilities``, float32 [n, c].
        names: of the c classes.
        places: of the n pictures: files, or their indices.
        about: what was evaluated, as a JSON value: it stands first in ``metrics.json``.

    Raises:
        OSError: naming the file.
    """
    text = json.dumps({"format": FORMAT, **about, **metrics(report, names)}, indent=1, ensure_ascii=False)
    with _opened(folder / METRICS) as file:
        file.write(f"{text}\n")
    scores = [
        (name, score.count, score.predicted, score.correct, score.precision, score.recall, score.f1)
        for name, score in zip(names, report.classes, strict=True)
    ]
    header = ("class", "count", "predicted", "correct", "precision", "recall", "f1")
    _write_table(folder / PER_CLASS, header, scores)
    header, rows = _predictions(report, labels, probabilities, names, places)
    _write_table(folder / PREDICTIONS, header, rows)


def metrics(report: Report, names: Sequence[str]) -> dict:
    """The numbers of the whole split, as a JSON value; what cannot be said is left out."""
    top5 = {} if report.top5_accuracy is None else {"top5_accuracy": report.top5_accuracy}
    return {
        "examples": report.examples,
        "loss": report.loss,
        "accuracy": report.accuracy,
        "accuracy_95_interval": list(report.accuracy_interval),
        **top5,
        "macro_precision": report.macro_precision,
        "macro_recall": report.macro_recall,
        "macro_f1": report.macro_f1,
        "classes": len(names),
        "classes_without_examples": [
            name for name, score in zip(names, report.classes, strict=True) if not score.count
        ],
        "most_confused": [
            {"true": names[pair.true], "predicted": names[pair.predicted], "count": pair.count, "share": pair.share}
            for pair in report.confused
        ],
    }


def _predictions(report, labels, probabilities, names, places) -> tuple[list[str], Iterable[tuple]]:
    assert len(places) == len(labels) == len(probabilities) == len(report.top)
    known, rows = np.array(names, dtype=object), np.arange(len(labels))
    kept = report.top.shape[1]
    # The shortest digits that give the same float32 again.
    sure = probabilities[rows[:, None], report.top].astype(str)
    columns = [
        places,
        known[labels],
        known[report.predicted],
        (report.predicted == labels).astype(int),
        sure[:, 0],
        probabilities[rows, labels].astype(str),
        *(column for place in range(kept) for column in (known[report.top[:, place]], sure[:, place])),
    ]
    header = ["path", "label", "predicted", "correct", "probability", "probability_of_label"]
    header += [f"top{place + 1}{what}" for place in range(kept) for what in ("", "_probability")]
    assert kept <= TOP
    return header, zip(*columns, strict=True)


def write_leakage(folder: Path, twins: Sequence[Twin], places: Sequence[str | int], training: Sequence[str]) -> None:
    """Write ``leakage.csv``: each evaluated picture that is a training picture, the first such, and how many are.

    Args:
        places: of the evaluated pictures, one for each of ``twins``.
        training: of the first training picture of each.
    """
    rows = [
        (place, original, twin.copies) for twin, place, original in zip(twins, places, training, strict=True)
    ]
    _write_table(folder / LEAKAGE, ("path", "training_path", "training_copies"), rows)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[tuple]) -> None:
    with _opened(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextlib.contextmanager
def _opened(path: Path):
    """A new text file in UTF-8; names of files that are not UTF-8 are written with backslashes."""
    try:
        with open(path, "x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
