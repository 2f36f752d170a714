"""What can be checked of the setup in seconds and without a network: the pins, the choices, the stamp."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PINS = ("requirements.txt", "requirements-gpu.txt", "requirements-export.txt")
INSTALL = tuple(f"launch/install/{name}" for name in ("setup.sh", "horovodrun.py", "loopback.c"))


def stanzas(name):
    """The requirements of a pinned file: [(package, version, number of hashes)]."""
    joined = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = [(re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line), line) for line in lines]
    assert all(match for match, _ in found), "every requirement is pinned with =="
    return [(canonical(match[1]), match[2], line.count("--hash=sha256:")) for match, line in found]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", PINS)
def test_every_pin_has_hashes(name):
    assert [package for package, _, hashes in stanzas(name) if not hashes] == []


@pytest.mark.parametrize("name", PINS)
def test_no_host_is_named(name):
    options = r"://|^\s*(-i|--(extra-)?index-url|--find-links|--trusted-host)\b|@ "
    assert not re.search(options, (ROOT / name).read_text(), re.MULTILINE)


def test_pins_satisfy_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    pinned = {}
    for package, version, _ in stanzas("requirements.txt"):
        pinned.setdefault(package, []).append(version)
    for text in project["project"]["dependencies"] + groups["dev"] + groups["build"]:
        requirement = Requirement(text)
        versions = pinned.get(canonical(requirement.name), [])
        assert versions, f"{text} is in pyproject.toml but not in requirements.txt"
        assert all(requirement.specifier.contains(version) for version in versions), f"{text}, but pinned {versions}"


@pytest.fixture
def clone(tmp_path):
    """The files that the setup reads, and a .venv that it must not touch."""
    for name in (*PINS, "pyproject.toml", *INSTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "precious").touch()
    return tmp_path


@pytest.fixture
def bare(tmp_path):
    """A PATH with the plain tools only: no compiler, no nvcc and no MPI, wherever the test runs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("dirname", "cat", "sha256sum", "sed"):
        (programs / name).symlink_to(shutil.which(name))
    return programs


def setup(clone, path, **choices):
    environment = {"HOME": str(clone), "PATH": str(path)} | choices
    command = [shutil.which("bash"), "launch/install/setup.sh"]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    "choices, words",
    [
        ({"LOCKSTEP_MPI": "mpich"}, "LOCKSTEP_MPI is 'mpich'; it must be wheel or system"),
        ({"GPU": "yes"}, "GPU is 'yes'; it must be 0 or 1"),
        ({"GPU": "1"}, "nvcc is not on PATH"),
        ({"LOCKSTEP_MPI": "system"}, "mpirun or mpicxx is not on PATH"),
    ],
)
def test_a_choice_that_cannot_be_is_one_sentence(clone, bare, choices, words):
    for name in ("g++", "make"):
        (bare / name).symlink_to(shutil.which("true"))
    result = setup(clone, bare, **choices)
    assert result.returncode == 2
    assert words in result.stderr and result.stderr.count("\n") == 1
    assert [entry.name for entry in (clone / ".venv").iterdir()] == ["precious"]


def compiler(programs, says):
    """Put an nvcc on PATH that only says its version."""
    (programs / "nvcc").write_text(f"#!/bin/sh\necho '{says}'\n")
    (programs / "nvcc").chmod(0o755)


@pytest.mark.parametrize(
    "says, found",
    [
        ("Cuda compilation tools, release 13.0, V13.0.88", "is of CUDA 13.0, "),
        ("Cuda compilation tools, release 11.8, V11.8.89", "is of CUDA 11.8, "),
        ("Cuda compilation tools, release 120.1, V120.1.1", "is of CUDA 120.1, "),
        ("no such thing", "is of CUDA (nvcc --version names none), "),
    ],
)
def test_a_cuda_compiler_that_is_not_of_tensorflows_cuda_is_refused_before_anything_is_made(clone, bare, says, found):
    for name in ("g++", "make"):
        (bare / name).symlink_to(shutil.which("true"))
    compiler(bare, says)
    result = setup(clone, bare, GPU="1")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert f"{bare}/nvcc {found}and TensorFlow's libraries are of CUDA 12;" in result.stderr
    assert [entry.name for entry in (clone / ".venv").iterdir()] == ["precious"]


