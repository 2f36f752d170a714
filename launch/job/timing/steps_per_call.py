"""How many optimizer steps one compiled call takes; the same number on every worker."""

import time

from distributed.control import Control

SECONDS = 0.1  # that a call may take: a signal, a bar or a log waits no longer for its end
MOST = 1024  # steps of a call
# Calls between two comparisons of how fast the workers are, once the first ones have shown it.
RARELY = 64


class StepsPerCall:
    """As many steps as fit into about a tenth of a second, or a number that the user gave, and never past what is due.

    The workers must take calls of one length, and do not measure one time: they compare their times after the second
    call, the fourth, the eighth and so on, then after each ``RARELY``.
    """

    def __init__(self, given: int | None, control: Control):
        """Args: ``given`` is the user's bound; None measures."""
        self._given, self._control = given, control
        self._calls, self._next = 0, 2
        self._most = given or 1
        self.seconds_per_step = 0.0  # of the slowest worker, or more; 0 until it is known

    def upto(self, due: int) -> int:
        """Steps of the next call, at most ``due``."""
        return min(self._most, due)

    def took(self, steps: int, began: float) -> None:
        """Learn from a call that began at ``time.perf_counter() == began``; all workers must call it after each."""
        self._calls += 1
        mine = (time.perf_counter() - began) / steps
        if self._calls == 1:
            self.seconds_per_step = mine  # at most: it held the tracing of the graph
            return
        if self._given is not None:
            self.seconds_per_step = mine
        elif self._calls == self._next:
            self._next += min(self._next, RARELY)
            self.seconds_per_step = max(self._control.gather(mine))
            self._most = max(1, min(MOST, int(SECONDS / self.seconds_per_step)))
