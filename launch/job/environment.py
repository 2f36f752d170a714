"""What must be settled before TensorFlow and MPI are loaded: cores and threads, silence, how MPI waits, open files."""

import contextlib
import itertools
import os
import re
import resource
import sys
from pathlib import Path

import psutil

from distributed.hardware import cuda, placement
from distributed.hardware.placement import Cores
from distributed.world import World
from launch.job import cuda_libraries, leftovers

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


# What Keras loads wherever it is installed, for pictures that nobody draws here and wrappers that nobody calls.
UNWANTED = ("matplotlib", "sklearn")
FILES = 65536  # that this process may open, where the system lets it


def prepare(world: World, *, verbose: bool, cpu: bool = False) -> Cores:
    """Set the environment for this worker, and keep it to its cores; what the user has set stays.

    Args:
        cpu: whether to compute on the CPU, also where there is a GPU.
    """
    raise_file_limit()
    if (sentence := leftovers.overrule(os.environ)) and world.is_chief:
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
    if cpu:
        # Not set by default but at all events; CUDA's libraries are not even loaded then.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
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
    # In memory: a full disk must not keep a run from starting.
    with os.fdopen(os.memfd_create("stderr"), "w+b") as kept:
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
    """Around the first import of TensorFlow and Keras: silent if ``quiet``, without ``UNWANTED`` and the user's
    keras.json, and with the wheels' CUDA libraries."""
    hidden = [name for name in UNWANTED if sys.modules.setdefault(name, None) is None]
    cuda_libraries.load_first()
    try:
        with silence(quiet), leftovers.without_keras_file():
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


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
