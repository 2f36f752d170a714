"""`hdf5`: an HDF5 file with x_train, y_train and so on, named as in `npz`; pixels are read where they are asked for."""

import contextlib
import hashlib
import math
import os
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
import tensorflow as tf

from data.datasets import DataError, Source
from data.formats.arrays.convert import GAP, as_known, placed, renumber, scale_note, to_uint8
from data.formats.arrays.names import find_arrays, held_out_split, kept_apart, training_arrays, unused_note
from data.formats.arrays.source import check_range
from data.formats.hdf5.checks import find_scale, groups_without, is_array, parts, read_labels
from data.messages import joined

SUFFIXES = (".h5", ".hdf5", ".hdf")


class HDF5Source(Source):
    """Images [n, height, width] or [n, height, width, 1 or 3] of a file's dataset `name`, which is kept open.

    `scale` is what pixels are multiplied by to be 0 to 255, None where they are uint8.
    """

    def __init__(self, path: str, name: str, classes: Sequence[str], labels: np.ndarray, scale: float | None = None):
        self._pixels, self._reading = h5py.File(path, "r")[name], threading.Lock()
        super().__init__("hdf5", classes, labels, image_size=self._pixels.shape[1:3], encoded=False)
        self.place, self._uint8 = f"{name} of {path}", lambda images: to_uint8(images, scale, name, path)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(self._read, [indices], tf.uint8, stateful=False)
        return tf.ensure_shape(images, [indices.shape[0], *self.image_size, 3])

    def _read(self, indices: np.ndarray) -> np.ndarray:
        # HDF5 takes rows in increasing order alone, each once, and one thread at a time.
        rows, places = np.unique(indices, return_inverse=True)
        with self._reading:
            images = self._pixels[rows] if len(rows) else np.zeros((0, *self._pixels.shape[1:]), np.uint8)
        return _colour(self._uint8(images))[places.reshape(-1)]

    def where(self, index: int) -> str:
        return f"example {index} of {self.place}"

    def digest(self) -> str:
        """Over classes, shape, labels and all pixels, which are read once, part by part."""
        digest = hashlib.sha256(repr((self.name, self.classes, self._pixels.shape)).encode())
        digest.update(self.labels.astype("<i4").tobytes())
        try:
            for part in parts(self._pixels):
                digest.update(np.ascontiguousarray(self._uint8(part)))
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot read {self.place} ({_reason(error)}): expected a whole HDF5 file.") from error
        return digest.hexdigest()

    def glance(self, indices: np.ndarray) -> list[int]:
        return [zlib.crc32(image) for image in self._read(indices)]


def load_hdf5(
    data_dir: str, chosen: Sequence[str] | None = None, features: tuple[str | None, str | None] = (None, None)
) -> tuple[Source, Source | None]:
    """Arrays named as in `npz`; pixels uint8, or numbers 0 to 255 or 0 to 1, of which all are read once to know which;
    labels [n] or [n, 1], whole floats too, or rows with one 1.

    Args:
        data_dir: the file, or a folder that holds exactly one.
        chosen: class names; with them labels may have gaps.
        features: names of the image's and the label's array, a/b within a group, which then are the only split.

    Raises:
        DataError: missing or damaged file, missing array, wrong dtype, shape, length or label.
    """
    path = _find(data_dir)
    with _opened(path) as file:
        arrays = _arrays(file, path, features)
        names = training_arrays(arrays, path, features)
        split = held_out_split(names)
        unused = unused_note([*arrays, *groups_without(file, arrays)], names)
        labels, scale = {}, math.nan
        for each in ("train", *([split] if split else [])):
            scale, labels[each] = _looked_at(file, names, each, path, scale)
        sizes = {each: file[names["x", each]].shape[1:3] for each in labels}
        scaled = scale_note(scale, file[names["x", "train"]].dtype, names["x", "train"])
    classes, places, shifted = renumber(labels["train"], chosen)
    if classes is None:
        present = np.unique(places)
        gaps = np.flatnonzero(present != np.arange(len(present)))
        if places.min() < 0 or len(gaps):
            what = f"the label {places.min()}" if places.min() < 0 else f"no label {gaps[0]} but {places.max()}"
            raise DataError(f"{path}: {names['y', 'train']} has {what}: {GAP}.")
        classes = [str(label) for label in range(places.max() + 1)]
    train = HDF5Source(path, names["x", "train"], classes, places, scale)
    as_val = f"{names['x', 'test']} is validated on, as there is no other" if split == "test" else None
    train.note = joined(scaled, shifted, as_val, unused)
    if split is None:
        return train, None
    name = f"{path}: {names['y', split]}"
    if sizes[split] != sizes["train"]:
        raise DataError(f"{path} has images of {sizes['train']} and of {sizes[split]} pixels: expected one size.")
    held_out = placed(labels[split], classes, names["y", split], path) if chosen or shifted else labels[split]
    check_range(held_out, len(classes), name, "the labels of training")
    return train, HDF5Source(path, names["x", split], classes, held_out, scale)


def hdf5_test(data_dir: str) -> str | None:
    """The test arrays of the file, in words; None if it has none that training leaves alone."""
    path = _find(data_dir)
    with _opened(path) as file:
        return kept_apart(find_arrays(_arrays(file, path), path, needed=()), path)


def load_hdf5_test(data_dir: str, classes: Sequence[str]) -> Source:
    """The test arrays, labelled by `classes`.

    Raises:
        DataError: as `load_hdf5`; a label that is not among the classes.
    """
    path = _find(data_dir)
    with _opened(path) as file:
        names, scale = find_arrays(_arrays(file, path), path, needed=()), math.nan
        if ("x", "train") in names:
            scale = find_scale(file[names["x", "train"]], names["x", "train"], path, scale)
        scale, labels = _looked_at(file, names, "test", path, scale)
    name = names["y", "test"]
    labels = as_known(labels, classes, name, path)
    check_range(labels, len(classes), f"{path}: {name}", f"as the run knows {len(classes)} classes")
    return HDF5Source(path, names["x", "test"], classes, labels, scale)


def _looked_at(file: h5py.File, names: dict, split: str, path: str, scale: float | None):
    """(scale, labels) of a split; as `find_scale` and `read_labels`."""
    pixels, x, y = file[names["x", split]], names["x", split], names["y", split]
    return find_scale(pixels, x, path, scale), read_labels(file[y], y, len(pixels), path)


def _arrays(file: h5py.File, path: str, features: tuple[str | None, str | None] = (None, None)) -> list[str]:
    """The names of the arrays at the file's top, and of those asked for."""
    return [name for name in sorted({*file, *filter(None, features)}) if is_array(file, name, path)]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[h5py.File]:
    """The file, while it is looked at; DataError where it cannot be."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is no regular file")
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except Exception as error:  # what is damaged can raise almost anything
        raise DataError(f"cannot read {path} ({_reason(error)}): expected a whole HDF5 file.") from error


def _find(data_dir: str) -> str:
    if not os.path.isdir(data_dir):
        return data_dir
    found = sorted(name for name in os.listdir(data_dir) if name.lower().endswith(SUFFIXES) and name[0] != ".")
    if len(found) != 1:
        raise DataError(f"{data_dir} holds {len(found)} HDF5 files: expected one; point --data-dir at the file itself.")
    return os.path.join(data_dir, found[0])


def _reason(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _colour(images: np.ndarray) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
