"""A sample's place in the run is a pure function; this file gives the sources by name and holds out validation."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.cifar10 import load_cifar10
from data.datasets import DataError, Source, Subset
from data.files import load_csv, load_image_folder
from data.npz import load_npz
from data.shapes import load_shapes
from data.tfrecord import load_tfrecord


class Splits(NamedTuple):
    """The examples to train on and those to validate on, if any."""

    train: Source
    validation: Source | None


# Dataset name -> builder(data_dir, seed) -> (train, the source's own validation split or None).
SOURCES: dict[str, Callable[..., tuple[Source, Source | None]]] = {
    "shapes": load_shapes,
    "cifar10": load_cifar10,
    "image_folder": load_image_folder,
    "tfrecord": lambda data_dir, seed, progress=None: load_tfrecord(data_dir, progress),
    "csv": load_csv,
    "npz": load_npz,
}
NEEDS_NO_DATA_DIR = ("shapes", "cifar10")


# Opening these may take long once, for an index or a download that is kept: on each host one process should go first.
BUILT_ONCE = ("tfrecord", "cifar10")


def load(
    dataset: str,
    data_dir: str | None,
    *,
    seed: int,
    validation_split: float,
    progress: Callable[[int, int], None] | None = None,
) -> Splits:
    """Open a data set: the same examples and splits on every machine for the same arguments.

    Args:
        dataset: a key of SOURCES.
        data_dir: the folder or file; None only for `shapes` and `cifar10`.
        seed: chooses the held-out examples, and the pictures of `shapes`.
        validation_split: in [0, 1), the part of each class of the training examples to hold out where the source
            has no validation split of its own; 0 holds out nothing.
        progress: called with (bytes read, bytes in all) while an index is built.

    Raises:
        DataError: whatever is wrong with the arguments or the files.
    """
    if dataset not in SOURCES:
        raise DataError(f"dataset is {dataset!r}: expected one of {', '.join(SOURCES)}.")
    if not 0 <= validation_split < 1:  # also false for NaN
        raise DataError(f"validation_split is {validation_split}: expected 0 or more and less than 1, such as 0.1.")
    if data_dir is None and dataset not in NEEDS_NO_DATA_DIR:
        raise DataError(f"dataset {dataset} needs data_dir: pass --data-dir with the place of its files.")
    arguments = {"progress": progress} if dataset == "tfrecord" else {}
    try:
        train, validation = SOURCES[dataset](data_dir, seed, **arguments)
    except OSError as error:
        place = error.filename or data_dir
        raise DataError(f"cannot read {place} ({error.strerror or error}): restore it or make it readable.") from error
    if len(train.classes) < 2:
        raise DataError(f"{dataset} has the single class {train.classes[0]!r}: expected at least two to tell apart.")
    return hold_out(Splits(train, validation), seed, validation_split)


def hold_out(splits: Splits, seed: int, part: float) -> Splits:
    """Where there is no validation split, hold out this part of each class of the training examples; 0 for none.

    Raises:
        DataError: if a class would be left without training examples.
    """
    train, validation = splits
    if validation is not None or not part:
        return splits
    kept, held_out = _hold_out(train, seed, part)
    return Splits(Subset(train, kept), Subset(train, held_out))


def _hold_out(source: Source, seed: int, part: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted int64 indices to keep and to hold out: `part` of every class, rounded, but at least one example."""
    counts = np.bincount(source.labels, minlength=len(source.classes))
    quotas = np.where(counts > 0, np.maximum(1, np.floor(counts * part + 0.5).astype(np.int64)), 0)
    emptied = np.flatnonzero((counts > 0) & (quotas >= counts))
    if emptied.size:
        label = emptied[0]
        raise DataError(
            f"validation_split {part} would take {quotas[label]} of the {counts[label]} training examples of class "
            f"{source.classes[label]} and leave none: use a smaller split (0 for none) or add examples."
        )
    # Raw Philox output is the same everywhere; shuffled by it within each class, the first `quota` are held out.
    draws = np.random.Philox(key=(2 << 64) + seed % 2**64).random_raw(len(source))
    order = np.lexsort((draws, source.labels))
    place_in_class = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = place_in_class < quotas[source.labels[order]]
    return np.sort(order[~held_out]), np.sort(order[held_out])
