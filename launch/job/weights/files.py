"""Opens a file of weights by what it is, not by its name."""

import contextlib
import hashlib
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from distributed.checkpoint import tensor_files
from launch.job.weights import hdf5
from launch.job.weights.stored import Stored, StoredArray, StoredLayer, WeightsError

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
KINDS = "a run of Lockstep or one of its checkpoints, .weights.h5 or .keras of Keras, an older .h5, or .safetensors"
# NumPy's names of what safetensors may hold; bfloat16 has none.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "<u1"}
# The weights in Keras' archives and in Lockstep's checkpoints.
IN_ARCHIVE, IN_CHECKPOINT = "model.weights.h5", "weights.safetensors"


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[Stored]:
    """What a file of weights holds; its arrays can be read within the context.

    Nothing in it is unpickled, built or run, and no link in it is followed.

    Args:
        path: a file, a run directory or a checkpoint's folder.

    Raises:
        WeightsError: it cannot be read, or is of no kind of ``KINDS``.
    """
    path, what = weights_file(path), f"--weights {path}"
    try:
        with path.open("rb") as file:
            begin = file.read(len(HDF5))
            file.seek(0)
            if begin == HDF5:
                with h5py.File(file, "r") as opened:
                    yield hdf5.read_layers(opened, what)
            elif begin.startswith(ZIP):
                with (
                    zipfile.ZipFile(file) as archive,
                    _member(archive, what) as member,
                    h5py.File(member, "r") as opened,
                ):
                    yield hdf5.read_layers(opened, what)
            else:
                yield _safetensors(file, path.stat().st_size, what)
    except WeightsError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(f"{what} cannot be read ({reason}); it is damaged or cut short, fetch it again") from error


def weights_file(path: Path) -> Path:
    """The one file with the numbers: that of a run's best checkpoint, that of a checkpoint, or the file itself.

    Raises:
        WeightsError: there is none.
    """
    if os.path.isdir(path):
        # Only where it is needed: runs that begin otherwise do without the programs' part.
        from launch.trained import load

        return load.find(path).path / IN_CHECKPOINT
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"--weights {path} is neither a file nor a folder; give {KINDS}")
    except OSError as error:
        raise WeightsError(f"--weights {path} cannot be read ({error.strerror}); give imagenet, {KINDS}") from error
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _member(archive: zipfile.ZipFile, what: str):
    if IN_ARCHIVE in archive.namelist():
        # Keras packs nothing; what is packed may be a thousand times as large.
        if archive.getinfo(IN_ARCHIVE).compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"{what}: {IN_ARCHIVE} is compressed, as Keras never writes it; save it anew with Keras")
        return archive.open(IN_ARCHIVE)
    raise WeightsError(f"{what} is an archive without {IN_ARCHIVE}; give {KINDS}")


def _safetensors(file, size: int, what: str) -> Stored:
    """The layers of a safetensors file (https://github.com/huggingface/safetensors#format), named LAYER/VARIABLE."""
    layers: dict[str, list[StoredArray]] = {}
    try:
        header = tensor_files.read_header(file)
    except tensor_files.LayoutError:
        raise WeightsError(f"{what} is none of these: {KINDS}; give one of them") from None
    start = file.tell()
    for name, entry in header.items():
        layer, _, variable = name.replace(".", "/").rpartition("/")
        layers.setdefault(layer, []).append(_tensor(file, start, size, name, variable, entry, what))
    found = (StoredLayer(name.rpartition("/")[2], None, tuple(arrays)) for name, arrays in layers.items())
    # The format's own library sorts by name.
    return Stored("safetensors", tuple(found), ordered=False)


def _tensor(file, start: int, size: int, name: str, variable: str, entry: dict, what: str) -> StoredArray:
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if code in TYPES:
            numbers = [*shape, begin, end]
        case _:
            raise WeightsError(f"{what}: {name} is no tensor of numbers ({str(entry)[:100]}); fetch it again")
    dtype = np.dtype(TYPES[code])
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not whole or end - begin != math.prod(shape) * dtype.itemsize or start + end > size:
        raise WeightsError(
            f"{what}: {name} should be {code} {shape} in bytes {begin} to {end} of {size - start}; fetch it again"
        )

    def read() -> np.ndarray:
        file.seek(start + begin)
        values = np.frombuffer(file.read(end - begin), dtype).reshape(shape)
        return (values.astype(np.uint32) << 16).view(np.float32) if code == "BF16" else values.astype(np.float32)

    return StoredArray(variable, tuple(shape), read)
