"""What must be settled before TensorFlow and MPI are loaded: threads, silence, and how MPI waits."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import psutil

from distributed.world import World
from launch.job import cuda_libraries

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


def prepare(world: World, *, verbose: bool) -> int:
    """Set the environment for this worker; what the user has set stays.

    Returns:
        The number of cores this process may use.
    """
    threads = cpu_share(world)
    settings = {
        "KERAS_BACKEND": "tensorflow",
        "OMP_NUM_THREADS": str(threads),
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
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return threads


@contextlib.contextmanager
def silence(enabled: bool):
    """Keep what native libraries print to stderr while they are loaded; shown after all if loading fails.

    TensorFlow's wheel writes a few lines before its own log level is in force, so that no setting can stop them.
    """
    if not enabled:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def loading(*, quiet: bool):
    """Around the first import of TensorFlow and Keras: silent if ``quiet``, without matplotlib, and with the wheels'
    CUDA libraries.

    Keras loads matplotlib wherever it is installed, for pictures that nobody draws here: a sixth of the time that a
    rank takes to load.
    """
    hidden = sys.modules.setdefault("matplotlib", None) is None
    cuda_libraries.load_first()
    try:
        with silence(quiet):
            yield
    finally:
        if hidden:
            del sys.modules["matplotlib"]


def cpu_share(world: World) -> int:
    """Cores for this process: its own where the launcher bound it, else its part of those all ranks here share."""
    mine = len(os.sched_getaffinity(0))
    shared = min(len(_launcher_affinity()), _cgroup_cores(), int(os.environ.get("SLURM_CPUS_ON_NODE", 1 << 20)))
    return fair_share(mine, shared, world.local_size)


def fair_share(mine: int, shared: int, local_size: int) -> int:
    """At least one core, at most those this process is bound to, else an equal part of ``shared``."""
    return max(1, min(mine, shared // local_size))


def launcher() -> psutil.Process | None:
    """The process on this host that started the ranks; None without a launcher."""
    with contextlib.suppress(psutil.Error):
        return next((process for process in psutil.Process().parents() if process.name() in LAUNCHERS), None)
    return None


def _launcher_affinity() -> set[int]:
    """The cores of the process that started the ranks: those of the whole job on this host."""
    with contextlib.suppress(psutil.Error):
        if process := launcher():
            return set(process.cpu_affinity())
    return os.sched_getaffinity(0)


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
