"""News between hosts: whether the ranks of other hosts, which a monitor cannot see, still work or give signs of life.

One rank of each host counts how often it has found those beside it alive, and a thread of it tells that to one other
host at a time: after the k-th period to the one that is 2**k further, together with all that it has heard itself (the
dissemination of Hensgen et al. 1988).  So all hosts know of all others after log2(hosts) periods, and each sends a few
bytes per period.  How often there was news stands in a record beside those of the ranks.

No message is waited for: whoever hangs only stays silent.  The communicator is one of ``control.py``'s; no TensorFlow.
"""

import threading
import time
from pathlib import Path

import numpy as np

from distributed.health import heartbeat, records
from distributed.health.records import Record


class News:
    """The thread that brings it, on the rank that speaks for its host."""

    def __init__(self, communicator, folder: Path, period: float):
        """
        Args:
            communicator: of these ranks alone, one per host, with mpi4py's methods; used by this thread alone.
            folder: with the records of this host's ranks.
            period: seconds between two messages.
        """
        self._communicator, self._folder, self._period = communicator, folder, period
        self._record = Record.open(folder / records.ELSEWHERE, "w+b")
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._spread, name="hosts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and take what is under way; all must call it."""
        self._left.set()
        self._thread.join()
        all_have_left = self._communicator.Ibarrier()
        while not all_have_left.Test():
            time.sleep(0.01)  # MPI itself would take a core for waiting
        self._hear(np.zeros(self._communicator.Get_size(), np.int64))

    def _spread(self) -> None:
        me, hosts = self._communicator.Get_rank(), self._communicator.Get_size()
        known, signs, turn, under_way = np.zeros(hosts, np.int64), None, 0, {}
        while not self._left.wait(self._period):
            ranks, before = records.ranks(self._folder), signs
            signs = {rank: record.beats for rank, record in ranks.items()}
            # Whoever works may be silent for long; its own monitor knows for how long.
            known[me] += signs != before or not all(record.waiting for record in ranks.values())
            others = known.sum() - known[me]
            self._hear(known)
            self._record.beats += int(known.sum() - known[me] != others)
            to = (me + (1 << turn)) % hosts
            turn = (turn + 1) % (hosts - 1).bit_length()
            # One that does not take its messages gets no further one.
            if to not in under_way or under_way[to][0].Test():
                message = known.copy()
                under_way[to] = self._communicator.Isend(message, to), message

    def _hear(self, known: np.ndarray) -> None:
        """Take all messages that have come."""
        received = np.empty_like(known)
        while self._communicator.Iprobe():
            self._communicator.Recv(received)
            np.maximum(known, received, out=known)


def begin(communicator) -> News | None:
    """Bring news where a run has several hosts; all ranks must call it, with the communicator of all.

    Ranks of one machine that do not see each other's records, as in two containers, count as two hosts.
    """
    folder = heartbeat.folder()
    places = communicator.allgather(None if folder is None else _place(folder))
    speakers = {places.index(place) for place in places}
    if len(speakers) == 1 or None in places:
        return None
    speaks = communicator.Get_rank() in speakers
    apart = communicator.Split(0 if speaks else 1)
    return News(apart, folder, heartbeat.period()) if speaks else None


def _place(folder: Path) -> str:
    """The same for all ranks that see one folder, and for no others."""
    entry, boot = folder.stat(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{entry.st_dev}/{entry.st_ino}"
