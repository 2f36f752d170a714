"""The owner of a run directory is alive while anything says so, on this machine and on others, and no longer."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import run_directories
from run_directories import HEARTBEAT, OBSERVATION, POLL, content, plant, record

from launch.job.run_directory import liveness
from launch.job.run_directory.lock import RunDirectoryBusy, acquire

PATIENT = 5.0  # seconds of observation where the owner is alive, on a machine that is busy with other things
HERE = {"host": "node1", "machine": "aaaa", "boot": "b1", "namespace": liveness.HOST_NAMESPACE}
ELSEWHERE = {"host": "node2", "machine": "bbbb", "boot": "b2", "namespace": liveness.HOST_NAMESPACE}
CONTAINER = "pid:[4026532178]"

quick = pytest.fixture(run_directories.quick, autouse=True)
start = pytest.fixture(run_directories.start)
held = pytest.fixture(run_directories.held)


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(liveness, "OBSERVATION", PATIENT)


@pytest.fixture
def here(monkeypatch):
    """This process runs on ``HERE``."""
    monkeypatch.setattr(liveness, "_this_machine", lambda: HERE)


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
    monkeypatch.setattr(liveness, "OBSERVATION", PATIENT)
    with pytest.raises(RunDirectoryBusy, match=f"host {machine['host']}, process {owner.process.pid}, since "):
        acquire(tmp_path, said.append)
    assert owner.do("look")["held"]
    (line,) = said
    assert f"{tmp_path} belongs or belonged to another run (host {machine['host']}, process {owner.process.pid}" in line
    assert "\n" not in line and f"watching up to {PATIENT:.0f} s" in line
    owner.kill()
    monkeypatch.setattr(liveness, "OBSERVATION", OBSERVATION)
    began, said = time.monotonic(), []
    assert held(tmp_path, said).is_held() and len(said) == 1
    assert time.monotonic() - began >= OBSERVATION


def test_two_containers_of_one_name_on_two_machines_are_two(tmp_path, start, patient, monkeypatch):
    monkeypatch.setattr(liveness, "_this_machine", lambda: HERE | {"namespace": CONTAINER})
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
    time.sleep(5 * HEARTBEAT)
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


def test_a_run_that_is_stopped_is_alive_on_its_own_machine(tmp_path, start):
    owner = start()
    assert owner.do("acquire", tmp_path)["held"]
    owner.process.send_signal(signal.SIGSTOP)
    time.sleep(2 * OBSERVATION)
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path, print)
    owner.process.send_signal(signal.SIGCONT)
    assert owner.do("look")["held"]


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
    monkeypatch.setattr(liveness, "process_state", lambda pid: ("X", 0, 0))
    said = []
    with pytest.raises(RunDirectoryBusy):
        acquire(tmp_path, said.append)
    assert len(said) == 1


def test_a_process_is_not_dead_before_its_last_thread_is(tmp_path, start, held, patient):
    owner = start()
    assert owner.do("acquire", tmp_path)["held"]
    owner.tell("end the main thread")
    while liveness.process_state(owner.process.pid)[0] != "Z":
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
    facts = liveness._this_process() | {"since": "", "inode": 1} | other
    path.write_bytes(json.dumps(facts).encode() + b"\n")


@pytest.mark.parametrize("leave", GARBAGE.values(), ids=GARBAGE)
def test_a_lock_that_says_nothing_blocks_no_longer_than_a_dead_owners(tmp_path, held, leave):
    (tmp_path / ".lock").mkdir()
    leave(tmp_path / ".lock" / "0123")
    said = []
    assert held(tmp_path, said).is_held()
    assert len(said) == 1 and "its lock does not say whose" in said[0]
    assert record(tmp_path)["pid"] == os.getpid()


def test_time_in_which_the_reader_or_the_disk_stood_still_does_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    signs = liveness.Signs(b"", 1, 1)
    watch = liveness.Watch(signs)
    now[0] += 1000.0
    assert watch.alive(signs) is None
    looks = 1
    while watch.alive(signs) is None:
        now[0] += POLL
        looks += 1
    assert looks * POLL == pytest.approx(OBSERVATION, abs=2 * POLL)
    assert watch.alive(signs._replace(mtime_ns=2)) and watch.alive(signs._replace(content=b"1"))
