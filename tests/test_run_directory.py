"""A run directory belongs to one run: refused while its owner lives, free once it is dead, never two owners."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from launch.job.config import ConfigError
from launch.job.run_directory import lock as run_directory
from launch.job.run_directory.lock import RunDirectoryBusy, acquire, create

QUICK = {"HEARTBEAT": 0.02, "OBSERVATION": 0.2, "POLL": 0.01}
PATIENT = 5.0  # seconds of observation where the owner is alive, on a machine that is busy with other things
HERE = {"host": "node1", "machine": "aaaa", "boot": "b1", "namespace": run_directory.HOST_NAMESPACE}
ELSEWHERE = {"host": "node2", "machine": "bbbb", "boot": "b2", "namespace": run_directory.HOST_NAMESPACE}
CONTAINER = "pid:[4026532178]"

# A run without the training: it takes and gives back directories as it is told on stdin, at the moment it is told.
RUN = """
import ctypes, json, os, resource, sys, time
from pathlib import Path

root, constants, machine = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, root)
from launch.job.run_directory import lock as run_directory

vars(run_directory).update(constants)
if machine:
    run_directory._this_machine = lambda: machine
lock, lost = None, []
print("ready", flush=True)
for line in sys.stdin:
    verb, directory, moment = json.loads(line)
    time.sleep(max(0.0, moment - time.monotonic()))
    said = []
    answer = {"said": said}
    try:
        if verb == "create":
            answer["created"] = str(run_directory.create(Path(directory), "net-data", 0.0))
        elif verb == "acquire":
            lock = run_directory.acquire(Path(directory), said.append, lost.append)
        elif verb == "release":
            lock.release()
        elif verb == "no room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        elif verb == "exit":
            os._exit(3)
        elif verb == "end the main thread":
            ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
    except Exception as error:
        answer |= {"refused": type(error).__name__, "sentence": str(error)}
    answer |= {"held": lock is not None and lock.is_held(), "lost": lost}
    print(json.dumps(answer), flush=True)
"""


class Run:
    """A process that runs ``RUN``."""

    def __init__(self, constants: dict, machine: dict | None):
        words = [sys.executable, "-c", RUN, ROOT, json.dumps(constants), json.dumps(machine)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self) -> None:
        """Until it is ready."""
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, verb: str, directory: Path | str = "", moment: float = 0.0) -> None:
        self.process.stdin.write(json.dumps([verb, str(directory), moment]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def do(self, verb: str, directory: Path | str = "") -> dict:
        self.tell(verb, directory)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def start():
    """Start runs, on another machine if one is given."""
    runs = []

    def start(machine: dict | None = None) -> Run:
        runs.append(Run(QUICK, machine))
        runs[-1].wait()
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


@pytest.fixture(scope="module")
def six():
    """Six runs; each test has them release what they acquire."""
    runs = [Run(QUICK, None) for _ in range(6)]
    for run in runs:
        run.wait()
    yield runs
    for run in runs:
        run.kill()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(run_directory, name, value)


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(run_directory, "OBSERVATION", PATIENT)


@pytest.fixture
def here(monkeypatch):
    """This process runs on ``HERE``."""
    monkeypatch.setattr(run_directory, "_this_machine", lambda: HERE)


@pytest.fixture
def held():
    """Acquire directories, and give them back at the end."""
    locks = []

    def held(directory: Path, said: list | None = None, on_lost=None):
        locks.append(acquire(directory, (said if said is not None else []).append, on_lost))
        return locks[-1]

    yield held
    for lock in locks:
        lock.release()


def content(directory: Path) -> dict[str, bytes]:
    """Path -> bytes of all files, without the heartbeats."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes().partition(b"\n")[0] for path in files}


def record(directory: Path) -> dict:
    """The record of the one lock in the directory."""
    (path,) = (directory / ".lock").iterdir()
    return json.loads(path.read_bytes().partition(b"\n")[0])


