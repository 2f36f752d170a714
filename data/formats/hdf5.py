"""`hdf5`: an HDF5 file with x_train, y_train and so on, named as in `npz`; pixels are read where they are asked for."""

import hashlib
import math
import os
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
import psutil
import tensorflow as tf

from data.datasets import DataError, Source
from data.formats.arrays.convert import GAP, placed, renumber, scale_between, scale_note, to_uint8, whole_labels
from data.formats.arrays.names import held_out_split, training_arrays, unused_note
from data.formats.arrays.source import check_range
from data.messages import joined

SUFFIXES = (".h5", ".hdf5", ".hdf")
ROWS, PART = 1024, 1 << 26  # images, and their bytes, that are read at once where all are looked at
LARGEST_CHUNK = 1 << 28  # bytes; HDF5 unpacks whole chunks


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
            for part in _parts(self._pixels):
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
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is no regular file")
        with h5py.File(path, "r") as file:
            asked = {name for name in features if name}
            arrays = [name for name in sorted({*file, *asked}) if _is_array(file, name, path)]
            names = training_arrays(arrays, path, features)
            split = held_out_split(names)
            unused = unused_note([*arrays, *_groups(file, arrays)], names)
            labels, scale = {}, None
            for each in ("train", *([split] if split else [])):
                scale = _check(file[names["x", each]], names["x", each], path, scale if labels else math.nan)
                labels[each] = _labels(file[names["y", each]], names["y", each], len(file[names["x", each]]), path)
            sizes = {each: file[names["x", each]].shape[1:3] for each in labels}
            scaled = scale_note(scale, file[names["x", "train"]].dtype, names["x", "train"])
    except DataError:
        raise
    except Exception as error:  # what is damaged can raise almost anything
        raise DataError(f"cannot read {path} ({_reason(error)}): expected a whole HDF5 file.") from error
    classes, places, shifted = renumber(labels["train"], chosen)
    if classes is None:
        present = np.unique(places)
        gaps = np.flatnonzero(present != np.arange(len(present)))
        if places.min() < 0 or len(gaps):
            what = f"the label {places.min()}" if places.min() < 0 else f"no label {gaps[0]} but {places.max()}"
            raise DataError(f"{path}: {names['y', 'train']} has {what}: {GAP}.")
        classes = [str(label) for label in range(places.max() + 1)]
    train = HDF5Source(path, names["x", "train"], classes, places, scale)
    test = None
    if {("x", "test"), ("y", "test")} <= set(names):
        use = "is not used in training" if split == "val" else "is validated on, as there is no other"
        test = f"{names['x', 'test']} of {path} {use}"
    train.note = joined(scaled, shifted, unused, test)
    if split is None:
        return train, None
    name = f"{path}: {names['y', split]}"
    if sizes[split] != sizes["train"]:
        raise DataError(f"{path} has images of {sizes['train']} and of {sizes[split]} pixels: expected one size.")
    held_out = placed(labels[split], classes, names["y", split], path) if chosen or shifted else labels[split]
    check_range(held_out, len(classes), name, "the labels of training")
    return train, HDF5Source(path, names["x", split], classes, held_out, scale)


def _find(data_dir: str) -> str:
    if not os.path.isdir(data_dir):
        return data_dir
    found = sorted(name for name in os.listdir(data_dir) if name.lower().endswith(SUFFIXES) and name[0] != ".")
    if len(found) != 1:
        raise DataError(f"{data_dir} holds {len(found)} HDF5 files: expected one; point --data-dir at the file itself.")
    return os.path.join(data_dir, found[0])


def _reason(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _is_array(file: h5py.File, name: str, path: str) -> bool:
    """Whether a name, a/b within a group, is that of an array; DataError where part of it is a link, which may lead
    into other files."""
    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or part not in set(place):
            return False
        if place.get(part, getclass=True, getlink=True) is not h5py.HardLink:
            raise DataError(
                f"{path}: {name} is a link to elsewhere, which is not followed: copy the array into its place."
            )
        place = place[part]
    return isinstance(place, h5py.Dataset)


def _groups(file: h5py.File, arrays: Sequence[str]) -> list[str]:
    """The groups that hold none of the arrays."""
    return [f"{name}/" for name in file if not any(array.split("/")[0] == name for array in arrays)]


def _refuse_elsewhere(dataset: h5py.Dataset, name: str, path: str) -> None:
    """Raise DataError for an array that lies in another file, of which numbers are missing, or whose parts are too
    large."""
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{path}: {name} points into other files, which is not followed: copy the numbers into it.")
    stored, size = dataset.id.get_storage_size(), (dataset.size or 0) * dataset.dtype.itemsize
    packed = dataset.id.get_create_plist().get_nfilters() > 0
    # HDF5 would make up what is missing.
    if size and (not stored if packed else stored < size):
        raise DataError(f"{path}: {name} should have {size:,} bytes and has {stored:,}: copy or write the file again.")
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if chunk > LARGEST_CHUNK:
        raise DataError(f"{path}: {name} has chunks of {chunk:,} bytes: expected at most {LARGEST_CHUNK:,}.")


def _check(pixels: h5py.Dataset, name: str, path: str, trained: float | None) -> float | None:
    """By what pixels are to be multiplied, None where they are uint8: that of training, which is not known where it is
    NaN.

    Raises:
        DataError: no pictures by shape or type, or not in the range that training has.
    """
    _refuse_elsewhere(pixels, name, path)
    shape, first = pixels.shape or (), trained is not None and math.isnan(trained)
    if not (len(shape) == 3 or len(shape) == 4 and shape[3] in (1, 3)) or 0 in shape:
        raise DataError(f"{path}: {name} has shape {shape}: expected [n, height, width] or [n, height, width, 1 or 3].")
    if pixels.dtype == np.uint8 and (first or trained in (None, 1)):
        return None if first else trained
    span = (math.nan, math.nan)
    if pixels.dtype.kind in "iuf" and trained is not None:
        ends = np.array([(part.min(), part.max()) for part in _parts(pixels)])
        span = (ends[:, 0].min(), ends[:, 1].max())
    scale = scale_between(*span, pixels.dtype) if first else trained
    if scale is None:
        raise DataError(f"{path}: {name} is {pixels.dtype}: expected uint8 pixels 0 to 255; convert it.")
    if not (span[0] >= 0 and span[1] <= 255 / scale):
        raise DataError(f"{path}: {name} is not in the range 0 to {255 / scale:g}, as training is: scale it.")
    return scale


def _parts(pixels: h5py.Dataset) -> Iterator[np.ndarray]:
    """All images, so many at a time as memory has room for anywhere."""
    rows = max(1, min(ROWS, PART // max(1, math.prod(pixels.shape[1:]) * pixels.dtype.itemsize)))
    for start in range(0, len(pixels), rows):
        yield pixels[start : start + rows]


def _labels(dataset: h5py.Dataset, name: str, count: int, path: str) -> np.ndarray:
    _refuse_elsewhere(dataset, name, path)
    size, free = (dataset.size or 0) * dataset.dtype.itemsize, psutil.virtual_memory().available
    if size > free:
        raise DataError(f"{path}: {name} takes {size:,} bytes, of which {free:,} are free here: make it smaller.")
    one_per_image = dataset.ndim in (1, 2) and len(dataset) == count and dataset.dtype.kind in "biuf"
    labels = whole_labels(dataset[()]) if one_per_image else np.zeros(0)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: {name} is {dataset.dtype} of shape {dataset.shape}: expected {count} integers.")
    return labels


def _colour(images: np.ndarray) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
