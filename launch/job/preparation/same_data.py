"""All hosts have the same data: seen by a few examples, as a look at all of them on each rank would take long."""

from collections.abc import Callable, Sequence

import numpy as np

from data.datasets import DataError, Source
from data.files.source import FileSource
from distributed.strategies import Strategy

SAMPLE = 64  # examples of each split


def check(strategy: Strategy, sources: Sequence[Source | None], together: Callable[[Callable], object]) -> None:
    """See that all workers have the chief's examples, and take its fingerprints; all workers call it.

    Args:
        together: calls a function on every worker; where it fails on any of them, it fails on all.

    Raises:
        DataError, or what ``together`` raises for it: a host has others.
    """
    world = strategy.world
    facts = together(lambda: [source and _facts(source) for source in sources] if world.is_chief else None)
    facts, host = strategy.control.agree([facts, world.host])
    pairs = [] if world.is_chief else zip(sources, facts, strict=True)
    together(lambda: [_compare(*pair, world.host, host) for pair in pairs])


def sample(fingerprint: str, count: int) -> np.ndarray:
    """Sorted int64 indices of a few of so many examples, by the data's fingerprint; the same on every machine."""
    draws = np.random.Philox(key=int(fingerprint[:16], 16)).random_raw(SAMPLE)
    return np.unique(draws % np.uint64(max(count, 1))).astype(np.int64)[:count]


def _facts(source: Source) -> dict:
    """By what other processes tell that their source is the same."""
    indices = sample(source.fingerprint(), len(source))
    seen = source.sizes[indices].tolist() if isinstance(source, FileSource) else source.glance(indices)
    return {"outline": source.outline(), "sha256": source.fingerprint(), "seen": seen}


def _compare(source: Source | None, facts: dict | None, host: str, chief: str) -> None:
    """See by a few examples that this host has what the chief has, and take its fingerprint for them all.

    Raises:
        DataError: it has others.
    """
    if source is None or facts is None or source.outline() != facts["outline"]:
        return  # their fingerprints will differ
    indices = sample(facts["sha256"], len(source))
    seen = source.glance(indices)
    if not seen:
        return  # its own fingerprint needs no look at a file
    for index, here, there in zip(indices.tolist(), seen, facts["seen"], strict=True):
        if here != there:
            place, first = source.where(index), f"{chief}, the host of rank 0,"
            what = f"{host} has other pixels at {place} than {first} has"
            if isinstance(source, FileSource):
                what = f"{host} has {place} with {here:,} bytes, {first} with {there:,}"
            if here < 0:
                what = f"{host} has no {place}, as {first} has"
            raise DataError(f"{what}: expected the same data on all hosts; copy it again.")
    source.sha256 = facts["sha256"]
