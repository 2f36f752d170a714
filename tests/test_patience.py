"""How long a monitor waits, and for whom: by records that are played here, without processes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import HELPERS, ROOT

from distributed.health import first_failure, records, watchdog
from distributed.health.records import PHASES, RUNNING, Record, is_held, sweep

NOBODY = 2**22 + 1  # beyond what process ids reach
LONGEST = 5 * 120  # letters: five lines of a terminal


class Hosts:
    """A run of some hosts with some ranks each, all in a training step, and their monitors."""

    def __init__(self, folder: Path, monkeypatch, hosts: int, ranks: int, limit: float = 30.0, news: bool = True):
        self.accused = {}
        monkeypatch.setattr(watchdog.Watch, "end", lambda watch, why: self.accused.setdefault(watch.rank, why))
        monkeypatch.setattr(watchdog, "_memory_kills", lambda: 0)
        self.size, self.local = hosts * ranks, ranks
        self.records, self.folders = [], [folder / f"host{host}" for host in range(hosts)]
        for host, home in enumerate(self.folders):
            home.mkdir()
            if hosts > 1 and news:
                Record.open(home / records.ELSEWHERE, "w+b")
            for local in range(ranks):
                record = Record.open(home / str(host * ranks + local), "w+b")
                record.rank, record.pid, record.limit = host * ranks + local, NOBODY, limit
                record.step, record.phase, record.waiting = 3, PHASES.index("training"), 1
                record.code = RUNNING
                self.records.append(record)
        self.watches = [
            watchdog.Watch(home / str(record.rank), home.name, self.size, ranks, 0, "--hang-timeout")
            for home, record in zip((home for home in self.folders for _ in range(ranks)), self.records, strict=True)
        ]

    def hear(self, host: int) -> None:
        """News of others come to this host."""
        Record.open(self.folders[host] / records.ELSEWHERE).beats += 1

    def pass_by(self, seconds: int, each=lambda second: None, tick: int = 1) -> None:
        """So many seconds, until somebody is accused."""
        for second in range(0, seconds, tick):
            each(second)
            for watch in self.watches:
                watch.look(tick)
            if self.accused:
                return


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    return lambda *sizes, **settings: Hosts(tmp_path, monkeypatch, *sizes, **settings)


@pytest.mark.parametrize("ranks", (1, 4))
def test_a_step_of_ten_minutes_is_not_killed(hosts, ranks):
    """Its like took ten minutes before; the next one takes twelve, alone or with all others waiting."""
    run = hosts(1, ranks)
    for record in run.records:
        record.expected = 600.0
    run.pass_by(720)
    assert run.accused == {}
    run.pass_by(6 * 3600, tick=60)  # but not for ever
    assert run.accused


def test_the_first_step_teaches_how_long_the_second_may_take():
    from launch.job.timing.steps_per_call import StepsPerCall

    steps = StepsPerCall(None, None)
    steps.took(1, began=-1e6)
    assert steps.seconds_per_step >= 1e6


def test_who_waits_is_not_killed_while_another_works_in_silence(hosts):
    """The chief saves for five minutes, which its own monitor allows it."""
    run = hosts(1, 2)
    run.records[0].phase, run.records[0].waiting = PHASES.index("saving"), 0
    run.pass_by(300)
    assert run.accused == {}
    run.pass_by(400)
    assert list(run.accused) == [0]


def test_who_waits_is_not_killed_while_another_gives_signs_now_and_then(hosts):
    run = hosts(1, 2)

    def beat(second):
        if second % 29 == 0:
            run.records[0].beats += 1

    run.pass_by(1000, beat)
    assert run.accused == {}


def test_a_host_that_finished_early_waits_for_one_that_works(hosts):
    run = hosts(2, 2)
    early, working = run.records[:2], run.records[2:]
    for record in early:
        record.phase = PHASES.index("ending")

    def work(second):
        for record in working:
            record.beats += 1
        if second % 10 == 0:
            run.hear(0)

    run.pass_by(1000, work)
    assert run.accused == {}
    run.pass_by(1000)  # now the other one waits too, and nothing more is heard of it
    assert set(run.accused) == {0, 1} and "it waits for other ranks" in run.accused[0]


def test_without_news_of_other_hosts_who_only_waits_is_left_alone(hosts):
    run = hosts(2, 1, news=False)
    run.pass_by(1000)
    assert run.accused == {}
    run.records[1].waiting = 0
    run.pass_by(1)
    assert list(run.accused) == [1]


def test_the_chiefs_host_speaks_first_where_all_wait(hosts):
    run = hosts(16, 4)
    run.pass_by(100)
    assert run.accused and set(run.accused) <= set(range(4))


def test_a_record_that_vanishes_or_is_not_written_yet_is_left_out(tmp_path, hosts):
    """Its owner ends, or begins, while another one's monitor reads the folder."""
    run = hosts(1, 2)
    (run.folders[0] / "7").symlink_to(tmp_path / "gone")
    (run.folders[0] / "8").touch()
    assert set(records.ranks(run.folders[0])) == {0, 1}
    run.pass_by(200)
    assert run.accused


