"""Stragglers: on whom the other ranks waited in an epoch, and by what; said in words, and for ``summary.json``."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median_low

from distributed.in_words import ranks_in_words
from launch.job.timing.epoch_clock import PARTS, RankTimes

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
class Stragglers:
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


def find_stragglers(ranks: Sequence[RankTimes]) -> Stragglers | None:
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
    return Stragglers(slow, slowest.host, part, longer, f"{sentence}; {waiting} waited {longer:.1f} s of {whole:.1f}")


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
    slow = [(number, find_stragglers(ranks)) for number, ranks in enumerate(epochs, start=first)]
    named = [
        {"epoch": number, "ranks": it.ranks, "host": it.host, "cause": it.part, "longer": round(it.longer, 2)}
        for number, it in slow
        if it
    ]
    return {"seconds": seconds, "slow": named}
