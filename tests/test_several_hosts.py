"""horovodrun on several machines, and where it cannot start: a stand-in for ssh runs what it is given on this machine,
in a bare environment, as the shell that the real one opens."""

import json
import sys

import pytest
from conftest import BIN, ROOT, environment, run_command, summary

# The file of this checkout, not the copy that its .venv was set up with.
HOROVODRUN = (sys.executable, ROOT / "launch" / "install" / "horovodrun.py")
HOSTS = ("-H", "127.0.0.2:1,127.0.0.3:1", "--network-interfaces", "lo")
# As docs/clusters.md has it.
MPIRUN = ("mpirun", "--allow-run-as-root", "-np", 2, "-H", "127.0.0.2:1,127.0.0.3:1", "--prefix", BIN.parent)
MPIRUN += ("--bind-to", "none", "--mca", "btl_tcp_if_include", "lo", "--mca", "oob_tcp_if_include", "lo")
SSH = """#!/bin/sh
host=
while [ $# -gt 0 ]; do
    case $1 in
        -o | -p | -i) shift 2 ;;
        -*) shift ;;
        *) [ -z "$host" ] || break; host=$1; shift ;;
    esac
done
case $host in 127.0.0.[23]) ;; *) echo "ssh: connect to host $host port 22: Connection refused" >&2; exit 255 ;; esac
exec env -i HOME=/ PATH=/usr/bin:/bin sh -c "$*"
"""
REPORT = """
import json, os, sys
names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OPAL_PREFIX", "MINE")
report = [os.environ.get(name) for name in names] + [sys.prefix]
open(f"{sys.argv[1]}/{report[0]}.json", "w").write(json.dumps(report))
"""


@pytest.fixture
def path(tmp_path):
    """A PATH on which the stand-in comes first."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    return f"{programs}:{environment()['PATH']}"


def reports(folder, *launcher, **variables):
    """What two ranks found, by rank."""
    done = run_command(*HOROVODRUN, "-np", 2, *launcher, "python", "-c", REPORT, folder, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


needs_the_wheel = pytest.mark.skipif(
    not (BIN.parent / "lib" / "libmpi.so").exists(), reason="this .venv uses the system's MPI, which all machines have"
)


@needs_the_wheel
def test_ranks_on_other_machines_find_the_wheels_mpi(path, tmp_path):
    prefix = str(BIN.parent)
    found = reports(tmp_path, *HOSTS, PATH=path, MINE="handed over")
    assert found == [[str(rank), "2", prefix, "handed over", prefix] for rank in range(2)]


@needs_the_wheel
@pytest.mark.faults
@pytest.mark.parametrize(
    "launcher",
    (
        pytest.param((*HOROVODRUN, "-np", 2, *HOSTS), id="horovodrun"),
        pytest.param(MPIRUN, id="mpirun", marks=pytest.mark.thorough),
    ),
)
def test_two_machines_train(path, tmp_path, tiny_data, launcher):
    line = ("--dataset", "npz", "--data-dir", tiny_data, "--steps-per-epoch", 2, "--epochs", 1, "--batch-size", 8)
    line += ("--run-dir", tmp_path / "run")
    done = run_command(*launcher, "python", ROOT / "launch" / "train.py", *line, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = summary(tmp_path / "run")
    assert (facts["strategy"], facts["world_size"], facts["steps"]) == ("horovod", 2, 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    (
        (
            ("-np", 3, "-H", "127.0.0.2:1,127.0.0.8:1,127.0.0.9:1"),
            ("127.0.0.8 (ssh: connect to host 127.0.0.8 port 22: Connection refused), 127.0.0.9 (", "`ssh HOST true`"),
        ),
        (("-np", 2, "-H", "localhost,node2"), ("Invalid host input", "worker-0:2")),
        (("-np", 2, "--hostfile", "/none.txt"), ("/none.txt",)),
    ),
    ids=("unreachable", "no slots", "no hostfile"),
)
def test_what_cannot_start_is_one_sentence(path, flags, words):
    done = run_command(*HOROVODRUN, *flags, "python", "-c", "1", PATH=path)
    assert done.returncode == 2 and all(word in done.stderr for word in words), done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("shell", "words"),
    (
        ("ulimit -n 40; exec", ("only 40 files may be open, but 2 ranks need 44", "ulimit -n")),
        ("TMPDIR=/proc/none exec", ("temporary files in /proc/none", "No such file or directory", "set TMPDIR")),
    ),
)
def test_limits_are_looked_at_before_open_mpi_meets_them(shell, words):
    line = " ".join(str(word) for word in (*HOROVODRUN, "-np", 2, "true"))
    done = run_command("bash", "-c", f"{shell} {line}")
    assert done.returncode == 2 and all(word in done.stderr for word in words), done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_a_soft_limit_of_open_files_is_no_limit():
    line = " ".join(str(word) for word in (*HOROVODRUN, "-np", 2, "true"))
    assert run_command("bash", "-c", f"ulimit -S -n 30; exec {line}", timeout=240).returncode == 0


def test_no_home_is_needed(tmp_path):
    assert [report[0] for report in reports(tmp_path, HOME="/proc/none")] == ["0", "1"]
