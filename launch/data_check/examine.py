"""One picture, read and decoded as training does it: what is wrong with it; and many, by several processes."""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from launch.job.environment import loading
from launch.trained.program import OutputError

CHUNK = 64  # pictures that a process takes at a time
WORTH = 2000  # pictures for which one more process, which has to load TensorFlow, pays
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Seen(NamedTuple):
    """What a picture is.

    Attributes:
        kind: of what is wrong, a word of the table; None where nothing is.
        reason: the same in more words.
        sha256: of the file; None where it cannot be read.
    """

    kind: str | None
    reason: str = ""
    sha256: bytes | None = None


def examine_all(pictures: Sequence[str | bytes], workers: int) -> Iterator[Seen]:
    """What each of the pictures is, in order.

    Args:
        pictures: paths of files, or what stands in them.
        workers: processes; 1 does it in this one.

    Raises:
        OutputError: a process was ended from outside.
    """
    chunks = [pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)]
    workers = min(workers, -(-len(pictures) // WORTH))
    if workers <= 1:
        for chunk in chunks:
            yield from _examine_some(chunk)
        return
    # Forked, a process would inherit TensorFlow's threads without what they hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _load) as pool:
        try:
            for seen in _unasked(pool.map, _examine_some, chunks):
                yield from seen
        except BrokenProcessPool as error:
            raise OutputError(
                f"one of {workers} processes that decode was ended, as the system does where memory is short; give a "
                "smaller number to --workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _unasked(begin: Callable, *arguments):
    """Begin with processes that no Ctrl-C reaches: a terminal tells them too, and each would answer at length."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return begin(*arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _load() -> None:
    """Make a process ready: it ends with the one that began it, says nothing, and leaves the GPUs to others."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with loading(quiet=True):
        import tensorflow as tf
    tf.config.set_visible_devices([], "GPU")


def _examine_some(pictures: Sequence[str | bytes]) -> list[Seen]:
    return [examine(picture) if isinstance(picture, bytes) else examine_file(picture) for picture in pictures]


def examine_file(path: str) -> Seen:
    """What a file is."""
    from data.pictures.headers import LARGEST_FILE

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return Seen("unreadable", "is no regular file")
            if status.st_size > LARGEST_FILE:
                return Seen("too large", f"has {status.st_size:,} bytes, more than {LARGEST_FILE:,}")
            return examine(file.read())
    except OSError as error:
        return Seen("unreadable", f"cannot be read ({error.strerror})")


def examine(content: bytes) -> Seen:
    """What a picture is by all of its bytes."""
    import tensorflow as tf

    from data.diagnose import reason
    from data.pictures.headers import HEAD, larger_than_pictures_are, what_is_wrong

    digest = hashlib.sha256(content).digest()
    if problem := what_is_wrong(content[:HEAD]):
        kind = "empty" if not content else "cut" if "ends before" in problem else "no picture"
        return Seen(kind, problem, digest)
    if problem := larger_than_pictures_are(lambda place, count: content[place : place + count]):
        return Seen("too large", problem, digest)
    try:
        with tf.device("CPU:0"):
            image = tf.io.decode_image(content, channels=3, expand_animations=False)
    except (tf.errors.OpError, ValueError) as error:
        return Seen("cut", f"is cut or damaged ({reason(error)})", digest)
    return Seen("one pixel", "has a single pixel", digest) if image.shape[:2] == (1, 1) else Seen(None, "", digest)


def processes() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
