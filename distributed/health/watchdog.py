"""The monitor of a rank: a small process of its own that says who died, and ends who hangs.

It reads the rank's signs of life (``heartbeat.py``) and sees the rank's end on a pipe.  Three things it answers:

* The rank is gone without a word (kill -9, out of memory): its name, host, step and phase go to the screen.
* The launcher is gone (kill -9): the rank is ended, so that no orphan goes on training.
* No sign of life within the limit, beyond what the steps under way should take: the stacks of all threads are shown,
  and the rank is ended; the launcher then ends the others.  When one rank hangs, the others wait for it, silent as
  well: a rank that waits is ended only if there is evidence against itself, or if for long all ranks of the run, on
  this host and on others, have only waited: whoever works is its own monitor's affair.

Time counts only while the monitor itself gets to run, so that a machine that sleeps or is overloaded raises no alarm.
"""

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from distributed.health import first_failure, records
from distributed.health.heartbeat import ABORT, END, STACKS
from distributed.health.records import PHASES, RUNNING, Record, process_state

# Seconds beyond the limit for the parts of a run that give no sign for long: loading, tracing, a slow disk.
EXTRA = {"start": 1500.0, "first step": 1200.0, "first validation": 1200.0, "saving": 600.0, "callback": 600.0}
SLOWER = 3  # a call may take so many times longer than those before it
WAITING = 3  # a rank that waits for others is patient so many times longer
TICK = 1.0  # seconds between two looks
READ_CALLS = {"x86_64": (0, 17, 19, 257), "aarch64": (63, 67, 65, 56)}  # read, pread64, readv, openat


