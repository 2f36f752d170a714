"""Rounds in which living contestants take turns: A, B, A, B, ..., so that what disturbs one disturbs the other.

All contestants are started, warmed up and then kept alive; but the one whose turn it is are stopped (SIGSTOP), since
even an idle Horovod process wakes a thousand times a second.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from launch.bench.contestants import HERE, Contestant

PATIENCE = 900.0  # seconds for which a contestant may be silent
WARM_UP = 3  # steps; the first holds the tracing of the graph


class BenchError(RuntimeError):
    """A contestant failed; the message holds the end of what it printed."""


@dataclass
class Timing:
    """What the turns of one contestant gave: per turn, seconds per step, busy cores, what the contestant noted and what
    a meter counted per step; and facts it told about itself."""

    batch: int
    steps: int = 0
    seconds: list[float] = field(default_factory=list)
    cores_busy: list[float] = field(default_factory=list)
    notes: list[dict] = field(default_factory=list)
    metered: list[float] = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def forget(self) -> None:
        """Drop the turns so far."""
        self.seconds, self.cores_busy, self.notes, self.metered = [], [], [], []

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
    """Starts contestants and gives them turns; leaving it ends them all."""

    def __init__(self, say=lambda text: None):
        self._say, self._players = say, {}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lockstep-bench-")))
        self._listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(self.folder / "turns"))
        self._listener.listen(64)
        return self

    def __exit__(self, *problem):
        self.leave()
        self._stack.close()

    def enter(self, contestant: Contestant) -> Timing:
        """Start a contestant and warm it up; returns its timing, which later rounds fill."""
        self._say(f"starting {contestant.name}")
        timing = Timing(contestant.batch)
        player = self._players[contestant.name] = _Player(contestant, self.folder, timing)
        player.await_ranks(self._listener)
        timing.facts = player.facts
        player.turn(WARM_UP, Timing(contestant.batch))
        return timing

    def leave(self, *names: str) -> None:
        """End some contestants, all if none is named."""
        for name in names or list(self._players):
            self._players.pop(name).end()

    def ask(self, name: str, command: str, argument) -> list[dict]:
        """Let the processes of a contestant do something else; their answers by rank."""
        return self._players[name].exchange({command: argument})

    def rounds(
        self,
        count: int,
        *,
        names: Sequence[str] = (),
        seconds: float | None = None,
        steps: dict[str, int] | None = None,
        meter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Let the contestants take ``count`` turns each, one after the other; earlier rounds are forgotten.

        Args:
            names: who takes part; default: all.
            seconds: how long a turn should last, from which the number of steps follows; or
            steps: that number by name.
            meter: counts something; its increase over a turn is noted, per step.
        """
        players = [self._players[name] for name in names or self._players]
        for player in players:
            player.timing.forget()
            player.timing.steps = steps[player.name] if steps else player.steps_in(seconds)
        for number in range(count):
            self._say(f"round {number + 1} of {count}")
            for player in players:
                before = meter()
                player.turn(player.timing.steps, player.timing)
                player.timing.metered.append((meter() - before) / player.timing.steps)


class _Line:
    """The connection to one rank, which answers each message with one line."""

    def __init__(self, connection: socket.socket):
        self.socket, self.heard = connection, b""

    def say(self, message: dict) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")


class _Player:
    """A started contestant: its processes, and a line to each of its ranks."""

    def __init__(self, contestant: Contestant, folder: Path, timing: Timing):
        self.name, self.ranks, self.timing = contestant.name, contestant.ranks, timing
        self.log = folder / f"{contestant.name.replace(' ', '_')}.log"
        bin_folder = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
            "LOCKSTEP_TURNS": str(folder / "turns"),
            **contestant.environment,
        }
        self.lines, self.processes, self.pids = [], [], []
        with open(self.log, "ab") as log:
            for command, cores in zip(contestant.commands, contestant.cores, strict=True):
                words = [sys.executable, str(HERE / "leash.py"), ",".join(map(str, cores)), *command]
                process = subprocess.Popen(
                    words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
                self.processes.append(process)

    def await_ranks(self, listener: socket.socket) -> None:
        """Accept the ranks' connections, and hear from each that it is ready."""
        lines = []
        while len(lines) < self.ranks:
            self._wait_for(listener)
            line = _Line(listener.accept()[0])
            self.lines.append(line)
            lines.append((json.loads(self._hear(line)), line))
        lines.sort(key=lambda pair: pair[0]["rank"])
        self.lines = [line for _, line in lines]
        self.pids = [hello["pid"] for hello, _ in lines]
        self.facts = lines[0][0]
        self._signal(signal.SIGSTOP)

    def steps_in(self, seconds: float) -> int:
        """How many steps take so long, by the time of one (which is not counted)."""
        timing = Timing(self.timing.batch)
        self.turn(1, timing)
        return max(1, min(1000, round(seconds / timing.median)))

    def turn(self, steps: int, timing: Timing) -> None:
        """Take some steps and note them; the slowest rank's time counts, and the chief's notes."""
        before = self._cpu_seconds()
        answers = self.exchange({"steps": steps})
        seconds = max(answer["seconds"] for answer in answers)
        timing.seconds.append(seconds / steps)
        timing.cores_busy.append((self._cpu_seconds() - before) / seconds)
        timing.notes.append(answers[0])

    def exchange(self, message: dict) -> list[dict]:
        """Wake the ranks, tell all the same, hear all, and let them sleep again."""
        self._signal(signal.SIGCONT)
        for line in self.lines:
            line.say(message)
        answers = [json.loads(self._hear(line)) for line in self.lines]
        self._signal(signal.SIGSTOP)
        return answers

    def end(self) -> None:
        """End all processes, asleep or not."""
        for line in self.lines:
            line.socket.close()  # awake and without a benchmark, a contestant leaves by itself
        self._signal(signal.SIGCONT)
        for process in self.processes:
            family = []
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            for member in family:
                with contextlib.suppress(psutil.Error):
                    member.kill()
            process.kill()
            process.wait()

    def _signal(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _cpu_seconds(self) -> float:
        times = [psutil.Process(pid).cpu_times() for pid in self.pids]
        return sum(time.user + time.system for time in times)

    def _hear(self, line: "_Line") -> bytes:
        while not line.heard.endswith(b"\n"):
            self._wait_for(line.socket)
            if not (more := line.socket.recv(65536)):
                raise self._failure("ended")
            line.heard += more
        heard, line.heard = line.heard, b""
        return heard

    def _wait_for(self, source) -> None:
        """Until something can be read, as long as the processes live."""
        deadline = time.monotonic() + PATIENCE
        while not select.select([source], [], [], 0.2)[0]:
            if any(process.poll() is not None for process in self.processes):
                raise self._failure("ended")
            if time.monotonic() > deadline:
                raise self._failure(f"was silent for {PATIENCE:.0f} s")

    def _failure(self, what: str) -> BenchError:
        printed = self.log.read_text(errors="replace")[-3000:]
        return BenchError(f"{self.name} {what} before the benchmark was over; the last it printed:\n{printed}")
