"""CIFAR-10 (Krizhevsky 2009) from its official archives: the binary version and the python version.

Formats: https://www.cs.toronto.edu/~kriz/cifar.html. Binary: records of 3073 bytes, label then red, green and blue
planes of 32x32. Python: pickled dicts with b"data" uint8 [n, 3072] and b"labels", which are not loaded, as pickles can
run any code, but read as in `data/formats/cifar10/pickled.py`.
"""

import fcntl
import os
import stat
import tarfile
from collections.abc import Callable

import numpy as np

from data.datasets import ArraySource, DataError
from data.formats.cifar10.pickled import PickleError, read_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PLANES = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
KERAS_CACHE = os.path.join("cifar-10-batches-py-target", "cifar-10-batches-py")  # in ~/.keras/datasets
SUFFIXES = (".bin", "")  # of the batch files: binary version, python version
TRAIN, TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)
LARGEST = 1 << 26  # bytes of a batch file; the official ones have 31 MB


def load_cifar10(data_dir: str | None) -> tuple[ArraySource, ArraySource]:
    """The five training batches (50,000 images) and, as validation, the test batch (10,000).

    Args:
        data_dir: an official archive, the folder that it unpacks to, or a folder that holds either; None to let
            Keras download it.

    Raises:
        DataError: files missing, unreadable or of another format, naming file and record.
    """
    train, test = _download() if data_dir is None else _read(data_dir)
    train.note = f"the {len(test):,} pictures of the test set are validated on, as there are no others"
    return train, test


def _read(data_dir: str) -> list[ArraySource]:
    read, suffix = _open(data_dir)
    parse = _parse_binary if suffix else _parse_pickle
    splits = []
    for names in (TRAIN, TEST):
        batches = [parse(*read(name + suffix)) for name in names]
        pixels = np.concatenate([planes for planes, _ in batches]).transpose(0, 2, 3, 1)
        splits.append(ArraySource("cifar10", CLASSES, pixels, np.concatenate([labels for _, labels in batches])))
    return splits


def _open(data_dir: str) -> tuple[Callable[[str], tuple[bytes, str]], str]:
    """A function from a batch file's name to (content, its place in words), and the suffix of those names."""
    if os.path.isfile(data_dir):
        return _archive(data_dir)
    for folder in (data_dir, *(os.path.join(data_dir, name) for name in (*FOLDERS, KERAS_CACHE))):
        for suffix in SUFFIXES:
            if os.path.isfile(os.path.join(folder, TRAIN[0] + suffix)):
                return lambda name, folder=folder: _read_file(os.path.join(folder, name)), suffix
    for path in (os.path.join(data_dir, name) for name in ARCHIVES):
        if os.path.isfile(path):
            return _archive(path)
    found = "has none of these" if os.path.isdir(data_dir) else "does not exist"
    raise DataError(
        f"{data_dir} {found}: expected {', '.join(ARCHIVES)}, {', '.join(FOLDERS)} or the batch files themselves; "
        "point data_dir at one of them, or leave it out to download CIFAR-10."
    )


def _read_file(path: str) -> tuple[bytes, str]:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise DataError(f"{path} is no file of at most {LARGEST:,} bytes: unpack the CIFAR-10 archive again.")
        with open(path, "rb") as file:
            return file.read(), path
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): unpack the CIFAR-10 archive again.") from error


def _archive(path: str) -> tuple[Callable[[str], tuple[bytes, str]], str]:
    members = _members(path)
    # Told by the members, not by the archive's name.
    suffix = ".bin" if f"{TRAIN[0]}.bin" in members else ""

    def read(name: str) -> tuple[bytes, str]:
        if name not in members:
            raise DataError(f"{path} holds no {name}: expected an official CIFAR-10 archive; download it again.")
        return members[name], f"{name} in {path}"

    return read, suffix


def _members(path: str) -> dict[str, bytes]:
    """Content of the batch files by base name, read in one pass and never unpacked to disk."""
    wanted = {name + suffix for name in TRAIN + TEST for suffix in SUFFIXES}
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                base = os.path.basename(member.name)
                if base in wanted and member.isfile() and member.size <= LARGEST:
                    found[base] = archive.extractfile(member).read()
    except Exception as error:  # what is damaged can raise almost anything
        raise DataError(
            f"{path} is not a whole tar archive ({error}): expected {' or '.join(ARCHIVES)}; download it again."
        ) from error
    return found


def _parse_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    whole, rest = divmod(len(content), RECORD_BYTES)
    if rest or not whole:
        raise DataError(
            f"{where} ends inside record {whole} ({len(content)} bytes): expected a multiple of {RECORD_BYTES} bytes; "
            "download the archive again."
        )
    records = np.frombuffer(content, np.uint8).reshape(whole, RECORD_BYTES)
    return records[:, 1:].reshape(-1, *PLANES), _checked_labels(records[:, 0], where)


def _parse_pickle(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = read_pickle(content)
    except PickleError as error:
        raise DataError(f"{where} {error}") from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise DataError(f"{where} is not a whole pickle ({error}): download the archive again.") from error
    data, labels = (batch.get(key) if isinstance(batch, dict) else None for key in (b"data", b"labels"))
    pixels_fit = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (RECORD_BYTES - 1,)
    labels_fit = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not (pixels_fit and labels_fit and len(data) == len(labels) > 0):
        raise DataError(
            f"{where} does not hold b'data' uint8 [n, {RECORD_BYTES - 1}] and b'labels' with n integers: "
            "download the archive again."
        )
    return data.reshape(-1, *PLANES), _checked_labels(np.array(labels), where)


def _checked_labels(labels: np.ndarray, where: str) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if wrong.size:
        raise DataError(
            f"{where}, record {wrong[0]}: label {labels[wrong[0]]} is out of range, expected 0 to 9; "
            "download the archive again."
        )
    return labels.astype(np.int32)


def _download() -> tuple[ArraySource, ArraySource]:
    import keras  # only here: files need no Keras

    home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
    try:
        os.makedirs(home, exist_ok=True)
        with open(os.path.join(home, "cifar10.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # ranks start together: one downloads, the others then find the file
            (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras wraps whatever the network raised in a plain Exception
        raise DataError(
            f"CIFAR-10 could not be downloaded ({error}): fetch cifar-10-binary.tar.gz from "
            "https://www.cs.toronto.edu/~kriz/cifar.html and pass --data-dir with its folder."
        ) from error
    train = ArraySource("cifar10", CLASSES, x_train, y_train.reshape(-1))
    return train, ArraySource("cifar10", CLASSES, x_test, y_test.reshape(-1))
