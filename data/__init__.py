"""A sample's place in the run is a pure function; this file opens data sets by name and holds out validation."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import NamedTuple

import numpy as np

from data.classes import choose_classes
from data.datasets import DataError, Progress, Source, Subset, opening
from data.files.source import FileSource
from data.formats.cifar10.source import load_cifar10
from data.formats.hdf5.source import load_hdf5
from data.formats.image_folder import load_image_folder
from data.formats.npz import load_npz
from data.formats.shapes import load_shapes
from data.formats.tables.source import load_csv
from data.formats.tfrecord.source import load_tfrecord
from data.messages import few, joined
from data.naming import expand, refuse_odd_names
from data.pictures.check import check_pictures

Sources = tuple[Source, Source | None]  # the training examples and the data's own validation split, if any


class Splits(NamedTuple):
    """The examples to train on and those to validate on, if any."""

    train: Source
    validation: Source | None


@dataclass(frozen=True)
class DatasetConfig:
    """Which data set, and which of its examples: the same ones, in the same splits, on every machine.

    Attributes:
        kind: a key of KINDS.
        data_dir: the folder or file; None only for NEEDS_NO_DATA_DIR. `~` and `$VAR` are replaced.
        seed: chooses the held-out examples, and the pictures of `shapes`.
        validation_split: in [0, 1), the part of each class of the training examples to hold out where the data have
            no validation split of their own; 0 holds out nothing.
        classes: only examples of these, labelled in this order; None for all that the data have.
        features: of TFRecords, the names of the image's and the label's feature where they are not ImageNet's; of npz
            and hdf5, of the arrays to train on, beside which there is no other split.
        held_out: hold out the files of these names, as `file_names` gives them, instead of what `seed` and
            `validation_split` draw; of data that are files and have no validation split.
        skip_unreadable: leave out up to so many files that cannot be pictures, which the note of the training examples
            names; the fingerprints are those of data without them.
        reindex: look at TFRecord shards again, also where an index of them fits; of other data nothing is kept here.

    Raises:
        DataError: these do not go together.
    """

    kind: str
    data_dir: str | None
    _: KW_ONLY
    seed: int
    validation_split: float
    classes: tuple[str, ...] | None = None
    held_out: frozenset[str] | None = None
    features: tuple[str | None, str | None] = (None, None)
    skip_unreadable: int = 0
    reindex: bool = False

    def __post_init__(self):
        if not 0 <= self.validation_split < 1:  # also false for NaN
            raise DataError(
                f"validation_split is {self.validation_split}: expected 0 or more and less than 1, such as 0.1."
            )
        if self.kind not in KINDS:
            raise DataError(f"dataset is {self.kind!r}: expected one of {', '.join(KINDS)}.")
        if self.data_dir is None and self.kind not in NEEDS_NO_DATA_DIR:
            raise DataError(f"dataset {self.kind} needs data_dir: pass --data-dir with the place of its files.")
        if any(self.features) and self.kind not in HAVE_FEATURES:
            raise DataError(
                f"--image-feature and --label-feature are of {', '.join(HAVE_FEATURES)}, not of {self.kind}: leave "
                "them out."
            )


# Kind of data set -> what opens it.
KINDS: dict[str, Callable[[DatasetConfig, Progress | None], Sources]] = {
    "shapes": lambda config, progress: load_shapes(config.data_dir, config.seed),
    "cifar10": lambda config, progress: load_cifar10(config.data_dir),
    "image_folder": lambda config, progress: load_image_folder(config.data_dir, config.classes, progress),
    "tfrecord": lambda config, progress: load_tfrecord(config.data_dir, config.features, progress, config.reindex),
    "csv": lambda config, progress: load_csv(config.data_dir, config.classes, progress),
    "npz": lambda config, progress: load_npz(config.data_dir, config.classes, config.features),
    "hdf5": lambda config, progress: load_hdf5(config.data_dir, config.classes, config.features),
}
HAVE_FEATURES = ("tfrecord", "npz", "hdf5")
NEEDS_NO_DATA_DIR = ("shapes", "cifar10")

# Opening these may take long once, for an index or a download that is kept: on each host one process should go first.
BUILT_ONCE = ("tfrecord", "cifar10")


def load(config: DatasetConfig, progress: Progress | None = None) -> Splits:
    """Open a data set.

    Args:
        progress: called now and then with what takes long: folders, files, bytes of shards.

    Raises:
        DataError: whatever is wrong with the files; all files that cannot be pictures are named.
    """
    return arrange(open_checked(config, progress), config)


def open_checked(config: DatasetConfig, progress: Progress | None = None) -> Sources:
    """All of `load` that looks at files: the sources, of which each file is seen to be a picture."""
    train, validation = check_pictures(open_sources(config, progress), config.skip_unreadable, progress)
    return train, validation


def arrange(sources: Sources, config: DatasetConfig) -> Splits:
    """The rest of `load`, which looks at nothing but labels: the classes that are asked for, and what is held out."""
    train, validation = sources
    if config.classes is not None:
        train, validation = choose_classes(train, validation, config.classes)
    if len(train.classes) < 2:
        raise DataError(
            f"{config.kind} has the single class {train.classes[0]!r}: expected at least two to tell apart."
        )
    if config.held_out is not None and validation is None:
        return _hold_out_named(train, config.held_out)
    return hold_out(Splits(train, validation), config.seed, config.validation_split)


def file_names(source: Source) -> list[str] | None:
    """The name of each example's file as its folder or table gives it; None where examples are no files."""
    indices = np.arange(len(source))
    while isinstance(source, Subset):
        indices, source = source.indices[indices], source.source
    return [source.paths[index] for index in indices.tolist()] if isinstance(source, FileSource) else None


def _hold_out_named(train: Source, names: frozenset[str]) -> Splits:
    found = np.array([name in names for name in file_names(train) or ()], bool)
    if not found.any() or found.all():
        raise DataError(
            f"of the {len(names):,} files that were held out for validation {found.sum():,} are left, and "
            f"{(~found).sum():,} to train on: expected some of each; bring them back."
        )
    chosen = Subset(train, np.flatnonzero(~found))
    chosen.note = train.note
    return Splits(chosen, Subset(train, np.flatnonzero(found)))


def open_sources(config: DatasetConfig, progress: Progress | None = None) -> Sources:
    """The sources of `open_checked`, before any file is looked at."""
    data_dir = config.data_dir and expand(config.data_dir)
    refuse_odd_names([data_dir or ""], "the path")
    with opening(data_dir or config.kind):
        return KINDS[config.kind](replace(config, data_dir=data_dir), progress)


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