def finish(clone, choices):
    """Leave the stamp of a complete setup; its last three words are LOCKSTEP_MPI, GPU and EXPORT."""
    read = f"{clone}/.venv\n".encode() + b"".join(
        (clone / name).read_bytes() for name in (*PINS, *INSTALL)
    )
    (clone / ".venv" / "setup.stamp").write_text(f"{hashlib.sha256(read).hexdigest()}  - {choices}\n")


@pytest.mark.parametrize(
    "made, asked", [("wheel 0 0", {}), ("system 1 1", {}), ("system 0 0", {"LOCKSTEP_MPI": "system"})]
)
def test_a_second_run_does_nothing(clone, bare, made, asked):
    """Where LOCKSTEP_MPI or GPU is not given, the .venv stays what it was made with."""
    finish(clone, made)
    result = setup(clone, bare, **asked)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (clone / ".venv" / "precious").exists()


def test_one_that_failed_goes_on_with_what_was_asked_for(clone, bare):
    """The packages cannot be fetched; the next setup, asked for nothing, still looks for nvcc."""
    for name in ("g++", "make"):
        (bare / name).symlink_to(shutil.which("true"))
    compiler(bare, "Cuda compilation tools, release 12.9, V12.9.86")
    for name in ("awk", "tail"):
        (bare / name).symlink_to(shutil.which(name))
    (bare / "python3").symlink_to(Path(sys.executable).resolve())
    failed = setup(clone, bare, GPU="1", PIP_NO_INDEX="1")
    assert failed.returncode == 2 and "installing uv failed" in failed.stderr, failed.stderr
    (bare / "nvcc").unlink()
    assert "GPU=1, but nvcc is not on PATH" in setup(clone, bare).stderr


def test_a_path_with_a_space_is_refused_before_anything_is_made(tmp_path, clone, bare):
    moved = clone.rename(tmp_path.with_name("my projects"))
    result = setup(moved, moved / "programs")
    assert result.returncode == 2 and "has a space in it" in result.stderr
    assert [entry.name for entry in (moved / ".venv").iterdir()] == ["precious"]


@pytest.mark.parametrize("killed", [True, False])
def test_a_wheel_has_its_name_in_the_cache_only_when_all_of_it_is_there(tmp_path, killed):
    """A copy to another disk is cut short, as by a kill or by a full disk."""
    (tmp_path / "horovod-1.whl").write_text("whole wheel")
    (tmp_path / "cp").write_text(f"#!/bin/sh\nprintf whole >\"$2\"\n{'kill -9 $PPID' if killed else 'exit 1'}\n")
    (tmp_path / "cp").chmod(0o755)
    line = "eval \"$(sed -n '/^keep_wheel()/,/^}/p' $SETUP)\"; keep_wheel cache horovod-*.whl"
    environment = os.environ | {"SETUP": str(ROOT / "launch/install/setup.sh")}
    cut = environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for variables, code, found in ((cut, -9 if killed else 1, []), (environment, 0, ["whole wheel"])):
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=variables)
        assert done.returncode == code
        assert [path.read_text() for path in (tmp_path / "cache").glob("horovod-*.whl")] == found


@pytest.mark.parametrize(
    "change",
    ["requirements.txt", *INSTALL, "GPU", "no stamp", "place"],
)
def test_a_change_begins_a_new_setup(clone, bare, change):
    finish(clone, "wheel 0 0")
    if change == "no stamp":
        (clone / ".venv" / "setup.stamp").unlink()
    elif change == "place":
        clone = clone.rename(clone.with_name("elsewhere"))
        bare = clone / "programs"
    elif change != "GPU":
        with (clone / change).open("a") as file:
            file.write("\n# changed\n")
    result = setup(clone, bare, **({"GPU": "1"} if change == "GPU" else {}))
    # A setup that begins finds no compiler here.
    assert result.returncode == 2 and "needs g++ and make" in result.stderr


@pytest.mark.parametrize(
    ("choices", "workers"),
    (
        (["GPUS="], 2),
        (["GPUS=/dev/nvidia0"], 1),
        (["GPUS=/dev/nvidia0 /dev/nvidia1 /dev/nvidia10"], 3),
        (["GPUS=/dev/nvidia0", "WORKERS=4"], 4),
    ),
)
def test_make_train_takes_a_worker_per_gpu(choices, workers):
    words = ["make", "-n", "train", *choices]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"horovodrun -np {workers} python" in shown
