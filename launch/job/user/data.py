"""The user's own data, as arrays or as sources, checked and made the two splits of a run."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from data import Splits
from data.datasets import DataError, Source
from data.formats.arrays.source import check_range, check_size, training_source, validation_source

_EXPECTED = "expected (pixels uint8 [n, height, width, 3], labels int [n]) or a data.datasets.Source"
_WORDS = {"train": "training", "val": "validation"}


def open_data(data: tuple | list | Callable) -> Splits:
    """The examples to train on and those to validate on, if any.

    Args:
        data: ``(train, validation or None)``, or a function without arguments that returns it.  Each part is a
            ``Source`` or ``(pixels, labels)`` or ``(pixels, labels, class names)``: uint8 [n, height, width, 3], grey
            also [n, height, width] or [n, height, width, 1], and any integers [n] or [n, 1].  Without class names
            these are "0", "1", ... up to the largest training label.

    Raises:
        DataError: anything else; wrong dtype, shape, length or label; fewer than two classes; other classes or another
            image size in validation than in training.
        UserCodeError: the function, of the command line, raised an exception.
    """
    place = getattr(data, "reference", "data")
    if callable(data):
        data = data()
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError(f"{place} gives {_kind(data)}: expected (train, validation), or (train, None).")
    if isinstance(data[0], np.ndarray):
        raise DataError(
            f"{place} gives (pixels, labels): expected (train, validation); write ((pixels, labels), None)."
        )
    train = _train(data[0], place)
    if len(train.classes) < 2:
        raise DataError(f"{place} has the single class {train.classes[0]!r}: expected at least two to tell apart.")
    return Splits(train, None if data[1] is None else _validation(data[1], train, place))


def _train(part, place: str) -> Source:
    if isinstance(part, Source):
        _check_source(part, "train", place)
        return part
    pixels, labels, classes = _arrays(part, "train", place)
    gap = "labels must cover 0 to the largest; or give all class names, as (pixels, labels, names)"
    return training_source("data", pixels, labels, place=place, classes=classes, gap=gap)


def _validation(part, train: Source, place: str) -> Source:
    if isinstance(part, Source):
        _check_source(part, "val", place)
        _check_classes(part.classes, train, place)
        check_size(part, train, f"{place}: x_val")
        return part
    pixels, labels, classes = _arrays(part, "val", place)
    if classes is not None:
        _check_classes(classes, train, place)
    why = f"as the training data have {len(train.classes)} classes"
    return validation_source("data", pixels, labels, train, place=place, why=why)


def _check_classes(classes, train: Source, place: str) -> None:
    if tuple(classes) != train.classes:
        raise DataError(
            f"{place}: validation has the classes {_few(classes)}; training {_few(train.classes)}: expected the same, "
            "in the same order."
        )


def _arrays(part, split: str, place: str) -> tuple:
    """Pixels, labels, and class names or None."""
    if not isinstance(part, tuple | list) or len(part) not in (2, 3):
        raise DataError(f"{place}: {_WORDS[split]} is {_kind(part)}: {_EXPECTED}.")
    pixels, labels, *rest = part
    if not rest or rest[0] is None:
        return pixels, labels, None
    names = rest[0].tolist() if isinstance(rest[0], np.ndarray) else rest[0]
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{place}: class names of {_WORDS[split]} are {names!r:.80}: expected a list of strings.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"{place}: {count} classes of {_WORDS[split]} are named {name!r}: expected names that differ.")
    return pixels, labels, list(names)


def _check_source(source: Source, split: str, place: str) -> None:
    if not len(source):
        raise DataError(f"{place}: {_WORDS[split]} has no example: expected at least one.")
    if source.labels.min() < 0:
        index = source.labels.argmin()
        raise DataError(f"{place}: y_{split}[{index}] is {source.labels[index]}, out of range: labels start at 0.")
    count = len(source.classes)
    check_range(source.labels, count, f"{place}: y_{split}", f"as its source has {count} classes")


def _kind(value) -> str:
    named = f"an object of type {type(value).__name__}"
    return f"{named} and length {len(value)}" if isinstance(value, tuple | list | dict) else named


def _few(names) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, ... ({len(names)})"
