"""Each launcher's environment gives the right place in the run, or an error that says what to do."""

import socket

import pytest

from distributed.world import World, WorldError, speaks

PLACE = "rank size local_rank local_size"


def horovod(rank, size, local_rank, local_size):
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    values = zip(names, (rank, size, local_rank, local_size), strict=True)
    return {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1"} | {f"HOROVOD_{name}": str(value) for name, value in values}


def open_mpi(rank, size, local_rank, local_size):
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    values = zip(names, (rank, size, local_rank, local_size), strict=True)
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in values}


def srun(rank, size, local_rank, node, per_node, **more):
    """What slurmd gives to a task of a step, besides what PMI adds."""
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": size, "SLURM_STEP_TASKS_PER_NODE": per_node}
    task = {"SLURM_PROCID": rank, "SLURM_LOCALID": local_rank, "SLURM_NODEID": node}
    return {name: str(value) for name, value in (step | task | more).items()}


HYDRA = {"PMI_RANK": "5", "PMI_SIZE": "6", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
BATCH_STEP = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "4(x2)"}

PLACES = {
    "plain python": ({}, (0, 1, 0, 1), "none"),
    "horovodrun over Gloo": (horovod(3, 4, 1, 2), (3, 4, 1, 2), "horovodrun-gloo"),
    "Open MPI": (open_mpi(2, 5, 0, 3), (2, 5, 0, 3), "mpirun"),
    "horovodrun over Gloo within an MPI job": (
        open_mpi(0, 1, 0, 1) | horovod(1, 2, 1, 2),
        (1, 2, 1, 2),
        "horovodrun-gloo",
    ),
    "Open MPI within an sbatch script": (BATCH_STEP | open_mpi(1, 2, 1, 2), (1, 2, 1, 2), "mpirun"),
    "Open MPI, whose daemons srun started": (
        srun(0, 2, 0, 0, "1(x2)", PMIX_RANK=0) | open_mpi(3, 4, 1, 2),
        (3, 4, 1, 2),
        "mpirun",
    ),
    "Hydra": (HYDRA, (5, 6, 1, 2), "mpirun"),
    "Hydra without local variables": ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2, 0, 1), "mpirun"),
    "Hydra within an sbatch script": (BATCH_STEP | HYDRA, (5, 6, 1, 2), "mpirun"),
    "srun with PMIx": (srun(5, 8, 1, 1, "4(x2)", PMIX_RANK=5), (5, 8, 1, 4), "srun-pmix"),
    "srun with PMI2, by its rank": (srun(5, 8, 1, 1, "4(x2)", PMI_RANK=5), (5, 8, 1, 4), "srun-pmi2"),
    "srun with PMI2, by its descriptor": (srun(5, 8, 1, 1, "4(x2)", PMI_FD=9), (5, 8, 1, 4), "srun-pmi2"),
    "srun, unequal nodes, last of the equal ones": (
        srun(3, 5, 1, 1, "2(x2),1", PMIX_RANK=3),
        (3, 5, 1, 2),
        "srun-pmix",
    ),
    "srun, unequal nodes, the odd one": (srun(4, 5, 0, 2, "2(x2),1", PMIX_RANK=4), (4, 5, 0, 1), "srun-pmix"),
    "srun, the odd node first": (srun(2, 3, 1, 1, "1,2", PMIX_RANK=2), (2, 3, 1, 2), "srun-pmix"),
    "srun on fewer nodes than the job": (
        srun(1, 2, 1, 0, "2", PMIX_RANK=1, SLURM_NTASKS=8, SLURM_TASKS_PER_NODE="4(x2)"),
        (1, 2, 1, 2),
        "srun-pmix",
    ),
    "srun -n 1 without PMI": (srun(0, 1, 0, 0, "1"), (0, 1, 0, 1), "none"),
    "the batch step of sbatch": (BATCH_STEP, (0, 1, 0, 1), "none"),
    "salloc's shell": ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, (0, 1, 0, 1), "none"),
}


@pytest.mark.parametrize(("environment", "place", "launcher"), PLACES.values(), ids=PLACES)
def test_place(environment, place, launcher):
    world = World.from_environment(environment)
    assert (world.rank, world.size, world.local_rank, world.local_size) == place
    assert (world.launcher, world.host) == (launcher, socket.gethostname())
    assert world.is_chief == (world.rank == 0)
    assert world.uses_mpi == (launcher in ("mpirun", "srun-pmix", "srun-pmi2"))


