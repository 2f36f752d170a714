"""A run directory belongs to one run at a time, on local and on shared file systems.

The lock is a folder ``.lock`` in the run directory, and in it one file, named by chance, with the owner's record.

* Taking it: the folder is made under another name with the record in it, and renamed to ``.lock``.  The file system
  refuses that unless ``.lock`` is absent or an empty folder, so that of any number of runs one gets it.
* Taking over from a dead owner: its file is deleted, which leaves an empty folder; then as above.  No two locks have
  files of one name: whoever comes late with the deletion, by however much, finds nothing to delete.
* Giving it back: the own file is deleted, then the folder if it is empty.

No step needs a look before it to be right, hence no kernel lock (``flock`` does nothing on some shared file systems).

Whether an owner is alive, the kernel says if it is this machine's; else its heartbeat, a counter in its file, does:
read over ``OBSERVATION`` seconds of the reader's own clock, never by comparing clocks.  No TensorFlow in here.
"""

import atexit
import contextlib
import dataclasses
import errno
import functools
import json
import os
import random
import re
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from distributed.health import heartbeat
from distributed.health.heartbeat import process_state
from launch.job.config import ConfigError

HEARTBEAT = 3.0  # seconds between two signs of life of an owner
OBSERVATION = 30.0  # seconds without one after which an owner that only they can tell of is dead
POLL = 0.5  # seconds between two looks at it
ATTEMPTS = 100  # to take a lock that looks free; each fails only if another run came first and left at once
HOST_NAMESPACE = "pid:[4026531836]"  # of process ids outside of all containers; the same number on every Linux
UNKNOWN = "its lock does not say whose"
PRIVATE = re.compile(r"\.lock-([0-9a-f]{16})")  # a lock in the making

# Directories that this process has made.
_made: list[Path] = []


class RunDirectoryBusy(ConfigError):
    """Another run owns the directory."""


def create(root: Path, name: str, now: float) -> Path:
    """Make a new directory ``root/name-YYYYmmdd-HHMMSS``, with ``-2``, ``-3`` ... behind it where that exists.

    Args:
        name: one part of a path.
        now: seconds since the epoch, named in local time.

    Raises:
        ConfigError: if it cannot be made.
    """
    assert Path(name).name == name, f"{name} is not one part of a path"
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    count, attempts = 1, 0
    while True:
        directory = root / (stem if count == 1 else f"{stem}-{count}")
        try:
            if _make(directory):
                return directory
            count += 1
        except FileNotFoundError as error:
            # Another run that was refused has just removed what it had made above this one.
            attempts += 1
            if attempts == ATTEMPTS:
                _unmake(directory)
                raise _cannot_be_written(directory, error) from None
        except OSError as error:
            _unmake(directory)
            raise _cannot_be_written(directory, error) from None


def acquire(
    directory: Path, say: Callable[[str], None], on_lost: Callable[[str], None] | None = None
) -> "RunDirectoryLock":
    """Make the directory this process's own until it releases it or ends; made if it does not exist.

    A directory that another machine or container owns, or did, is watched until its owner shows a sign of life, for at
    most about ``OBSERVATION`` seconds.  On failure everything is left as it was.

    Args:
        say: told in one line why nothing happens, if so.
        on_lost: told in one sentence, on a thread of its own and once, when another run has taken the directory over,
            which can happen to a run that was suspended or cut off from the disk for about ``OBSERVATION`` seconds.

    Raises:
        RunDirectoryBusy: if a run that is alive owns it.
        ConfigError: if it cannot be written to, or holds a ``.lock`` that is not one of these.
    """
    lock = RunDirectoryLock(directory, on_lost)
    try:
        lock._acquire(say)
    except BaseException as error:
        lock.release()
        lock.remove_if_empty()
        if isinstance(error, OSError):
            raise _cannot_be_written(directory, error) from None
        raise
    return lock


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


