"""Many short calls to a file system: one by one where it answers at once, by many threads where it lets one wait.

Threads of one interpreter take turns: where nobody waits for a disk, many of them are not faster than one.
"""

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 64  # a disk of the network answers after about a millisecond, and many at a time
TRIAL = 0.02  # seconds after which it is judged whether one is slow
WAITING = 4.0  # how many times as long as the work itself must then have been waited

Item, Result = TypeVar("Item"), TypeVar("Result")


def spread(function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """`map(function, items)`, on many threads from when on most of the time was waiting."""
    began, worked = time.perf_counter(), time.thread_time()
    for number, item in enumerate(items, 1):
        yield function(item)
        elapsed, work = time.perf_counter() - began, time.thread_time() - worked
        if elapsed > TRIAL and elapsed > (1 + WAITING) * work:
            with ThreadPoolExecutor(THREADS) as pool:
                yield from pool.map(function, items[number:])
            return


def slices(count: int) -> list[range]:
    """0 to before `count` in parts for `spread`: large enough that handing one over does not count, and enough of them
    for all threads."""
    size = min(max(count // (4 * THREADS), 16), 256)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
