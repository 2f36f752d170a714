"""File systems that cannot bring folders to the disk are warned about once; a disk that fails is an error."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from shared_libraries import compile_library

# Stands before the C library's: of folders it answers as such a file system does.
FSYNC = """
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
extern "C" int fsync(int file) {
    struct stat entry;
    if (fstat(file, &entry) == 0 && S_ISDIR(entry.st_mode)) { errno = atoi(getenv("FSYNC_ERROR")); return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}
"""
SAVE = """
import sys
from pathlib import Path
import numpy as np
from distributed.checkpoint import manager
from distributed.checkpoint.commit import Checkpoint
for step in (1, 2, 3):
    manager.commit(Path(sys.argv[1]), step, Checkpoint({"w": np.ones(3)}, {}, {}), keep=2)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compile_library(tmp_path_factory.mktemp("fsync") / "libfsync.so", FSYNC, options=("-ldl",))


def save(library, folder, error):
    variables = {"LD_PRELOAD": str(library), "FSYNC_ERROR": str(error), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", SAVE, str(folder)]
    return subprocess.run(words, env=os.environ | variables, capture_output=True, text=True)


@pytest.mark.parametrize("name", ("EINVAL", "ENOTSUP", "EPERM"))
def test_a_file_system_that_refuses_is_warned_about_once(library, tmp_path, name):
    import errno

    done = save(library, tmp_path / "checkpoints", getattr(errno, name))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: ") == done.stderr.count("\n") == 1 and "refuses fsync of a folder" in done.stderr
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["last", "step-00000002", "step-00000003"]


def test_a_disk_that_fails_is_an_error(library, tmp_path):
    import errno

    done = save(library, tmp_path / "checkpoints", errno.EIO)
    assert done.returncode != 0 and "Input/output error" in done.stderr and "warning" not in done.stderr
