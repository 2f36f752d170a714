"""Which of the facts will hurt a run, and what to do about it: pure functions of what all ranks found.

Each rule looks at one thing and gives what it has to say; the thresholds are below, each with its reason.  What keeps a
run from beginning at all, such as two ranks on one card, is found before by ``distributed.hardware.devices`` and comes
as a problem of the row "device".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

GB = 1e9
OPEN_FILES = 1024  # the usual limit; a pipeline, MPI and logs need a few hundred
SHARED_MEMORY = 256 << 20  # bytes in /dev/shm; a container's default of 64 MB is too little for NCCL and MPI
FREE = 5 * GB  # a few checkpoints of VGG16 with the optimizer's state, 1.1 GB each
FLUSH = 0.1  # seconds
CLOCKS = 1.0  # seconds; logs and files of several hosts are compared by their times
SLOWER = 0.7  # of the fastest rank's rate: all wait for the slowest
ONE_PICTURE = 1_000_000  # bytes; larger files hold many pictures

UNSET = "unset LD_LIBRARY_PATH, or load no CUDA module"


@dataclass(frozen=True)
class Finding:
    """Something that will hurt.

    Attributes:
        row: the row of the table that it is about.
        ranks: whom it concerns.
        fatal: whether a run would fail or be wrong, not only slow.
        text: what it is, and the remedy.
    """

    row: str
    ranks: tuple[int, ...]
    fatal: bool
    text: str


def judge(ranks: Sequence[dict]) -> list[Finding]:
    """What will hurt, worst first.

    Args:
        ranks: by rank, what the files beside this one have found; a rank that could not go on lacks some of it.
    """
    found = [finding for rule in RULES for finding in rule(ranks)]
    found += [Finding(row, (rank["rank"],), True, text) for rank in ranks for row, text in rank["problems"].items()]
    merged: dict[tuple, list[int]] = {}
    for finding in found:
        merged.setdefault((finding.row, finding.fatal, finding.text), []).extend(finding.ranks)
    findings = [Finding(row, tuple(sorted(who)), fatal, text) for (row, fatal, text), who in merged.items()]
    return sorted(findings, key=lambda finding: not finding.fatal)


def _where(ranks: Sequence[dict], row: str, fatal: bool, hurts: Callable[[dict], str | None]) -> Iterator[Finding]:
    """One finding for each rank about which ``hurts`` has something to say."""
    for rank in ranks:
        if text := hurts(rank):
            yield Finding(row, (rank["rank"],), fatal, text)


def launcher(ranks):
    def hurts(rank):
        if rank["launcher"] == "none" and not {"horovodrun", "mpirun"} & set(rank["launchers_on_path"]):
            return "neither horovodrun nor mpirun is on PATH: source .venv/bin/activate"

    return _where(ranks, "launcher", False, hurts)


def unused_cards(ranks):
    def hurts(rank):
        if rank["size"] == 1 and (count := rank.get("gpus_seen", 0)) > 1:
            return f"one of {count} GPUs was looked at: horovodrun -np {count} python launch/doctor.py looks at all"

    return _where(ranks, "device", False, hurts)


def nccl(ranks):
    def hurts(rank):
        if rank.get("device_kind") == "GPU" and rank["size"] > 1 and not rank["horovod"]["nccl"]:
            return "Horovod was built without NCCL, so that gradients travel over the host: make setup GPU=1"

    return _where(ranks, "Horovod", True, hurts)


def libraries(ranks):
    """Loaded versions that are not those that were compiled against."""

    def cuda(rank):
        built, loaded = rank.get("built", {}).get("CUDA"), rank.get("loaded", {}).get("CUDA")
        if built and loaded and built.partition(".")[0] != loaded["version"].partition(".")[0]:
            return f"TensorFlow was built with CUDA {built}, but {loaded['file']} is {loaded['version']}: {UNSET}"

    def nccl(rank):
        built, loaded = rank.get("horovod", {}).get("nccl"), rank.get("loaded", {}).get("NCCL")
        if built and loaded and _number(loaded["version"]) < _number(built):
            return f"Horovod was built with NCCL {built}, but {loaded['file']} is {loaded['version']}: {UNSET}"

    yield from _where(ranks, "CUDA", True, cuda)
    yield from _where(ranks, "Horovod", True, nccl)


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def no_mpi(ranks):
    def hurts(rank):
        if rank["launcher"] not in ("none", "horovodrun-gloo") and "horovod" in rank and not rank["horovod"]["mpi"]:
            return f"{rank['launcher']} started it, but Horovod was built without MPI: make clean, then make setup"

    return _where(ranks, "Horovod", True, hurts)


def mixture(ranks):
    """Ranks that differ in what decides the numbers: no run begins, or none ends with the same bits."""
    remedies = {
        "versions": ("versions", "the same .venv on all hosts"),
        "mpi": ("MPI", "the same MPI on all hosts"),
    }
    for fact, (row, remedy) in remedies.items():
        values = {str(rank.get(fact)) for rank in ranks}
        if len(values) > 1:
            yield Finding(row, tuple(rank["rank"] for rank in ranks), True, f"the ranks differ: take {remedy}")


def cores(ranks):
    for rank in ranks:
        for warning in rank["cores_warnings"]:
            yield Finding("cores", (rank["rank"],), False, warning)


def limits(ranks):
    def open_files(rank):
        if rank["open_files"] is not None and rank["open_files"] < OPEN_FILES:
            return f"fewer than {OPEN_FILES:,}: ulimit -n 4096 before the start"

    def shared_memory(rank):
        if rank["local_size"] > 1 and rank["shared_memory"] is not None and rank["shared_memory"] < SHARED_MEMORY:
            return "MPI and NCCL exchange through it: docker run --shm-size 1g, or free what is left in /dev/shm"

    def locked_memory(rank):
        if rank["infiniband"] and rank["size"] > 1 and rank["locked_memory"] is not None:
            return "InfiniBand needs it unlimited: ulimit -l unlimited, in Docker --ulimit memlock=-1"

    yield from _where(ranks, "open files", False, open_files)
    yield from _where(ranks, "shared memory", False, shared_memory)
    yield from _where(ranks, "locked memory", False, locked_memory)


def library_path(ranks):
    def hurts(rank):
        if rank.get("device_kind") == "GPU" and rank["variables"].get("LD_LIBRARY_PATH"):
            return f"its CUDA libraries may win over those that TensorFlow was installed with: {UNSET}"

    return _where(ranks, "variables", False, hurts)


def folders(ranks):
    def reading(rank):
        reads, decoded = rank.get("read"), rank.get("jpeg_per_second")
        if reads and decoded and reads["files"] and reads["bytes"] / reads["files"] < ONE_PICTURE:
            wanted = decoded * rank["threads"]
            if reads["files_per_second"] < wanted / 4:
                # Several are read at the same time; a quarter is what even that will not make up for.
                return (
                    "files are read far more slowly than they are decoded: make shards of them with launch/prepare.py, "
                    "or copy them to a local disk"
                )

    def writing(rank):
        if (written := rank.get("write")) and written["flush"] > FLUSH:
            return f"a flush takes more than {FLUSH} s, and logs and checkpoints flush: name a faster disk by --run-dir"

    def space(rank):
        if (written := rank.get("write")) and written["free"] < FREE:
            return f"under {FREE / GB:.0f} GB, a few checkpoints of VGG16: free some, or name another disk by --run-dir"

    yield from _where(ranks, "data folder", False, reading)
    yield from _where(ranks, "run folder", False, writing)
    yield from _where(ranks, "free space", False, space)


def clocks(ranks):
    def hurts(rank):
        if abs(rank.get("clock", 0.0)) > CLOCKS:
            return "clocks differ by more than a second: let chrony or ntpd set them"

    return _where(ranks, "clock", False, hurts)


def slow_ranks(ranks):
    rates = {rank["rank"]: rank["matmul_tflops"]["float32"] for rank in ranks if "matmul_tflops" in rank}
    for rank, rate in rates.items():
        if rate < SLOWER * max(rates.values()):
            text = f"less than {SLOWER:.0%} of the fastest rank, and all wait for the slowest: see what else runs there"
            yield Finding("float32 products", (rank,), False, text)


RULES = (
    launcher,
    unused_cards,
    nccl,
    libraries,
    no_mpi,
    mixture,
    cores,
    limits,
    library_path,
    folders,
    clocks,
)
RULES += (slow_ranks,)
