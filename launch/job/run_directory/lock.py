"""A run directory belongs to one run at a time, on local and on shared file systems.

The lock is a folder ``.lock`` in the run directory, and in it one file, named by chance, with the owner's record.

* Taking it: the folder is made under another name with the record in it, and renamed to ``.lock``.  The file system
  refuses that unless ``.lock`` is absent or an empty folder, so that of any number of runs one gets it.
* Taking over from a dead owner: its file is deleted, which leaves an empty folder; then as above.  No two locks have
  files of one name: whoever comes late with the deletion, by however much, finds nothing to delete.
* Giving it back: the own file is deleted, then the folder if it is empty.

No step needs a look before it to be right, hence no kernel lock (``flock`` does nothing on some shared file systems).

Whether an owner is alive is ``liveness.py``'s.  No TensorFlow in here.
"""

import atexit
import contextlib
import errno
import os
import random
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from distributed.health import heartbeat
from launch.job.config import ConfigError
from launch.job.run_directory import liveness
from launch.job.run_directory.create import ATTEMPTS, cannot_be_written, make, unmake
from launch.job.run_directory.liveness import Owner, Watch, counter, look, write_record

HEARTBEAT = 3.0  # seconds between two signs of life of an owner
UNKNOWN = "its lock does not say whose"
PRIVATE = re.compile(r"\.lock-([0-9a-f]{16})")  # a lock in the making


class RunDirectoryBusy(ConfigError):
    """Another run owns the directory."""


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
            raise cannot_be_written(directory, error) from None
        raise
    return lock


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
        unmake(self.directory)

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
                found = look(path)
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
                    say(f"{was}; watching up to {liveness.OBSERVATION:.0f} s whether it still gives signs of life")
                said, pause = True, liveness.POLL
            heartbeat.beat()
            time.sleep(pause)

    def _busy(self, owner: Owner | None) -> RunDirectoryBusy:
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
            make(self.directory)
            private.mkdir()
            self._counter_at = write_record(private / self._token)
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
                    os.pwrite(file, counter(beats), self._counter_at)
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
                owners = [found[1] for path in self._files() if (found := look(path))]
            if owners:
                by = f"was taken over by another run ({owners[0] or UNKNOWN})"
                self.lost = f"{self._shown} {by} while this one was suspended or cut off from the disk"
            else:
                self.lost = f"{self._shown} is no longer this run's own: its .lock was removed"
        if self.on_lost:
            self.on_lost(self.lost)


def _remove(folder: Path, token: str) -> None:
    """Remove a lock's file, and its folder if that is then empty."""
    with contextlib.suppress(OSError):
        (folder / token).unlink(missing_ok=True)
        folder.rmdir()
