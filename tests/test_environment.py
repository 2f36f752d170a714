"""Cores, silence and settings, before TensorFlow is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_command

from distributed.hardware import placement
from distributed.hardware.cuda import Card
from distributed.world import World
from launch.job import environment
from launch.job.environment import cores as host_cores
from launch.job.environment import process
from launch.job.failure import too_many_files

ROOT = Path(__file__).parent.parent
UNLIMITED = 1 << 20


@pytest.mark.parametrize(
    ("mine", "shared", "ranks", "share"),
    (
        (8, 8, 1, 8),
        (8, 8, 2, 4),
        (8, 8, 3, 2),
        (2, 2, 3, 1),  # more ranks than cores: one each all the same
        (2, 8, 4, 2),  # bound by the launcher to its part
        (1, 8, 2, 1),  # bound to less than its part
        (8, 4, 2, 2),  # a container that may use half the machine
        (8, 0, 1, 1),
        (64, UNLIMITED, 4, 64),
    ),
)
def test_fair_share(mine, shared, ranks, share):
    assert host_cores.fair_share(mine, shared, ranks) == share


@pytest.mark.parametrize(
    ("files", "cores"),
    (
        ({"cpu.max": "max 100000\n"}, UNLIMITED),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 50000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, UNLIMITED),
        ({"cpu.max": "300000 100000\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({}, UNLIMITED),
    ),
)
def test_cgroup_quota(tmp_path, files, cores):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert host_cores._cgroup_cores(tmp_path) == cores


@pytest.fixture
def eight(monkeypatch):
    """A machine of 8 cores, of which this process may use all; returns what it is bound to."""
    bound = set(range(8))
    monkeypatch.setattr(host_cores, "_cgroup_cores", lambda: UNLIMITED)
    monkeypatch.setattr(host_cores, "_launcher_affinity", lambda: set(range(8)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(bound))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: (bound.clear(), bound.update(cores)))
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    return bound


def test_share_of_this_machine(eight, monkeypatch):
    def share(ranks):
        return host_cores.take_cores(World(local_size=ranks, size=ranks), []).threads

    assert [share(ranks) for ranks in (1, 2, 16)] == [8, 4, 1]
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert share(2) == 2
    for odd in ("", "8(x2)", "²", "-1", "0"):
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", odd)
        assert share(2) == 4
    monkeypatch.setattr(host_cores, "_cgroup_cores", lambda: 2)
    assert share(2) == 1


def cards_at(sysfs, *lists):
    """A card for each list of cores near it, None: the system does not say."""
    cards = []
    for index, cores in enumerate(lists):
        cards.append(Card("a GPU", "9.0", f"0000:0{index}:00.0", str(index)))
        if cores is not None:
            folder = sysfs / "bus/pci/devices" / cards[-1].bus_id
            folder.mkdir(parents=True)
            (folder / "local_cpulist").write_text(cores + "\n")
    return cards


@pytest.mark.parametrize(
    ("place", "lists", "kept", "threads"),
    (
        ((0, 2), ("0-3", "4-7"), range(4), 4),  # a node for each
        ((1, 2), ("0-3", "4-7"), range(4, 8), 4),
        ((1, 4), ("0-3", "0-3", "4-7", "4-7"), range(4), 2),
        ((1, 2), ("0-3", "0-3"), range(4), 2),  # both GPUs at one node: its cores are shared
        ((1, 2), ("0-3",), range(4), 4),  # each task sees its own: whose the other cores are is not seen
        ((1, 2), (None, None), range(8), 4),
        ((1, 2), ("8-15", "8-15"), range(8), 4),  # the job has no core there
        ((0, 1), ("0-3", "4-7"), range(8), 8),  # one process with two GPUs
        ((0, 1), ("4-7",), range(4, 8), 4),
        ((0, 2), (), range(8), 4),
    ),
)
def test_a_rank_keeps_to_the_cores_near_its_gpu(eight, tmp_path, place, lists, kept, threads):
    (rank, size), cards = place, cards_at(tmp_path, *lists)
    world = World(rank, size, rank, size, "mpirun" if size > 1 else "none")
    cores = host_cores.take_cores(world, cards, tmp_path)
    assert (eight, cores.threads) == (set(kept), threads)


def test_cores_that_the_launcher_chose_stay(eight, tmp_path):
    eight -= set(range(4))
    cores = host_cores.take_cores(World(0, 2, 0, 2, "mpirun"), cards_at(tmp_path, "4-5", "0-3"), tmp_path)
    assert (eight, cores) == ({4, 5, 6, 7}, placement.Cores(4))


def test_a_rank_bound_to_one_core_of_many_is_told(eight, tmp_path):
    """As a plain mpirun -np 2 does on any machine of more than two cores."""
    eight -= set(range(1, 8))
    cores = host_cores.take_cores(World(0, 2, 0, 2, "mpirun"), cards_at(tmp_path, None), tmp_path)
    bound, few = cores.warnings
    assert cores.threads == 1 and "each rank to 1 core, though 4 of 8" in bound and "mpirun --bind-to none" in bound
    assert "1 core per GPU" in few


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core, none is free")
def test_what_mpirun_binds_by_itself_is_noticed():
    words = (
        "import os\nfrom distributed.world import World\nfrom launch.job import environment\n"
        "cores = environment.prepare(World.from_environment(os.environ), verbose=False)\n"
        "print(len(os.sched_getaffinity(0)), cores.threads, *cores.warnings)"
    )
    mpirun = ("mpirun", "--allow-run-as-root", "-np", "1")
    bound, free = (
        run_command(*mpirun, *more, sys.executable, "-c", words, PYTHONPATH=str(ROOT))
        for more in ((), ("--bind-to", "none"))
    )
    given, _, said = bound.stdout.partition(" ")
    if int(given) == len(os.sched_getaffinity(0)):
        pytest.skip("this machine has one core, which mpirun binds to, with all of its threads")
    assert said.startswith(f"{given} the launcher has bound each rank to {given} core"), bound.stdout + bound.stderr
    assert free.stdout.split()[2:] == [], free.stdout + free.stderr


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_sums_do_not_depend_on_what_else_is_ready(deterministic):
    words = (
        "import os\nfrom distributed.world import World\nfrom launch.job import environment\n"
        f"environment.prepare(World(), verbose=False, deterministic={deterministic})\n"
        "print(os.environ.get('HOROVOD_DISABLE_GROUP_FUSION'))"
    )
    ended = run_command(sys.executable, "-c", words, PYTHONPATH=str(ROOT))
    assert ended.stdout == ("1\n" if deterministic else "None\n"), ended.stderr


def test_as_many_files_may_be_open_as_the_system_allows():
    words = (
        "import resource\nfrom launch.job.environment.process import raise_file_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300)); raise_file_limit()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE)); raise_file_limit()"
    )
    ended = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "300 300\n", ended.stderr


SET = (
    "KERAS_BACKEND",
    "OMP_NUM_THREADS",
    "OMPI_MCA_mpi_yield_when_idle",
    "TF_CPP_MIN_LOG_LEVEL",
    "OMPI_MCA_btl_base_warn_component_unused",
    "OMPI_MCA_mca_base_component_show_load_errors",
)


@pytest.fixture
def bare(monkeypatch):
    """No variable that ``prepare`` sets; all are as before after the test."""
    for name in (*SET, "OPAL_PREFIX"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(process, "take_cores", lambda world, cards: placement.Cores(3))


def test_prepare_sets_threads_and_quiet(bare):
    assert environment.prepare(World(), verbose=False).threads == 3
    assert [os.environ[name] for name in SET] == ["tensorflow", "3", "1", "3", "0", "0"]
    assert "OPAL_PREFIX" not in os.environ


def test_prepare_verbose_hides_nothing(bare):
    environment.prepare(World(), verbose=True)
    assert [os.environ.get(name) for name in SET] == ["tensorflow", "3", "1", None, None, None]


def test_prepare_leaves_what_the_user_set(bare, monkeypatch):
    # The backend is never another one than TensorFlow (launch/job/environment/leftovers.py).
    for name in SET:
        monkeypatch.setenv(name, "mine")
    environment.prepare(World(), verbose=False)
    assert {name: os.environ[name] for name in SET} == dict.fromkeys(SET, "mine") | {"KERAS_BACKEND": "tensorflow"}


@pytest.mark.parametrize(
    ("launcher", "wheel", "prefixed"),
    (("srun-pmix", True, True), ("srun-pmix", False, False), ("none", True, False), ("horovodrun-gloo", True, False)),
)
def test_the_wheels_mpi_is_told_where_it_lies(bare, monkeypatch, tmp_path, launcher, wheel, prefixed):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if wheel:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "libmpi.so").touch()
    environment.prepare(World(0, 2, 0, 2, launcher), verbose=False)
    assert os.environ.get("OPAL_PREFIX") == (str(tmp_path) if prefixed else None)


NOISY = """
import os, sys
from launch.job.environment import silence
os.write(2, b"before ")
{enter}:
    os.write(2, b"native ")
    print("python", end=" ", file=sys.stderr)
    print("answer")
    {then}
