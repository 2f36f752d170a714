"""What was timed: samples, their medians and spread, how two contestants compare, and the parts of a step."""

from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

WORDS = {"update": "the optimizer", "exchange": "the network"}  # other parts are called what they are


class Sample(NamedTuple):
    """A turn: seconds per step, steps taken, CPU seconds per second, what a meter counted per step, the first rank's
    own report, and seconds per step in which the ranks were awake, which are a few more."""

    seconds: float
    steps: int = 1
    cores_busy: float = 0.0
    metered: float = 0.0
    notes: dict = {}
    awake: float = 0.0


@dataclass
class Timing:
    """The latest samples of a contestant, whose step holds ``batch`` images, and facts that it told about itself."""

    batch: int
    samples: list[Sample] = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds per step."""
        return median(sample.seconds for sample in self.samples)

    def noted(self, name: str, per: str = "steps") -> float:
        """What the contestant noted under this name, per step or per another number that it noted."""
        return median(sample.notes.get(name, 0.0) / sample.notes[per] for sample in self.samples)

    def row(self) -> dict:
        """Columns for a table: medians, with the smallest and the largest."""
        low, high = (pick(sample.seconds for sample in self.samples) for pick in (min, max))
        return {
            "ms_per_step": 1000 * self.median,
            "ms_spread": [1000 * low, 1000 * high],
            "images_per_second": self.batch / self.median,
            "images_spread": [self.batch / high, self.batch / low],
            "cores_busy": median(sample.cores_busy for sample in self.samples),
            "steps_per_turn": median(sample.steps for sample in self.samples),
            "rounds": len(self.samples),
        }

    def speedup(self, base: "Timing") -> dict:
        """How many times the images per second of ``base``: of the medians, and the range over the rounds."""
        more = self.batch / base.batch
        by_round = [more * b.seconds / a.seconds for a, b in zip(self.samples, base.samples, strict=True)]
        return {"ratio": more * base.median / self.median, "ratio_spread": [min(by_round), max(by_round)]}


def parts(
    total: float, *, update: float, saving: float = 0.0, repeated: float | None = None, alone: float | None = None
) -> dict:
    """Cut a step's time in parts, by leaving parts out; all times are seconds.

    The differences are the parts; what is left is compute.  So the exchange's part holds what it makes the ranks
    multiply beyond their share and what waiting costs, and the input's what an epoch's end takes besides saving.  A
    part so small that noise made it negative is shown as 0.

    Args:
        total: a full step.
        update: an optimizer step by itself, on given gradients.
        saving: saving, per step.
        repeated: a step on one repeated batch (nothing to read); None where ``total`` is one.
        alone: the same in as many processes on the same cores that exchange nothing; None where nobody exchanges.

    Returns:
        ``seconds`` and ``share`` of each part, and ``limit``, the largest part in words.
    """
    differences = {"saving": saving} if saving else {}
    if repeated is not None:
        differences["input"] = total - saving - repeated
    if alone is not None:
        differences["exchange"] = (total if repeated is None else repeated) - alone
    seconds, left = {}, total
    for name, part in (differences | {"update": update}).items():
        seconds[name] = min(max(0.0, part), left)
        left -= seconds[name]
    seconds["compute"] = left
    largest = max(seconds, key=seconds.get)
    share = {name: part / total for name, part in seconds.items()}
    return {"seconds": seconds, "share": share, "limit": WORDS.get(largest, largest)}


def parts_of_ranks(ranks: Timing, alone: Timing, update: float) -> dict:
    """``parts`` of ranks that exchange, beside as many that do not.

    Where layers are split each rank updates its part of them alone, so that without exchange a step would take less
    than ``alone`` by the rest of its update.
    """
    spared = update * (1 - ranks.facts["updated_share"])
    return parts(ranks.median, alone=alone.median - spared, update=update - spared)
