"""Contestants that all live at the same time and take turns, A, B, A, B, ..., so that what disturbs one disturbs all.

Those that are not at work are stopped (SIGSTOP): even an idle Horovod process wakes a thousand times a second.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import median

import psutil

from launch.bench.contestants import Contestant
from launch.bench.timing import Sample, Timing
from launch.job.config import ConfigError

UPDATES = 5  # timed optimizer steps
WARM_UP = 3  # steps; the first holds the tracing of the graph
# Seconds in which a contestant must be ready for its first step, and in which it must have done what it was asked for.
START, ANSWER = 300.0, 7200.0
FAREWELL = 10.0  # seconds for a launcher to notice that its ranks have gone
# A command that ends when its parent does: stopped processes would otherwise outlive a killed benchmark for ever.
BOUND = ("setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list")


class BenchmarkError(RuntimeError):
    """A contestant failed; the message holds the end of what it printed."""


class Running(Timing):
    """A contestant's processes, from start to end."""

    def __init__(self, contestant: Contestant, folder: Path):
        """Start them; ``folder`` has the socket and gets what they print."""
        super().__init__(contestant.batch)
        self.name, self._log = contestant.name, folder / f"{contestant.name.replace(' ', '_')}.log"
        self._processes, self._ranks, self._connections = [], [], []
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # has mpirun
        environment = os.environ | contestant.environment
        environment |= {"PATH": path, "LOCKSTEP_BENCHMARK": str(folder / "socket")}
        with open(self._log, "ab") as log:
            output = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            for command, cores in zip(contestant.commands, contestant.cores, strict=True):
                words = map(str, (*BOUND, ",".join(map(str, cores)), *command))
                self._processes.append(psutil.Popen(words, env=environment, start_new_session=True, **output))

    def connect(self, listener: socket.socket, ranks: int) -> None:
        """Wait until all ranks are ready for their first step, and stop them."""
        hellos = []
        for _ in range(ranks):
            self._wait_for(listener, START)
            self._connections.append(Connection(listener.accept()[0].detach()))
            hellos.append((self._receive(self._connections[-1], START), self._connections[-1]))
            self._ranks.append(psutil.Process(hellos[-1][0]["pid"]))
        hellos.sort(key=lambda pair: pair[0]["rank"])
        self.facts, self._connections = hellos[0][0], [connection for _, connection in hellos]
        self._each_rank(psutil.Process.suspend)

    def ask(self, command: str, argument) -> list[dict]:
        """Wake the ranks, ask all for the same, and stop them again; their answers."""
        self._each_rank(psutil.Process.resume)
        with self._alive():
            for connection in self._connections:
                connection.send({command: argument})
        answers = [self._receive(connection, ANSWER) for connection in self._connections]
        self._each_rank(psutil.Process.suspend)
        return answers

    def take(self, steps: int, meter: Callable[[], float] = lambda: 0.0) -> Sample:
        """A turn of so many steps, or a few more; ``meter`` counts something."""
        before = meter(), self._cpu_seconds()
        began = time.perf_counter()
        answers = self.ask("steps", steps)
        awake = time.perf_counter() - began
        used, counted = self._cpu_seconds() - before[1], meter() - before[0]
        # The ranks of a program take equally many; programs that know nothing of each other need not.
        seconds, steps = max((it["seconds"] / it["steps"], it["steps"]) for it in answers)
        return Sample(seconds, steps, used / (seconds * steps), counted / steps, answers[0], awake / steps)

    def steps_within(self, seconds: float) -> int:
        """How many steps take so long now; some are taken to see it."""
        steps = 1
        while True:
            sample = self.take(steps)
            fitting = max(1, round(seconds / sample.seconds))
            if 8 * sample.seconds * sample.steps >= seconds:
                return fitting
            steps = max(steps + 1, fitting // 4)

    def time_update(self) -> float:
        """Seconds of an optimizer step of Lockstep's processes that exchange nothing; the slowest one's median."""
        return max(median(answer["update"]) for answer in self.ask("update", UPDATES))

    def idle(self, seconds: float, meter: Callable[[], float]) -> float:
        """What the meter counts per second while the contestant is awake and does nothing."""
        counted, began = meter(), time.perf_counter()
        self._each_rank(psutil.Process.resume)
        time.sleep(seconds)
        self._each_rank(psutil.Process.suspend)
        return (meter() - counted) / (time.perf_counter() - began)

    def end(self) -> None:
        """End all processes, stopped or not."""
        for connection in self._connections:
            connection.close()  # a contestant that loses its benchmark leaves by itself
        self._each_rank(psutil.Process.resume)
        alive = self._processes
        # Terminated, mpirun takes down what it has started elsewhere.
        for patience, end in ((FAREWELL if self._ranks else 0, "terminate"), (FAREWELL, "kill")):
            _, alive = psutil.wait_procs(alive, patience)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(process, end)()
        psutil.wait_procs(alive)

    def _each_rank(self, method: Callable[[psutil.Process], None]) -> None:
        for rank in self._ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                method(rank)

    def _cpu_seconds(self) -> float:
        with self._alive():
            return sum(sum(rank.cpu_times()[:2]) for rank in self._ranks)

    def _receive(self, connection: Connection, patience: float) -> dict:
        self._wait_for(connection, patience)
        with self._alive():
            return connection.recv()

    def _wait_for(self, source: Connection | socket.socket, patience: float) -> None:
        """Until something can be read, as long as the processes live."""
        deadline = time.monotonic() + patience
        while not wait([source], 0.2):
            if any(process.poll() is not None for process in self._processes):
                raise self._failure("ended")
            if time.monotonic() > deadline:
                raise self._failure(f"said nothing for {patience:.0f} s")

    @contextlib.contextmanager
    def _alive(self):
        """What is done inside fails only where a rank has ended."""
        try:
            yield
        except (EOFError, OSError, psutil.Error):
            raise self._failure("ended") from None

    def _failure(self, what: str) -> BenchmarkError:
        printed = self._log.read_text(errors="replace")[-3000:]
        return BenchmarkError(f"{self.name} {what} before the benchmark was over; the last it printed:\n{printed}")


class Runner:
    """Starts contestants and lets them take turns; a context manager that ends them all.

    Attributes:
        say: is told what is going on.
        folder: a temporary one, gone afterwards.
        running: the contestants that live.
    """

    def __init__(self, say: Callable[[str], None]):
        """Args: ``say`` is told what is going on."""
        self.say, self.running = say, []

    def __enter__(self):
        if missing := [tool for tool in ("setpriv", "taskset") if not shutil.which(tool)]:
            raise ConfigError(f"the benchmark needs {' and '.join(missing)} (Linux); apt-get install util-linux")
        self._temporary = tempfile.TemporaryDirectory(prefix="lockstep-bench-")
        self.folder, self._listener = Path(self._temporary.name), socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(str(self.folder / "socket"))
        except OSError as error:
            self._temporary.cleanup()
            why = f"no socket can be made in {self.folder} ({error})"
            raise ConfigError(f"{why}; set TMPDIR to a shorter path") from None
        self._listener.listen(64)
        return self

    def __exit__(self, *problem):
        self.end_all()
        self._listener.close()
        self._temporary.cleanup()

    def start(self, contestant: Contestant) -> Running:
        """Start a contestant and warm it up."""
        self.say(f"starting {contestant.name}")
        self.running.append(running := Running(contestant, self.folder))
        running.connect(self._listener, contestant.ranks)
        running.take(WARM_UP)
        return running

    def end_all(self) -> None:
        """End all contestants."""
        while self.running:
            self.running.pop().end()

    def rounds(
        self, count: int, *, seconds: float = 0.0, steps: int | None = None, among: Sequence = (), meter=lambda: 0.0
    ) -> None:
        """Let the contestants take ``count`` turns each, one after the other; earlier rounds are forgotten.

        Args:
            seconds: how long a turn should last, from which the number of steps follows; or
            steps: that number.
            among: who takes part; default: all.
            meter: counts something; its increase over a turn is noted.
        """
        chosen = list(among or self.running)
        # Whatever has changed since the last turn, such as the link, is over with the steps that this takes.
        asked = [running.steps_within(seconds) for running in chosen]
        for running in chosen:
            running.samples = []
        for number in range(count):
            self.say(f"round {number + 1} of {count}")
            for running, fitting in zip(chosen, asked, strict=True):
                running.samples.append(running.take(steps or fitting, meter))
