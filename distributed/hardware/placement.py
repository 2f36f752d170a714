"""Which GPU and which cores a process takes: pure functions, without TensorFlow.

Ranks of a host take the GPUs that they see in turn.  Each keeps to the cores near its GPU, as Linux lists them
(``local_cpulist`` of the PCI device, Documentation/ABI/testing/sysfs-bus-pci), unless its launcher has bound it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed.in_words import VALUES, ranks_in_words

VISIBLE = "CUDA_VISIBLE_DEVICES"
ENOUGH_CORES = 4  # per GPU: with fewer, it most likely waits for pictures to be decoded


@dataclass(frozen=True)
class Cores:
    """The cores of one process.

    Attributes:
        threads: how many it may use.
        warnings: sentences about what the launcher has left it, for the chief to say.
    """

    threads: int
    warnings: tuple[str, ...] = ()


def choose_gpu(local_rank: int, visible: int) -> int | None:
    """The GPU of a process, an index among the ``visible`` ones; None where there is none.

    A scheduler that shows each task only its own GPU leaves one to choose from, one that shows all of them leaves one
    for each rank.  Which it is cannot be seen: Slurm's ``--gpus-per-task`` means the one, with ``--gpu-bind=none`` the
    other.  So a rank beyond the list begins it anew; whether two ranks have met on one card, its identity shows
    (``shared_cards``).
    """
    return local_rank % visible if visible else None


def means_cpu(environment: Mapping[str, str]) -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` is -1, which only people write, and only to compute on the CPU."""
    return environment.get(VISIBLE, "").strip() == "-1"


def hides_gpus(environment: Mapping[str, str]) -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` lets CUDA see no GPU: its list ends at the first word that names none."""
    if VISIBLE not in environment:
        return False
    first = environment[VISIBLE].partition(",")[0].strip()
    return not (first.isdecimal() or first.startswith(("GPU-", "MIG-")))


def read_cpulist(text: str) -> set[int]:
    """The cores of a list as Linux writes it: ``"0-2,8"`` is ``{0, 1, 2, 8}``; none where it is no such list."""
    cores = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
        if not match:
            return set()
        cores.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return cores


def near_cores(bus_id: str, root: Path = Path("/sys")) -> set[int]:
    """The cores of the NUMA node at which a PCI device lies; none where the system does not say.

    Args:
        bus_id: such as ``0000:3b:00.0``.
        root: where sysfs is mounted.
    """
    try:
        return read_cpulist((root / "bus/pci/devices" / bus_id.lower() / "local_cpulist").read_text())
    except OSError:
        return set()


def choose_cores(mine: Collection[int], job: Collection[int], near: Collection[int]) -> set[int]:
    """The cores to which a process keeps.

    Args:
        mine: those it may use now.
        job: those of all ranks on this host; more than ``mine`` where the launcher has bound each to a part.
        near: those near its GPU.
    """
    mine = set(mine)
    if mine < set(job):
        return mine
    return mine & set(near) or mine


def neighbours(local_rank: int, local_size: int, near: Sequence[Collection[int]]) -> int:
    """How many ranks of this host keep to the same cores as this one, itself included; 1 where that cannot be seen.

    Args:
        near: the cores near each GPU that this process sees.
    """
    if len(near) < local_size:
        return 1
    mine = set(near[choose_gpu(local_rank, len(near))])
    others = [set(near[choose_gpu(rank, len(near))]) for rank in range(local_size)]
    return max(1, sum(not mine or cores == mine for cores in others))


def warn_of_binding(launcher: str, mine: int, shared: int, local_size: int) -> list[str]:
    """A sentence where the launcher has bound this process to fewer cores than fall to each rank.

    Args:
        launcher: as in ``World``.
        mine: cores to which this process is bound.
        shared: cores of all ranks on this host.
    """
    fair = shared // local_size
    if launcher == "none" or mine >= fair:
        return []
    how = {
        "mpirun": "start it with mpirun --bind-to none, or with horovodrun",
        "horovodrun-gloo": "leave the binding to horovodrun",
    }.get(launcher, f"give each task its cores: srun --cpus-per-task={fair}")
    bound = f"{mine} core{'s' * (mine > 1)}"
    return [f"the launcher has bound each rank to {bound}, though {fair} of {shared} fall to each; {how}"]


def warn_of_few_cores(cores: int, gpus: int) -> list[str]:
    """A sentence where fewer cores than ``ENOUGH_CORES`` serve each of a process's GPUs."""
    if not gpus or cores >= ENOUGH_CORES * gpus:
        return []
    each = f"{cores / gpus:.2g} core{'s' * (cores > gpus)} per GPU"
    return [
        f"{each}: the GPU will most likely wait for pictures to be decoded; give each {ENOUGH_CORES} or more (Slurm "
        "--cpus-per-task, mpirun --bind-to none, docker --cpus), or train on pictures of launch/prepare.py"
    ]


def shared_cards(workers: Sequence[Mapping]) -> str | None:
    """One sentence where two ranks have one card, which NCCL refuses; else None.

    Args:
        workers: by rank, ``host`` and ``card``; a card is None or has ``id``, ``name`` and ``bus_id``.  Two MIG slices
            of one GPU are one card: NCCL knows a card by its place on the bus.
    """
    ranks = {}
    for rank, worker in enumerate(workers):
        if worker["card"]:
            ranks.setdefault(worker["card"]["id"], []).append(rank)
    twice = {identity: group for identity, group in ranks.items() if len(group) > 1}
    if not twice:
        return None
    first = next(iter(twice.values()))
    host = workers[first[0]]["host"]
    here = [worker["card"]["id"] for worker in workers if worker["host"] == host and worker["card"]]
    cards_in_words = [
        f"{ranks_in_words(group)}: {workers[group[0]]['card']['name']} at {workers[group[0]]['card']['bus_id']}"
        for group in twice.values()
    ]
    more = f"; and {len(twice) - VALUES} further" if len(twice) > VALUES else ""
    shown = "; ".join(cards_in_words[:VALUES]) + more
    cards = len(set(here))
    return (
        f"{len(here)} ranks on {host} have {cards} GPU{'s' * (cards > 1)} between them ({shown}), but each needs one "
        f"of its own; start at most one rank per GPU, here {cards}, or let each see another (CUDA_VISIBLE_DEVICES); "
        "two MIG slices of one GPU are no two GPUs"
    )
