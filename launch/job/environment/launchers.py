"""The process that has started the ranks of this host."""

import contextlib
import itertools

import psutil

LAUNCHERS = (
    "mpirun",
    "mpiexec",
    "orterun",
    "orterun_wrapper",
    "orted",
    "prterun",
    "prted",
    "horovodrun",
    "slurmstepd",
    "hydra_pmi_proxy",
)


def launcher() -> psutil.Process | None:
    """The process on this host that started the ranks; None without a launcher."""
    with contextlib.suppress(psutil.Error):
        return next((process for process in psutil.Process().parents() if process.name() in LAUNCHERS), None)
    return None


def command() -> psutil.Process | None:
    """The process on this host that began all of a launch: ``horovodrun`` where that has called ``mpirun``; None
    without a launcher."""
    with contextlib.suppress(psutil.Error):
        parents = itertools.dropwhile(lambda process: process.name() not in LAUNCHERS, psutil.Process().parents())
        *_, first = [None, *itertools.takewhile(lambda process: process.name() in LAUNCHERS, parents)]
        return first
    return None
