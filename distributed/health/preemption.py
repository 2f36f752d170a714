"""Leaving a run on request, so that it can go on later: what a signal means at each moment.

SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP, a closed terminal, ask to leave (exit code 85), SIGINT is the user's Ctrl-C (130).
Under nohup SIGHUP is ignored, and stays so.  Signals are heard by a thread of their own: Python's handlers run only
between two bytecodes of the main thread, which may be in TensorFlow or MPI for minutes.  The signal itself only writes
its number to a pipe, on which the thread waits.

Before training there is nothing to save, and the process ends at once; a script or notebook that called ``train`` gets
the KeyboardInterrupt that it expects.  In training the first signal becomes a notice
that all workers hear after the same step; a second one ends the process at once, and the last committed checkpoint is
what is left.  No TensorFlow in here.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

from distributed.health import heartbeat

LEAVE, INTERRUPT = "leave", "interrupt"
CODES = {LEAVE: 85, INTERRUPT: 130}
NAMES = dict.fromkeys((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP), LEAVE)
NAMES[signal.SIGINT] = INTERRUPT
# One request may arrive twice within so many seconds: sent to a process group, and by the launcher in its own words; or
# the same signal from two programs that have heard of it one after the other, such as srun and Slurm's batch script.
SAME_REQUEST, SAME_SIGNAL = 0.5, 2.0


class StopRequest:
    """What becomes of signals in one run of this process."""

    def __init__(self, leave: Callable[[int], object] = heartbeat.die, *, raises: bool = False):
        """Args: what ends the process; whether Ctrl-C before training is Python's KeyboardInterrupt instead."""
        self._exit, self._raises = leave, raises
        self._lock = threading.Lock()
        self._tell: Callable[[str], object] | None = None
        self._first: float | None = None
        self._heard: dict[int, float] = {}  # signal -> when it came first
        self._saved = False
        self.patience = 0.0  # seconds before this process speaks; the launcher ends all as soon as one has gone

    def deliver_to(self, tell: Callable[[str], object]) -> None:
        """From now on the first signal is told to the training, as ``tell("leave")`` or ``tell("interrupt")``."""
        with self._lock:
            self._tell = tell

    @property
    def interrupts(self) -> bool:
        """Whether Ctrl-C is a KeyboardInterrupt, at this moment."""
        return self._raises and self._tell is None

    def saved(self) -> None:
        """All is saved: whoever ends this process from now on may know that it can go on later."""
        self._saved = True

    def hear(self, number: int) -> None:
        """Act on a signal; called by the listening thread."""
        if number == signal.SIGINT and self.interrupts:
            return
        name, now = NAMES[number], time.monotonic()
        heartbeat.told()
        with self._lock:
            first, self._first = self._first, self._first or now
            before = self._heard.setdefault(number, now)
            if first is None and self._tell is not None:
                self._tell(name)
                return
        if first is None:
            time.sleep(self.patience)
            if not heartbeat.explained():
                say(f"{signal.Signals(number).name} before training began: nothing to save; run the same command again")
            self._exit(CODES[name])
        # Who presses Ctrl-C twice means it.
        elif now - first > SAME_REQUEST and (number == signal.SIGINT or not 0 < now - before <= SAME_SIGNAL):
            self._exit(CODES[name] if self._saved else 128 + number)


_pipe: int | None = None
_write: int | None = None
_before: dict[int, object] = {}  # signal -> what it did until somebody listened
_stderr = 2
_current: StopRequest | None = None


def listen(*, raises: bool = False) -> StopRequest:
    """Begin to listen for signals, for one run; the main thread calls it first of all, and again for a further run.

    Args:
        raises: whether Ctrl-C before training is a KeyboardInterrupt for the caller, and not the end of the process.
    """
    global _pipe, _write, _stderr, _current
    _current = StopRequest(raises=raises)
    if threading.current_thread() is not threading.main_thread():
        return _current  # only the main thread may change what signals do: they stay what they are
    if _pipe is None:
        # The screen as it is now: while TensorFlow is loaded, what goes to stderr is put aside.
        _stderr = os.dup(2)
        _pipe, _write = os.pipe()
        os.set_blocking(_write, False)
        threading.Thread(target=_hear_all, name="signals", daemon=True).start()
    if not _before:
        signal.set_wakeup_fd(_write, warn_on_full_buffer=False)
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        for number in (*NAMES, heartbeat.END):
            if number == signal.SIGHUP and nohup:
                continue
            _before[number] = signal.signal(number, _answer)
            # Libraries need not know of signals: what they wait for goes on.
            signal.siginterrupt(number, False)
    return _current


def unlisten() -> None:
    """Let signals do again what they did before ``listen``, for a script or notebook that goes on after training."""
    if _before and threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        while _before:
            signal.signal(*_before.popitem())


def code_of(names: list[str]) -> int:
    """The exit code of a run that left after these notices."""
    return CODES[LEAVE if LEAVE in names else INTERRUPT]


def say(sentence: str) -> None:
    """Print a line to stderr at once, past whatever the main thread may hold."""
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(_stderr, f"{sentence}\n".encode())


def _answer(number: int, frame: object) -> None:
    """Python's own handler, called in the main thread; nearly all is the listening thread's."""
    if number == signal.SIGINT and _current.interrupts:
        raise KeyboardInterrupt


def _hear_all() -> None:
    while True:
        for number in os.read(_pipe, 64):
            if number == heartbeat.END:
                heartbeat.die(1)
            if number in NAMES:
                _current.hear(number)
