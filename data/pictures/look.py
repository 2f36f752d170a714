"""The first look at all files of a data set: by this process where they are few, by several where they are many.

Threads of one interpreter take turns, whatever they do besides waiting: for a million files other processes are needed.
They load no TensorFlow, so that they are there at once, get paths and give facts, and end with their standard input.
"""

import array
import json
import os
import queue
import struct
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from data.files.spread import slices, spread
from data.pictures import headers

MANY = 50_000  # files from which on other processes look: half a second for one
PROCESSES = 8  # at most; each has as many threads as `spread` takes
PART = 8192  # files that one of them is asked for at once
LENGTH = struct.Struct(">Q")
# A bare package in place of this one, whose __init__.py loads TensorFlow.
CODE = (
    "import sys, types; package = sys.modules['data'] = types.ModuleType('data'); package.__path__ = [sys.argv[1]]; "
    "from data.pictures import look; look.serve(sys.stdin.buffer, sys.stdout.buffer)"
)

Found = tuple[dict[int, str], Sequence[int], int]  # as `headers.look_at_each` gives it
Looking = Generator[Found, None, None]  # part by part; close it


def at_all(count: int, places: Callable[[int, int], Sequence[bytes]]) -> tuple[list[range], Looking]:
    """Look at so many files.

    Args:
        places: (first, one after the last) -> their paths.

    Returns:
        Parts of 0 to before ``count``, in order, and what was found of each; to be closed.
    """
    if count < MANY:
        parts = slices(count)
        return parts, spread(lambda part: headers.look_at_each(places(part.start, part.stop)), parts)
    parts = [range(start, min(start + PART, count)) for start in range(0, count, PART)]
    return parts, _by_processes(places, parts)


def _by_processes(places: Callable[[int, int], Sequence[bytes]], parts: Iterable[range]) -> Looking:
    count = min(max(len(os.sched_getaffinity(0)), 2), PROCESSES)
    free, all_of_them = queue.SimpleQueue(), [Looker() for _ in range(count)]
    for looker in all_of_them:
        free.put(looker)

    def one(part: range) -> Found:
        looker = free.get()
        try:
            return looker.look(places(part.start, part.stop))
        finally:
            free.put(looker)

    try:
        with ThreadPoolExecutor(count) as pool:
            yield from pool.map(one, parts)
    finally:
        for looker in all_of_them:
            looker.end()


class Looker:
    """A process that looks at files; where there is none, or it was ended by somebody, this one does."""

    def __init__(self):
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        command = [sys.executable, "-I", "-S", "-c", CODE, package]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        try:
            self._process = subprocess.Popen(command, **pipes)
        except OSError:
            self._process = None

    def look(self, places: Sequence[bytes]) -> Found:
        """`headers.look_at_each`."""
        if self._process is not None:
            try:
                _send(self._process.stdin, b"\0".join(places))
                said, sizes = json.loads(_receive(self._process.stdout)), array.array("q")
                sizes.frombytes(_receive(self._process.stdout))
                return {int(number): problem for number, problem in said["problems"].items()}, sizes, said["turned"]
            except (OSError, EOFError):
                self.end()
        return headers.look_at_each(places)

    def end(self) -> None:
        """End the process, if it has not ended."""
        if self._process is not None:
            self._process.kill()  # it writes nothing that could be half done
            self._process.communicate()
            self._process = None


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """What such a process does: paths come, with zero bytes between them; what is wrong with the files, how many are
    turned, and their sizes go."""
    while True:
        try:
            places = _receive(asked).split(b"\0")
        except EOFError:
            return
        problems, sizes, turned = _look(places)
        _send(answers, json.dumps({"problems": problems, "turned": turned}).encode())
        _send(answers, sizes.tobytes())


def _look(places: list[bytes]) -> Found:
    problems, sizes, turned = {}, array.array("q"), 0
    parts = slices(len(places))
    looked = spread(lambda part: headers.look_at_each(places[part.start : part.stop]), parts)
    for part, (found, some, count) in zip(parts, looked, strict=True):
        problems |= {part.start + number: problem for number, problem in found.items()}
        sizes.extend(some)
        turned += count
    return problems, sizes, turned


def _send(pipe: BinaryIO, message: bytes) -> None:
    pipe.write(LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: BinaryIO) -> bytes:
    """One message.

    Raises:
        EOFError: there is none any more, or not all of it.
    """
    length = pipe.read(LENGTH.size)
    message = pipe.read(LENGTH.unpack(length)[0]) if len(length) == LENGTH.size else b""
    if len(length) < LENGTH.size or len(message) < LENGTH.unpack(length)[0]:
        raise EOFError
    return message
