"""Where an epoch's time went on each rank, and on whom the others waited.

The parts of steps come from ``distributed/step_times.py``, by stamps within the compiled calls; the others from this
host's clock, around what is done between calls.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median_low

from distributed.health import heartbeat
from distributed.in_words import ranks_in_words
from distributed.model import LockstepModel
from distributed.step_times import PARTS as PARTS_OF_STEPS
from distributed.strategies import Strategy

# What a rank does: wait for input; forward and backward passes; wait for other ranks, in steps and between them;
# update the weights; validate; save; all else between two calls, as callbacks, logs, the compilation of steps.
PARTS = (*PARTS_OF_STEPS, "validation", "saving", "other")
BEHIND = 0.1  # of what the others take: so much longer is worth a line,
LEAST = 0.2  # if it is so many seconds of an epoch
# Part -> how it is said of one rank and of several; of the first ones, how many percent more than the others take says
# more than seconds do.
IN_PERCENT = {"compute": "compute{s}", "update": "update{s}", "validation": "validate{s}"}
IN_SECONDS = {
    "input": "wait{s} {seconds:.1f} s longer for input",
    "saving": "take{s} {seconds:.1f} s to save",
    "other": "take{s} {seconds:.1f} s longer between steps (callbacks, logs)",
}


@dataclass(frozen=True)
class RankTimes:
    """One rank's seconds by part, in all ``PARTS``; under ``MirroredStrategy`` one replica's."""

    host: str
    seconds: dict[str, float]

    @property
    def own(self) -> float:
        """What it took without waiting for others."""
        return sum(seconds for part, seconds in self.seconds.items() if part != "exchange")


@dataclass(frozen=True)
class Slow:
    """Ranks for which the others waited.

    Attributes:
        ranks: their numbers.
        host: theirs; the slowest one's where they are on several.
        part: of ``PARTS``, the cause.
        longer: seconds that the slowest one took more than is usual; so long the others waited.
        sentence: the same in words.
    """

    ranks: list[int]
    host: str
    part: str
    longer: float
    sentence: str


class EpochClock:
    """This worker's times, from the end of one epoch to that of the next: a save at an epoch's end is of the next one.

    Attributes:
        epochs: for each epoch that has ended, every rank's times, none where they are not known; the same on all
            workers.
    """

    def __init__(self, strategy: Strategy, model: LockstepModel):
        self._strategy, self._model = strategy, model
        self.epochs: list[list[RankTimes]] = []
        self.begin()

    def begin(self) -> None:
        """Forget what was since the last epoch."""
        self._began, self._waited = time.perf_counter(), heartbeat.waited()
        self._steps = self._strategy.local_values([self._model.times.seconds])
        self._spent = {"validation": 0.0, "saving": 0.0}

    @contextlib.contextmanager
    def spent_on(self, part: str):
        """What this worker does within, without waiting for others, is ``part``."""
        began, waited = time.perf_counter(), heartbeat.waited()
        yield
        self._spent[part] += time.perf_counter() - began - (heartbeat.waited() - waited)

    def end(self) -> list:
        """This worker's part of what ``ended`` takes, a JSON value; the next epoch begins."""
        if not self._model.times.known:
            return [self._strategy.world.host, []]
        all_of_it, waited = time.perf_counter() - self._began, heartbeat.waited() - self._waited
        before, spent = self._steps, self._spent
        self.begin()
        replicas = []
        for (now,), (then,) in zip(self._steps, before, strict=True):
            steps = dict(zip(PARTS_OF_STEPS, (b - a for a, b in zip(then, now, strict=True)), strict=True))
            other = all_of_it - sum(steps.values()) - waited - sum(spent.values())
            replicas.append(steps | {"exchange": steps["exchange"] + waited} | spent | {"other": max(0.0, other)})
        return [self._strategy.world.host, replicas]

    def ended(self, workers: Sequence[list]) -> list[RankTimes]:
        """Every rank's times of the epoch, from what ``end`` has given on every worker."""
        self.epochs.append([RankTimes(host, seconds) for host, replicas in workers for seconds in replicas])
        return self.epochs[-1]


def find_slow(ranks: Sequence[RankTimes]) -> Slow | None:
    """Who keeps the others waiting, and by what; None where nobody does.

    A rank is behind if it takes a tenth longer, without its own waiting, than the usual one: the median, or the faster
    of two.
    """
    if not ranks:
        return None
    usual = {part: median_low(rank.seconds[part] for rank in ranks) for part in PARTS}
    usual_own = median_low(rank.own for rank in ranks)
    least = max(BEHIND * usual_own, LEAST)

    def cause(rank):
        return max((part for part in PARTS if part != "exchange"), key=lambda part: rank.seconds[part] - usual[part])

    slowest = max(ranks, key=lambda rank: rank.own)
    longer, part = slowest.own - usual_own, cause(slowest)
    if longer <= least:
        return None
    slow = [number for number, rank in enumerate(ranks) if rank.own - usual_own > least and cause(rank) == part]
    whole = sum(slowest.seconds.values())
    sentence = _sentence(slow, slowest, part, usual[part])
    waiting = "the others" if len(ranks) - len(slow) > 1 else "the other"
    return Slow(slow, slowest.host, part, longer, f"{sentence}; {waiting} waited {longer:.1f} s of {whole:.1f}")


def _sentence(slow: list[int], slowest: RankTimes, part: str, usual: float) -> str:
    s, seconds = "s" * (len(slow) == 1), slowest.seconds[part]
    who = f"{ranks_in_words(slow)} on {slowest.host}"
    if part in IN_SECONDS:
        return f"{who} {IN_SECONDS[part].format(s=s, seconds=seconds - usual)}"
    return f"{who} {IN_PERCENT[part].format(s=s)} {seconds / max(usual, 1e-9) - 1:.0%} longer".replace("%", " %")


def summarize(epochs: Sequence[Sequence[RankTimes]], first: int) -> dict | None:
    """For ``summary.json``: seconds of each part over all epochs, of the average rank, and who was slow when; None
    where nothing is known.

    Args:
        first: number of the first of these epochs, counted from 1.
    """
    if not epochs or not epochs[0]:
        return None
    seconds = {part: round(sum(fmean(rank.seconds[part] for rank in ranks) for ranks in epochs), 2) for part in PARTS}
    slow = [(number, find_slow(ranks)) for number, ranks in enumerate(epochs, start=first)]
    named = [
        {"epoch": number, "ranks": it.ranks, "host": it.host, "cause": it.part, "longer": round(it.longer, 2)}
        for number, it in slow
        if it
    ]
    return {"seconds": seconds, "slow": named}
