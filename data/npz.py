"""`npz`: a numpy archive with x_train, y_train and, if present, x_val, y_val (or x_test, y_test)."""

import os
import zipfile
import zlib

import numpy as np

from data.datasets import ArraySource, DataError


def load_npz(data_dir: str, seed: int) -> tuple[ArraySource, ArraySource | None]:
    """Images uint8 [n, height, width] or [n, height, width, 1 or 3] and integer labels [n], 0 to classes - 1.

    Grey images are repeated to three channels. Classes are named "0", "1", ...; their number is one more than the
    largest training label.

    Args:
        data_dir: the .npz file, or a folder that holds exactly one.
        seed: not used: the file decides.

    Raises:
        DataError: missing or damaged file, missing array, wrong dtype, shape, length or label.
    """
    del seed
    path = _find(data_dir)
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array: expected an archive of x_train and y_train; use np.savez.")
        with archive:
            train, validation = _pairs(archive, path)
            x_train, y_train = archive[train[0]], archive[train[1]]
            x_val, y_val = (archive[validation[0]], archive[validation[1]]) if validation else (None, None)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}): expected a whole .npz without pickled objects.") from error
    pixels, labels = _images(x_train, train[0], path), _labels(y_train, train[1], len(x_train), path)
    count = _class_count(labels, train[1], path)
    source = ArraySource("npz", [str(label) for label in range(count)], pixels, labels)
    if not validation:
        return source, None
    pixels, labels = _images(x_val, validation[0], path), _labels(y_val, validation[1], len(x_val), path)
    if labels.max() >= count:
        raise DataError(
            f"{path}: {validation[1]}[{labels.argmax()}] is {labels.max()}, out of range: expected 0 to {count - 1}, "
            f"the labels of {train[1]}."
        )
    if pixels.shape[1:] != source.pixels.shape[1:]:
        raise DataError(
            f"{path}: {validation[0]} has images of {pixels.shape[1:3]} pixels, {train[0]} of {source.image_size}: "
            "expected one size."
        )
    return source, ArraySource("npz", source.classes, pixels, labels)


def _find(data_dir: str) -> str:
    if not os.path.isdir(data_dir):
        return data_dir
    found = sorted(name for name in os.listdir(data_dir) if name.lower().endswith(".npz") and name[0] != ".")
    if len(found) != 1:
        raise DataError(f"{data_dir} holds {len(found)} .npz files: expected one; point data_dir at the file itself.")
    return os.path.join(data_dir, found[0])


def _pairs(archive, path: str) -> tuple[tuple[str, str], tuple[str, str] | None]:
    """Names of the training and the validation arrays."""
    present = set(archive.files)
    used = [(f"x_{name}", f"y_{name}") for name in ("train", "val", "test") if {f"x_{name}", f"y_{name}"} & present]
    missing = sorted({"x_train", "y_train"}.union(*used) - present)
    if missing:
        raise DataError(
            f"{path} has no array {missing[0]} (it has {', '.join(sorted(present)) or 'none'}): expected x_train and "
            "y_train, and x and y for val."
        )
    # A test split is validation only where there is no other.
    return used[0], used[1] if len(used) > 1 else None


def _images(pixels: np.ndarray, name: str, path: str) -> np.ndarray:
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: {name} is {pixels.dtype}: expected uint8 pixels 0 to 255; convert it.")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"{path}: {name} has shape {pixels.shape}: expected [n, height, width] or [n, height, width, 1 or 3], "
            "none of them 0."
        )
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def _labels(labels: np.ndarray, name: str, count: int, path: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras' own data sets have them
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: {name} is {labels.dtype} of shape {labels.shape}: expected integers [n].")
    if len(labels) != count:
        raise DataError(f"{path}: {name} has {len(labels)} labels for {count} images: expected one per image.")
    if labels.min() < 0:
        raise DataError(f"{path}: {name}[{labels.argmin()}] is {labels.min()}, out of range: labels start at 0.")
    return labels


def _class_count(labels: np.ndarray, name: str, path: str) -> int:
    """One more than the largest label; a label that no example has points to a wrong one further up."""
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        raise DataError(
            f"{path}: {name}[{labels.argmax()}] is {labels.max()}, out of range, as no example has label {gaps[0]}: "
            "labels must cover 0 to the largest."
        )
    return len(present)
