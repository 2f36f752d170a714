"""Who am I among the processes of this run: read from the launcher's environment, before anything is imported.

Every launcher tells a process its place through environment variables of its own:

* ``horovodrun`` over Gloo: ``HOROVOD_RANK`` and friends;
* ``mpirun`` of Open MPI (also what ``horovodrun`` calls when MPI is built in): ``OMPI_COMM_WORLD_*``;
* ``mpirun`` of MPICH and Intel MPI (Hydra): ``PMI_RANK``, ``MPI_LOCALRANKID``;
* ``srun``: ``SLURM_PROCID``; MPI then needs PMIx (``PMIX_RANK``) or PMI2 (``PMI_RANK``) from it.

A shell hands its variables on, so that a plain ``python`` in the shell of ``srun --pty`` looks like one task of many.
An empty variable counts as one that is not set.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass


class WorldError(ValueError):
    """Workers that cannot act as one: wrongly launched, or started with different settings.

    Its message is one sentence: what came, what was expected, how to mend it. It ends the run with exit code 2.
    """


@dataclass(frozen=True)
class World:
    """One process's place: ``rank`` of ``size`` in the run, ``local_rank`` of ``local_size`` on its host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "none"  # none | mpirun | horovodrun-gloo | srun-pmix | srun-pmi2
    host: str = ""
    seen: str = ""  # the variables that say so, for whoever asks why

    @property
    def is_chief(self) -> bool:
        """Whether this process prints, logs and saves for all."""
        return self.rank == 0

    @property
    def uses_mpi(self) -> bool:
        """Whether the launcher started an MPI job, so that MPI may be initialised here."""
        return self.launcher not in ("none", "horovodrun-gloo")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], strategy: str = "auto") -> "World":
        """Read the launcher's variables.

        Args:
            strategy: one that runs in one process, ``single`` or ``mirrored``, makes the first task of a Slurm step run
                alone, as it most likely is the shell of ``srun --pty``.

        Raises:
            WorldError: if ``srun`` started several tasks without PMI, so that each would train alone, or if the
                variables contradict each other.
        """
        environment = {name: value for name, value in environment.items() if value.strip()}
        if "HOROVOD_GLOO_RENDEZVOUS_ADDR" in environment:
            return _read(
                environment,
                "horovodrun-gloo",
                "HOROVOD_RANK",
                "HOROVOD_SIZE",
                "HOROVOD_LOCAL_RANK",
                "HOROVOD_LOCAL_SIZE",
            )
        if "OMPI_COMM_WORLD_SIZE" in environment:
            names = [f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")]
            return _read(environment, "mpirun", *names)
        if "SLURM_PROCID" in environment and environment.get("SLURM_STEP_ID", "batch").isdigit():
            return _read_srun(environment, alone=strategy in ("single", "mirrored"))
        if "PMI_SIZE" in environment:
            return _read(environment, "mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
        return cls(host=socket.gethostname())


def speaks(environment: Mapping[str, str]) -> bool:
    """Whether this process is the one that says what all of them have found wrong with their command line."""
    try:
        return World.from_environment(environment).is_chief
    except WorldError:
        return True


def _read_srun(environment: Mapping[str, str], *, alone: bool) -> World:
    counted = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    size, rank = _integer(environment, counted, 1), _integer(environment, "SLURM_PROCID")
    if size == 1 or (alone and rank == 0):
        return World(host=socket.gethostname())
    seen = _seen(environment, counted, "SLURM_PROCID", "PMIX_RANK", "PMI_RANK")
    if "PMIX_RANK" in environment:
        launcher = "srun-pmix"
    elif "PMI_RANK" in environment or "PMI_FD" in environment:
        launcher = "srun-pmi2"
    else:
        raise WorldError(
            f"srun started {size} tasks without PMI ({seen}), so {size} separate single-process runs would begin; "
            "start them with srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list shows what this cluster has), or, in the "
            "shell of srun --pty, train in this process alone with --strategy single"
        )
    per_node = _tasks_per_node(
        environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", "1"))
    )
    node = _integer(environment, "SLURM_NODEID", 0)
    return _checked(
        World(
            rank=rank,
            size=size,
            local_rank=_integer(environment, "SLURM_LOCALID", 0),
            local_size=per_node[min(node, len(per_node) - 1)],
            launcher=launcher,
            host=socket.gethostname(),
            seen=seen,
        )
    )


def _tasks_per_node(text: str) -> list[int]:
    """Expand Slurm's run-length form: ``"2(x3),1"`` is ``[2, 2, 2, 1]``."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([1-9][0-9]{0,5})\))?", part.strip())
        if not match:
            raise WorldError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}; expected a list such as 2(x3),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _read(
    environment: Mapping[str, str], launcher: str, rank: str, size: str, local_rank: str, local_size: str
) -> World:
    return _checked(
        World(
            rank=_integer(environment, rank),
            size=_integer(environment, size),
            local_rank=_integer(environment, local_rank, 0),
            local_size=_integer(environment, local_size, 1),
            launcher=launcher,
            host=socket.gethostname(),
            seen=_seen(environment, rank, size),
        )
    )


def _seen(environment: Mapping[str, str], *names: str) -> str:
    """Those of the variables that are set, in words."""
    return ", ".join(f"{name}={environment[name]}" for name in names if name in environment)


def _integer(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default)).strip()
    if not re.fullmatch("[0-9]{1,9}", text):
        raise WorldError(f"the environment variable {name} is {text!r}; expected a whole number from the launcher")
    return int(text)


def _checked(world: World) -> World:
    if not (world.rank < world.size and world.local_rank < world.local_size <= world.size):
        raise WorldError(
            f"the launcher's variables contradict each other: rank {world.rank} of {world.size}, local rank "
            f"{world.local_rank} of {world.local_size} ({world.seen}); start the run again from a clean shell"
        )
    return world
