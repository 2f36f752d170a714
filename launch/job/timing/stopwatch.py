"""How fast a run trains, by the clock of this host."""

import time


class Stopwatch:
    """Times each epoch's training steps; the run's first call, which holds the tracing of the graph, does not count."""

    def __init__(self, global_batch: int):
        self._batch = global_batch
        self.traced = False  # whether the run's first call is over
        self.rates: list[float] = []  # images per second of each epoch

    def begin_epoch(self) -> None:
        self._began = self._last = time.perf_counter()
        self._counted = 0
        self.seconds = self.images_per_second = 0.0

    def took(self, steps: int) -> float:
        """A call is over; returns its images per second, 0 for the first one."""
        now, last = time.perf_counter(), self._last
        self._last = now
        if not self.traced:
            self.traced, self._began = True, now
            return 0.0
        self._counted += steps
        return steps * self._batch / max(now - last, 1e-9)

    def end_steps(self) -> None:
        """The epoch's steps are taken; what follows is not training."""
        self.seconds = self._last - self._began
        if self._counted and self.seconds:
            self.images_per_second = self._counted * self._batch / self.seconds
            self.rates.append(self.images_per_second)