class RunDirectoryLock:
    """A directory that this process owns; see ``acquire``, which makes it.

    Attributes:
        directory: absolute.
        lost: one sentence once it is known that another run has taken the directory over, else None.
        on_lost: told that sentence, see ``acquire``.
    """

    def __init__(self, directory: Path, on_lost: Callable[[str], None] | None):
        self.directory, self.lost = directory.absolute(), None
        self._shown, self.on_lost = directory, on_lost
        self._place, self._token, self._counter_at = self.directory / ".lock", "", 0
        self._pid, self._end, self._losing = os.getpid(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="run-directory", daemon=True)

    def is_held(self) -> bool:
        """Whether the directory is still this run's, by a look at the disk: worth it before what cannot be undone."""
        if self._end.is_set() or self.lost:
            return False
        with contextlib.suppress(OSError):
            if self._gone():
                self._lose()
        return not self.lost

    def release(self) -> None:
        """Give the directory back; what another run has taken over meanwhile stays its own. Again: does nothing."""
        # A forked child runs this too, at its exit.
        if os.getpid() != self._pid or self._end.is_set():
            return
        self._end.set()
        atexit.unregister(self.release)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(HEARTBEAT)
        if self._token:
            _remove(self.directory / f".lock-{self._token}", self._token)
            _remove(self._place, self._token)

    def remove_if_empty(self) -> None:
        """After ``release``: remove the directory, and those above it, if this process made them and they are empty."""
        _unmake(self.directory)

    def _acquire(self, say: Callable[[str], None]) -> None:
        watches: dict[Path, Watch] = {}
        attempts, said = 0, False
        while True:
            pause = random.uniform(0.0, 0.02)
            files = self._files()
            if not files:
                attempts += 1
                if self._try(last=attempts == ATTEMPTS):
                    return
            for path in files:
                found = _look(path)
                if found is None:
                    continue
                signs, owner = found
                alive = owner and owner.alive(signs.inode)
                if alive is None:
                    alive = watches.setdefault(path, Watch(signs)).alive(signs)
                if alive:
                    raise self._busy(owner)
                if alive is False:
                    path.unlink(missing_ok=True)
                    continue
                if not said:
                    was = f"{self._shown} belongs or belonged to another run ({owner or UNKNOWN})"
                    say(f"{was}; watching up to {OBSERVATION:.0f} s whether it still gives signs of life")
                said, pause = True, POLL
            heartbeat.beat()
            time.sleep(pause)

    def _busy(self, owner: "Owner | None") -> RunDirectoryBusy:
        return RunDirectoryBusy(
            f"{self._shown} is in use by another run ({owner or UNKNOWN}); end that run, or give another --run-dir"
        )

    def _files(self) -> list[Path]:
        """The files of the lock: one if somebody has it."""
        try:
            if not stat.S_ISDIR(self._place.lstat().st_mode):
                raise ConfigError(f"{self._place} was not made by a run; remove it, or give another --run-dir")
            return sorted(self._place.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _try(self, last: bool) -> bool:
        """Take the lock if it is free; ``last``: no further attempt will follow one that another run has spoilt."""
        self._token = secrets.token_hex(8)
        private = self.directory / f".lock-{self._token}"
        try:
            _make(self.directory)
            private.mkdir()
            self._counter_at = _write_record(private / self._token)
            # Not every file system puts a folder in the place of an empty one.
            with contextlib.suppress(OSError):
                self._place.rmdir()
            private.rename(self._place)
        except OSError as error:
            first = error.errno in (errno.ENOTEMPTY, errno.EEXIST) and self.directory.is_dir()
            # Another run was first, or it has swept, or has removed the directory that it had made when it was refused.
            if not first and error.errno != errno.ENOENT:
                raise
            if last:
                raise (self._busy(None) if first else error) from None
        # What counts is what stands there, whatever the answer was: one that is lost on the way is asked for again.
        if self._gone():
            _remove(private, self._token)
            return False
        for path in self.directory.iterdir():
            if match := PRIVATE.fullmatch(path.name):
                _remove(path, match[1])
        atexit.register(self.release)
        self._thread.start()
        return True

    def _gone(self) -> bool:
        """Whether this run's file is gone from the lock."""
        try:
            # Opened, for that asks the server of a shared file system, where a mere look may be answered from memory.
            os.close(os.open(self._place / self._token, os.O_RDONLY))
        except (FileNotFoundError, NotADirectoryError):
            return True
        return False

    def _beat(self) -> None:
        """Give signs of life until the end, or until the directory has been taken over."""
        beats = 0
        while not self._end.wait(HEARTBEAT):
            beats += 1
            try:
                # Never creates the file: after a take-over there must not be one.
                file = os.open(self._place / self._token, os.O_WRONLY)
            except (FileNotFoundError, NotADirectoryError):
                self._lose()
                return
            except OSError:
                continue  # a disk that does not answer now may do so next time
            with contextlib.suppress(OSError):
                try:
                    os.pwrite(file, _counter(beats), self._counter_at)
                except OSError:
                    os.utime(file)  # a full disk may still keep the time
                finally:
                    os.close(file)

    def _lose(self) -> None:
        with self._losing:
            if self.lost or self._end.is_set():
                return
            owners = []
            with contextlib.suppress(OSError, ConfigError):
                owners = [found[1] for path in self._files() if (found := _look(path))]
            if owners:
                by = f"was taken over by another run ({owners[0] or UNKNOWN})"
                self.lost = f"{self._shown} {by} while this one was suspended or cut off from the disk"
            else:
                self.lost = f"{self._shown} is no longer this run's own: its .lock was removed"
        if self.on_lost:
            self.on_lost(self.lost)


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


def _this_process() -> dict:
    return _this_machine() | {"pid": os.getpid(), "began": process_state(os.getpid())[1]}


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


def _counter(beats: int) -> bytes:
    return b"%012d\n" % beats


def _write_record(path: Path) -> int:
    """Write this process's record to a new file; where in it the counter stands, in bytes."""
    with open(path, "xb") as file:
        owner = _this_process() | {"since": time.strftime("%Y-%m-%d %H:%M:%S"), "inode": os.fstat(file.fileno()).st_ino}
        record = json.dumps(owner).encode() + b"\n"
        file.write(record + _counter(0))
        file.flush()
        # After a crash of the machine it is whole or not there.
        os.fsync(file.fileno())
    return len(record)


def _look(path: Path) -> tuple[Signs, Owner | None] | None:
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


def _make(directory: Path) -> bool:
    """Make a directory and those above it, and remember what was made; False if it exists."""
    directory = directory.absolute()
    for path in (*reversed(directory.parents), directory):
        if path != directory and path.is_dir():
            continue
        try:
            path.mkdir()
            _made.append(path)
        except FileExistsError:
            if not path.is_dir():
                raise
            if path == directory:
                return False
    return True


def _unmake(directory: Path) -> None:
    """Remove a directory, and those above it, as far as this process made them and they are empty."""
    directory = directory.absolute()
    for path in reversed(_made.copy()):
        if path == directory or path in directory.parents:
            with contextlib.suppress(OSError):
                path.rmdir()
                _made.remove(path)


def _remove(folder: Path, token: str) -> None:
    """Remove a lock's file, and its folder if that is then empty."""
    with contextlib.suppress(OSError):
        (folder / token).unlink(missing_ok=True)
        folder.rmdir()


def _cannot_be_written(directory: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--run-dir {directory} cannot be written ({error.strerror}); name a folder you may write to")
