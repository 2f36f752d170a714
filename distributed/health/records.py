"""Where the signs of life lie: a file in memory per rank, and all of a host's ranks in one folder, so that a monitor
also sees the ranks that its own waits for.  No TensorFlow in here.

Containers may share that memory and not see each other's processes, which then even have the same ids.  So a folder is
named by the ids and by the namespace that they count in, and whether an owner lives is asked of a lock of its file,
which the kernel gives back at its end.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
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
# The record in which stands how often news of other hosts has come, see ``hosts.py``.
ELSEWHERE = "elsewhere"


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


def ranks(folder: Path) -> dict[int, Record]:
    """The records of a folder by rank; one that vanishes meanwhile, or is not written yet, is left out."""
    found = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    found[int(path.name)] = Record.open(path)
    return found


_held = []  # open for as long as this process lives


def hold(path: Path) -> None:
    """Let others see, by ``is_held``, that the owner of a file lives."""
    file = open(path, "rb")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_SH)
    _held.append(file)


def is_held(path: Path) -> bool:
    """Whether a process that holds a file lives, in whatever container; False where there is no such file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def process_state(pid: int) -> tuple[str, int, int]:
    """The state of a process, such as ``R`` or ``T``, when it began, and the wait status if it is about to be gone;
    ``("X", 0, 0)`` if it is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19]), int(fields[49])
    except (OSError, IndexError):
        return "X", 0, 0


def shared_folder(world: World, launcher: tuple | None) -> Path:
    """A folder in memory that all ranks of this run on this host find, and nobody else may read.

    Args:
        launcher: the id of the process that started the ranks, and when it began; None where it is not seen.
    """
    names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT", "PMIX_NAMESPACE", "SLURM_JOB_ID")
    shared = [os.environ.get(name) for name in (*names, "SLURM_STEP_ID")]
    process = launcher if world.size > 1 else os.getpid()
    # Ranks that do not see their launcher may each have a namespace of its own.
    run = repr((process, shared if world.size > 1 else None, process and _process_namespace()))
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    folder = Path(memory) / f"lockstep-{os.getuid()}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    sweep(folder.parent.glob(f"lockstep-{os.getuid()}-*"))
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="lockstep-"))
    return folder


def sweep(folders: Iterable[Path]) -> None:
    """Remove what runs have left whose monitors were killed too: folders of an hour ago in which no rank lives."""
    for folder in folders:
        with contextlib.suppress(OSError):
            owners = ranks(folder)
            lives = any(process_state(record.pid)[0] != "X" for record in owners.values())
            lives = lives or any(is_held(folder / str(rank)) for rank in owners)
            if not lives and time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder)


def _process_namespace() -> int:
    """The namespace that process ids count in here: that of the machine, or of a container."""
    return os.stat("/proc/self/ns/pid").st_ino