def test_one_of_512_hangs_and_is_named_in_five_lines(tmp_path, monkeypatch, capfd):
    end = watchdog.Watch.end
    run = Hosts(tmp_path, monkeypatch, 64, 8)
    with subprocess.Popen(["sleep", "1000"]) as victim:
        monkeypatch.setattr(watchdog.Watch, "end", end)
        monkeypatch.setattr(watchdog, "STACKS", 0)  # it is no Python
        run.watches[300].pid, run.records[300].waiting = victim.pid, 0
        for _ in range(32):
            for watch in run.watches:
                if run.records[300].code == RUNNING:
                    watch.look(1.0)
        assert victim.wait(10) != 0
    said = capfd.readouterr().err
    assert said.count("error: ") == 1 and len(said) <= LONGEST
    assert "rank 300 on host37 hangs: no sign of life for 31 s at step 3 (training)" in said
    assert "--hang-timeout 30 allows 30 s" in said


def test_one_of_512_dies_and_is_named_in_five_lines(tmp_path, monkeypatch, capfd):
    run = Hosts(tmp_path, monkeypatch, 64, 8)
    for record in run.records:
        record.code = RUNNING if record.rank == 511 else 0
    for watch in run.watches:
        watch.bury()
    said = capfd.readouterr().err
    assert said.count("error: ") == 1 and "rank 511 on host63 died" in said and len(said) <= LONGEST
    assert not any(home.exists() for home in run.folders)


HOLD = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from types import SimpleNamespace
from distributed.health import first_failure, records
records.hold(Path({folder!r}) / "0")
print(first_failure.claim(Path({folder!r})), flush=True)
sys.stdin.read()
"""
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child")
can_unshare = subprocess.run([*CONTAINER, "true"], capture_output=True).returncode == 0
needs_containers = pytest.mark.skipif(not can_unshare, reason="no right to a namespace of process ids")


def in_container(code: str) -> subprocess.Popen:
    """Python code as the first process of a namespace of process ids; it ends when its input does."""
    words = [*CONTAINER, sys.executable, "-c", code]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@needs_containers
def test_containers_that_share_memory_and_process_ids_do_not_meet(tmp_path):
    """In both the process has the id 1."""
    code = f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from distributed.health import records; from distributed.world import World\n"
    code += "print(os.getpid(), records.shared_folder(World(), None))"
    # Both at a time, or they could have one namespace.
    found = [in_container(f"{code}\nsys.stdout.flush(); sys.stdin.read()") for _ in range(2)]
    lines = [process.stdout.readline().split() for process in found]
    for process in found:
        process.communicate()
    assert [pid for pid, _ in lines] == ["1", "1"]
    folders = {Path(folder) for _, folder in lines}
    for folder in folders:
        folder.rmdir()
    assert len(folders) == 2


@needs_containers
def test_ranks_of_one_process_id_have_one_first_failure(tmp_path):
    """Each in a container of its own, as under some launchers, with one folder for all."""
    processes = []
    for rank in range(2):
        (tmp_path / "0").touch()
        processes.append(in_container(HOLD.format(root=str(ROOT), folder=str(tmp_path))))
        assert processes[rank].stdout.readline().strip() == str(rank == 0)
    assert first_failure.claimant_lives(tmp_path)
    processes[0].communicate()
    assert not first_failure.claimant_lives(tmp_path) and is_held(tmp_path / "0")
    processes[1].communicate()
    assert not is_held(tmp_path / "0")


def test_a_long_run_in_another_container_is_not_swept_away(tmp_path):
    """Its process is not seen here, but its lock is."""
    folder = tmp_path / "run"
    folder.mkdir()
    Record.open(folder / "0", "w+b").pid = NOBODY
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(root=str(ROOT), folder=str(folder))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout.readline()
        os.utime(folder, (1e9, 1e9))
        sweep([folder])
        assert folder.exists()
    os.utime(folder, (1e9, 1e9))
    sweep([folder])
    assert not folder.exists()


def test_time_in_which_the_monitor_stood_still_does_not_count(monkeypatch):
    """As where the whole machine does, or the monitor gets no core."""
    watch, seen = watchdog.Watch.__new__(watchdog.Watch), []
    watch.record, watch.pid = SimpleNamespace(limit=1.0), os.getppid()
    watch.look, watch.bury = seen.append, lambda: None
    clock, gone = iter((0.0, 0.1, 5.1)), iter(([], [], ["the rank"]))
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(watchdog, "select", SimpleNamespace(select=lambda *of: [next(gone)]))
    watch.run(0)
    assert seen == pytest.approx([0.1, 0.2])


@pytest.mark.faults
def test_news_travel_between_hosts(tmp_path):
    """Two hosts of two ranks over real MPI, see two_hosts.py: one has finished early, then both wait."""
    from conftest import environment

    mpirun = ("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "4")
    done = subprocess.run(
        [*mpirun, sys.executable, HELPERS / "two_hosts.py", tmp_path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert all((tmp_path / f"worked-{rank}").exists() for rank in range(4)), done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: rank" in line]
    assert len(errors) == 1 and "it waits for other ranks" in errors[0], done.stderr
