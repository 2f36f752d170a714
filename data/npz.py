"""`npz`: a numpy archive with x_train, y_train and, if present, x_val, y_val (or x_test, y_test)."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from data.arrays import test_source, training_source, validation_source
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
    with _opened(path) as archive:
        validation = _find_validation(archive, path)
        x_train, y_train = archive["x_train"], archive["y_train"]
        x_val, y_val = (archive[f"x_{validation}"], archive[f"y_{validation}"]) if validation else (None, None)
    train = training_source("npz", x_train, y_train, place=path)
    if validation is None:
        return train, None
    return train, validation_source("npz", x_val, y_val, train, place=path, split=validation)


def test_arrays(data_dir: str) -> str | None:
    """The test arrays of the archive, in words; None if it has none that training leaves alone."""
    path = _find(data_dir)
    with _opened(path) as archive:
        # Beside x_train, without x_val, it is what training validates on.
        alone = "x_val" in archive.files or "x_train" not in archive.files
        return f"x_test of {path}" if alone and {"x_test", "y_test"} <= set(archive.files) else None


def load_npz_test(data_dir: str, classes: Sequence[str]) -> ArraySource:
    """x_test and y_test, labelled by `classes`.

    Raises:
        DataError: as `load_npz`; a label that is not among the classes.
    """
    path = _find(data_dir)
    with _opened(path) as archive:
        pixels, labels = archive["x_test"], archive["y_test"]
    return test_source("npz", pixels, labels, classes, place=path)


@contextlib.contextmanager
def _opened(path: str):
    """The archive, while it is read; DataError where it cannot be."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array: expected an archive of x_train and y_train; use np.savez.")
        with archive:
            yield archive
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}): expected a whole .npz without pickled objects.") from error


def _find(data_dir: str) -> str:
    if not os.path.isdir(data_dir):
        return data_dir
    found = sorted(name for name in os.listdir(data_dir) if name.lower().endswith(".npz") and name[0] != ".")
    if len(found) != 1:
        raise DataError(f"{data_dir} holds {len(found)} .npz files: expected one; point data_dir at the file itself.")
    return os.path.join(data_dir, found[0])


def _find_validation(archive, path: str) -> str | None:
    """What the validation arrays are called after x_ and y_, or None if there are none."""
    present = set(archive.files)
    used = [name for name in ("val", "test") if {f"x_{name}", f"y_{name}"} & present]
    missing = sorted({f"{axis}_{name}" for axis in "xy" for name in ("train", *used)} - present)
    if missing:
        raise DataError(
            f"{path} has no array {missing[0]} (it has {', '.join(sorted(present)) or 'none'}): expected x_train and "
            "y_train, and x and y for val."
        )
    # A test split is validation only where there is no other.
    return used[0] if used else None
