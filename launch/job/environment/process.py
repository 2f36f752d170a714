"""This process made ready, before TensorFlow and MPI are loaded: variables, cores, how MPI waits, open files."""

import os
import resource
import sys
from pathlib import Path

from distributed.hardware import cuda, placement
from distributed.hardware.placement import Cores
from distributed.world import World
from launch.job.environment import leftovers
from launch.job.environment.cores import take_cores

FILES = 65536  # that this process may open, where the system lets it


def prepare(world: World, *, verbose: bool, cpu: bool = False, deterministic: bool = False) -> Cores:
    """Set the environment for this worker, and keep it to its cores; what the user has set stays.

    Args:
        cpu: whether to compute on the CPU, also where there is a GPU.
        deterministic: whether sums over workers must not depend on what happens to be ready at the same time.
    """
    raise_file_limit()
    for sentence in (leftovers.too_late(os.environ), leftovers.overrule(os.environ)):
        if sentence and world.is_chief:
            print(f"note: {sentence}", file=sys.stderr, flush=True)
    cores = take_cores(world, [] if cpu else cuda.cards())
    settings = {
        "OMP_NUM_THREADS": str(cores.threads),
        # Open MPI waits by polling, which takes the core away from the rank that computes.
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    if not verbose:
        settings |= {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMPI_MCA_btl_base_warn_component_unused": "0",
            "OMPI_MCA_mca_base_component_show_load_errors": "0",
        }
    prefix = Path(sys.prefix)
    if world.uses_mpi and (prefix / "lib" / "libmpi.so").exists():
        # Started by srun, the MPI of the wheel does not know where it is installed; mpirun tells it.
        settings["OPAL_PREFIX"] = str(prefix)
    if deterministic:
        # Horovod would join groups of tensors that are ready in one cycle; and where a number lies in what is summed
        # decides the order in which MPI's and NCCL's rings add it up over three workers and more.
        os.environ["HOROVOD_DISABLE_GROUP_FUSION"] = "1"
    if cpu:
        # Not set by default but at all events; CUDA's libraries are not even loaded then.
        os.environ[placement.VISIBLE] = "-1"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return cores


def on_cpu(settings) -> bool:
    """Whether the CPU is meant, also where there is a GPU: by ``--cpu`` or ``--cpu-devices``, or by the -1 that people
    give to CUDA_VISIBLE_DEVICES.

    Args:
        settings: with ``cpu`` and ``cpu_devices``.
    """
    return settings.cpu or bool(settings.cpu_devices) or placement.means_cpu(os.environ)


def raise_file_limit() -> None:
    """Let this process open as many files as it may: a shell's limit is often a fraction of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
