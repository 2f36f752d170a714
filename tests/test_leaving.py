"""Ranks leave a run together: none takes MPI away from another one that still needs it."""

import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import HELPERS, run_command

from launch.install import horovodrun

MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe", "-np")


def leave(tmp_path, ranks, **variables):
    return run_command(*MPIRUN, ranks, sys.executable, HELPERS / "leaving.py", tmp_path, timeout=240, **variables)


@pytest.mark.parametrize("ranks", (2, pytest.param(3, marks=pytest.mark.thorough)))
def test_the_chief_may_be_gone_before_the_others_have_heard_of_it(tmp_path, ranks):
    """The others are a second late for the last word, which the chief has sent without waiting for them."""
    done = leave(tmp_path, ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MPI_" not in done.stdout + done.stderr
    assert [(tmp_path / f"left-{rank}").read_text() for rank in range(ranks)] == ["0"] * ranks
    # One of them tried to exchange tensors with those who had left.
    assert (tmp_path / "error").read_text() == "not of the input"


def test_a_script_that_fails_on_one_rank_does_not_wait_for_the_others(tmp_path):
    done = leave(tmp_path, 2, ONLY_MPI="1")
    assert done.returncode == 1 and "RuntimeError: a script of the user's" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("level", ("single", "funneled", "serialized"))
def test_an_mpi_that_two_threads_may_not_call_is_refused(tmp_path, level):
    settings = {"MPI4PY_RC_INITIALIZE": "1", "MPI4PY_RC_THREAD_LEVEL": level}
    done = leave(tmp_path, 2, ONLY_MPI="1", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        said = (tmp_path / f"refused-{rank}").read_text()
        assert f"thread level {level}" in said and "needs multiple" in said and "MPI4PY_RC_THREAD_LEVEL" in said


RANK = """
import signal, subprocess, sys, time
def leave(*_):
    time.sleep(0.3)
    sys.exit(85)
signal.signal(signal.SIGTERM, leave if sys.argv[1] == "leaves" else signal.SIG_IGN)
beside = subprocess.Popen(["sleep", "600"])
print(beside.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("what", "code"), [("leaves", 85), ("stays", -signal.SIGKILL)])
def test_over_gloo_a_rank_that_is_asked_to_leave_keeps_its_exit_code(monkeypatch, what, code):
    """Nobody waits for the shell until all is over: whoever takes its exit code takes it from the one who will."""
    monkeypatch.setattr(horovodrun, "PATIENCE", 2.0)
    shell = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -c '{RANK}' {what}; exit $?"], stdout=subprocess.PIPE, text=True
    )
    beside = psutil.Process(int(shell.stdout.readline()))
    try:
        horovodrun.safe_shell_exec.terminate_executor_shell_and_children(shell.pid)
        assert shell.wait(60) == code
        end = time.monotonic() + 20
        # What is beside a rank that leaves is its own affair.
        with contextlib.suppress(psutil.NoSuchProcess):
            while what == "stays" and beside.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < end
                time.sleep(0.05)
    finally:
        with contextlib.suppress(psutil.Error):
            beside.kill()
        shell.stdout.close()
