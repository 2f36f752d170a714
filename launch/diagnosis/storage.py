"""How fast the data folder is read and the run folder written, and whether that is possible at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median

READ_SECONDS, READ_BYTES, READ_FILES = 2.0, 256 << 20, 500
LOOK_AT = 5000  # files that are listed, of which those to be read are chosen
WRITE_BYTES, CHUNK = 64 << 20, 4 << 20
FLUSHES = 10


class FolderError(ValueError):
    """A folder that a run could not use; its message is one sentence with the remedy."""


def read(folder: Path, rank: int, size: int) -> dict:
    """Read files of the folder, or the file that it is, as far as the kernel can be asked to forget them not from
    memory.

    Args:
        rank, size: of several processes each reads files of its own.

    Returns:
        ``files`` and ``bytes`` read, ``bytes_per_second``, ``files_per_second``, ``opening`` (median seconds until a
        file's first byte).

    Raises:
        FolderError: if it is not there, holds no files, or cannot be read.
    """
    try:
        paths = [folder] if folder.is_file() else list(islice(_files(folder), LOOK_AT))
        if not paths:
            raise FolderError(f"{folder} holds no files; name the folder with the data by --data-dir")
        mine = paths[rank % len(paths) :: size] or paths
        # Spread over the folder: files that lie together may be read in one go.
        chosen = mine[:: max(1, len(mine) // READ_FILES)][:READ_FILES]
        return _timed_reads(chosen)
    except OSError as error:
        place, why = error.filename or folder, error.strerror or error
        raise FolderError(f"{place} cannot be read ({why}); name another by --data-dir, or mend its rights") from None


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError):
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders.sort()
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _timed_reads(paths: list[Path]) -> dict:
    total, opening, began = 0, [], time.perf_counter()
    for path in paths:
        started = time.perf_counter()
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.read(1)
            opening.append(time.perf_counter() - started)
            while chunk := file.read(CHUNK):
                total += len(chunk)
                if time.perf_counter() - began > READ_SECONDS or total > READ_BYTES:
                    break
        if time.perf_counter() - began > READ_SECONDS or total > READ_BYTES:
            break
    seconds = time.perf_counter() - began
    return {
        "files": len(opening),
        "bytes": total,
        "bytes_per_second": total / seconds,
        "files_per_second": len(opening) / seconds,
        "opening": median(opening),
    }


def write(folder: Path) -> dict:
    """Write a file where checkpoints would be, flush it to the disk, and remove it.

    Returns:
        ``bytes_per_second`` until a large file is on the disk, ``flush`` (median seconds of a small one's fsync),
        ``free`` bytes.

    Raises:
        FolderError: if nothing can be written there.
    """
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(parent))
    remedy = "free some space, mend its rights, or name another by --run-dir"
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            flushes = []
            for _ in range(FLUSHES):
                file.write(bytes(4096))
                began = time.perf_counter()
                os.fsync(file.fileno())
                flushes.append(time.perf_counter() - began)
            chunk, began = os.urandom(CHUNK), time.perf_counter()
            for _ in range(WRITE_BYTES // CHUNK):
                if file.write(chunk) < CHUNK:
                    raise FolderError(f"{place} is full after a part of {WRITE_BYTES >> 20} MB; {remedy}")
            os.fsync(file.fileno())
            seconds = time.perf_counter() - began
    except OSError as error:
        raise FolderError(f"{place} cannot be written ({error.strerror or error}); {remedy}") from None
    free = shutil.disk_usage(place).free
    return {"folder": str(place), "bytes_per_second": WRITE_BYTES / seconds, "flush": median(flushes), "free": free}
