"""Faults for jobs.py: what a rank may suffer, and where, ``KIND@PLACE`` at a rank and step; and single jobs to end.

KIND: the name of a signal that the rank sends to itself; "raise" an error; "loop" for ever.
PLACE: "start" (while the model is built), "features" (after so many pieces of those of frozen layers), "step" (as the
step begins), "validation" (in its second batch, after that step), "saving" (as the checkpoint of that step is written,
by the chief), "report" (before the chief's summary), "exit" (in the interpreter's teardown).
"""

import atexit
import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import psutil

from distributed.health import preemption
from distributed.health.heartbeat import process_state
from distributed.world import World


def strike(kind: str) -> None:
    """Let it happen to this process."""
    if kind == "loop":
        _loop()
    if kind == "raise":
        raise RuntimeError("planted")
    number = getattr(signal, kind)
    os.kill(os.getpid(), number)
    if number in preemption.NAMES:
        # Training is faster than the thread that hears it may be.
        _wait_until_heard()


def _loop() -> None:
    """For ever, and say so, and once a signal was heard."""
    print("loops", flush=True)
    while preemption._current._first is None:
        pass
    print("heard", flush=True)
    while True:
        pass


def _wait_until_heard() -> None:
    end = time.monotonic() + 60
    while preemption._current._first is None:
        assert time.monotonic() < end, "the signal was not heard"
        time.sleep(0.001)
    with preemption._current._lock:  # whoever hears it holds it until the others have been told
        pass


STARTED: list[subprocess.Popen] = []


def end_all() -> None:
    """Kill what was started and still runs; the monitors end the ranks of a launcher that is gone."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


def plant(fault: str | None, rank: int = 0, step: int = 0) -> None:
    """Put a fault into the job that begins now, in place of the last one's."""
    from distributed.checkpoint import manager
    from distributed.inference import Inference
    from distributed.model import LockstepModel
    from launch.job.logs import report
    from launch.job.loop import Loop
    from launch.job.preparation import stages

    kind, _, place = (fault or "").partition("@")
    here = World.from_environment(os.environ).rank == rank
    batches, pieces = itertools.count(), itertools.count()
    hooks = {
        "start": (stages, "build", lambda *_: True),
        "features": (Inference, "answer", lambda *_: next(pieces) == step),
        "step": (Loop, "_take_steps", lambda loop, *_: loop.progress.step == step),
        "validation": (
            LockstepModel,
            "evaluate",
            lambda model, *_: int(model.optimizer.iterations.numpy()) == step and next(batches) == 1,
        ),
        "report": (report, "summarize", lambda *_: True),
        "saving": (manager, "write", lambda directory, number, *_: number == step),
    }
    for name, (home, function, due) in hooks.items():
        original = getattr(getattr(home, function), "original", getattr(home, function))

        def planted(*arguments, original=original, due=due, **named):
            if due(*arguments):
                strike(kind)
            return original(*arguments, **named)

        planted.original = original
        setattr(home, function, planted if name == place and here else original)
    if place == "exit" and here:
        atexit.register(strike, kind)


class Job:
    """One job of jobs.py under a launcher, with a fault perhaps; its run directory is ``folder/run``."""

    def __init__(self, folder: Path, line: list, *launcher: str, fault: list | None = None):
        """Args: ``fault`` as for jobs.py: [kind, rank, step]."""
        from conftest import environment

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        line = [str(word) for word in (*line, "--run-dir", folder / "run")]
        jobs = {"lines": {"run": line}, "plants": {"run": [fault]} if fault else {}, "alone": True}
        (folder / "jobs.json").write_text(json.dumps(jobs))
        words = [*launcher, sys.executable, Path(__file__).with_name("jobs.py"), folder]
        self.began = time.monotonic()
        with open(folder / "output.txt", "w") as output:
            self.process = subprocess.Popen(
                list(map(str, words)), env=environment(), cwd="/", stdout=output, stderr=subprocess.STDOUT
            )
        STARTED.append(self.process)
        self.seen: dict[int, int] = {}  # process -> when it began: its number may become another's

    @property
    def said(self) -> str:
        """All that was said so far."""
        return (self.folder / "output.txt").read_text()

    def ranks(self) -> list[int]:
        """The processes of the ranks that have begun, by rank; they and their children are watched from then on."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if len(words) > 2 and words[1].endswith(b"jobs.py") and words[2] == str(self.folder).encode():
                    lines = (entry / "environ").read_text().split("\0")
                    variables = dict(line.split("=", 1) for line in lines if "=" in line)
                    found.setdefault(World.from_environment(variables).rank, []).append(int(entry.name))
            except (OSError, ValueError):
                continue
        # A child that has not become its own program yet looks like its rank, which began before it.
        ranks = [min(found[rank], key=lambda pid: process_state(pid)[1] or math.inf) for rank in sorted(found)]
        for pid in ranks:
            self.seen.setdefault(pid, process_state(pid)[1])
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(pid).children():
                    self.seen.setdefault(child.pid, process_state(child.pid)[1])
        return ranks

    def wait_for(self, words: str, timeout: float = 240) -> None:
        """Return once the run has said this."""
        end = time.monotonic() + timeout
        while words not in self.said:
            assert self.process.poll() is None and time.monotonic() < end, self.said[-3000:]
            time.sleep(0.05)

    def wait(self, timeout: float = 300) -> int:
        """The launcher's exit code, after it was seen that all ranks are gone soon after it."""
        while self.process.poll() is None:
            self.ranks()
            assert time.monotonic() < self.began + timeout, self.said[-3000:]
            time.sleep(0.2)
        end = time.monotonic() + 20
        while any(map(self._lives, self.seen)):
            assert time.monotonic() < end, "a rank has outlived its launcher"
            time.sleep(0.1)
        return self.process.returncode

    def _lives(self, pid: int) -> bool:
        state, began, _ = process_state(pid)
        return state not in "XZ" and began == self.seen[pid]
