"""Rounds in which living contestants take turns: A, B, A, B, ..., so that what disturbs one disturbs the other."""

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from launch.bench.contestants import Contestant
from launch.bench.players import Player
from launch.job.config import ConfigError

WARM_UP = 3  # steps; the first holds the tracing of the graph


@dataclass
class Timing:
    """What the turns of one contestant gave: per turn, seconds per step, busy cores, what the contestant noted, what a
    meter counted per step, and for how many seconds per step it was awake; and facts it told about itself."""

    batch: int
    steps: int = 0
    seconds: list[float] = field(default_factory=list)
    cores_busy: list[float] = field(default_factory=list)
    notes: list[dict] = field(default_factory=list)
    metered: list[float] = field(default_factory=list)
    awake: list[float] = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def begin(self, steps: int) -> None:
        """Drop the turns so far; the next ones have so many steps."""
        self.steps, self.seconds, self.cores_busy, self.notes, self.metered, self.awake = steps, [], [], [], [], []

    @property
    def median(self) -> float:
        """Seconds per step."""
        return median(self.seconds)

    def row(self) -> dict:
        """Columns for a table: medians, with the smallest and the largest."""
        return {
            "ms_per_step": 1000 * self.median,
            "ms_spread": [1000 * min(self.seconds), 1000 * max(self.seconds)],
            "images_per_second": self.batch / self.median,
            "images_spread": [self.batch / max(self.seconds), self.batch / min(self.seconds)],
            "cores_busy": median(self.cores_busy),
            "steps_per_turn": self.steps,
            "rounds": len(self.seconds),
        }


def speedup(timing: Timing, base: Timing) -> dict:
    """How many times the images per second of ``base``: of the medians, and the range over the rounds."""
    more = timing.batch / base.batch
    by_round = [more * b / a for a, b in zip(timing.seconds, base.seconds, strict=True)]
    return {"ratio": more * base.median / timing.median, "ratio_spread": [min(by_round), max(by_round)]}


class Arena:
    """Starts contestants and gives them turns; leaving it ends them all.

    Attributes:
        folder: a temporary one, gone afterwards.
    """

    def __init__(self, say: Callable[[str], None]):
        """Args: ``say`` is told what is going on."""
        self._say, self._players, self._timings = say, {}, {}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lockstep-bench-")))
        self._listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        try:
            self._listener.bind(str(self.folder / "turns"))
        except OSError as error:
            self._stack.close()
            raise ConfigError(
                f"no socket can be made in {self.folder} ({error}); set TMPDIR to a shorter path"
            ) from None
        self._listener.listen(64)
        return self

    def __exit__(self, *problem):
        self.leave()
        self._stack.close()

    def enter(self, contestant: Contestant) -> Timing:
        """Start a contestant and warm it up; returns its timing, which later rounds fill."""
        self._say(f"starting {contestant.name}")
        name = contestant.name
        player = self._players[name] = Player(contestant, self.folder)
        timing = self._timings[name] = Timing(contestant.batch, facts=player.await_ranks(self._listener))
        player.turn(WARM_UP)
        return timing

    def leave(self) -> None:
        """End all contestants."""
        while self._players:
            self._players.popitem()[1].end()

    def ask(self, name: str, command: str, argument) -> list[dict]:
        """Let the processes of a contestant do something else; their answers by rank."""
        return self._players[name].exchange({command: argument})

    def rounds(
        self,
        count: int,
        *,
        names: Sequence[str] = (),
        seconds: float | None = None,
        steps: int | None = None,
        meter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Let the contestants take ``count`` turns each, one after the other; earlier rounds are forgotten.

        Args:
            names: who takes part; default: all.
            seconds: how long a turn should last, from which the number of steps follows; or
            steps: that number.
            meter: counts something; its increase over a turn is noted, per step.
        """
        chosen = [(self._players[name], self._timings[name]) for name in names or self._players]
        for player, timing in chosen:
            # The first turn after a change shows how long a step takes now, and is not counted.
            took, *_ = player.turn(1)
            timing.begin(steps or max(1, min(1000, round(seconds / took))))
        for number in range(count):
            self._say(f"round {number + 1} of {count}")
            for player, timing in chosen:
                before, began = meter(), time.perf_counter()
                took, cores, notes = player.turn(timing.steps)
                timing.seconds.append(took)
                timing.cores_busy.append(cores)
                timing.notes.append(notes)
                timing.metered.append((meter() - before) / timing.steps)
                timing.awake.append((time.perf_counter() - began) / timing.steps)

    def idle(self, name: str, seconds: float, meter: Callable[[], float]) -> float:
        """What the meter counts per second while a contestant is awake and does nothing."""
        before = meter()
        took = self._players[name].idle(seconds)
        return (meter() - before) / took
