"""Ranks leave a run together: none takes MPI away from another one that still needs it."""

import sys

import pytest
from conftest import HELPERS, run_command

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
