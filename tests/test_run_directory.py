"""A run directory belongs to one run: refused while it is in use, free once it is given back, never two owners."""

import os
import time
from pathlib import Path

import pytest
import run_directories
from run_directories import content, plant, race, record

from launch.job.config import ConfigError
from launch.job.run_directory.create import create
from launch.job.run_directory.lock import RunDirectoryBusy, acquire

quick = pytest.fixture(run_directories.quick, autouse=True)
start = pytest.fixture(run_directories.start)
six = pytest.fixture(run_directories.six, scope="module")
held = pytest.fixture(run_directories.held)


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
