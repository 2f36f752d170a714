"""Whose CUDA libraries a process gets where a cluster's module has put its own on LD_LIBRARY_PATH: real libraries, of
one function each, that the compiler of make setup makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.job.environment.cuda_libraries import load_first
from tests.helpers.shared_libraries import compile_library

ROOT = Path(__file__).resolve().parent.parent
WHEEL, MODULE = 1, 2


def answers(function, value):
    return f'extern "C" int {function}() {{ return {value}; }}'


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Wheels and a module with libcublas, which needs libcublasLt, and libcudart; NVRTC is in the wheels alone."""
    wheels, module = tmp_path_factory.mktemp("wheels") / "nvidia", tmp_path_factory.mktemp("module")
    for owner, place in ((WHEEL, lambda package: wheels / package / "lib"), (MODULE, lambda _: module)):
        blas = place("cublas")
        basis = compile_library(blas / "libcublasLt.so.12", answers("basis", owner))
        calls = f'extern "C" int basis();{answers("whose", "basis()")}'
        compile_library(blas / "libcublas.so.12", calls, basis)
        compile_library(place("cuda_runtime") / "libcudart.so.12", answers("whose", owner))
    compile_library(wheels / "cuda_nvrtc" / "lib" / "libnvrtc.so.12", answers("whose", WHEEL))
    return wheels, module


def owners(folders, names, *, first):
    """Whom the libraries belong to that a process opens by these names; 0 where there is none."""
    wheels, module = folders
    code = f"""
import ctypes, sys
from pathlib import Path
from launch.job.environment.cuda_libraries import load_first
if {first}:
    load_first(Path({str(wheels)!r}))
for name in {names!r}:
    try:
        print(ctypes.CDLL(name).whose())
    except OSError:
        print(0)
"""
    environment = os.environ | {"LD_LIBRARY_PATH": str(module), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [int(line) for line in done.stdout.split()]


def test_the_wheels_come_before_a_module(folders):
    """Also for what a library is linked with, though the alphabet would load libcublas first."""
    names = ["libcublas.so.12", "libcudart.so.12", "libnvrtc.so.12"]
    assert owners(folders, names, first=False) == [MODULE, MODULE, 0], "the danger is there"
    assert owners(folders, names, first=True) == [WHEEL, WHEEL, WHEEL]


def test_what_no_module_replaces_is_left_to_tensorflow(folders, monkeypatch, tmp_path):
    wheels, _ = folders
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{tmp_path / 'missing'}:")
    assert [path.name for path in load_first(wheels)] == ["libnvrtc.so.12"]


def test_a_setup_for_cpus_loads_nothing(tmp_path):
    assert load_first(tmp_path) == []


def test_one_that_does_not_load_is_named(tmp_path, capfd):
    broken = tmp_path / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
    broken.parent.mkdir(parents=True)
    broken.write_text("no library\n")
    load_first(tmp_path)
    assert f"warning: {broken} does not load" in capfd.readouterr().err