def a_dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def plant(directory: Path, **other) -> Path:
    """Leave a lock of a process of this machine that is gone, or what else is said of it."""
    path = directory / ".lock" / "0123456789abcdef"
    path.parent.mkdir(parents=True)
    path.touch()
    facts = run_directory._this_process() | {"since": "2025-01-02 03:04:05", "inode": path.stat().st_ino}
    facts |= {"pid": a_dead_pid()} | other
    path.write_bytes(json.dumps(facts).encode() + b"\n000000000007\n")
    return path


def race(runs: list[Run], verb: str, directory: Path) -> list[dict]:
    """Let all do the same at the same moment; their answers."""
    moment = time.monotonic() + 0.005
    for run in runs:
        run.tell(verb, directory, moment)
    return [run.answer() for run in runs]


def test_two_runs_of_one_second_get_two_names(tmp_path):
    now = time.mktime((2025, 1, 2, 3, 4, 5, 0, 0, -1))
    names = [create(tmp_path / "runs", "alexnet-shapes", now).name for _ in range(3)]
    assert names == [f"alexnet-shapes-20250102-030405{suffix}" for suffix in ("", "-2", "-3")]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names


def test_six_runs_of_one_moment_get_six_names(tmp_path, six):
    for number in range(10):
        created = [answer["created"] for answer in race(six, "create", tmp_path / str(number))]
        assert len(set(created)) == 6 and all(Path(path).is_dir() for path in created)


def test_a_second_run_is_refused_in_one_sentence_and_touches_nothing(tmp_path, start):
    directory = tmp_path / "run"
    owner = start()
    assert owner.do("acquire", directory)["held"]
    (directory / "config.yaml").write_text("seed: 1")
    before, changed = content(directory), directory.stat().st_mtime_ns
    since = record(directory)["since"]
    said = []
    with pytest.raises(RunDirectoryBusy) as refused:
        acquire(directory, said.append)
    assert isinstance(refused.value, ConfigError)
    assert str(refused.value) == (
        f"{directory} is in use by another run (host {os.uname().nodename}, process {owner.process.pid}, since {since})"
        "; end that run, or give another --run-dir"
    )
    assert (content(directory), directory.stat().st_mtime_ns, said) == (before, changed, [])
    assert owner.do("look")["held"]


def test_a_run_that_is_stopped_is_alive_on_its_own_machine(tmp_path, start):
    owner = start()
    assert owner.do("acquire", tmp_path)["held"]
    owner.process.send_signal(signal.SIGSTOP)
    time.sleep(2 * QUICK["OBSERVATION"])
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path, print)
    owner.process.send_signal(signal.SIGCONT)
    assert owner.do("look")["held"]


@pytest.mark.parametrize("way", ("release", "end", "kill", "kill, not yet reaped", "exit without clean-up"))
def test_the_directory_is_free_at_once_after(tmp_path, start, held, way):
    owner = start()
    assert owner.do("acquire", tmp_path / "run")["held"]
    left = way not in ("release", "end")
    if way == "release":
        assert not owner.do("release")["held"]
        owner.do("release")
    elif way == "end":
        owner.process.stdin.close()
        owner.process.wait()
    elif way == "exit without clean-up":
        owner.tell("exit")
        owner.process.wait()
    else:
        owner.process.kill()
        os.waitid(os.P_PID, owner.process.pid, os.WEXITED | os.WNOWAIT)
        if way == "kill":
            owner.process.wait()
    assert (tmp_path / "run" / ".lock").exists() == left
    said = []
    assert held(tmp_path / "run", said).is_held() and record(tmp_path / "run")["pid"] == os.getpid()
    assert said == []  # nobody was watched


