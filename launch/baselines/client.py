"""How launch/benchmark.py lets one of several living programs work at a time.

A program calls ``begin_step`` before each training step.  Run by hand, that does nothing.  Started by the benchmark,
which then names a Unix socket in LOCKSTEP_BENCHMARK, it says that it is ready, waits until it is asked for steps, takes
so many, or a few more where it takes several at once, and reports the time:

    program -> benchmark    {"rank": 0, "pid": 4711, ...}            ready for the first step, and facts about itself
    benchmark -> program    {"steps": 20}
    program -> benchmark    {"steps": 20, "seconds": 1.94, ...}      from the begin of a step to that of the 20th next
"""

import ctypes
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Client

import keras

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class BenchmarkClient:
    """This program's end of the connection; ``notes`` are numbers to report with the next time, then forgotten."""

    def __init__(self, rank: int = 0, facts: dict | None = None, commands: dict[str, Callable] | None = None):
        """
        Args:
            rank: this process's number in its program.
            facts: to report when ready.
            commands: other things the benchmark may ask for: name -> function(argument) that returns a dict.
        """
        self.notes, self._commands = Counter(), commands or {}
        self._connection = self._began = None
        if path := os.environ.get("LOCKSTEP_BENCHMARK"):
            # A stopped process cannot see that nobody will ever wake it; the kernel can.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            self._connection = Client(path)
            self._hello = {"rank": rank, "pid": os.getpid(), **(facts or {})}

    def begin_step(self, finish: Callable = lambda: None, taken: int = 1) -> None:
        """Wait if all steps that were asked for are taken; ``finish`` returns when the step before is really done, and
        ``taken`` are the steps since the last call."""
        if self._connection is None:
            return
        report = self._hello
        if self._began is not None:
            self._taken += taken
            if self._taken < self._asked:
                return
            finish()
            report = {**self.notes, "steps": self._taken, "seconds": time.perf_counter() - self._began}
        self._asked, self._taken = self._exchange(report), 0
        self.notes.clear()
        self._began = time.perf_counter()

    def _exchange(self, report: dict) -> int:
        """Report, and do what is asked for until that is steps; their number."""
        self._connection.send(report)
        while True:
            try:
                ((command, argument),) = self._connection.recv().items()
            except (EOFError, ConnectionError):
                os._exit(0)  # The benchmark is over; the training it interrupted has no end of its own.
            if command == "steps":
                return argument
            self._connection.send(self._commands[command](argument))


class BenchmarkCallback(keras.callbacks.Callback):
    """The same for Keras' ``fit``, whose calls may take several steps; put it last, so that other callbacks count."""

    def __init__(self, client: BenchmarkClient):
        super().__init__()
        self.client, self.taken = client, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.client.begin_step(taken=self.taken)
        self.first = batch

    def on_train_batch_end(self, batch, logs=None):
        self.taken = batch - self.first + 1
        float((logs or {}).get("loss", 0.0))  # the step is really done
