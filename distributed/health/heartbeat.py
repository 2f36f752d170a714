"""Signs of life: where this process stands, in a few bytes that its monitor (``watchdog.py``) can read at any moment.

Writing them costs a microsecond and no system call; where they lie says ``records.py``.  No TensorFlow in here.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from distributed.health import first_failure, records
from distributed.health.records import PHASES, RUNNING, Record, process_state
from distributed.world import World

ABORT = 5.0  # seconds in which a rank must be gone once it has failed, or all have left
# Signals from the monitor: show the stacks of all threads; end now, with exit code 1.
STACKS, END = signal.SIGRTMIN + 7, signal.SIGRTMIN + 8


# Until ``start``, and in processes that nobody monitors, the signs go to memory of this process.
_record = Record(code=RUNNING)
_folder: Path | None = None
_waited = 0.0


def start(world: World, limit: float, launcher: int | None, flag: str = "") -> None:
    """Begin to give signs of life, and start the monitor; once per process, later calls begin anew for another run.

    Args:
        limit: seconds without a sign after which a step counts as hung; 0 never.
        launcher: the process without which this rank must not live on.
        flag: by which the user sets the limit, for the sentence about a rank that hangs.
    """
    global _record, _folder
    if _folder is None:
        identity = None if launcher is None else (launcher, process_state(launcher)[1])
        _folder = records.shared_folder(world, identity)
        path = _folder / str(world.rank)
        _record = Record.open(path, "w+b")
        records.hold(path)
        _record.pid, _record.rank = os.getpid(), world.rank
        # The screen as it is now: while TensorFlow is loaded, what goes to stderr is put aside.
        screen = os.dup(2)
        faulthandler.enable(screen)
        faulthandler.register(STACKS, screen)
        # Never written to: it ends when this process does, however it does.
        read, _ = os.pipe()
        root = str(Path(__file__).resolve().parent.parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); "
        code += "from distributed.health.watchdog import main; main(sys.argv[1:])"
        words = [str(path), world.host, str(world.size), str(world.local_size), str(read), str(launcher or 0), flag]
        monitor = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", code, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=screen,
            pass_fds=[read],
            start_new_session=True,
        )
        os.close(read)
        # PR_SET_PTRACER: where processes may not look at each other, this one may: in which call threads are stuck.
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(monitor.pid), 0, 0, 0)
        # Runs last, after Horovod has taken leave of the other ranks: what hangs from here on hangs by itself.
        atexit.register(_enter_teardown, False)
    _record.limit, _record.step, _record.waiting, _record.told, _record.code = limit, 0, 0, 0, RUNNING
    enter("start")


def enter(phase: str, step: int | None = None, *, waiting: bool = False, expected: float = 0.0) -> None:
    """Give a sign of life: ``phase`` begins, at ``step``; ``waiting`` if it may have to wait for other ranks;
    ``expected`` are the seconds that may well pass before the next sign, since many steps are taken at once."""
    _record.phase, _record.waiting, _record.expected = PHASES.index(phase), waiting, expected
    if step is not None:
        _record.step = step
    _record.beats += 1


def beat() -> None:
    """Give a sign of life."""
    _record.beats += 1


@contextlib.contextmanager
def waiting():
    """Around whatever returns only when other ranks have come as far: a hang in there is not this rank's fault."""
    global _waited
    before, _record.waiting = _record.waiting, 1
    _record.beats += 1
    began = time.perf_counter()
    try:
        yield
    finally:
        _record.waiting = before
        _record.beats += 1
        if not before:
            _waited += time.perf_counter() - began


def waited() -> float:
    """Seconds that this process has spent within ``waiting``."""
    return _waited


def place() -> str:
    """Where this process stands, in words."""
    return _record.place


def phase() -> str:
    """The phase that this process is in, one of ``PHASES``."""
    return PHASES[_record.phase]


def told() -> None:
    """Note that this process was asked to leave: if it is killed next, it is not the one that failed."""
    _record.told = 1


def end(code: int, phase: str = "ending") -> None:
    """Note that the process is about to end with this exit code, and may take a moment to do so."""
    _record.code = code
    enter(phase)
    # TensorFlow removes the sources it has generated at the interpreter's exit, which this process may not reach.
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            Path(module.__file__).unlink(missing_ok=True)


def rest() -> None:
    """The process goes on with something else than a run, a notebook perhaps: from now on nobody minds its silence."""
    _record.limit = 0.0


def die(code: int) -> None:
    """End this process now, without waiting for anything."""
    end(code, "aborting")
    os._exit(code)


def wait_in_teardown() -> None:
    """To be called once Horovod runs: at exit it waits for the other ranks."""
    atexit.register(_enter_teardown, True)


def _enter_teardown(waits: bool) -> None:
    _record.waiting = waits
    _record.beats += 1


def accuse() -> bool:
    """Claim to be the first of this host's ranks that failed; False if another one was."""
    return _folder is None or first_failure.claim(_folder)


def wait_for_accuser() -> None:
    """Return once the process that claimed to be the first to fail is gone: it may still be looking for the cause."""
    while first_failure.claimant_lives(_folder):
        beat()
        time.sleep(0.2)


def explained() -> bool:
    """Whether the end of this run has been explained: this process is ending, or a rank of this host has failed."""
    return _record.code != RUNNING or (_folder is not None and first_failure.claimed(_folder))


def folder() -> Path | None:
    """Where the records of this host's ranks lie; None in a process that nobody monitors."""
    return _folder


def period() -> float:
    """Seconds after which other hosts should hear of this one: often within the limit, and rarely enough."""
    return min(10.0, _record.limit / 10) if _record.limit else 10.0
