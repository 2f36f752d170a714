"""The monitor names who died, ends who hangs and nobody else, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import deaths
import pytest
from conftest import HELPERS, counted, environment

MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2")
GLOO = ("horovodrun", "--gloo", "-np", "2")
pytestmark = pytest.mark.faults

LIMIT = 3.0  # seconds: what a process of a busy machine may be late


class Run:
    """Two ranks (see ranks.py), one of which suffers a fault."""

    def __init__(self, folder: Path, fault: str, launcher=MPIRUN, victim: int = 1, limit: float = LIMIT):
        self.folder, self.fault = folder, fault
        os.mkfifo(folder / "fifo")
        # A writer keeps the pipe open, so that opening it succeeds and reading it waits.
        self.writer = os.open(folder / "fifo", os.O_RDWR)
        self.output = open(folder / "output.txt", "w+")  # noqa: SIM115
        words = [*launcher, sys.executable, HELPERS / "ranks.py", folder, limit, fault, victim]
        self.process = subprocess.Popen(
            list(map(str, words)), env=environment(), cwd="/", stdout=self.output, stderr=subprocess.STDOUT
        )
        deaths.STARTED.append(self.process)

    def pids(self, ranks: int = 2) -> list[int]:
        """The ranks' processes, once all have begun."""
        files = [self.folder / f"pid-{rank}" for rank in range(ranks)]
        wait_until(lambda: all(file.exists() and file.read_text() for file in files))
        return [int(file.read_text()) for file in files]

    def monitors(self) -> list[int]:
        """The ranks' monitors: children of the ranks."""
        found, ranks = [], self.pids()
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if any(b"distributed.health.watchdog" in word for word in words) and parent in ranks:
                found.append(int(entry.name))
        return found

    def release(self) -> None:
        """Let the reader of the file that never answers go on, also if it has yet to come."""
        os.write(self.writer, b"x")

    def wait(self, timeout: float = 60) -> tuple[int, str]:
        """The launcher's exit code, and all that was said."""
        code = self.process.wait(timeout)
        os.close(self.writer)
        self.output.seek(0)
        return code, self.output.read()


def wait_until(condition, timeout: float = 40) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    from distributed.health.heartbeat import process_state

    return process_state(pid)[0] in "XZ"


def ended(run: Run, timeout: float = 60) -> str:
    """What was said, after it was seen that the run failed and that ranks and monitors are gone within 10 seconds."""
    with counted(f"one of two bare ranks: {run.fault.replace('@', ' at ')}"):
        pids = [*run.pids(), *run.monitors()]
        code, said = run.wait(timeout)
        assert code != 0, said
        wait_until(lambda: all(map(gone, pids)), timeout=10)
    return said


@pytest.mark.parametrize("launcher", (MPIRUN, GLOO), ids=("mpirun", "gloo"))
def test_names_who_was_killed(tmp_path, launcher):
    said = ended(Run(tmp_path, "SIGKILL@compute", launcher))
    assert said.count("error: rank ") == 1, said
    assert "error: rank 1 on " in said and "at step 3 (training)" in said and "died" in said
    if launcher is MPIRUN:
        # Over Gloo the launcher kills the monitors together with the ranks.
        wait_until(lambda: not Path((tmp_path / "records").read_text()).exists())


HANGS = {
    "SIGSTOP@exchange": "it is stopped (SIGSTOP), so that its stacks cannot be shown",
    "SIGSTOP@compute": "it is stopped (SIGSTOP), so that its stacks cannot be shown",
    "loop@compute": "its stacks are above",
    "wait@read": "it is stuck in reading",
}


@pytest.mark.parametrize("fault", HANGS)
def test_ends_the_rank_that_hangs_not_the_one_that_waits(tmp_path, fault):
    said = ended(Run(tmp_path, fault))
    assert said.count("error: rank ") == 1, said
    assert "error: rank 1 on " in said and "hangs: no sign of life for " in said and "at step 3 (training)" in said
    assert HANGS[fault] in said
    if fault == "loop@compute":
        assert 'deaths.py"' in said and " in strike" in said, "the stacks of the rank that hangs"
    if fault == "wait@read":
        assert str(tmp_path / "fifo") in said


def test_teardown_may_hang_too(tmp_path):
    said = ended(Run(tmp_path, "loop@exit"))
    assert "error: rank 1 on " in said and "(ending)" in said


def test_slow_is_not_hung(tmp_path):
    """Start and saving may take longer than a step, a validation altogether as long as it likes; the other one waits
    all the while."""
    code, said = Run(tmp_path, "slow@all").wait(120)
    assert code == 0 and said.count("done") == 2 and "error" not in said, said


