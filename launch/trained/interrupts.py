"""Ctrl-C and the like, in programs that use a trained run: one KeyboardInterrupt, wherever it hits."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from distributed.health import heartbeat

PATIENCE = 5.0  # seconds for the way out; who asks again later is not kept waiting
# horovodrun hands Ctrl-C on as SIGUSR1, Slurm ends a job by SIGTERM, a closed terminal by SIGHUP, but for nohup.
ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def answer_signals(answer: Callable) -> None:
    """Call ``answer(number, frame)`` for each signal that asks to end."""
    for number in ASKS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, answer)


class Interrupts:
    """Raises KeyboardInterrupt, so that what is half written is taken away on the way out.

    Attributes:
        asked: whether it has; from then on whatever else is raised is its doing, as libraries do not expect it just
            anywhere.  True where nothing is left to interrupt.
    """

    def __init__(self):
        self.asked, self._since = False, math.inf
        self._dropped = False  # while Python tells what it has dropped: what is raised then is dropped, too

    def listen(self) -> None:
        """From now on, for this process; ``sys.unraisablehook`` is replaced too."""
        sys.unraisablehook = self._raise_again
        answer_signals(self._answer)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen within; what a library makes of an interrupt leaves as KeyboardInterrupt."""
        answers, hook = {number: signal.getsignal(number) for number in ASKS}, sys.unraisablehook
        self.listen()
        try:
            yield
        except Exception as error:
            if self.asked:
                raise KeyboardInterrupt from error
            raise
        finally:
            for number, answer in answers.items():
                signal.signal(number, answer)
            sys.unraisablehook = hook

    def end(self) -> None:
        """From now on all is written, and what is left is to leave."""
        self._since = time.monotonic()

    def _answer(self, number: int, frame: object) -> None:
        heartbeat.told()
        if self._dropped:
            return  # it comes again
        # A terminal tells, and so does the launcher: the second one must not hit what cleans up after the first.
        if not self.asked:
            self.asked, self._since = True, time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > PATIENCE:
            heartbeat.die(130)

    def _raise_again(self, lost: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised while it calls a weak reference's function or a destructor; an interrupt that hit
        one comes once more, a moment later, until it is answered."""
        if lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)
            return
        self.asked, self._dropped = False, True
        threading.Thread(target=self._ask_again, daemon=True).start()
        self._dropped = False

    def _ask_again(self) -> None:
        while not self.asked:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.01)
