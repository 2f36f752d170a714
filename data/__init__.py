"""A sample's place in the run is a pure function; this file gives the sources by name and holds out validation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data.classes import choose_classes
from data.datasets import DataError, Progress, Source, Subset
from data.formats.cifar10 import load_cifar10
from data.formats.folders import load_image_folder
from data.formats.hdf5 import load_hdf5
from data.formats.headers import check_pictures
from data.formats.naming import expand, few, joined, refuse_odd_names
from data.formats.npz import load_npz
from data.formats.shapes import load_shapes
from data.formats.tables import load_csv
from data.formats.tfrecord import load_tfrecord


class Splits(NamedTuple):
    """The examples to train on and those to validate on, if any."""

    train: Source
    validation: Source | None


# Dataset name -> builder(data_dir, seed) -> (train, the source's own validation split or None). Those of TAKES_FEATURES
# are given `features` and `reindex`, too, those of TAKES_CHOSEN the class names that are asked for, as `chosen`, and
# those of TAKES_PROGRESS `progress` where somebody wants to see it.
SOURCES: dict[str, Callable[..., tuple[Source, Source | None]]] = {
    "shapes": load_shapes,
    "cifar10": load_cifar10,
    "image_folder": load_image_folder,
    "tfrecord": load_tfrecord,
    "csv": load_csv,
    "npz": load_npz,
    "hdf5": load_hdf5,
}
NEEDS_NO_DATA_DIR = ("shapes", "cifar10")
TAKES_CHOSEN = ("image_folder", "csv", "npz", "hdf5")
TAKES_FEATURES = ("tfrecord",)
TAKES_PROGRESS = ("image_folder", "csv", "tfrecord")

# Opening these may take long once, for an index or a download that is kept: on each host one process should go first.
BUILT_ONCE = ("tfrecord", "cifar10")


def load(
    dataset: str,
    data_dir: str | None,
    *,
    seed: int,
    validation_split: float,
    progress: Progress | None = None,
    classes: Sequence[str] | None = None,
    features: tuple[str | None, str | None] = (None, None),
    skip_unreadable: int = 0,
) -> Splits:
    """Open a data set: the same examples and splits on every machine for the same arguments.

    Args:
        dataset: a key of SOURCES.
        data_dir: the folder or file; None only for `shapes` and `cifar10`. `~` and `$VAR` are replaced.
        seed: chooses the held-out examples, and the pictures of `shapes`.
        validation_split: in [0, 1), the part of each class of the training examples to hold out where the source
            has no validation split of its own; 0 holds out nothing.
        progress: called now and then with what takes long: folders, files, bytes of shards.
        classes: only examples of these, labelled in this order; None for all that the data has.
        features: of TFRecords, the names of the image's and the label's feature where they are not ImageNet's.
        skip_unreadable: leave out up to so many files that cannot be pictures, which the note of the training examples
            names; the fingerprints are those of data without them.

    Raises:
        DataError: whatever is wrong with the arguments or the files; all files that cannot be pictures are named.
    """
    _check_part(validation_split)
    sources = open_checked(
        dataset,
        data_dir,
        seed=seed,
        progress=progress,
        classes=classes,
        features=features,
        skip_unreadable=skip_unreadable,
    )
    return arrange(sources, dataset, classes=classes, seed=seed, validation_split=validation_split)


def _check_part(validation_split: float) -> None:
    if not 0 <= validation_split < 1:  # also false for NaN
        raise DataError(f"validation_split is {validation_split}: expected 0 or more and less than 1, such as 0.1.")


def open_checked(
    dataset: str,
    data_dir: str | None,
    *,
    seed: int,
    progress: Progress | None = None,
    classes: Sequence[str] | None = None,
    features: tuple[str | None, str | None] = (None, None),
    skip_unreadable: int = 0,
    reindex: bool = False,
) -> tuple[Source, Source | None]:
    """All of `load` that looks at files: the training examples and the data's own validation split; arguments as there.

    Args:
        reindex: look at TFRecord shards again, also where an index of them fits.
    """
    sources = open_sources(
        dataset, data_dir, seed=seed, progress=progress, classes=classes, features=features, reindex=reindex
    )
    return check_pictures(sources, skip_unreadable, progress)


def arrange(
    sources: tuple[Source, Source | None],
    dataset: str,
    *,
    classes: Sequence[str] | None,
    seed: int,
    validation_split: float,
) -> Splits:
    """The rest of `load`, which looks at nothing but labels: the classes that are asked for, and what is held out."""
    _check_part(validation_split)
    train, validation = sources
    if classes is not None:
        train, validation = choose_classes(train, validation, classes)
    if len(train.classes) < 2:
        raise DataError(f"{dataset} has the single class {train.classes[0]!r}: expected at least two to tell apart.")
    return hold_out(Splits(train, validation), seed, validation_split)


def open_sources(
    dataset: str,
    data_dir: str | None,
    *,
    seed: int,
    progress: Progress | None = None,
    classes: Sequence[str] | None = None,
    features: tuple[str | None, str | None] = (None, None),
    reindex: bool = False,
) -> tuple[Source, Source | None]:
    """The examples of `open_checked`, before any file is looked at; arguments as there."""
    if dataset not in SOURCES:
        raise DataError(f"dataset is {dataset!r}: expected one of {', '.join(SOURCES)}.")
    if data_dir is None and dataset not in NEEDS_NO_DATA_DIR:
        raise DataError(f"dataset {dataset} needs data_dir: pass --data-dir with the place of its files.")
    if any(features) and dataset not in TAKES_FEATURES:
        raise DataError(f"--image-feature and --label-feature are of tfrecord, not of {dataset}: leave them out.")
    arguments = {"features": features, "reindex": reindex} if dataset in TAKES_FEATURES else {}
    if progress and dataset in TAKES_PROGRESS:
        arguments["progress"] = progress
    if classes is not None and dataset in TAKES_CHOSEN:
        arguments["chosen"] = classes
    data_dir = data_dir and expand(data_dir)
    refuse_odd_names([data_dir or ""], "the path")
    try:
        return SOURCES[dataset](data_dir, seed, **arguments)
    except OSError as error:
        place = error.filename or data_dir
        raise DataError(f"cannot read {place} ({error.strerror or error}): restore it or make it readable.") from error


def hold_out(splits: Splits, seed: int, part: float) -> Splits:
    """Where there is no validation split, hold out this part of each class of the training examples; 0 for none.

    A class of one example stays in training, which the note of the training examples says.

    Raises:
        DataError: if a class of more would be left without training examples, or if all have but one.
    """
    train, validation = splits
    if validation is not None or not part:
        return splits
    counts = np.bincount(train.labels, minlength=len(train.classes))
    single = [train.classes[label] for label in np.flatnonzero(counts == 1)]
    if len(single) == np.count_nonzero(counts):
        raise DataError(f"each class of {train.name} has one example: nothing can be held out; use validation_split 0.")
    kept, held_out = _hold_out(train, counts, seed, part)
    chosen = Subset(train, kept)
    word = "class" if len(single) == 1 else "each of the classes"
    chosen.note = joined(
        train.note, single and f"{word} {few(single)} has one example, which is trained on and not validated"
    )
    return Splits(chosen, Subset(train, held_out))


def _hold_out(source: Source, counts: np.ndarray, seed: int, part: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted int64 indices to keep and to hold out: `part` of every class of more than one example, rounded, but at
    least one."""
    quotas = np.where(counts > 1, np.maximum(1, np.floor(counts * part + 0.5).astype(np.int64)), 0)
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