def test_who_wakes_a_moment_after_the_others_is_not_accused(tmp_path, monkeypatch):
    """A rank has waited longer than its limit for one that saved, which is a step ahead by the time it wakes."""
    from distributed.health import watchdog
    from distributed.health.heartbeat import PHASES, Record

    records = [Record.open(tmp_path / str(rank), "w+b") for rank in (0, 1)]
    for rank, record in enumerate(records):
        record.pid, record.rank, record.limit, record.step = os.getpid(), rank, LIMIT, 3
        record.phase, record.waiting, record.code = PHASES.index("training"), 1, watchdog.RUNNING
    accused = []
    monkeypatch.setattr(watchdog.Watch, "end", lambda watch, why: accused.append(why))
    watch = watchdog.Watch(tmp_path / "0", "here", 2, 2, 0)
    for _ in range(5):
        watch.look(1.0)
    records[1].step = 4
    watch.look(1.0)
    records[0].beats += 1
    watch.look(1.0)
    assert accused == []
    for _ in range(6):
        watch.look(1.0)
    assert accused and "others are at step 4" in accused[0]


@pytest.mark.parametrize(("expected", "after"), ((0.0, LIMIT), (10.0, LIMIT + 30.0), (100.0, LIMIT + 300.0)))
def test_a_call_of_many_steps_has_the_time_that_the_steps_before_it_took(tmp_path, monkeypatch, expected, after):
    from distributed.health import watchdog
    from distributed.health.heartbeat import PHASES, Record

    record = Record.open(tmp_path / "0", "w+b")
    record.pid, record.limit, record.expected, record.code = os.getpid(), LIMIT, expected, watchdog.RUNNING
    record.phase = PHASES.index("training")
    accused = []
    monkeypatch.setattr(watchdog.Watch, "end", lambda watch, why: accused.append(watch.silent))
    watch = watchdog.Watch(tmp_path / "0", "here", 1, 1, 0)
    while not accused:
        watch.look(1.0)
    assert after < accused[0] <= after + 1


def test_0_switches_it_off(tmp_path):
    run = Run(tmp_path, "SIGSTOP@compute", limit=0)
    pids = run.pids()
    time.sleep(2 * LIMIT)
    assert not any(map(gone, pids))
    os.kill(pids[1], signal.SIGKILL)
    assert "error: rank 1 on " in ended(run)


@pytest.mark.parametrize("launcher", (MPIRUN, GLOO), ids=("mpirun", "gloo"))
def test_no_rank_outlives_its_launcher(tmp_path, launcher):
    run = Run(tmp_path, "wait@read", launcher, limit=0)
    pids = [*run.pids(), *run.monitors()]
    run.process.kill()
    wait_until(lambda: all(map(gone, pids)), timeout=15)
    run.wait()


def test_sweeps_what_killed_monitors_left(tmp_path):
    from distributed.health.records import Record, sweep

    now = time.time()
    for name, pid, age in (("old", 2**22 + 1, 4000), ("young", 2**22 + 1, 60), ("alive", os.getpid(), 4000)):
        (tmp_path / name).mkdir()
        Record.open(tmp_path / name / "0", "w+b").pid = pid
        os.utime(tmp_path / name, (now - age, now - age))
    sweep(tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"young", "alive"}


def test_monitors_end_with_their_rank(tmp_path):
    run = Run(tmp_path, "wait@read", limit=0)
    wait_until(lambda: len(run.monitors()) == 2)
    monitors = run.monitors()
    run.release()
    code, said = run.wait()
    assert code == 0, said
    assert len(monitors) == 2 and said.count("done") == 2
    wait_until(lambda: all(map(gone, monitors)), timeout=10)


def test_a_process_without_launcher_is_named_by_its_pid(tmp_path):
    run = Run(tmp_path, "SIGKILL@compute", (), victim=0)
    (pid,) = run.pids(1)
    code, said = run.wait()
    wait_until(lambda: f"error: process {pid} died" in (tmp_path / "output.txt").read_text(), timeout=10)
    assert code == -signal.SIGKILL


def test_suspended_by_the_user_is_not_hung(tmp_path):
    """Ctrl-Z and fg, on a run of one process."""
    run = Run(tmp_path, "slow@all", (), victim=0)
    (pid,) = run.pids(1)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * LIMIT)
    assert not gone(pid)
    os.kill(pid, signal.SIGCONT)
    code, said = run.wait(120)
    assert code == 0 and "error" not in said
