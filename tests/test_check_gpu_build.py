"""What is checked of a GPU build, on libraries that the compiler of make setup makes."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from launch.install import check_gpu_build
from tests.helpers.shared_libraries import compile_library

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """An NCCL in its wheel's place, and a TensorFlow that has one in it."""
    site = tmp_path_factory.mktemp("site")
    nccl = compile_library(site / "nvidia/nccl/lib/libnccl.so.2", 'extern "C" int ncclVersion() { return 1; }')
    tensorflow = compile_library(
        site / "tensorflow/libtensorflow_cc.so.2", 'extern "C" int ncclVersion() { return 2; }'
    )
    runtime = compile_library(site / "nvidia/cuda_runtime/lib/libcudart.so.12", "")
    return nccl, tensorflow, runtime


NCCL, TENSORFLOW, RUNTIME = range(3)
TO_NCCL = "-Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib"


@pytest.mark.parametrize(
    ("name", "linked", "options", "words"),
    (
        ("right", (NCCL, TENSORFLOW), (TO_NCCL,), None),
        ("late", (TENSORFLOW, NCCL), (TO_NCCL,), "linked with libtensorflow_cc.so.2 before libnccl.so.2"),
        ("without", (TENSORFLOW,), (TO_NCCL,), "is not linked with libnccl.so.2"),
        ("second_runtime", (NCCL, TENSORFLOW, RUNTIME), (TO_NCCL,), "is linked with libcudart.so"),
        ("lost", (NCCL, TENSORFLOW), (), "leads to no libnccl.so.2 instead of"),
    ),
)
def test_linkage(parts, name, linked, options, words):
    site = parts[NCCL].parents[3]
    library = site / "horovod" / "tensorflow" / f"{name}.so"
    compile_library(library, "", *(parts[index] for index in linked), options=options)
    if words is None:
        check_gpu_build.check_linkage(library, parts[NCCL])
    else:
        with pytest.raises(check_gpu_build.BuildError, match=words):
            check_gpu_build.check_linkage(library, parts[NCCL])


def test_another_nccl_on_the_way_is_named(parts, tmp_path):
    other = compile_library(tmp_path / "libnccl.so.2", "")
    library = tmp_path / "horovod.so"
    compile_library(library, "", other, parts[TENSORFLOW])
    with pytest.raises(check_gpu_build.BuildError, match=f"leads to {other} instead of {parts[NCCL]}"):
        check_gpu_build.check_linkage(library, parts[NCCL])


@pytest.mark.skipif(find_spec("nvidia") is not None, reason="this .venv was made with GPU=1")
def test_in_a_setup_for_cpus_it_says_what_is_missing():
    program = ROOT / "launch" / "install" / "check_gpu_build.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout.count("\n") == 1 and done.stderr == ""
    assert done.stdout.startswith("wrong: pinned packages: nvidia-cublas-cu12 is missing, 12.")
