"""Images in TFRecord shards, read at random by an offset index: shards of launch/prepare.py or in ImageNet's form.

A record is a tf.train.Example with image/encoded (JPEG or PNG bytes), image/class/label (int64) and, optionally,
image/class/text (the class's name), in files named train-00000-of-01024[.tfrecord] and validation-... or val-...
"""

import hashlib
import os
import resource
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from data.datasets import DataError, Progress, Source
from data.formats.tfrecord.index import FEATURES, Index, load_index
from data.formats.tfrecord.shards import (
    MANIFEST,
    UNFINISHED,
    Manifest,
    check_shards,
    find_shards,
    no_training_shards,
    other_shards,
    read_manifest,
)
from data.messages import few, joined


class TFRecordSource(Source):
    """Records of `files` by position; `records` is an Index's array [n] with its shards numbered as in `files`."""

    def __init__(
        self, files: Sequence[Path], records: np.ndarray, classes: Sequence[str], labels: np.ndarray, note: str | None
    ):
        super().__init__("tfrecord", classes, labels, image_size=None, encoded=True)
        assert len(records) == len(self.labels)
        self.note = note
        self._files, self._records = list(files), records
        self._opened: dict[int, BinaryIO] = {}
        self._opening = threading.Lock()

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        # Declared stateless: the same indices give the same bytes, so deterministic runs may read in parallel too.
        images = tf.numpy_function(self._read, [indices], tf.string, stateful=False)
        return tf.ensure_shape(images, [indices.shape[0]])

    def _read(self, indices: np.ndarray) -> np.ndarray:
        """Encoded images as bytes objects [b]; DataError where a file has become shorter than its index says."""
        rows = self._records[indices]
        images = np.empty(len(rows), dtype=object)
        places = zip(rows["shard"].tolist(), rows["image_offset"].tolist(), rows["image_length"].tolist(), strict=True)
        for number, (shard, offset, length) in enumerate(places):
            images[number] = os.pread(self._descriptor(shard), length, offset)
            if len(images[number]) != length:
                where = self.where(int(indices[number]))
                raise DataError(f"{where} is cut short since it was indexed; restore this shard and start again.")
        return images

    def _descriptor(self, shard: int) -> int:
        file = self._opened.get(shard)
        if file is None:
            with self._opening:
                if shard not in self._opened:
                    try:
                        self._opened[shard] = open(self._files[shard], "rb", buffering=0)  # noqa: SIM115 (kept open)
                    except OSError as error:
                        raise DataError(f"cannot open {self._files[shard]} ({error.strerror}); restore it.") from error
                file = self._opened[shard]
        return file.fileno()

    def where(self, index: int) -> str:
        record = self._records[index]
        return f"{self._files[record['shard']]} at byte {record['offset']}"

    def digest(self) -> str:
        """Over classes, names of the shards, labels, and place and size of each image; not over pixels or times."""
        names = [self._files[shard].name for shard in np.unique(self._records["shard"])]
        digest = hashlib.sha256(repr((self.name, self.classes, names)).encode())
        digest.update(self.labels.astype("<i4").tobytes())
        for column in ("offset", "image_offset", "image_length"):
            digest.update(self._records[column].tobytes())
        return digest.hexdigest()


