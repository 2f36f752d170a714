"""A rank dies or hangs in a real run: all are gone soon, and the last lines say who it was, where, and why."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, counted
from deaths import Job

from distributed.health import heartbeat, preemption

LINE = [*"--dataset npz --global-batch-size 12 --steps-per-epoch 12 --epochs 3 --hang-timeout".split(), 10]
HOROVODRUN = ("horovodrun", "-np", "2")
GLOO = ("horovodrun", "--gloo", "-np", "2")
# The wrapper as it stands in this repository, whether or not setup has put it in place.
LOCKSTEPRUN = (sys.executable, ROOT / "launch" / "install" / "horovodrun.py", "-np", "2")
MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2")

# Name: launcher, what happens, at which rank and step, what the last lines say of it, and the exit code if it is known.
DEATHS = {
    "killed": (HOROVODRUN, "SIGKILL@step", 1, 17, "at step 17 (training)", 137),
    "raised": (HOROVODRUN, "raise@step", 1, 17, "failed at step 17 (training): RuntimeError: planted", 1),
}
MORE_DEATHS = {
    "killed at start": (HOROVODRUN, "SIGKILL@start", 1, 0, "(start)", 137),
    "killed in first step": (MPIRUN, "SIGKILL@step", 0, 0, "at step 0", 137),
    "killed in validation": (HOROVODRUN, "SIGKILL@validation", 0, 12, "at step 12 (validation)", 137),
    # At which step is not certain: a checkpoint is written beside those that follow.
    "killed in saving": (HOROVODRUN, "SIGKILL@saving", 0, 24, "at step ", 137),
    "killed in report": (MPIRUN, "SIGKILL@report", 0, 0, "at step 36 (ending)", 137),
    "killed over gloo": (GLOO, "SIGKILL@step", 1, 17, "at step 17 (training)", None),
    "crashed": (HOROVODRUN, "SIGSEGV@step", 1, 17, "at step 17 (training)", 139),
    "raised at start": (HOROVODRUN, "raise@start", 1, 0, "failed at step 0 (start): RuntimeError: planted", 1),
    "raised in validation": (MPIRUN, "raise@validation", 0, 12, "at step 12 (validation): RuntimeError: planted", 1),
    "raised over gloo": (GLOO, "raise@step", 1, 17, "failed at step 17 (training): RuntimeError: planted", None),
    "stopped": (HOROVODRUN, "SIGSTOP@step", 1, 17, "it is stopped (SIGSTOP)", 137),
    "stopped at start": (HOROVODRUN, "SIGSTOP@start", 1, 0, "it is stopped (SIGSTOP)", 137),
    "hangs in validation": (HOROVODRUN, "loop@validation", 1, 12, "at step 12 (validation)", 1),
    "hangs in a step": (HOROVODRUN, "loop@step", 1, 17, "at step 17 (training)", 1),
    "hangs at exit": (HOROVODRUN, "loop@exit", 1, 0, "(ending)", 1),
    "hangs over gloo": (GLOO, "SIGSTOP@step", 1, 17, "it is stopped (SIGSTOP)", None),
}
CASES = [pytest.param(*case, id=name) for name, case in DEATHS.items()]
CASES += [pytest.param(*case, id=name, marks=pytest.mark.faults) for name, case in MORE_DEATHS.items()]


@pytest.mark.parametrize(("launcher", "fault", "rank", "step", "words", "code"), CASES)
def test_one_dies_all_are_gone_and_it_is_named(tmp_path, tiny_data, launcher, fault, rank, step, words, code):
    job = Job(tmp_path, [*LINE, "--data-dir", tiny_data], *launcher, fault=[fault, rank, step])
    with counted(f"a rank of two: {fault.replace('@', ' at ')}"):
        ended = job.wait()  # sees that no process of the run is left
        assert ended == code if code else ended != 0, job.said
        named = [line for line in job.said.splitlines()[-40:] if "error: rank" in line]
        assert len(named) == 1, job.said
        assert f"error: rank {rank} on " in named[0] and words in named[0], job.said
        if fault.startswith("raise"):
            assert "Traceback (most recent call last)" in job.said and "in strike" in job.said


def test_a_rank_that_failed_too_waits_for_the_first_one_to_say_why(tmp_path, monkeypatch):
    folder = tmp_path / "health"
    folder.mkdir()
    code = "import time, pathlib; from distributed.health.first_failure import claim; "
    code += "print(claim(pathlib.Path('.')), flush=True); time.sleep(2); pathlib.Path('../over').touch()"
    first = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == "True\n"
    monkeypatch.setattr(heartbeat, "_folder", folder)
    assert not heartbeat.accuse()
    heartbeat.wait_for_accuser()
    # Its claim ends with it, a moment before the process does.
    assert (tmp_path / "over").exists() and first.wait(60) == 0
    assert [path.name for path in folder.iterdir()] == ["failed"]


PREEMPTIONS = {
    "horovodrun": (LOCKSTEPRUN, signal.SIGTERM, 85),
    "mpirun": (MPIRUN, signal.SIGUSR1, 85),
}
MORE_PREEMPTIONS = {
    "Ctrl-C": (LOCKSTEPRUN, signal.SIGINT, 130),
    "horovodrun over gloo": ((*LOCKSTEPRUN, "--gloo"), signal.SIGTERM, 85),
    "one process": ((), signal.SIGUSR2, 85),
}
CASES = [pytest.param(*case, id=name) for name, case in PREEMPTIONS.items()]
CASES += [pytest.param(*case, id=name, marks=pytest.mark.faults) for name, case in MORE_PREEMPTIONS.items()]


@pytest.mark.parametrize(("launcher", "number", "code"), CASES)
def test_the_launcher_can_be_asked_to_leave(tmp_path, tiny_data, launcher, number, code):
    job = Job(tmp_path, [*LINE, "--epochs", 900, "--data-dir", tiny_data], *launcher)
    job.wait_for("epoch   1/900")
    job.process.send_signal(number)
    with counted(f"the launcher got {number.name}"):
        assert job.wait() == code, job.said
        last = "\n".join(job.said.splitlines()[-4:])
        assert "checkpoint saved; run the same command again to go on" in last, job.said
        assert list((tmp_path / "run" / "checkpoints").glob("step-*"))


@pytest.mark.faults
def test_a_second_signal_ends_a_rank_that_cannot_leave(tmp_path, tiny_data):
    """The first one waits for the step to end, which it never does."""
    job = Job(
        tmp_path, [*LINE, "--epochs", 3, "--hang-timeout", 0, "--data-dir", tiny_data], fault=["loop@step", 0, 17]
    )
    job.wait_for("loops")
    job.process.send_signal(signal.SIGTERM)
    job.wait_for("heard")
    time.sleep(preemption.SAME_SIGNAL + 1)  # one that comes sooner is the same again, of a launcher for example
    assert job.process.poll() is None
    job.process.send_signal(signal.SIGTERM)
    assert job.wait() == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "checkpoints" / "step-00000012" / "manifest.json").exists()


@pytest.mark.faults
@pytest.mark.parametrize(
    "launcher", (LOCKSTEPRUN, (*LOCKSTEPRUN, "--gloo"), MPIRUN), ids=("horovodrun", "gloo", "mpirun")
)
def test_no_rank_outlives_a_killed_launcher(tmp_path, tiny_data, launcher):
    job = Job(tmp_path, [*LINE, "--epochs", 900, "--data-dir", tiny_data], *launcher)
    job.wait_for("epoch   1/900")
    assert len(job.ranks()) == 2
    job.process.kill()
    job.wait()