@pytest.mark.parametrize("dead", (False, True), ids=("a new directory", "a dead owner's directory"))
def test_of_six_runs_of_one_moment_one_gets_it(tmp_path, six, dead):
    winners = set()
    for number in range(50):
        directory = tmp_path / str(number)
        if dead:
            plant(directory)
        answers = race(six, "acquire", directory)
        got = [index for index, answer in enumerate(answers) if "refused" not in answer]
        assert len(got) == 1, answers
        assert {answer["refused"] for answer in answers if "refused" in answer} == {"RunDirectoryBusy"}
        assert answers[got[0]]["held"] and record(directory)["pid"] == six[got[0]].process.pid
        assert [path.name for path in directory.iterdir()] == [".lock"]
        assert not six[got[0]].do("release")["held"]
        assert list(directory.iterdir()) == []
        winners |= set(got)
    assert len(winners) > 1  # else they did not meet


@pytest.mark.parametrize("moment", ("unlink", "rmdir", "rename"))
def test_who_is_suspended_while_taking_over_does_no_harm_to_the_one_that_came_first(
    tmp_path, start, monkeypatch, moment
):
    """Suspended at any of its three steps, for as long as another run needs to take the directory over."""
    plant(tmp_path)
    other, taken = start(), []
    step = getattr(Path, moment)

    def suspended(path, *words, **named):
        if not taken:
            taken.append(other.do("acquire", tmp_path))
            taken.append(content(tmp_path / ".lock"))
        return step(path, *words, **named)

    monkeypatch.setattr(Path, moment, suspended)
    with pytest.raises(RunDirectoryBusy, match=f"process {other.process.pid},"):
        acquire(tmp_path, print)
    assert taken[0]["held"] and other.do("look")["held"]
    assert content(tmp_path / ".lock") == taken[1]
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_answer_that_is_lost_on_the_way_from_the_server_is_no_defeat(tmp_path, held, monkeypatch):
    rename = Path.rename

    def repeated(path, target):
        rename(path, target)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "rename", repeated)
    assert held(tmp_path / "run").is_held()


def test_what_a_killed_run_left_half_taken_is_swept(tmp_path, held):
    half = tmp_path / ".lock-0123456789abcdef"
    half.mkdir()
    (half / "0123456789abcdef").touch()
    (tmp_path / ".lock-of-mine").touch()
    held(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".lock-of-mine"]


# What another machine's, or another container's, record looks like from here.
OUT_OF_SIGHT = {
    "another machine": ELSEWHERE,
    "a container of this machine": HERE | {"namespace": CONTAINER},
    "a container of this name on another machine": HERE | {"namespace": CONTAINER, "boot": "b2"},
    "a machine that is called the same": HERE | {"boot": "b2", "machine": "bbbb"},
    "a machine that says nothing of itself": HERE | {"boot": "", "machine": "", "namespace": ""},
}


@pytest.mark.parametrize("machine", OUT_OF_SIGHT.values(), ids=OUT_OF_SIGHT)
def test_an_owner_out_of_sight_is_alive_while_its_heart_beats(tmp_path, start, here, held, monkeypatch, machine):
    owner = start(machine)
    assert owner.do("acquire", tmp_path)["held"]
    said = []
    monkeypatch.setattr(run_directory, "OBSERVATION", PATIENT)
    with pytest.raises(RunDirectoryBusy, match=f"host {machine['host']}, process {owner.process.pid}, since "):
        acquire(tmp_path, said.append)
    assert owner.do("look")["held"]
    (line,) = said
    assert f"{tmp_path} belongs or belonged to another run (host {machine['host']}, process {owner.process.pid}" in line
    assert "\n" not in line and f"watching up to {PATIENT:.0f} s" in line
    owner.kill()
    monkeypatch.setattr(run_directory, "OBSERVATION", QUICK["OBSERVATION"])
    began, said = time.monotonic(), []
    assert held(tmp_path, said).is_held() and len(said) == 1
    assert QUICK["OBSERVATION"] <= time.monotonic() - began < PATIENT


def test_two_containers_of_one_name_on_two_machines_are_two(tmp_path, start, patient, monkeypatch):
    monkeypatch.setattr(run_directory, "_this_machine", lambda: HERE | {"namespace": CONTAINER})
    owner = start(HERE | {"namespace": CONTAINER, "boot": "b2"})
    assert owner.do("acquire", tmp_path)["held"]
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path, print)


