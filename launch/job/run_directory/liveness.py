"""Whether the owner of a run directory lives: the record in its lock, and what it shows at each look.

The kernel says so if the owner is this machine's; else its heartbeat, a counter in its file, does: read over
``OBSERVATION`` seconds of the reader's own clock, never by comparing clocks.  No TensorFlow in here.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import NamedTuple

from distributed.health.heartbeat import process_state
from launch.job.config import ConfigError

OBSERVATION = 30.0  # seconds without a sign of life after which an owner that only they can tell of is dead
POLL = 0.5  # seconds between two looks at it
HOST_NAMESPACE = "pid:[4026531836]"  # of process ids outside of all containers; the same number on every Linux


@dataclasses.dataclass(frozen=True)
class Owner:
    """The record of a lock: who owns the directory."""

    host: str
    machine: str  # what /etc/machine-id says
    boot: str  # what /proc/sys/kernel/random/boot_id says: one running kernel, whatever its containers are called
    namespace: str  # of process ids
    pid: int
    began: int  # when the process did, in clock ticks since the boot
    since: str  # when it took the directory, by its own clock: for people only
    inode: int  # of the file with this record; another in a copy of the run directory

    @classmethod
    def parse(cls, content: bytes) -> "Owner | None":
        """The record in the first line of a lock's file; None if it is none."""
        try:
            owner = cls(**json.loads(content.partition(b"\n")[0]))
        except (ValueError, TypeError, RecursionError):
            return None
        types = [type(value) for value in dataclasses.astuple(owner)]
        sound = types == [field.type for field in dataclasses.fields(cls)] and 0 < owner.pid < 2**31
        return owner if sound else None

    def __str__(self) -> str:
        return f"host {self.host}, process {self.pid}, since {self.since}"

    def alive(self, inode: int) -> bool | None:
        """Whether the owner lives, by what this machine's kernel knows; None if that is not enough to tell.

        Args:
            inode: of the file in which the record stands.
        """
        here = _this_process()
        if not (self.boot and here["boot"] and self.namespace and here["namespace"]):
            return None
        if (self.boot, self.namespace) == (here["boot"], here["namespace"]):
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                pass
            state, began, _ = process_state(self.pid)
            if state == "X":  # hidden from this user, or gone just now
                return None
            if began != self.began:
                return False
            if state == "Z":
                return False if _all_threads_ended(self.pid) else None
            return True if inode == self.inode else None
        # Booted since.  In containers names are no evidence: two machines may run one of the same name and number.
        same_machine = self.machine and (self.host, self.machine) == (here["host"], here["machine"])
        outside = self.namespace == here["namespace"] == HOST_NAMESPACE
        return False if same_machine and outside and self.boot != here["boot"] else None


class Signs(NamedTuple):
    """What a lock's file shows at one look; other content or another time is a sign of life."""

    content: bytes
    mtime_ns: int
    inode: int


class Watch:
    """What a reader sees of the heartbeat of an owner of whom nothing else can be learned."""

    def __init__(self, signs: Signs):
        self.signs, self.seconds, self.last = signs, 0.0, time.monotonic()

    def alive(self, signs: Signs) -> bool | None:
        """Whether it is, by the signs seen now; None: not known yet."""
        now = time.monotonic()
        # While the reader or the disk stood still, nothing could be seen: neither did that time pass.
        self.seconds += min(now - self.last, 2 * POLL)
        self.last = now
        if signs != self.signs:
            return True
        return False if self.seconds >= OBSERVATION else None


def look(path: Path) -> tuple[Signs, Owner | None] | None:
    """The signs of life in a lock's file, and whose it is if that can be read; None if it is gone."""
    content = b""
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{path} was not made by a run; remove it, or give another --run-dir")
        # Not to be read, a link, a pipe: its time is what is left to go by.
        if stat.S_ISREG(status.st_mode):
            with contextlib.suppress(PermissionError), open(path, "rb", buffering=0) as file:
                content, status = file.read(4096), os.fstat(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return None
        raise
    return Signs(content, status.st_mtime_ns, status.st_ino), Owner.parse(content)


def counter(beats: int) -> bytes:
    return b"%012d\n" % beats


def write_record(path: Path) -> int:
    """Write this process's record to a new file; where in it the counter stands, in bytes."""
    with open(path, "xb") as file:
        owner = _this_process() | {"since": time.strftime("%Y-%m-%d %H:%M:%S"), "inode": os.fstat(file.fileno()).st_ino}
        record = json.dumps(owner).encode() + b"\n"
        file.write(record + counter(0))
        file.flush()
        # After a crash of the machine it is whole or not there.
        os.fsync(file.fileno())
    return len(record)


def _this_process() -> dict:
    return _this_machine() | {"pid": os.getpid(), "began": process_state(os.getpid())[1]}


@functools.cache
def _this_machine() -> dict[str, str]:
    """What of a record is the same in all processes of this machine or container; empty where it cannot be known."""
    found = {"host": socket.gethostname(), "machine": "", "boot": "", "namespace": ""}
    for name, path in (("machine", "/etc/machine-id"), ("boot", "/proc/sys/kernel/random/boot_id")):
        with contextlib.suppress(OSError, ValueError):
            found[name] = Path(path).read_text().strip()
    with contextlib.suppress(OSError):
        found["namespace"] = os.readlink("/proc/self/ns/pid")
    return found


def _all_threads_ended(pid: int) -> bool:
    """Whether a process that was killed is past its last write; its threads end one by one, mostly within moments."""
    until = time.monotonic() + POLL
    while True:
        try:
            if len(os.listdir(f"/proc/{pid}/task")) <= 1:
                return True
        except OSError:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