PTY = srun(0, 4, 0, 0, "4", SLURM_NTASKS=4)
ALONE = {
    "the shell of srun --pty": PTY,
    "the same, of a Slurm that brings PMIx by itself": PTY | {"PMIX_RANK": "0"},
    "the interactive step of salloc": PTY | {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
}


@pytest.mark.parametrize("environment", ALONE.values(), ids=ALONE)
@pytest.mark.parametrize("strategy", ("single", "mirrored"))
def test_one_process_in_a_shell_of_slurm_runs_alone(environment, strategy):
    world = World.from_environment(environment, strategy)
    assert (world.rank, world.size, world.launcher) == (0, 1, "none")


def test_other_tasks_of_a_step_do_not():
    with pytest.raises(WorldError, match="4 tasks without PMI"):
        World.from_environment(srun(1, 4, 1, 0, "4"), "single")


ODD = ("", " ", "x", "-1", "²", "٣", "1e3", "9" * 5000, "2(x0)", "0(x3)", "2(x999999999)", "4,", "\0")


@pytest.mark.parametrize("pmi", ({}, {"PMIX_RANK": "1"}, {"PMI_RANK": "1"}, {"PMI_FD": ""}))
def test_no_value_of_slurms_ends_in_anything_but_a_place_or_a_sentence(pmi):
    base = srun(1, 4, 1, 0, "4") | {"SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "4", "SLURM_JOB_ID": "7"}
    places = sentences = 0
    for environment in (base, {name: base[name] for name in base if not name.startswith("SLURM_STEP_NUM")}):
        for name in environment:
            for value in ODD:
                for changed in ({**environment, name: value}, {name: value}):
                    try:
                        World.from_environment(changed | pmi)
                        places += 1
                    except WorldError as error:
                        assert len(str(error).splitlines()) == 1
                        sentences += 1
    assert places and sentences


def test_the_one_that_speaks():
    assert speaks({}) and speaks(open_mpi(0, 2, 0, 2)) and speaks({"PMI_SIZE": "x"})
    assert not speaks(open_mpi(1, 2, 1, 2))


@pytest.mark.parametrize("size", (2, 5))
def test_every_rank_gets_a_place_of_its_own(size):
    for launch in (horovod, open_mpi):
        worlds = [World.from_environment(launch(rank, size, rank, size)) for rank in range(size)]
        assert [(world.rank, world.local_rank) for world in worlds] == [(rank, rank) for rank in range(size)]
        assert [world.is_chief for world in worlds] == [True] + [False] * (size - 1)


@pytest.mark.parametrize(
    ("environment", "words"),
    (
        (srun(0, 8, 0, 0, "4(x2)"), ("8 tasks without PMI", "8 separate", "--mpi=pmix")),
        (PTY, ("SLURM_STEP_NUM_TASKS=4, SLURM_PROCID=0", "srun --pty", "--strategy single")),
        (PTY | {"SLURM_STEP_NUM_TASKS": ""}, ("SLURM_NTASKS=4",)),
        (srun(0, 2, 0, 0, "2,x", PMIX_RANK=0), ("SLURM_STEP_TASKS_PER_NODE", "'2,x'", "2(x3),1")),
        (open_mpi(4, 4, 0, 4), ("rank 4 of 4", "clean shell", "OMPI_COMM_WORLD_RANK=4, OMPI_COMM_WORLD_SIZE=4")),
        (open_mpi(1, 4, 2, 2), ("local rank 2 of 2",)),
        (horovod(0, 2, 0, 3), ("local rank 0 of 3", "rank 0 of 2")),
        (open_mpi("one", 4, 0, 4), ("OMPI_COMM_WORLD_RANK", "'one'", "whole number")),
        (open_mpi(-1, 4, 0, 4), ("OMPI_COMM_WORLD_RANK", "'-1'")),
        ({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "a", "HOROVOD_SIZE": "2"}, ("HOROVOD_RANK", "''")),
        ({"PMI_SIZE": "2"}, ("PMI_RANK", "''")),
    ),
)
def test_contradictions_are_errors_of_one_sentence(environment, words):
    with pytest.raises(WorldError) as error:
        World.from_environment(environment)
    message = str(error.value)
    assert all(word in message for word in words) and "\n" not in message
