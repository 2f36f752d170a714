"""Where an epoch's time went on each rank.

The parts of steps come from ``distributed/step_times.py``, by stamps within the compiled calls; the others from this
host's clock, around what is done between calls.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from distributed.health import heartbeat
from distributed.model import LockstepModel
from distributed.step_times import PARTS as PARTS_OF_STEPS
from distributed.strategies import Strategy

# What a rank does: wait for input; forward and backward passes; wait for other ranks, in steps and between them;
# update the weights; validate; save; all else between two calls, as callbacks, logs, the compilation of steps.
PARTS = (*PARTS_OF_STEPS, "validation", "saving", "other")


@dataclass(frozen=True)
class RankTimes:
    """One rank's seconds by part, in all ``PARTS``; under ``MirroredStrategy`` one replica's."""

    host: str
    seconds: dict[str, float]

    @property
    def own(self) -> float:
        """What it took without waiting for others."""
        return sum(seconds for part, seconds in self.seconds.items() if part != "exchange")


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
