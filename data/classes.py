"""Which classes are trained on, and in which order: what `--classes` says."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.datasets import DataError, Source, Subset
from data.messages import few, joined
from data.naming import expand


def read_classes(given: str) -> tuple[str, ...]:
    """Class names from `a,b,c`, or from a file of that name with one per line; empty lines mean nothing.

    Raises:
        DataError: a file that cannot be read, fewer than two names, or a name twice.
    """
    path = expand(given)
    if os.path.isfile(path):
        try:
            with open(path, encoding="utf-8-sig") as file:
                words = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path} ({error}): expected one class name per line.") from error
    else:
        words = given.split(",")
    names = tuple(word.strip() for word in words if word.strip())
    if len(names) < 2:
        what = "the only class" if names else "no class"
        raise DataError(f"--classes {given} names {what}: expected at least two, as a,b,c or a file with one per line.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"--classes {given} names {name} {count} times: expected names that differ.")
    return names


class Chosen(Subset):
    """The examples of `source` whose class is one of `classes`, labelled in the order of these."""

    def __init__(self, source: Source, classes: Sequence[str]):
        index_of = {name: index for index, name in enumerate(classes)}
        labels = np.array([index_of.get(name, -1) for name in source.classes], np.int32)[source.labels]
        super().__init__(source, np.flatnonzero(labels >= 0))
        self.classes, self.labels = tuple(classes), labels[self.indices]

    def digest(self) -> str:
        digest = hashlib.sha256(repr((self.source.fingerprint(), self.classes)).encode())
        digest.update(self.labels.astype("<i4").tobytes())
        return digest.hexdigest()


def choose_classes(train: Source, validation: Source | None, classes: Sequence[str]) -> tuple[Source, Source | None]:
    """Both splits with these classes alone, in this order; what is left out is said in the training data's note.

    Raises:
        DataError: a class without training examples, all of which are named, or no validation example left.
    """
    present = {train.classes[label] for label in np.unique(train.labels)}
    if unknown := [name for name in classes if name not in present]:
        raise DataError(
            f"--classes names {few(unknown)}, of which there is no training example: expected some of "
            f"{few(sorted(present), 20)}."
        )
    chosen, held_out = Chosen(train, classes), validation and Chosen(validation, classes)
    if held_out is not None and not len(held_out):
        raise DataError("--classes leaves no validation example: name classes that the validation split has, too.")
    left_out = [name for name in train.classes if name in present and name not in classes]
    count = len(train) - len(chosen)
    chosen.note = joined(
        train.note, left_out and f"--classes leaves out {count:,} training images of class {few(left_out)}"
    )
    return chosen, held_out
