"""What the driver says of the GPUs, with a stand-in for its library; and that a GPU which TensorFlow cannot use does
not go unnoticed."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import HELPERS, run_command, summary

from distributed.hardware import cuda

DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    return visible && !strcmp(visible, "-1") ? 100 : FAILS;
}
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = 7 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Stand-in %d", device); return 0; }
int cuDeviceGetPCIBusId(char *id, int size, int device) { snprintf(id, size, "0000:3%X:00.0", device + 3); return 0; }
int cuDeviceGetUuid(char *id, int device) { memset(id, device, 16); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute - 75 + device; return 0; }
"""


def compile_driver(folder, fails=0):
    """A folder in which libcuda.so.1 is a stand-in with two GPUs."""
    folder.mkdir()
    compiler = shutil.which("gcc") or shutil.which("g++")
    words = [compiler, "-x", "c", "-shared", "-fPIC", f"-DFAILS={fails}", "-o", folder / "libcuda.so.1", "-"]
    subprocess.run(words, input=DRIVER, text=True, check=True)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return compile_driver(tmp_path_factory.mktemp("driver") / "works")


def test_cards_as_the_driver_lists_them(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "DRIVER", str(driver / "libcuda.so.1"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cuda.cards() == [
        cuda.Card("Stand-in 7", "7.8", "0000:3a:00.0", "07070707-0707-0707-0707-070707070707"),
        cuda.Card("Stand-in 8", "8.9", "0000:3b:00.0", "08080808-0808-0808-0808-080808080808"),
    ]
    broken = compile_driver(tmp_path / "broken", fails=803) / "libcuda.so.1"
    (tmp_path / "empty.so").touch()
    for name in (broken, tmp_path / "none.so", tmp_path / "empty.so"):
        monkeypatch.setattr(cuda, "DRIVER", str(name))
        assert cuda.cards() == []


LOG = "2026-11-29 12:00:00.4: I dso_loader.cc:84] Could not load dynamic library '{0}'; dlerror: {0}: {1}\n"
ABSENT = "cannot open shared object file: No such file or directory"
LOGS = {
    "libraries": (
        LOG.format("libcudart.so.12", ABSENT) * 2
        + LOG.format("libcudnn.so.9", f"{ABSENT}; LD_LIBRARY_PATH: /usr/lib")
        + LOG.format("libcublas.so.12", "file too short")
        + "E cuda_driver.cc:152] failed call to cuInit: UNKNOWN ERROR (303)\n",
        [f"libcudart.so.12, libcudnn.so.9: {ABSENT}", "libcublas.so.12: file too short"],
    ),
    "driver": (
        "E cuda_driver.cc:152] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (34)\n"
        "I cuda_diagnostics.cc:321] kernel version 535.1.0 does not match DSO version 550.2.0 -- cannot find working "
        "devices in this configuration\n",
        [
            "kernel version 535.1.0 does not match DSO version 550.2.0 -- cannot find working devices in this "
            "configuration",
            "the driver does not start: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (34)",
        ],
    ),
    "nothing": ("I cpu_feature_guard.cc:210] This TensorFlow binary is optimized\n", []),
}


@pytest.mark.parametrize(("log", "complaints"), LOGS.values(), ids=LOGS)
def test_what_tensorflows_log_complains_of(log, complaints):
    assert cuda.read_complaints(log) == complaints


@pytest.mark.parametrize(
    ("machine", "build", "environment", "log", "words"),
    (
        (False, None, {}, "", None),
        (False, "LOCKSTEP_MPI=wheel\nGPU=0\n", {}, "", None),
        (True, "GPU=0", {}, LOG.format("libcudnn.so.9", ABSENT), ("nvidiactl exists", "libcudnn.so.9:", "GPU=1,")),
        (True, "GPU=1", {}, LOG.format("libcudnn.so.9", ABSENT), ("make clean and make setup GPU=1 again",)),
        (False, "LOCKSTEP_MPI=wheel\nGPU=1\n", {}, LOG.format("libcuda.so.1", ABSENT), ("made with", "--gpus all")),
        (True, "GPU=1", {}, "failed call to cuInit: NO WAY\n", ("not start: NO WAY; see what nvidia-smi",)),
        (True, "GPU=1", {}, "", ("does not say why", "nvidia-smi")),
        (True, "GPU=1", {"CUDA_VISIBLE_DEVICES": ""}, "", ("CUDA_VISIBLE_DEVICES='' hides", "scheduler")),
        (False, "GPU=1", {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "", ("'NoDevFiles' hides",)),
    ),
)
def test_why_there_is_no_gpu(tmp_path, monkeypatch, machine, build, environment, log, words):
    device, setup = tmp_path / "nvidiactl", tmp_path / "setup.txt"
    if machine:
        device.touch()
    if build:
        setup.write_text(build)
    monkeypatch.setattr(cuda, "CONTROL_DEVICE", device)
    monkeypatch.setattr(cuda, "SETUP", setup)
    monkeypatch.setattr(cuda, "cards", list)
    monkeypatch.setattr(cuda, "_tensorflow_log", lambda: log)
    sentence = cuda.why_no_gpu(environment)
    assert (sentence is None) == (words is None)
    assert all(word in sentence for word in (*(words or ()), "--cpu")) if words else True


def test_a_gpu_that_tensorflow_cannot_use_ends_the_run_unless_the_cpu_is_meant(driver, tmp_path, tiny_data):
    """The driver is a stand-in, the rest is real: TensorFlow finds it, but not CUDA's libraries, and says which."""
    line = f"--dataset npz --data-dir {tiny_data} --epochs 1 --steps-per-epoch 1 --batch-size 8 --run-dir {tmp_path}/"
    lines = {"silent": f"{line}silent".split(), "meant": f"{line}meant --cpu".split()}
    (tmp_path / "jobs.json").write_text(json.dumps({"lines": lines, "plants": {}}))
    done = run_command(
        sys.executable, HELPERS / "jobs.py", tmp_path, LD_LIBRARY_PATH=str(driver), CUDA_VISIBLE_DEVICES="0"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "codes.json").read_text()) == {"silent": 2, "meant": 0}, done.stderr
    (said,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert "the driver shows 2, the first of them Stand-in 7" in said and "--cpu" in said
    assert "libcudart.so.12" in said and "libcudnn.so.9" in said and "make setup GPU=1" in said
    assert not (tmp_path / "silent").exists() and summary(tmp_path / "meant")["steps"] == 1
