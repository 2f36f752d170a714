"""Features on disk: uncompressed arrays, named by all that they follow from, in the run directory or shared by runs.

Who writes one writes to a file of its own, which gets the name once it is whole; of several that compute the same array
at once, any one's may stay.
"""

import contextlib
import hashlib
import json
import os
import secrets
import time
from pathlib import Path

import keras
import numpy as np

FOLDER = "features"
UNFINISHED = ".tmp"
ABANDONED = 24 * 3600.0  # seconds without a row after which nobody writes to a file any more


def name_of(trunk: keras.Model, facts: dict) -> str:
    """The name of an array: a digest of the operations and weights before it, and of ``facts``, a JSON value."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for operation in trunk.operations:
        # Such as how pixels are scaled, which no weight tells.
        digest.update(f"{type(operation).__name__} {operation.name} {_settings(operation)}".encode())
    for weight in trunk.weights:
        digest.update(f"{weight.name} {tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(weight, dtype="<f4").tobytes())
    return f"{digest.hexdigest()[:32]}.npy"


def open_array(path: Path, rows: int, width: int) -> np.ndarray | None:
    """A whole array, memory-mapped float32 [rows, width]; None where there is none."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return None
    return array if array.shape == (rows, width) and array.dtype == np.float32 else None


def _settings(operation: keras.Operation) -> str:
    """What an operation was made with, as far as it tells."""
    try:
        return json.dumps(operation.get_config(), sort_keys=True, default=lambda value: type(value).__name__)
    except Exception:  # a layer of the user's need not tell
        return ""


class Writer:
    """Writes an array row by row; it gets its name when it is whole."""

    def __init__(self, path: Path, rows: int, width: int):
        """Raises: ``OSError`` where the disk will not hold it, before anything is computed."""
        self._path, self._temporary = path, path.with_suffix(f".{secrets.token_hex(8)}{UNFINISHED}")
        path.parent.mkdir(parents=True, exist_ok=True)
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, width), np.float32)) | {"shape": (rows, width)}
        self._file = self._temporary.open("wb")
        try:
            np.lib.format.write_array_header_2_0(self._file, header)
            os.posix_fallocate(self._file.fileno(), self._file.tell(), max(1, rows * width * 4))
        except OSError:
            self.drop()
            raise

    def add(self, rows: np.ndarray) -> None:
        """The next rows, float32 [k, width]."""
        self._file.write(np.ascontiguousarray(rows, "<f4"))

    def commit(self) -> None:
        """All rows are there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)

    def drop(self) -> None:
        """Leave nothing."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def remove_others(folder: Path, names: set[str]) -> None:
    """Remove arrays that no split of this run is trained on any more."""
    for path in folder.glob("*"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, *, shared: bool) -> None:
    """Remove what starts that were killed have left of arrays.

    Args:
        shared: whether other runs may be writing there.
    """
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{UNFINISHED}"):
            with contextlib.suppress(OSError):
                if not shared or time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