def test_who_was_suspended_on_another_machine_learns_that_it_lost_the_directory(tmp_path, start, here, held):
    owner = start(ELSEWHERE)
    assert owner.do("acquire", tmp_path)["held"]
    owner.process.send_signal(signal.SIGSTOP)
    lock = held(tmp_path)
    before = content(tmp_path)
    owner.process.send_signal(signal.SIGCONT)
    assert not owner.do("look")["held"]
    time.sleep(5 * QUICK["HEARTBEAT"])
    (sentence,) = owner.do("release")["lost"]
    assert sentence.startswith(f"{tmp_path} was taken over by another run (host node1, process {os.getpid()}, since ")
    assert lock.is_held() and lock.lost is None and content(tmp_path) == before


def test_an_owner_whose_lock_was_removed_learns_of_it_by_its_heartbeat(tmp_path, held):
    lost = threading.Event()
    lock = held(tmp_path, on_lost=lambda sentence: lost.set())
    shutil.rmtree(tmp_path / ".lock")
    assert lost.wait(5)
    assert "its .lock was removed" in lock.lost and not lock.is_held()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    (
        pytest.param({"boot": "b0"}, id="its machine has been booted since"),
        pytest.param({"pid": os.getpid(), "began": 5}, id="its process id belongs to a later process"),
    ),
)
def test_an_owner_is_dead_at_once_if(tmp_path, here, held, other):
    plant(tmp_path, **other)
    said = []
    assert held(tmp_path, said).is_held() and said == []


def test_a_process_that_this_user_may_not_see_is_judged_by_its_heartbeat(tmp_path, start, patient, monkeypatch):
    owner = start()
    assert owner.do("acquire", tmp_path)["held"]
    monkeypatch.setattr(run_directory, "process_state", lambda pid: ("X", 0, 0))
    said = []
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path, said.append)
    assert len(said) == 1


def test_a_process_is_not_dead_before_its_last_thread_is(tmp_path, start, held, patient):
    owner = start()
    assert owner.do("acquire", tmp_path)["held"]
    owner.tell("end the main thread")
    while run_directory.process_state(owner.process.pid)[0] != "Z":
        time.sleep(0.01)
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path, print)
    owner.process.kill()
    assert held(tmp_path).is_held()


def test_a_copy_of_a_directory_in_use_is_free(tmp_path, start, held):
    owner = start()
    assert owner.do("acquire", tmp_path / "run")["held"]
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert held(tmp_path / "copy").is_held() and owner.do("look")["held"]
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path / "run", print)


GARBAGE = {
    "empty": lambda path: path.touch(),
    "torn": lambda path: path.write_bytes(b'{"host": "node1", "pi'),
    "of zeros": lambda path: path.write_bytes(bytes(300)),
    "no record": lambda path: path.write_bytes(b'["host"]\n'),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "a false process id": lambda path: rewrite(path, pid=-1),
    "a huge process id": lambda path: rewrite(path, pid=10**30),
    "a word for a process id": lambda path: rewrite(path, pid="1"),
    "a later version's": lambda path: rewrite(path, colour="blue"),
    "a link into the void": lambda path: path.symlink_to("nowhere"),
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": lambda path: os.mkfifo(path),
}


def rewrite(path: Path, **other) -> None:
    facts = run_directory._this_process() | {"since": "", "inode": 1} | other
    path.write_bytes(json.dumps(facts).encode() + b"\n")


@pytest.mark.parametrize("leave", GARBAGE.values(), ids=GARBAGE)
def test_a_lock_that_says_nothing_blocks_no_longer_than_a_dead_owners(tmp_path, held, leave):
    (tmp_path / ".lock").mkdir()
    leave(tmp_path / ".lock" / "0123")
    said = []
    assert held(tmp_path, said).is_held()
    assert len(said) == 1 and "its lock does not say whose" in said[0]
    assert record(tmp_path)["pid"] == os.getpid()