class Watch:
    """What one monitor sees of its rank."""

    def __init__(self, path: Path, host: str, size: int, local_size: int, launcher: int, flag: str = ""):
        """Args: ``flag`` is the one by which the user sets the limit, where there is one."""
        self.path, self.host, self.size, self.local_size, self.flag = path, host, size, local_size, flag
        self.record = Record.open(path)
        self.pid, self.rank = self.record.pid, self.record.rank
        self.launcher, self.launcher_began = launcher, launcher and process_state(launcher)[1]
        self.beats, self.silent, self.allowed = self.record.beats, 0.0, 0.0
        self.memory_kills = _memory_kills()
        self.stuck, self.overtaken = None, False
        self.others, self.alone = None, 0.0  # signs of life of the others, and seconds in which they only waited

    def run(self, pipe: int) -> None:
        """Watch until the rank is gone; ``pipe`` ends with it."""
        last, tick = time.monotonic(), min(TICK, self.record.limit / 10 or TICK)
        while not select.select([pipe], [], [], tick)[0]:
            now = time.monotonic()
            # A monitor that did not get to run saw nothing: neither did the time pass.
            self.look(min(now - last, 2 * tick))
            last = now
            if os.getppid() != self.pid:
                break
        self.bury()

    def look(self, seconds: float) -> None:
        """Look at the rank after so many further seconds, and act."""
        state, began, _ = process_state(self.launcher)
        if self.launcher and (state in "XZ" or began != self.launcher_began):
            if first_failure.claim(self.path.parent):
                self.say(f"is ended {self.record.place}: its launcher is gone")
            self.record.code = 1
            self._signal(signal.SIGKILL)
            return
        if self.record.beats != self.beats or self._suspended():
            self.beats, self.silent, self.overtaken = self.record.beats, 0.0, False
            self.others, self.alone = None, 0.0
            return
        self.silent += seconds
        phase = PHASES[self.record.phase]
        if phase == "aborting":
            if self.silent > 1.5 * ABORT:
                self._signal(signal.SIGKILL)
            return
        limit = self.record.limit
        if not limit or self.silent <= limit:
            return
        limit += SLOWER * self.record.expected
        if self.silent <= limit:
            return
        self.allowed = limit
        if process_state(self.pid)[0] == "T":
            self.end("it is stopped (SIGSTOP), so that its stacks cannot be shown")
            return
        self.allowed = limit = limit + EXTRA.get(phase, 0.0)
        if self.silent > limit and (evidence := self.evidence()):
            self.end(evidence)
            return
        self._listen(seconds)
        # Those beside the chief speak first, so that not each host's first rank says the same.
        patience = WAITING * limit if self._chief_is_here() else (WAITING + 1) * limit
        if self.silent > patience and self.alone > patience - limit and self._knows_all(phase):
            self.end("it waits for other ranks, none of which has been found to hang; its stacks are above")

    def evidence(self) -> str | None:
        """Why this rank is the one that hangs, in words; None if it only seems to wait for the others."""
        stuck, self.stuck = self.stuck, _stuck_in_file(self.pid)
        if stuck and stuck == self.stuck:
            return f"it is stuck in {stuck}; its stacks are above"
        if self.size == 1 or not self.record.waiting:
            return "its stacks are above"
        ahead = max((peer.step for peer in self._peers().values()), default=0)
        # Twice in a row: who has waited long, and rightly, may be a moment late when the others go on.
        before, self.overtaken = self.overtaken, ahead > self.record.step
        return f"others are at step {ahead}; its stacks are above" if before and self.overtaken else None

    def end(self, why: str) -> None:
        """Show the rank's stacks, name it, and end it: by exit code 1 if it can, else by SIGKILL."""
        stopped = process_state(self.pid)[0] == "T"
        first = first_failure.claim(self.path.parent)
        if first and not stopped:
            self._signal(STACKS)
            time.sleep(0.5)
        if first:
            self.say(f"hangs: no sign of life for {self.silent:.0f} s {self.record.place}{self._rule()}; {why}")
        self.record.code = 1
        if not stopped:
            self._signal(END)
            time.sleep(1.0)
        self._signal(signal.SIGKILL)

    def bury(self) -> None:
        """The rank is gone: say so unless it said so itself, and clear up."""
        status = process_state(self.pid)[2]
        asked = self.record.told and self.size > self.local_size
        if self.record.code == RUNNING and not asked and first_failure.claim(self.path.parent):
            memory = " (the kernel has killed for want of memory)" if _memory_kills() > self.memory_kills else ""
            after = " after it had been asked to leave" if self.record.told else ""
            self.say(f"{_cause(status)}{memory}{after} {self.record.place}; what is left is the last checkpoint")
        self.path.unlink(missing_ok=True)
        # Whoever is last removes the folder.
        folder = self.path.parent
        with contextlib.suppress(OSError):
            if not any(other.name.isdigit() for other in folder.iterdir()):
                for name in (first_failure.NAME, records.ELSEWHERE):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()

    def say(self, sentence: str) -> None:
        """Print to the rank's stderr, in one piece."""
        who = f"rank {self.rank} on {self.host}" if self.size > 1 else f"process {self.pid}"
        with contextlib.suppress(OSError):
            os.write(2, f"error: {who} {sentence}\n".encode())

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _suspended(self) -> bool:
        # In a debugger, or by Ctrl-Z: one's own process, or the launcher with all ranks.
        mine, all_of_it = process_state(self.pid)[0], process_state(self.launcher or self.pid)[0]
        return mine == "t" or (all_of_it == "T" and (self.launcher > 0 or self.size == 1))

    def _rule(self) -> str:
        """By what it was judged, in words; nothing in a program where nobody can set that."""
        if not self.flag:
            return ""
        steps = " and the steps before it allow" if self.record.expected else " allows"
        return f", where {self.flag} {self.record.limit:g}{steps} {self.allowed:.0f} s"

    def _peers(self) -> dict[int, Record]:
        """The other ranks of this host."""
        found = records.ranks(self.path.parent)
        found.pop(self.rank, None)
        return found

    def _chief_is_here(self) -> bool:
        return (self.path.parent / "0").exists()

    def _listen(self, seconds: float) -> None:
        """Note whether any other rank works, or has given a sign of life since the last look, so many seconds ago."""
        peers = self._peers()
        heard = {rank: peer.beats for rank, peer in peers.items()} | {records.ELSEWHERE: self._elsewhere()}
        waits = heard == self.others and all(peer.waiting for peer in peers.values())
        self.alone = self.alone + seconds if waits else 0.0
        self.others = heard

    def _elsewhere(self) -> int | None:
        """How often there was news of other hosts; None where nobody brings it."""
        with contextlib.suppress(OSError, ValueError):
            return Record.open(self.path.parent / records.ELSEWHERE).beats
        return None

    def _knows_all(self, phase: str) -> bool:
        """Whether all ranks can be heard of from here; before training none works much longer than the others."""
        return self.size == self.local_size or phase == "start" or self._elsewhere() is not None


def _stuck_in_file(pid: int) -> str | None:
    """The file that a thread of the process waits for right now, or "the file system"; None if none does."""
    calls = READ_CALLS.get(os.uname().machine, ())
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            words = (task / "syscall").read_text().split()
            if words[0].isdigit() and int(words[0]) in calls:
                if int(words[0]) == calls[-1]:
                    return "opening a file"
                file = os.readlink(f"/proc/{pid}/fd/{int(words[1], 16)}")
                if file.startswith("/") and not file.startswith(("/dev/", "/proc/")):
                    return f"reading {file}"
            if process_state(int(task.name))[0] == "D":
                return "the file system or a driver"
        except (OSError, IndexError, ValueError):
            continue
    return None


def _cause(status: int) -> str:
    """What ended a process, in words, from its wait status (0 where it could not be seen any more)."""
    if number := status & 0x7F:
        return f"died of {signal.Signals(number).name}"
    return f"ended itself with exit code {status >> 8}" if status else "died without a word (killed)"


def _memory_kills() -> int:
    """How often this machine's kernel has killed for want of memory so far."""
    try:
        words = Path("/proc/vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0


def main(words: list[str]) -> None:
    """Watch the rank that started this process: record's path, host, size, local size, pipe, launcher or 0, flag."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        # What is meant for the rank; a monitor ends when its rank does.
        signal.signal(number, signal.SIG_IGN)
    path, host, size, local_size, pipe, launcher, flag = words
    Watch(Path(path), host, int(size), int(local_size), int(launcher), flag).run(int(pipe))