def load_tfrecord(
    data_dir: str,
    features: tuple[str | None, str | None] = (None, None),
    progress: Progress | None = None,
    reindex: bool = False,
) -> tuple[TFRecordSource, TFRecordSource | None]:
    """The training records of `data_dir` and its own validation records, or None where it has none.

    Args:
        data_dir: a folder of shards, with or without a manifest.
        features: names of the image's and the label's feature; None for ImageNet's.
        progress: told how many bytes are indexed while a new index is built: minutes for large data.
        reindex: build a new index, also where one fits.

    Raises:
        DataError: missing, corrupt or truncated shards, or shards of another size than the manifest says; labels out of
            range. Without a manifest the labels are numbers from 0, or from 1 as in ImageNet's shards.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"--data-dir {data_dir} is no folder; give the folder that holds the TFRecord shards.")
    found, manifest = find_shards(folder), read_manifest(folder)
    if not found["train"]:
        raise no_training_shards(folder)
    if manifest is not None:
        check_shards(folder, found, manifest)
    elif (folder / UNFINISHED).exists():
        raise DataError(f"{folder} holds an unfinished conversion; run the same launch/prepare.py command again.")
    files = found["train"] + found["validation"]
    index = load_index(folder, files, progress, features=_features(features), anew=reindex)
    classes, labels, shifted = _classes_and_labels(files, index, manifest)
    others = other_shards(folder)
    note = joined(shifted, f"not used: {few(others)} in {folder}" if others else None)
    _allow_open_files(len(files))
    # Records are in the order of the shards: a slice stays where it lies, in a file that is mapped into memory.
    count = int(np.searchsorted(index.records["shard"], len(found["train"])))

    def source(chosen: slice) -> TFRecordSource:
        source = TFRecordSource(files, index.records[chosen], classes, labels[chosen], note)
        source.turned = index.turned
        return source

    return source(slice(count)), source(slice(count, None)) if found["validation"] else None


def load_tfrecord_test(
    data_dir: str,
    classes: Sequence[str],
    features: tuple[str | None, str | None] = (None, None),
    progress: Progress | None = None,
) -> TFRecordSource:
    """The test records of `data_dir`, in shards named like test-00000-of-00016.  Their labels stand for the names that
    the records give, or else for those of `classes`.

    Raises:
        DataError: missing, corrupt or truncated shards; labels out of range.
    """
    folder = Path(data_dir)
    files = find_shards(folder)["test"]
    index = load_index(folder, files, progress, name="index-test", features=_features(features))
    labels, count = index.records["label"], len(classes)
    # As ImageNet's, of which no picture is of class 0; a test split may lack the first class, or the last.
    first = 1 if labels.min() > 0 and (labels.max() == count or _starts_at_one(folder, features)) else 0
    wrong = np.flatnonzero((labels < first) | (labels >= first + count))
    if len(wrong):
        record = index.records[wrong[0]]
        raise DataError(
            f"{files[record['shard']]} at byte {record['offset']} has label {record['label']}, but the run knows "
            f"{count} classes; give the data that belongs to it."
        )
    _allow_open_files(len(files))
    names = [index.texts.get(label + first, name) for label, name in enumerate(classes)]
    return TFRecordSource(files, index.records, names, labels - first, None)


def _starts_at_one(folder: Path, features: tuple[str | None, str | None]) -> bool:
    """Whether the labels of the training shards beside the test shards, if there are any, do."""
    found, manifest = find_shards(folder), read_manifest(folder)
    if manifest is not None or not found["train"]:
        return False
    index = load_index(folder, found["train"] + found["validation"], None, features=_features(features))
    return bool(index.records["label"].min() == 1)


def _features(given: tuple[str | None, str | None]) -> tuple[str, str]:
    return given[0] or FEATURES[0], given[1] or FEATURES[1]


def _classes_and_labels(
    files: Sequence[Path], index: Index, manifest: Manifest | None
) -> tuple[list[str], np.ndarray, str | None]:
    """Class names, labels from 0 (int64 [n]) and a note for people where labels were shifted."""
    labels, note, first = index.records["label"], None, 0
    if manifest is None and labels.min() == 1:
        first, note = 1, "The labels start at 1, as ImageNet's do (0 means background): one was subtracted from each."
    labels = labels - first
    # Without a manifest, more classes than examples can only be a wrong label.
    limit = len(labels) if manifest is None else len(manifest.classes)
    wrong = np.flatnonzero((labels < 0) | (labels >= limit))
    if len(wrong):
        record = index.records[wrong[0]]
        raise DataError(
            f"{files[record['shard']]} at byte {record['offset']} has label {record['label']}, expected {first} to "
            f"{limit - 1 + first} ({'that many examples' if manifest is None else 'the classes of ' + MANIFEST}); "
            "make the shards again with labels in this range."
        )
    if manifest is not None:
        return manifest.classes, labels, None
    names = [index.texts.get(label + first, str(label)) for label in range(int(labels.max()) + 1)]
    return names, labels, note


def _allow_open_files(count: int) -> None:
    """Raise this process's limit of open files where it is too low (often 1024) for all shards (ImageNet's: 1152)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512  # room for everything else
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
