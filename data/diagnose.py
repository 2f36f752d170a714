"""Which pictures cannot be decoded: for the moment after a pipeline has failed, whose error does not name the example.

Pictures are read one at a time, outside of a graph.
"""

import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import tensorflow as tf

from data.datasets import Source

CHUNK = 64  # pictures between two looks at the clock


def is_of_input(error: Exception) -> bool:
    """Whether an error of a compiled call came out of its input pipeline, so that an example may be at fault: it is not
    where the exchange failed because another worker has ended."""
    return isinstance(error, tf.errors.OpError) and "IteratorGetNext" in error.message


def diagnose(source: Source, indices: Iterable[int]) -> str | None:
    """The first of `indices` that cannot be read or decoded, in words: "PLACE: reason"; None if all can."""
    for index in indices:
        if problem := _problem(source, index):
            return problem
    return None


def _problem(source: Source, index: int) -> str | None:
    try:
        data = source.read(tf.constant([index], tf.int64))
        if source.encoded:
            tf.io.decode_image(data[0], channels=3, expand_animations=False)
    except (tf.errors.OpError, ValueError, OSError) as error:
        return f"{source.where(int(index))}: {reason(error)}"
    return None


class Scan(NamedTuple):
    """What was found: "PLACE: reason" of each picture that cannot be decoded, and how many were looked at."""

    problems: list[str]
    looked_at: int


def scan(source: Source, threads: int, until: float, passed: Callable[[], None] = lambda: None) -> Scan:
    """Look at all pictures in order, with the threads' lowest priority, as this process has nothing else to do.

    Args:
        until: `time.monotonic()` at which to stop.
        passed: called now and then.
    """

    def gently() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 19)  # on Linux that of the calling thread alone

    problems, done = [], 0
    with ThreadPoolExecutor(threads, initializer=gently) as pool:
        while done < len(source) and time.monotonic() < until:
            some = range(done, min(done + CHUNK * threads, len(source)))
            problems += filter(None, pool.map(lambda index: _problem(source, index), some))
            done = some.stop
            passed()
    return Scan(problems, done)


def reason(error: Exception) -> str:
    """TensorFlow's message without the names of graph nodes around it."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text).strip()
    return text.splitlines()[0].strip(" .") if text else type(error).__name__
