"""`npz`: a NumPy archive with x_train, y_train and, if present, x_val, y_val (or x_test, y_test), or with MedMNIST's
names."""

import contextlib
import math
import os
import stat
import zipfile
from collections.abc import Sequence

import numpy as np
import psutil

from data.datasets import ArraySource, DataError
from data.formats.arrays.convert import GAP, as_known, placed, renumber, scale_note, scale_of, to_uint8, whole_labels
from data.formats.arrays.mapped import map_array
from data.formats.arrays.names import find_arrays, held_out_split, kept_apart, training_arrays, unused_note
from data.formats.arrays.source import test_source, training_source, validation_source
from data.messages import joined

MAPPED = 2**26  # bytes of pixels from which on they stay in the file; below, reading from memory is faster


def load_npz(
    data_dir: str, chosen: Sequence[str] | None = None, features: tuple[str | None, str | None] = (None, None)
) -> tuple[ArraySource, ArraySource | None]:
    """Images [n, height, width] or [n, height, width, 1 or 3] and integer labels [n], 0 or 1 to the largest.

    Images are uint8, or numbers 0 to 255 or 0 to 1, which is said. Grey images are repeated to three channels. Labels
    may be rows with one 1. Classes are named "0", "1", ... by their labels.

    Args:
        data_dir: the .npz file, or a folder that holds exactly one.
        chosen: class names; with them labels may have gaps.
        features: names of the image's and the label's array, which then are the only split.

    Raises:
        DataError: missing or damaged file, missing array, wrong dtype, shape, length or label.
    """
    path = _find(data_dir)
    with _opened(path) as archive:
        names = training_arrays(archive.files, path, features)
        split, unused = held_out_split(names), unused_note(archive.files, names)
        x_train, y_train = _pixels(archive, names["x", "train"], path), whole_labels(archive[names["y", "train"]])
        x_val, y_val = None, None
        if split:
            x_val, y_val = _pixels(archive, names["x", split], path), whole_labels(archive[names["y", split]])
    scale = scale_of(x_train)
    classes, y_train, shifted = renumber(y_train, chosen)
    pixels = to_uint8(x_train, scale, names["x", "train"], path)
    train = training_source("npz", pixels, y_train, place=path, classes=classes, gap=GAP)
    as_val = f"{names['x', 'test']} is validated on, as there is no other" if split == "test" else None
    train.note = joined(scale_note(scale, x_train.dtype, names["x", "train"]), shifted, as_val, unused)
    if split is None:
        return train, None
    x_val = to_uint8(x_val, scale, names["x", split], path)
    if classes is not None:
        y_val = placed(y_val, classes, names["y", split], path)
    return train, validation_source("npz", x_val, y_val, train, place=path, split=split)


def test_arrays(data_dir: str) -> str | None:
    """The test arrays of the archive, in words; None if it has none that training leaves alone."""
    path = _find(data_dir)
    with _opened(path) as archive:
        return kept_apart(find_arrays(archive.files, path, needed=()), path)


def load_npz_test(data_dir: str, classes: Sequence[str]) -> ArraySource:
    """The test arrays, labelled by `classes`.

    Raises:
        DataError: as `load_npz`; a label that is not among the classes.
    """
    path = _find(data_dir)
    with _opened(path) as archive:
        names = find_arrays(archive.files, path, needed=())
        pixels, labels = _pixels(archive, names["x", "test"], path), whole_labels(archive[names["y", "test"]])
        trained = _pixels(archive, names["x", "train"], path) if ("x", "train") in names else pixels
    pixels = to_uint8(pixels, scale_of(trained), names["x", "test"], path)
    labels = as_known(labels, classes, names["y", "test"], path)
    return test_source("npz", pixels, labels, classes, place=path)


def _pixels(archive: np.lib.npyio.NpzFile, name: str, path: str) -> np.ndarray:
    large = archive.zip.getinfo(f"{name}.npy").file_size >= MAPPED
    mapped = map_array(path, name) if large else None
    return archive[name] if mapped is None else mapped


@contextlib.contextmanager
def _opened(path: str):
    """The archive, while it is read; DataError where it cannot be."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no regular file")
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array: expected an archive of x_train and y_train; use np.savez.")
        with archive:
            for member in archive.zip.infolist():
                if member.filename.endswith(".npy"):
                    _check_size(archive.zip, member)
            yield archive
    except DataError:
        raise
    except Exception as error:  # what is damaged can raise almost anything
        why = str(error)[:200] or type(error).__name__
        raise DataError(f"cannot read {path} ({why}): expected a whole .npz without pickled objects.") from error


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """See that an array is as large as its header says, before memory is taken for it.

    Raises:
        ValueError: it is not, or has not room in this machine's memory.
    """
    with archive.open(member) as file:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(np.lib.format.read_magic(file))
        if read is None:
            raise ValueError(f"{member.filename} is of a version of the format that is not known")
        shape, _, dtype = read(file)
        stored = member.file_size - file.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != stored:
        what = "holds Python's objects" if dtype.hasobject else f"should have {size:,} bytes and has {stored:,}"
        raise ValueError(f"{member.filename} {what}")
    free = psutil.virtual_memory().available
    if member.compress_type != zipfile.ZIP_STORED and size > free:
        raise ValueError(f"{member.filename} unpacks to {size:,} bytes, of which this machine has {free:,} free")


def _find(data_dir: str) -> str:
    if not os.path.isdir(data_dir):
        return data_dir
    found = sorted(name for name in os.listdir(data_dir) if name.lower().endswith(".npz") and name[0] != ".")
    if len(found) != 1:
        raise DataError(f"{data_dir} holds {len(found)} .npz files: expected one; point data_dir at the file itself.")
    return os.path.join(data_dir, found[0])
