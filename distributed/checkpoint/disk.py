"""Files that are on the disk when a call returns, and files that are files.  No TensorFlow in here."""

import contextlib
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def write_file(path: Path, parts: Iterable) -> dict:
    """Write a new file through to the disk.

    Args:
        parts: bytes or memoryviews of bytes, which are written as they come.

    Returns:
        ``bytes`` and ``sha256`` of what was meant, so that reading back can find an error.

    Raises:
        OSError: naming the file.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "xb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(OSError):
                # Forget the cached pages: what is read back shall come from the disk.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    return {"bytes": size, "sha256": digest.hexdigest()}


def open_regular(path: Path):
    """Open a file for reading; a link or a pipe is an ``OSError``."""
    try:
        # Opening a pipe without O_NONBLOCK would wait for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link, not a file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_regular(path: Path, largest: int) -> bytes:
    """All of a file; a link, a pipe, or more than ``largest`` bytes is an ``OSError``."""
    with open_regular(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"larger than {largest:,} bytes", str(path))
    return content


# What file systems answer that do not know fsync of a directory: CIFS, sshfs, some of object stores.
_UNKNOWN = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM)
_warned: set[int] = set()  # devices of which it was said


def flush(path: Path) -> None:
    """Bring a directory's entries to the disk; warn, once, where the file system cannot be asked to.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        device = os.fstat(descriptor).st_dev
        if device not in _warned:
            _warned.add(device)
            print(
                f"warning: the file system of {path} refuses fsync of a folder ({error.strerror}): what was saved "
                "last may be lost if its machine loses power, but not if a run is killed",
                file=sys.stderr,
                flush=True,
            )
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to, which becomes ``path`` when the block ends, and is gone when it fails.

    Raises:
        OSError: naming ``path``, which is then as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise  # another file of the same block
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
