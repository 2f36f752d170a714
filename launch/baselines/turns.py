"""Taking turns: how launch/benchmark.py lets one of several living programs work at a time.

A program calls ``begin_step`` before each training step.  Run by hand, that does nothing.  Started by the benchmark,
which then names a Unix socket in LOCKSTEP_TURNS, the program reports that it is ready, sleeps until it is told to take
some steps, takes them, and reports the seconds.  Messages are JSON, one per line:

    program -> benchmark    {"rank": 0, "pid": 4711, ...}        ready for the first step, and facts about itself
    benchmark -> program    {"steps": 20}
    program -> benchmark    {"seconds": 1.94, ...}               from the begin of a step to the begin of the 20th next
"""

import ctypes
import json
import os
import signal
import socket
import time
from collections.abc import Callable

import keras

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Turns:
    """This program's end of the conversation."""

    def __init__(self, rank: int = 0, facts: dict | None = None, commands: dict[str, Callable] | None = None):
        """
        Args:
            rank: this process's number in its program.
            facts: JSON values to report when ready.
            commands: other things the benchmark may ask for: name -> function(argument) that returns a JSON object.
        """
        self.notes = {}  # reported with the next turn's seconds, then forgotten
        self._left, self._commands, self._stream = None, commands or {}, None
        if path := os.environ.get("LOCKSTEP_TURNS"):
            # A stopped process cannot see that nobody will ever wake it; the kernel can.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            self._stream = connection.makefile("rw")
            self._hello = {"rank": rank, "pid": os.getpid(), **(facts or {})}

    def begin_step(self, finish: Callable = lambda: None) -> None:
        """Wait for a turn if none is left; ``finish`` returns when the step before is really done."""
        if self._stream is None:
            return
        if not self._left:
            finish()
            if self._left is None:
                self._say(self._hello)
            else:
                self._say({"seconds": time.perf_counter() - self._began} | self.notes)
            self._wait()
            self.notes.clear()
            self._began = time.perf_counter()
        self._left -= 1

    def _say(self, message: dict) -> None:
        print(json.dumps(message), file=self._stream, flush=True)

    def _wait(self) -> None:
        for line in self._stream:
            ((command, argument),) = json.loads(line).items()
            if command == "steps":
                self._left = argument
                return
            self._say(self._commands[command](argument))
        os._exit(0)  # The benchmark is over; the training it interrupted has no end of its own.


class TurnCallback(keras.callbacks.Callback):
    """``Turns`` for Keras' ``fit``; put last, so that the other callbacks' work counts."""

    def __init__(self, turns: Turns):
        super().__init__()
        self.turns, self.last = turns, {}

    def on_train_batch_begin(self, batch, logs=None):
        self.turns.begin_step(lambda: [float(value) for name, value in self.last.items() if name == "loss"])

    def on_train_batch_end(self, batch, logs=None):
        self.last = logs or {}
