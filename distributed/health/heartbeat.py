"""Signs of life: where this process stands, in a few bytes that its monitor (``watchdog.py``) can read at any moment.

The bytes lie in a file in memory, one per rank and all of a host's ranks in one folder, so that a monitor also sees
the ranks that its own waits for.  Writing them costs a microsecond and no system call.  No TensorFlow in here.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import hashlib
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distributed.world import World

# From the third on, those of a run that trains.
PHASES = (
    "start",
    "first step",
    "training",
    "first validation",
    "validation",
    "saving",
    "callback",
    "ending",
    "aborting",
)
RUNNING = -1
ABORT = 5.0  # seconds in which a rank must be gone once it has failed, or all have left
# Signals from the monitor: show the stacks of all threads; end now, with exit code 1.
STACKS, END = signal.SIGRTMIN + 7, signal.SIGRTMIN + 8


class Record(ctypes.Structure):
    """What a rank tells: ``beats`` changes with each sign of life; ``waiting`` for other ranks; ``told`` to leave by a
    signal; ``code`` is the exit code once it is known."""

    _fields_ = [
        ("beats", ctypes.c_uint64),
        ("step", ctypes.c_int64),
        ("limit", ctypes.c_double),  # seconds without a sign of life in training; 0: nobody minds
        ("expected", ctypes.c_double),  # seconds that the call which is under way should take, by those before it
        ("pid", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("phase", ctypes.c_int32),
        ("waiting", ctypes.c_int32),
        ("told", ctypes.c_int32),
        ("code", ctypes.c_int32),
    ]

    @classmethod
    def open(cls, path: Path, mode: str = "r+b") -> "Record":
        """Map the record in a file; other processes that map it see the same bytes."""
        with open(path, mode) as file:
            if mode == "w+b":
                file.write(bytes(ctypes.sizeof(cls)))
                file.flush()
            return cls.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(cls)))

    @property
    def place(self) -> str:
        """Where the rank stands, in words."""
        return f"at step {self.step} ({PHASES[self.phase]})"


# Until ``start``, and in processes that nobody monitors, the signs go to memory of this process.
_record = Record(code=RUNNING)
_folder: Path | None = None
_waited = 0.0


def start(world: World, limit: float, launcher: int | None) -> None:
    """Begin to give signs of life, and start the monitor; once per process, later calls begin anew for another run.

    Args:
        limit: seconds without a sign after which a step counts as hung; 0 never.
        launcher: the process without which this rank must not live on.
    """
    global _record, _folder
    if _folder is None:
        identity = None if launcher is None else (launcher, process_state(launcher)[1])
        _folder = _shared_folder(world, identity)
        path = _folder / str(world.rank)
        _record = Record.open(path, "w+b")
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
        words = [str(path), world.host, str(world.size), str(world.local_size), str(read), str(launcher or 0)]
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


def accuse(folder: Path | None = None) -> bool:
    """Claim, for this process or the one it monitors, to be the first of this host's ranks that failed; False if
    another one was."""
    folder = folder or _folder
    if folder is None:
        return True
    claim = folder / f"claim-{os.getpid()}"
    try:
        # With its contents at once, so that nobody reads an empty claim.
        claim.write_text(str(os.getpid()))
        os.link(claim, folder / "failed")
    except FileExistsError:
        # A process that trains once more after a run that failed was the first that time, too.
        return _accuser(folder) == os.getpid()
    except OSError:
        pass
    finally:
        claim.unlink(missing_ok=True)
    return True


def wait_for_accuser() -> None:
    """Return once the process that claimed to be the first to fail is gone: it may still be looking for the cause."""
    while (accuser := _accuser(_folder)) is not None and process_state(accuser)[0] not in "XZ":
        beat()
        time.sleep(0.2)


def _accuser(folder: Path) -> int | None:
    """The process that claimed to be the first to fail, if any did."""
    try:
        return int((folder / "failed").read_text())
    except (OSError, ValueError):
        return None


def process_state(pid: int) -> tuple[str, int, int]:
    """The state of a process, such as ``R`` or ``T``, when it began, and the wait status if it is about to be gone;
    ``("X", 0, 0)`` if it is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19]), int(fields[49])
    except (OSError, IndexError):
        return "X", 0, 0


def explained() -> bool:
    """Whether the end of this run has been explained: this process is ending, or a rank of this host has failed."""
    return _record.code != RUNNING or (_folder is not None and (_folder / "failed").exists())


def _shared_folder(world: World, launcher: tuple | None) -> Path:
    """A folder in memory that all ranks of this run on this host find, and nobody else may read."""
    names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT", "PMIX_NAMESPACE", "SLURM_JOB_ID")
    shared = [os.environ.get(name) for name in (*names, "SLURM_STEP_ID")]
    run = repr((launcher, shared) if world.size > 1 else os.getpid())
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    folder = Path(memory) / f"lockstep-{os.getuid()}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    _sweep(folder.parent.glob(f"lockstep-{os.getuid()}-*"))
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="lockstep-"))
    return folder


def _sweep(folders) -> None:
    """Remove what runs have left whose monitors were killed too: folders of an hour ago in which no rank lives."""
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            ranks = [Record.open(path) for path in folder.iterdir() if path.name.isdigit()]
            dead = all(process_state(record.pid)[0] == "X" for record in ranks)
            if dead and time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder)
