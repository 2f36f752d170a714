"""Which cores this process keeps to, and how many threads it may use."""

import contextlib
import os
import re
from pathlib import Path

import psutil

from distributed.hardware import cuda, placement
from distributed.hardware.placement import Cores
from distributed.world import World
from launch.job.environment.launchers import launcher


def take_cores(world: World, cards: list[cuda.Card], sysfs: Path = Path("/sys")) -> Cores:
    """Keep this process to the cores near its GPU, unless the launcher has bound it; and say how many it may use.

    Args:
        cards: the GPUs that this process sees; none where it computes on the CPU.
        sysfs: where the system says which cores are near which device.
    """
    job, mine = _launcher_affinity(), os.sched_getaffinity(0)
    shared = min(len(job), _cgroup_cores(), _slurm_cores())
    warnings = placement.warn_of_binding(world.launcher, len(mine), shared, world.local_size)
    ranks = 1
    # One process with several GPUs keeps to none of them.
    if world.size > 1 or len(cards) == 1:
        near = [placement.near_cores(card.bus_id, sysfs) for card in cards]
        place = placement.choose_gpu(world.local_rank, len(cards))
        kept = placement.choose_cores(mine, job, near[place] if near else ())
        if kept != mine:
            os.sched_setaffinity(0, kept)
            mine, ranks = kept, placement.neighbours(world.local_rank, world.local_size, near)
    threads = fair_share(len(mine) // ranks, shared, world.local_size)
    gpus = min(1, len(cards)) if world.size > 1 else len(cards)
    return Cores(threads, (*warnings, *placement.warn_of_few_cores(threads, gpus)))


def fair_share(mine: int, shared: int, local_size: int) -> int:
    """At least one core, at most those this process is bound to, else an equal part of ``shared``."""
    return max(1, min(mine, shared // local_size))


def _launcher_affinity() -> set[int]:
    """The cores of the process that started the ranks: those of the whole job on this host."""
    with contextlib.suppress(psutil.Error):
        if process := launcher():
            return set(process.cpu_affinity())
    return os.sched_getaffinity(0)


def _slurm_cores() -> int:
    """Cores that Slurm gave the job on this node, or a very large number."""
    text = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else 1 << 20


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores that the control group's quota allows (a container's ``--cpus``), or a very large number."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 1 << 20
    return 1 << 20 if quota in ("max", "-1") else max(1, int(quota) // int(period))
