"""Where the time goes from the command to the end of the first step; no TensorFlow in here."""

import os
import time

from distributed.health.heartbeat import process_state
from launch.job import environment

SHOWN = 0.05  # seconds; shorter phases are not worth a word


class Startup:
    """Seconds of the phases of a start, which follow one another, by the clock of this process."""

    def __init__(self, began: float):
        """Args: when it began, as ``time.perf_counter()`` counts."""
        self._last, self._seconds = began, {}

    @classmethod
    def of_command(cls) -> "Startup":
        """One that began with the command: with this process, or before it with its launcher."""
        launcher = environment.command()
        if launcher is None:
            return cls(began_at(os.getpid()))
        startup = cls(began_at(launcher.pid))
        startup.end("launcher", began_at(os.getpid()))
        return startup

    def end(self, phase: str, now: float | None = None) -> None:
        """All since the phase before was this one, which ends now, or at that ``time.perf_counter()``."""
        now = time.perf_counter() if now is None else now
        self._seconds[phase] = now - self._last
        self._last = now

    def summary(self) -> dict[str, float]:
        """``seconds`` in all, and those of each phase."""
        phases = {phase: round(seconds, 2) for phase, seconds in self._seconds.items()}
        return {"seconds": round(sum(self._seconds.values()), 2)} | phases

    def sentence(self) -> str:
        """The same in words."""
        parts = [f"{phase} {seconds:.1f}" for phase, seconds in self._seconds.items() if seconds >= SHOWN]
        return f"started in {self.summary()['seconds']:.1f} s: {', '.join(parts)}"


def began_at(pid: int) -> float:
    """When a process was started, as ``time.perf_counter()`` counts; now where the system does not tell."""
    ticks = process_state(pid)[1]
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0
    return time.perf_counter() - age
