"""Whatever system call of a save is the last one, or fails: the newest committed checkpoint is whole.

strace lets the writer be killed at, or refuses, each of its system calls in turn.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import crash_writer
import pytest
from checkpoints import damage, read, same
from conftest import HELPERS, counted, record_fault
from crash_writer import REFUSED, SAVED, example

from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import CheckpointError
from launch.job.run_directory import resume

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed (apt-get install strace)")


class Writer:
    """The forking writer process, and strace on its children."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        words = [sys.executable, "-E", "-S", "-c", BARE.format(path=[*filter(None, sys.path)])]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def save(self, folder: Path, step: int, *expressions: str) -> tuple[int, list[str]]:
        """Save once under strace; return the child's wait status and the traced calls."""
        self.process.stdin.write(json.dumps([str(folder), step]) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        log = self.scratch / "strace.log"
        options = [word for expression in expressions for word in ("-e", expression)]
        tracer = subprocess.Popen(
            ["strace", "-p", str(pid), "-o", log, "-e", "signal=none", *options], stderr=subprocess.PIPE, text=True
        )
        assert "attached" in (said := tracer.stderr.readline()), said
        os.kill(pid, signal.SIGUSR1)
        status = int(self.process.stdout.readline())
        tracer.communicate(timeout=60)
        return status, log.read_text().splitlines()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


# Without site: what a writer costs to start is paid once.
BARE = f"import sys; sys.path[:] = {{path!r}}; sys.path.insert(0, {str(HELPERS)!r}); import crash_writer; "
BARE += "crash_writer.main()"


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    server = Writer(tmp_path_factory.mktemp("strace"))
    yield server
    server.close()


def over(folder):
    """Checkpoint 2 is saved over checkpoint 1, which is then deleted; a killed writer has left something behind."""
    crash_writer.commit(folder, 1)
    (folder / ".writing-step-00000002").mkdir()
    (folder / ".writing-step-00000002" / "weights.safetensors").write_bytes(b"half")


def damaged(folder):
    """A checkpoint 2 is there and cannot be read: the run has fallen back to 1 and comes by again."""
    crash_writer.commit(folder, 1)
    commit.write(folder, 2, example(2))
    damage(folder / "step-00000002" / "weights.safetensors", -1)


def first(folder):
    """There is not even the folder."""
    folder.rmdir()


def unjudged(folder):
    """Checkpoint 2, the only one, was saved when a signal ended its validation: judged now, it replaces itself."""
    manager.commit(folder, 2, example(2), keep=1)


# What is on the disk before -> the steps of which one must be the newest that can be read afterwards.
SCENES = {over: {1, 2}, damaged: {1, 2}, first: {None, 2}, unjudged: {2}}
FAULTS = {"kill": "signal=KILL", "no space": "error=ENOSPC", "I/O error": "error=EIO"}


def prepared(scene, folder: Path) -> Path:
    """The scene as ``folder``, copied from where it was made once."""
    template = folder.with_name(scene.__name__)
    if not template.exists():
        template.mkdir()
        scene(template)
    shutil.rmtree(folder, ignore_errors=True)
    if template.exists():
        shutil.copytree(template, folder, symlinks=True)
    return folder


@pytest.fixture
def folder():
    """Of a run's checkpoints; in memory, where flushing costs nothing: what a killed process has written is kept."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as scratch:
        yield Path(scratch) / "checkpoints"


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint that can be read, after it was compared with what was saved."""
    # Nothing but the checkpoint that was damaged beforehand bears a checkpoint's name without being one.
    for path in manager.committed(folder):
        with contextlib.nullcontext() if path.name == "step-00000001" else contextlib.suppress(CheckpointError):
            commit.verify(path)
    path, problems = resume.find("auto", folder)
    assert all("step-00000002/weights.safetensors is not the file that was saved" in line for line in problems), (
        problems
    )
    step = path and manager.step_of(path)
    assert path is None or same(read(path, example(step)), example(step))
    return step


def calls_of_a_save(writer, scene, folder: Path) -> list[tuple[str, int, str]]:
    """``(name, which of that name, line)`` of each system call with a file that a save makes, in order."""
    status, lines = writer.save(prepared(scene, folder), 2, "trace=%file,%desc")
    assert status == SAVED and newest_step(folder) == 2
    names = [re.match(r"(\w+)\(", line) for line in lines]
    seen, calls = {}, []
    for name, line in zip([match and match[1] for match in names], lines, strict=True):
        if name and name not in ("mmap", "munmap"):  # memory
            seen[name] = seen.get(name, 0) + 1
            calls.append((name, seen[name], line))
    return calls


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_every_system_call_of_a_save_may_be_the_last_or_fail(writer, folder, scene, fault):
    calls, lost, refused = calls_of_a_save(writer, scene, folder), [], 0
    assert {"openat", "write", "fsync", "rename", "close", "mkdir"} <= {name for name, *_ in calls}, calls
    for name, number, line in calls:
        status, log = writer.save(
            prepared(scene, folder), 2, f"trace={name}", f"inject={name}:{FAULTS[fault]}:when={number}"
        )
        killed = os.WIFSIGNALED(status)
        assert killed if fault == "kill" else "(INJECTED)" in "".join(log), (line, status, log)
        code = None if killed else os.waitstatus_to_exitcode(status)
        refused += code == REFUSED
        try:
            # A clean error, or none where it does no harm; never for what brings the checkpoint to the disk.
            assert code in (None, REFUSED) if name in ("write", "fsync") else code in (None, SAVED, REFUSED)
            assert newest_step(folder) in ({2} if code == SAVED else SCENES[scene])
            crash_writer.commit(folder, 2)
            assert newest_step(folder) == 2 and not list(folder.glob(".[fw]*"))
        except Exception as error:
            lost.append((line, code, error))
    record_fault(f"{fault} at a system call of a save ({scene.__name__})", len(calls), len(lost))
    print(f"{scene.__name__}, {fault}: {len(calls)} injected, {refused} refused, {len(lost)} lost")
    assert not lost


def test_a_disk_that_only_says_that_it_has_written(writer, folder):
    """Each write in turn reports success without having written anything: reading back finds it."""
    writes = [call for call in calls_of_a_save(writer, over, folder) if call[0] == "write"]
    for _, number, line in writes:
        length = re.search(r"= (\d+)$", line)[1]
        status, log = writer.save(
            prepared(over, folder), 2, "trace=write", f"inject=write:retval={length}:when={number}"
        )
        with counted("write that was not done"):
            assert "(INJECTED)" in "".join(log)
            assert os.waitstatus_to_exitcode(status) == REFUSED and newest_step(folder) == 1
    assert len(writes) >= 6
