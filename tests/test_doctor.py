"""launch/doctor.py: on one process, on two, and where things are broken; Slurm: test_slurm_cluster.py."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import BIN, ROOT, environment, run_command
from rights import rights

from launch.diagnosis import findings, machine, software, storage, table
from launch.doctor import create_parser

pytestmark = pytest.mark.timeout(1100)  # the first one waits for the doctor on one process and on two

DOCTOR = ROOT / "launch" / "doctor.py"
PRECISIONS = {"float32", "bfloat16", "float16"}


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_data):
    """What it prints and writes on one process and on two: name -> (exit code, lines, JSON)."""
    folder, results = tmp_path_factory.mktemp("doctor"), {}
    for name, launcher in (("one", ()), ("two", ("horovodrun", "-np", "2"))):
        words = ("--data-dir", tiny_data.parent, "--run-dir", folder / "run", "--json", folder / f"{name}.json")
        ended = run_command(*launcher, BIN / "python", DOCTOR, *words, timeout=500)
        lines = [re.sub(r"^\[1,\d+\]<stdout>:", "", line) for line in ended.stdout.splitlines()]
        assert "Traceback" not in ended.stderr, ended.stderr
        results[name] = (ended.returncode, lines, json.loads((folder / f"{name}.json").read_text()))
    assert not (folder / "run").exists()
    return results


def row(lines: list[str], name: str) -> str:
    (found,) = [line for line in lines if line[2:].startswith(f"{name} ")]
    return found


@pytest.mark.parametrize("name", ("one", "two"))
def test_a_sound_machine_is_ready(done, name):
    code, lines, numbers = done[name]
    assert code == 0 and lines[-1].startswith("ready") and numbers["ready"]
    assert not any(line.startswith("x ") for line in lines)
    measured = ("host", "cores", "device", "Horovod", "MPI", "JPEG decoding", "data folder", "run folder", "free space")
    for name in measured:
        assert row(lines, name)


def test_the_numbers_are_those_that_the_cost_model_reads(done):
    for name, ranks in (("one", 1), ("two", 2)):
        numbers = done[name][2]
        assert (numbers["ranks"], numbers["per_host"]) == (ranks, ranks) and numbers["device"]
        assert set(numbers["matmul_tflops"]) == PRECISIONS and all(
            rate > 0 for rate in numbers["matmul_tflops"].values()
        )
        assert [fact["rank"] for fact in numbers["facts"]] == list(range(ranks))
        slowest = min(fact["matmul_tflops"]["float32"] for fact in numbers["facts"])
        assert numbers["matmul_tflops"]["float32"] == slowest
    assert done["one"][2]["allreduce"] is None and done["one"][2]["allgather"] is None
    for collective in ("allreduce", "allgather"):
        measured = done["two"][2][collective]
        # None where more bytes took no longer.
        assert measured["latency_s"] >= 0 and (measured["bytes_per_s"] is None or measured["bytes_per_s"] > 0)
    assert abs(done["two"][2]["facts"][1]["clock"]) < 1.0


def test_a_home_directory_is_one_in_each_flag(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    options = create_parser().parse_args(["--data-dir=~/a", "--run-dir=$HOME/b", "--json=~/c"])
    assert [options.data_dir, options.run_dir, options.json] == [Path("/somewhere") / name for name in "abc"]


def broken_tensorflow(folder: Path) -> dict[str, str]:
    """Variables with which TensorFlow fails as it does where a library is missing."""
    (folder / "tensorflow.py").write_text(
        'try:\n    raise ImportError("libcudart.so.12: cannot open")\n'
        'except ImportError:\n    raise ImportError("pages")\n'
    )
    return {"PYTHONPATH": str(folder)}


def test_whatever_is_broken_is_a_line_and_all_of_it_is_said_at_once(tmp_path):
    words = ("--data-dir", tmp_path / "nowhere", "--run-dir", "/proc/runs", "--json", tmp_path / "doctor.json")
    ended = run_command(BIN / "python", DOCTOR, *words, **broken_tensorflow(tmp_path))
    assert (ended.returncode, ended.stderr) == (2, "")
    mended = ended.stdout.partition("to mend:\n")[2].splitlines()
    assert [line.partition(":")[0].strip() for line in mended] == ["data folder", "run folder", "TensorFlow"]
    assert "nowhere cannot be read (No such file or directory)" in mended[0]
    assert "/proc cannot be written" in mended[1]
    assert "TensorFlow does not load (ImportError: libcudart.so.12: cannot open): make setup" in mended[2]
    numbers = json.loads((tmp_path / "doctor.json").read_text())
    assert not numbers["ready"] and numbers["matmul_tflops"] == {} and len(numbers["findings"]) == 3


def test_a_rank_that_cannot_go_on_speaks_for_itself(tmp_path):
    """The other one waits for it in Horovod, and is ended."""
    variables = broken_tensorflow(tmp_path)
    (tmp_path / "tensorflow.py").write_text(
        "import os, sys\nif os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n    raise ImportError('lost')\n"
        f"sys.path.remove({str(tmp_path)!r})\ndel sys.modules['tensorflow']\nimport tensorflow\n"
    )
    ended = run_command("horovodrun", "-np", "2", BIN / "python", DOCTOR, "--run-dir", tmp_path, **variables)
    assert ended.returncode == 2 and "Traceback" not in ended.stdout + ended.stderr
    assert re.search(r"rank 1 on \S+: +TensorFlow: TensorFlow does not load \(ImportError: lost\)", ended.stdout)


def test_tasks_without_pmi_are_a_line(tmp_path):
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    ended = run_command(BIN / "python", DOCTOR, "--run-dir", tmp_path, **slurm)
    assert ended.returncode == 2 and "x launcher" in ended.stdout and "--mpi=pmix" in ended.stdout.splitlines()[-1]


def test_a_full_disk_is_a_sentence(tmp_path):
    """The kernel lets no file grow beyond a part of what is tried."""
    code = f"from pathlib import Path; from launch.diagnosis import storage; storage.write(Path({str(tmp_path)!r}))"
    command = f"trap '' XFSZ; ulimit -f 2000; exec {BIN}/python -c \"{code}\""
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert "storage.FolderError: " in ended.stderr and f"{tmp_path} " in ended.stderr, ended.stderr
    assert "free some space" in ended.stderr.splitlines()[-1] and list(tmp_path.iterdir()) == []


def test_a_folder_without_rights_is_a_sentence(tmp_path):
    (tmp_path / "locked").mkdir()
    with rights(tmp_path / "locked", 0):
        with pytest.raises(storage.FolderError, match="locked cannot be read"):
            storage.read(tmp_path, 0, 1)
        with pytest.raises(storage.FolderError, match="locked cannot be written"):
            storage.write(tmp_path / "locked/runs/one")


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(storage.FolderError, match="holds no files"):
        storage.read(tmp_path, 0, 1)


def test_ranks_read_files_of_their_own(tmp_path):
    for size in range(1, 9):
        (tmp_path / f"{size}.jpg").write_bytes(bytes(10 ** (size % 4 + 1)))
    by_rank = [storage.read(tmp_path, rank, 2) for rank in range(2)]
    assert [reads["files"] for reads in by_rank] == [4, 4]
    assert sum(reads["bytes"] for reads in by_rank) == sum(path.stat().st_size - 1 for path in tmp_path.iterdir())


CARD = {"name": "A", "capability": "8.0", "bus_id": "0000:01:00.0", "id": "uuid-0"}
SOUND = {
    **{"rank": 0, "local_rank": 0, "local_size": 2, "size": 2, "host": "n1", "launcher": "mpirun", "problems": {}},
    **{"launchers_on_path": ["mpirun"], "cores": [0, 1, 2, 3], "threads": 4, "cores_of_host": 8, "cores_warnings": []},
    **{"numa": [0], "cpu": "x", "memory": 1e9, "memory_available": 1e9, "shared_memory": 1 << 30, "open_files": 4096},
    **{"locked_memory": None, "infiniband": True, "card": CARD, "cards": []},
    **{"cards_problem": None, "slurm": {}, "variables": {}, "gpu": "A", "compute_capability": "8.0", "gpus_seen": 2},
    **{"device_kind": "GPU", "cuda_build": True, "built": {"CUDA": "12.5.1"}, "tf32": True},
    **{"loaded": {"CUDA": {"version": "12.5", "file": "/v/libcudart.so.12"}}, "versions": {"numpy": "2"}, "mpi": "M"},
    "horovod": {"version": "0.28.1", "mpi": True, "gloo": True, "nccl": "2.21.5"},
    **{"matmul_tflops": {"float32": 19.0}, "jpeg_per_second": 300.0, "clock": 0.001},
    "read": {"files": 100, "bytes": 11_000_000, "bytes_per_second": 1e9, "files_per_second": 9000.0, "opening": 1e-4},
    "write": {"folder": "/r", "bytes_per_second": 1e9, "flush": 1e-3, "free": 1e12},
}
OLD_NCCL = {"NCCL": {"version": "2.18.3", "file": "/opt/libnccl.so.2"}}
# What is changed on rank 1 alone: the row that is marked, with what, and words of the remedy.
HURTS = {
    "no launcher": ({"launcher": "none", "launchers_on_path": []}, "launcher", "!", "source .venv/bin/activate"),
    "no NCCL": ({"horovod": SOUND["horovod"] | {"nccl": None}}, "Horovod", "x", "make setup GPU=1"),
    "no MPI": ({"horovod": SOUND["horovod"] | {"mpi": False}}, "Horovod", "x", "built without MPI"),
    "old NCCL": ({"loaded": OLD_NCCL}, "Horovod", "x", "/opt/libnccl.so.2 is 2.18.3: unset LD_LIBRARY_PATH"),
    "old CUDA": ({"loaded": {"CUDA": {"version": "11.8", "file": "/c"}}}, "CUDA", "x", "/c is 11.8"),
    "versions": ({"versions": {"numpy": "1"}}, "versions", "x", "the same .venv on all hosts"),
    "MPIs": ({"mpi": "other"}, "MPI", "x", "the same MPI"),
    "cores": ({"cores_warnings": ["bound to one"]}, "cores", "!", "bound to one"),
    "open files": ({"open_files": 256}, "open files", "!", "ulimit -n"),
    "shared memory": ({"shared_memory": 64 << 20}, "shared memory", "!", "--shm-size"),
    "locked memory": ({"locked_memory": 65536}, "locked memory", "!", "memlock=-1"),
    "library path": ({"variables": {"LD_LIBRARY_PATH": "/x"}}, "variables", "!", "unset LD_LIBRARY_PATH"),
    "slow data": ({"read": SOUND["read"] | {"files_per_second": 20.0}}, "data folder", "!", "launch/prepare.py"),
    "slow flush": ({"write": SOUND["write"] | {"flush": 0.5}}, "run folder", "!", "--run-dir"),
    "no space": ({"write": SOUND["write"] | {"free": 1e9}}, "free space", "!", "--run-dir"),
    "clock": ({"clock": -3.0}, "clock", "!", "chrony"),
    "slow rank": ({"matmul_tflops": {"float32": 9.0}}, "float32 products", "!", "wait for the slowest"),
    "problem": ({"problems": {"data folder": "D cannot be read"}}, "data folder", "x", "D cannot be read"),
}


def two_ranks(**changes) -> list[dict]:
    return [SOUND, SOUND | {"rank": 1, "local_rank": 1, "card": CARD | {"id": "uuid-1"}} | changes]


def test_two_sound_ranks_have_nothing_to_mend():
    assert findings.judge(two_ranks()) == []
    lines = table.lines(two_ranks(), [])
    assert lines[-1] == "ready" and not any(line.startswith(("x", "!")) for line in lines)


@pytest.mark.parametrize("name", HURTS)
def test_what_hurts_is_marked_with_the_remedy(name):
    changes, marked, mark, words = HURTS[name]
    ranks = two_ranks(**changes)
    found = [finding for finding in findings.judge(ranks) if words in finding.text]
    assert [(finding.row, finding.fatal, 1 in finding.ranks) for finding in found] == [(marked, mark == "x", True)]
    lines = table.lines(ranks, found)
    assert [line[:2] for line in lines if line[2:].startswith(f"{marked} ")] == [f"{mark} "]
    assert any(words in line and "->" in line for line in lines)
    assert ("to mend:" in lines) == (mark == "x") and lines[-1].startswith("ready") == (mark == "!")


def test_every_rule_has_its_case():
    tried = {id(rule) for changes, *_ in HURTS.values() for rule in findings.RULES if list(rule(two_ranks(**changes)))}
    # Of one process alone.
    assert list(findings.unused_cards([SOUND | {"size": 1}]))
    assert [rule.__name__ for rule in findings.RULES if id(rule) not in tried] == ["unused_cards"]


def test_a_rank_that_could_not_load_anything_is_judged_too():
    bare = {name: SOUND[name] for name in machine_facts()}
    found = findings.judge([bare | {"problems": {"TensorFlow": "does not load"}}])
    assert [finding.row for finding in found] == ["TensorFlow"]
    assert table.lines([bare], found)[-1].strip() == "TensorFlow: does not load"


def machine_facts() -> list[str]:
    from distributed.world import World

    return [*machine.facts(World(host="n1"), cpu=False), "problems"]


def test_many_ranks_share_lines():
    ranks = [SOUND | {"rank": rank, "host": f"n{rank // 8}"} for rank in range(512)]
    lines = table.lines(ranks, [])
    hosts = [line for line in lines if re.match(r"  (host)? +n\d", line)]
    assert hosts[0].split() == ["host", "n0", "[ranks", "0-7]"] and len(hosts) == table.SHOWN
    assert "... and 56 more" in "\n".join(lines) and len(lines) < 60


def test_what_nvidia_smi_prints_is_read():
    text = (
        "0, NVIDIA A100-SXM4-80GB, GPU-1, 00000000:3B:00.0, 81920, 550.54, Disabled\n"
        "1, B, GPU-2, 1:2, [N/A], 550.54, [N/A]\n"
    )
    first, second = machine.parse_cards(text)
    assert (first["name"], first["memory.total"], first["driver_version"]) == (
        "NVIDIA A100-SXM4-80GB",
        81920 << 20,
        "550.54",
    )
    assert second["memory.total"] is None


def test_loaded_libraries_are_read_from_the_processes_map():
    maps = (
        "7f1-7f2 r-xp 00000000 08:01 12   /v/nvidia/cuda_runtime/lib/libcudart.so.12\n"
        "7f3-7f4 r--p 00000000 08:01 13   /usr/lib/libcuda.so.550.54\n7f5-7f6 rw-p 00000000 00:00 0\n"
        "7f7-7f8 r-xp 00000000 08:01 14   /v/nvidia/nccl/lib/libnccl.so.2\n"
    )
    assert software.loaded_libraries(maps) == {
        "CUDA": "/v/nvidia/cuda_runtime/lib/libcudart.so.12",
        "driver's CUDA": "/usr/lib/libcuda.so.550.54",
        "NCCL": "/v/nvidia/nccl/lib/libnccl.so.2",
    }
    assert (software.dotted(12050, "CUDA"), software.dotted(22105, "NCCL")) == ("12.5", "2.21.5")


def test_variables_that_decide_are_told():
    given = {"NCCL_DEBUG": "INFO", "OMPI_MCA_pml": "ob1", "OMPI_MCA_ess_x": "y", "HOME": "/h", "TF_CLI": "no"}
    assert machine.telling(given) == {"NCCL_DEBUG": "INFO", "OMPI_MCA_pml": "ob1"}