os.write(2, b"after")
"""


@pytest.mark.parametrize(
    ("enter", "then", "shown"),
    (
        ("with silence(True)", "pass", "before after"),
        ("with silence(False)", "pass", "before native python after"),
    ),
)
def test_silence(enter, then, shown):
    ended = subprocess.run(
        [sys.executable, "-c", NOISY.format(enter=enter, then=then)], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "answer\n", shown)


@pytest.mark.parametrize(("then", "code"), (("raise ImportError('no such library')", 1), ("sys.exit(3)", 3)))
def test_silence_shows_all_if_loading_fails(then, code):
    ended = subprocess.run(
        [sys.executable, "-c", NOISY.format(enter="with silence(True)", then=then)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code and ended.stderr.startswith("before native python ")
    assert ("ImportError: no such library" in ended.stderr) == (code == 1) and "after" not in ended.stderr


def test_keras_is_loaded_without_what_nobody_needs_which_can_be_loaded_later():
    words = (
        "import sys; from launch.job.environment.imports import UNWANTED, loading\n"
        "with loading(quiet=True): import keras\n"
        "print(*UNWANTED, any(name in sys.modules for name in UNWANTED))\n"
        "import matplotlib.pyplot, sklearn.base; print(all(name in sys.modules for name in UNWANTED))\n"
        "with loading(quiet=True): import matplotlib\n"
        "print(matplotlib.__name__, sys.modules['matplotlib'] is matplotlib)"
    )
    ended = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.split() == ["matplotlib", "sklearn", "False", "True", "matplotlib", "True"], ended.stderr


def test_too_many_open_files_are_named_with_the_remedy():
    assert "ulimit -n" in too_many_files(OSError(24, "Too many open files", "a.jpg"))
    assert too_many_files(OSError(2, "No such file or directory", "a.jpg")) is None
