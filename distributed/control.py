"""Small JSON values on which the workers agree, and the way to end all of them.  The only file that talks to mpi4py.

Tensors travel over Horovod (``collectives.py``); decisions, settings and fingerprints travel here, over MPI where the
launcher began an MPI job, and over Horovod under a Gloo launch.  No control message ever mixes with a gradient.
"""

import atexit
import contextlib
import ctypes
import functools
import json
import sys
import time
from collections.abc import Callable

from distributed.collectives import Collectives
from distributed.health import heartbeat, hosts
from distributed.in_words import by_value
from distributed.world import WorldError


class Control:
    """Agreement by the collectives' own byte exchange: a single process, or a Gloo launch."""

    def __init__(self, collectives: Collectives):
        self._collectives = collectives

    def agree(self, value):
        """Return the chief's JSON value on every worker."""
        return json.loads(self._collectives.broadcast_bytes(json.dumps(value).encode()))

    def share(self, payload: bytes) -> bytes:
        """Return the chief's bytes on every worker; those of the others are ignored."""
        return self._collectives.broadcast_bytes(payload)

    def gather(self, value) -> list:
        """Return every worker's JSON value, by rank, on every worker."""
        return [json.loads(payload) for payload in self._collectives.gather_bytes(json.dumps(value).encode())]

    def wait(self) -> None:
        """Return once all workers have called this, without taking a core meanwhile, as MPI's own waiting would: for
        what takes one of them long."""

    def abort(self, code: int) -> None:
        """End this worker now, without waiting for the others; the launcher then ends them."""
        heartbeat.die(code)

    def leave(self, code: int) -> int:
        """End the run on all workers, which call this together, with the chief's exit code; none ends before the chief
        has come as far.

        Returns:
            The exit code, where this process is to end by itself.
        """
        code = self.agree(code)
        if code and self._collectives.world.size > 1:
            # All is written; a launcher that was asked to end gives its ranks five seconds.
            sys.stdout.flush()
            heartbeat.die(code)
        return code


class MpiControl(Control):
    """Agreement over MPI, on a communicator of its own."""

    def __init__(self, collectives: Collectives):
        super().__init__(collectives)
        MPI = start_mpi()
        self._world = MPI.COMM_WORLD
        self._communicator = MPI.COMM_WORLD.Dup()

    @heartbeat.waiting()
    def agree(self, value):
        return json.loads(self._communicator.bcast(json.dumps(value), root=0))

    @heartbeat.waiting()
    def share(self, payload):
        size = self._communicator.bcast(len(payload), root=0)
        content = bytearray(payload if self._communicator.rank == 0 else size)
        self._communicator.Bcast(content, root=0)
        return bytes(content)

    @heartbeat.waiting()
    def gather(self, value):
        return [json.loads(text) for text in self._communicator.allgather(json.dumps(value))]

    @heartbeat.waiting()
    def wait(self):
        _meet(self._communicator)

    def abort(self, code):
        heartbeat.end(code, "aborting")
        sys.stdout.flush()
        # Open MPI would explain at length that the run was aborted; why it was has been said.
        with contextlib.suppress(OSError, ValueError):
            ctypes.c_bool.in_dll(ctypes.CDLL("libopen-rte.so.40"), "orte_execute_quiet").value = True
        self._world.Abort(code)

    def leave(self, code):
        code = self.agree(code)
        world = self._collectives.world
        if code and world.launcher == "mpirun":
            # After a plain exit, mpirun would print a dozen lines about the exit code.
            if world.is_chief:
                self.abort(code)
            heartbeat.end(code, "aborting")
            time.sleep(heartbeat.ABORT)
        return code


@functools.cache
def start_mpi():
    """Start MPI for this process, once, and let it end with the process; return mpi4py's module.

    Call it before Horovod starts.  Who starts MPI also ends it, and Horovod would do so as soon as any rank leaves: on
    another rank, whose last message may be under way.  Here it ends in the main thread, which has no messages any more
    by then, after Horovod has left, and for all ranks together.

    Raises:
        WorldError: on all ranks, if this MPI may not be called by two threads.
    """
    MPI = _mpi()
    # Functions at exit are called in the reverse order; Horovod's, which is registered later, before all of these.
    if not MPI.Is_initialized():
        with heartbeat.waiting():
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
    atexit.register(lambda: MPI.Is_finalized() or MPI.Finalize())
    # By one thread still, which every level allows.
    level = MPI.COMM_WORLD.allreduce(MPI.Query_thread(), MPI.MIN)
    if level < MPI.THREAD_MULTIPLE:
        names = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized"}
        raise WorldError(
            f"{mpi_library()} was started with the thread level {names[level]}, but two threads of each rank call it, "
            "Horovod's and the main one, which needs multiple; import mpi4py without settings of your own (mpi4py.rc, "
            "MPI4PY_RC_THREAD_LEVEL), load an MPI that was built with threads, or start with horovodrun --gloo"
        )
    if news := hosts.begin(MPI.COMM_WORLD):
        atexit.register(news.stop)
    atexit.register(_wait_for_all, MPI.COMM_WORLD)
    return MPI


def _wait_for_all(communicator) -> None:
    """Return once all ranks have come as far, without taking a core meanwhile, as MPI's own waiting would."""
    if getattr(sys, "last_value", None) is not None:
        # A script has failed after its training, perhaps alone; the launcher ends the others, who may wait for it.
        sys.stdout.flush()
        heartbeat.die(1)
    _meet(communicator)


def _meet(communicator) -> None:
    request, pause = communicator.Ibarrier(), 0.0005
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, 0.01)


def _mpi():
    import mpi4py

    # It would do so while it is loaded, also where MPI is only asked for its name.
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    return MPI


def mpi_library() -> str:
    """Name and version of the MPI that mpi4py loads, for example ``Open MPI v4.1.8``; it is not initialised."""
    return _mpi().Get_library_version().partition(",")[0].strip("\0\n ")


def differences(values: list[dict]) -> list[tuple[str, list]]:
    """Compare one flat mapping per worker.

    Returns:
        ``(field, value by rank)`` for each field on which the workers do not all agree, in order of the fields.
    """
    fields = dict.fromkeys(field for value in values for field in value)
    rows = [(field, [value.get(field) for value in values]) for field in fields]
    return [(field, by_rank) for field, by_rank in rows if any(value != by_rank[0] for value in by_rank)]


def together(control: Control, errors: tuple[type[Exception], ...], function: Callable):
    """Call ``function`` on every worker; where it fails on any of them, fail on all with the first one's sentence.

    Args:
        errors: the exceptions that are an answer; any other is a bug and passes through.

    Raises:
        WorldError: on every worker; a single one raises its own error.
    """
    result = problem = failure = None
    try:
        result = function()
    except errors as error:
        problem, failure = str(error), error
    control.wait()
    problems = control.gather(problem)
    if failure is not None and len(problems) == 1:
        raise failure
    failed = [rank for rank, sentence in enumerate(problems) if sentence is not None]
    if failed:
        everywhere = len(failed) == len(problems)
        raise WorldError(problems[0] if everywhere else f"rank {failed[0]}: {problems[failed[0]]}")
    return result


def check_agreement(control: Control, value: dict) -> None:
    """Compare one flat JSON mapping per worker, before step 1.

    Raises:
        WorldError: on every worker, naming the first field that differs and which ranks have which value.
    """
    for field, by_rank in differences(control.gather(value)):
        raise WorldError(
            f"the ranks were started with different {field} ({by_value(by_rank)}); start all of them with the same"
        )
