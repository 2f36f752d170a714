"""What a process can see of its machine without TensorFlow: host, cores, memory, limits, cards, Slurm's variables."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import psutil

from distributed.hardware import cuda, placement
from distributed.world import World
from launch.job import environment

SLURM = ("JOB_ID", "JOB_NUM_NODES", "NTASKS", "NTASKS_PER_NODE", "CPUS_PER_TASK", "CPUS_ON_NODE", "GPUS_ON_NODE")
SLURM += ("JOB_GPUS", "STEP_GPUS", "CPU_BIND", "GPU_BIND", "MPI_TYPE")
# Variables that decide which libraries are loaded and how they talk.
TELLING = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OPAL_PREFIX", "XLA_FLAGS")
TELLING_STARTS = ("NCCL_", "UCX_", "OMPI_MCA_", "TF_ENABLE_", "TF_FORCE_", "TF_GPU_", "TF_XLA_")
OF_MPIRUN = ("OMPI_MCA_ess", "OMPI_MCA_orte", "OMPI_MCA_pmix", "OMPI_MCA_initial_wdir", "OMPI_MCA_shmem_RUNTIME")
CARD = ("index", "name", "uuid", "pci.bus_id", "memory.total", "driver_version", "mig.mode.current")


def facts(world: World, *, cpu: bool) -> dict:
    """A JSON object of what ``table.py`` shows and ``findings.py`` judges; sizes in bytes, None where unknown.

    It also settles the environment of this process, as every program does.

    Args:
        cpu: whether the CPU is meant, also where there is a GPU.
    """
    # Before the programs raise it, and set variables of their own.
    open_files, variables = _limit(resource.RLIMIT_NOFILE), telling(os.environ)
    share = environment.prepare(world, verbose=False, cpu=cpu)
    cores = sorted(os.sched_getaffinity(0))
    seen, (cards, cards_problem) = cuda.cards(), _cards()
    mine = placement.choose_gpu(world.local_rank, len(seen))
    return {
        "rank": world.rank,
        "local_rank": world.local_rank,
        "local_size": world.local_size,
        "size": world.size,
        "host": world.host,
        "launcher": world.launcher,
        "launchers_on_path": [name for name in ("horovodrun", "mpirun", "srun") if shutil.which(name)],
        "cores": cores,
        "threads": share.threads,
        "cores_warnings": list(share.warnings),
        "cores_of_host": os.cpu_count(),
        "numa": numa_nodes(cores),
        "cpu": _cpu_name(),
        "memory": psutil.virtual_memory().total,
        "memory_available": psutil.virtual_memory().available,
        "shared_memory": _free("/dev/shm"),
        "open_files": open_files,
        "locked_memory": _limit(resource.RLIMIT_MEMLOCK),
        "infiniband": Path("/dev/infiniband").exists(),
        "card": None if mine is None else asdict(seen[mine]),
        "cards": cards,
        "cards_problem": cards_problem,
        "slurm": {name: os.environ[f"SLURM_{name}"] for name in SLURM if f"SLURM_{name}" in os.environ},
        "variables": variables,
    }


def telling(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables that change how libraries are found and talk, without what a launcher sets by itself."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if (name in TELLING or name.startswith(TELLING_STARTS)) and not name.startswith(OF_MPIRUN)
    }


def numa_nodes(cores: Iterable[int], root: Path = Path("/sys/devices/system/node")) -> list[int]:
    """The NUMA nodes that these cores belong to; empty where the kernel does not say."""
    cores, nodes = set(cores), []
    for folder in root.glob("node[0-9]*"):
        try:
            if cores & placement.read_cpulist((folder / "cpulist").read_text()):
                nodes.append(int(folder.name.removeprefix("node")))
        except OSError:
            continue
    return sorted(nodes)


def parse_cards(text: str) -> list[dict]:
    """What ``nvidia-smi --query-gpu=... --format=csv,noheader,nounits`` prints: an object per card, memory in bytes."""
    cards = []
    for line in filter(None, text.splitlines()):
        card = dict(zip(CARD, (field.strip() for field in line.split(",")), strict=True))
        memory = card["memory.total"]
        cards.append(card | {"memory.total": int(memory) << 20 if memory.isdigit() else None})
    return cards


def _cards() -> tuple[list[dict], str | None]:
    """The host's NVIDIA cards, and why they could not be asked for."""
    if not shutil.which("nvidia-smi"):
        return [], None
    command = ["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            return [], " ".join((done.stdout or done.stderr).split())
        return parse_cards(done.stdout), None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return [], f"{type(error).__name__}: {error}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), os.uname().machine)


def _limit(kind: int) -> int | None:
    """The soft limit; None where there is none."""
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
