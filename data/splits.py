"""One split of a data set with a trained network's labels: what an evaluation sees.

A run's data has three splits at most: train, val, and test, which training never opens. Other data than the run's own
may hold some of its classes only, in another order.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import NEEDS_NO_DATA_DIR, DatasetConfig, Splits, load, open_sources
from data.classes import Chosen
from data.datasets import DataError, Progress, Source, Subset, UnlabelledError, opening
from data.files.source import FileSource
from data.files.tree import Tree
from data.formats.cifar10.source import load_cifar10
from data.formats.hdf5.source import hdf5_test, load_hdf5_test
from data.formats.image_folder import class_folders, named_splits, test_folder
from data.formats.npz import load_npz_test, test_arrays
from data.formats.shapes import draw_test
from data.formats.tables.source import labelled_table, test_table
from data.formats.tfrecord.shards import find_shards
from data.formats.tfrecord.source import load_tfrecord_test
from data.messages import few
from data.naming import expand, is_picture
from data.pictures.check import check_pictures

SPLITS = ("test", "val", "train")


class Relabelled(Source):
    """The examples of `source` with labels in the order of other class names."""

    def __init__(self, source: Source, classes: Sequence[str], labels: np.ndarray):
        super().__init__(source.name, classes, labels, source.image_size, source.encoded)
        self.source, self.note, self.turned = source, source.note, source.turned

    def read(self, indices):
        return self.source.read(indices)

    def where(self, index: int) -> str:
        return self.source.where(index)

    def digest(self) -> str:
        return self.source.fingerprint()

    def files(self):
        return self.source.files()

    def glance(self, indices):
        return self.source.glance(indices)


def adopt(source: Source, classes: Sequence[str], place: str) -> Source:
    """The source with the labels of `classes`; some of these may not occur.

    Raises:
        DataError: it has examples of other classes, all of which are named.
    """
    if source.classes == tuple(classes):
        return source
    index_of = {name: index for index, name in enumerate(classes)}
    unknown = [source.classes[label] for label in np.unique(source.labels) if source.classes[label] not in index_of]
    if unknown:
        raise DataError(
            f"{place} has the class {few(map(repr, unknown))}, which the run does not know: expected "
            f"{few(map(repr, classes))}, or some of these."
        )
    table = np.array([index_of.get(name, -1) for name in source.classes], np.int32)
    return Relabelled(source, classes, table[source.labels])


def as_files(source: Source) -> FileSource | None:
    """The same examples as files alone, which can be told to other processes; None where they are no files, or are
    chosen from them in a way that is not known here."""
    inner, indices = source, np.arange(len(source))
    while type(inner) in (Subset, Chosen, Relabelled):
        indices = indices if type(inner) is Relabelled else inner.indices[indices]
        inner = inner.source
    if type(inner) is not FileSource:
        return None
    fingerprint = source.fingerprint()  # the sizes of all files are known then
    sizes = None if inner.sizes is None else inner.sizes[indices].astype(np.int64)
    files = FileSource(source.name, source.classes, inner.root, inner.paths.take(indices), source.labels, sizes)
    files.note, files.turned, files.sha256 = source.note, source.turned, fingerprint
    return files


def test_place(kind: str, data_dir: str | None) -> str | None:
    """Where a data set has a test split that training leaves alone, in words; None if it has none. Opens nothing."""
    try:
        if kind == "image_folder":
            return test_folder(data_dir)
        if kind == "csv":
            return test_table(data_dir)
        if kind == "npz":
            return test_arrays(data_dir)
        if kind == "hdf5":
            return hdf5_test(data_dir)
        if kind == "tfrecord":
            return "its test shards" if find_shards(Path(data_dir))["test"] else None
    except (DataError, OSError):
        return None  # whoever opens it says so
    return None


def open_test(config: DatasetConfig, classes: Sequence[str], progress: Progress | None = None) -> Source | None:
    """The test split with the run's class names, or None where there is none.

    `shapes` draws one that neither training nor validation has seen; that of `cifar10` is the official one, on which
    its runs validate.

    Args:
        config: as for `load`; where it names classes, examples of others are left out.
        classes: the run's, in its order.
        progress: as for `load`.

    Raises:
        DataError: it cannot be read, has more files that cannot be pictures than `config` allows, or other classes.
    """
    source = open_test_source(config, classes, progress)
    if source is None or config.kind in NEEDS_NO_DATA_DIR:
        return source
    place = test_place(config.kind, expand(config.data_dir))
    return adopt(check_pictures([source], config.skip_unreadable, progress)[0], classes, place)


def open_test_source(config: DatasetConfig, classes: Sequence[str], progress: Progress | None = None) -> Source | None:
    """The source of `open_test`, before any file is looked at; that of `image_folder` and `tfrecord` has class names of
    its own.

    Raises:
        UnlabelledError: its pictures lie in no class folders, or its table has no column of labels.
        DataError: it cannot be read.
    """
    data_dir, chosen = config.data_dir and expand(config.data_dir), config.classes is not None
    if config.kind in NEEDS_NO_DATA_DIR:
        source = draw_test(config.seed) if config.kind == "shapes" else load_cifar10(data_dir)[1]
        return Chosen(source, config.classes) if chosen else source
    place = test_place(config.kind, data_dir)
    if place is None:
        return None
    with opening(place):
        if config.kind == "image_folder":
            _refuse_unlabelled(place)
            return class_folders(place, classes if chosen else None, may_be_empty=chosen, tree=Tree(progress))
        if config.kind == "csv":
            return labelled_table(place, classes, chosen=chosen, progress=progress)
        known = open_sources(config, progress)[0].classes if chosen else classes  # labels count the others, too
        if config.kind == "npz":
            source = load_npz_test(data_dir, known)
        elif config.kind == "hdf5":
            source = load_hdf5_test(data_dir, known)
        else:
            source = load_tfrecord_test(data_dir, known, config.features, progress)
        return Chosen(source, config.classes) if chosen else source


def _refuse_unlabelled(folder: str) -> None:
    with os.scandir(folder) as entries:
        if any(is_picture(entry.name) and entry.is_file() for entry in entries):
            raise UnlabelledError(
                f"{folder} has pictures outside of class folders, of which nobody knows the class: expected a folder "
                "per class; launch/predict.py names what is on them."
            )


class Part(NamedTuple):
    """A split that was opened, with the labels of the run.

    Attributes:
        source: its examples.
        split: one of SPLITS, or `all` where the data is not cut into splits.
    """

    source: Source
    split: str


def open_part(
    config: DatasetConfig, split: str | None, *, classes: Sequence[str], own: bool, progress: Progress | None = None
) -> Part:
    """Open what a run is evaluated on.

    Args:
        config: as the run had it where it is the run's own data; where it names classes, examples of others are left
            out.
        split: one of SPLITS; None takes the test split, else the validation split, else all there is.
        classes: the run's, in its order.
        own: whether it is the data that the run was trained on, of which `train` and `val` are parts that it chose.
        progress: as for `load`.

    Raises:
        DataError: it cannot be opened, has not that split, or other classes.
    """
    data_dir = config.data_dir and expand(config.data_dir)
    place = data_dir or config.kind
    if split in (None, "test"):
        source = open_test(config, classes, progress)
        if source is not None:
            return Part(source, "test")
        if split == "test":
            raise DataError(f"{place} has no test split (such as test/ beside train/): use --split val.")
    tree = Tree(progress)
    if not own and split is None and config.kind == "image_folder" and "train" not in named_splits(tree[data_dir]):
        found = check_pictures([class_folders(data_dir, tree=tree)], config.skip_unreadable, progress)[0]
        return Part(adopt(found, classes, place), "all")
    if not own and split is None and config.kind == "csv" and os.path.isfile(data_dir):
        table = labelled_table(data_dir, classes)
        return Part(check_pictures([table], config.skip_unreadable, progress)[0], "all")
    return choose(load(config, progress), split, classes, place, own=own)


def choose(splits: Splits, split: str | None, classes: Sequence[str], place: str, *, own: bool) -> Part:
    """`open_part` for splits that are open already."""
    if split == "test":
        raise DataError(f"{place} has no test split: use --split val or train.")
    if split == "val" or split is None and splits.validation is not None:
        if splits.validation is None:
            raise DataError(f"{place} has no validation split: use --split train.")
        return Part(adopt(splits.validation, classes, place), "val")
    if split is None and own:
        raise DataError(f"{place} has neither a test nor a validation split: use --split train, or other data.")
    return Part(adopt(splits.train, classes, place), "train" if own or split else "all")