def test_an_empty_lock_is_free(tmp_path, held):
    (tmp_path / ".lock").mkdir()
    said = []
    assert held(tmp_path, said).is_held() and said == []


FOREIGN = {
    "a file": (lambda path: path.write_text("4711"), ""),
    "a link to a folder": (lambda path: path.symlink_to("/usr"), ""),
    "a folder of folders": (lambda path: (path / "deep").mkdir(parents=True), "/deep"),
}


@pytest.mark.parametrize(("leave", "where"), FOREIGN.values(), ids=FOREIGN)
def test_what_no_run_has_made_is_left_alone(tmp_path, leave, where):
    leave(tmp_path / ".lock")
    with pytest.raises(ConfigError) as refused:
        acquire(tmp_path, print)
    assert f"{tmp_path}/.lock{where} was not made by a run; remove it" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"] and (tmp_path / f".lock{where}").exists()


def test_time_in_which_the_reader_or_the_disk_stood_still_does_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    signs = run_directory.Signs(b"", 1, 1)
    watch = run_directory.Watch(signs)
    now[0] += 1000.0
    assert watch.alive(signs) is None
    looks = 1
    while watch.alive(signs) is None:
        now[0] += QUICK["POLL"]
        looks += 1
    assert looks * QUICK["POLL"] == pytest.approx(QUICK["OBSERVATION"], abs=2 * QUICK["POLL"])
    assert watch.alive(signs._replace(mtime_ns=2)) and watch.alive(signs._replace(content=b"1"))


UNWRITABLE = {
    "a file": "{}/file",
    "below a file": "{}/file/run",
    "too long a name": "{}/new/" + "x" * 300,
    "a folder of the kernel's": "/sys/kernel",
    "a new one among the kernel's": "/sys/kernel/run",
    "a new one where none can be": "/proc/run",
}


@pytest.mark.parametrize("place", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path, place):
    (tmp_path / "file").touch()
    place = Path(place.format(tmp_path))
    for use in (lambda: acquire(place, print), lambda: create(place, "net-data", 0.0)):
        with pytest.raises(ConfigError) as refused:
            use()
        assert str(refused.value).startswith(f"--run-dir {place}")
        assert " cannot be written (" in str(refused.value)
        assert str(refused.value).endswith("); name a folder you may write to")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, start):
    run = start()
    run.do("no room")
    answer = run.do("acquire", tmp_path / "runs" / "run")
    assert (answer["refused"], answer["held"]) == ("ConfigError", False)
    assert answer["sentence"] == (
        f"--run-dir {tmp_path}/runs/run cannot be written (File too large); name a folder you may write to"
    )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    assert run.do("acquire", tmp_path / "mine")["refused"] == "ConfigError"
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_dead_owners_lock_on_a_disk_that_has_become_read_only_is_one_sentence(tmp_path, monkeypatch):
    plant(tmp_path)

    def refuse(path, missing_ok=False):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ConfigError, match="cannot be written \\(Read-only file system\\); name a folder"):
        acquire(tmp_path, print)


def test_a_run_that_is_refused_for_another_reason_leaves_nothing(tmp_path):
    for directory in (tmp_path / "runs" / "run", create(tmp_path / "runs", "net-data", 0.0)):
        lock = acquire(directory, print)
        lock.remove_if_empty()
        assert lock.is_held()
        lock.release()
        lock.remove_if_empty()
        assert not directory.exists()
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_empty_and_was_made_here_is_removed(tmp_path):
    mine, used = tmp_path / "mine", tmp_path / "runs" / "used"
    mine.mkdir()
    create(tmp_path, "other", 0.0)
    for directory in (mine, used):
        lock = acquire(directory, print)
        if directory == used:
            (used / "log").touch()
        lock.release()
        lock.remove_if_empty()
    assert sorted(path.name[:5] for path in tmp_path.rglob("*")) == ["log", "mine", "other", "runs", "used"]


def test_a_forked_child_gives_nothing_back(tmp_path, held):
    lock = held(tmp_path)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert lock.is_held()
