"""The CUDA libraries that TensorFlow and Horovod get are those of the wheels, before TensorFlow is loaded.

The loader searches LD_LIBRARY_PATH before the RUNPATH of TensorFlow's and Horovod's libraries (ld.so(8)), so that a
cluster's module would put its own cuDNN or NCCL, of another version, under both.  But it opens nothing twice by one
name: what the wheels and LD_LIBRARY_PATH both have is loaded from the wheels first.
"""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

# What others are linked with, in the order in which these are linked with each other.
FOUNDATIONS = ("libnvJitLink", "libcudart", "libcublasLt", "libcublas", "libcusparse", "libcudnn_graph", "libcudnn_ops")
# cuDNN asks for it by name and looks in nvidia/nvrtc; the wheel has it in nvidia/cuda_nvrtc.
ALWAYS = ("libnvrtc",)


def load_first(wheels: Path | None = None) -> list[Path]:
    """Load the wheels' libraries that LD_LIBRARY_PATH would replace, and those that nobody would find.

    Args:
        wheels: the folder ``nvidia`` of site-packages; default: where it is installed. Without one, as in a setup for
            CPUs, nothing is loaded.

    Returns:
        The libraries that were loaded, in that order.
    """
    if wheels is None:
        package = find_spec("nvidia")
        if package is None:
            return []
        wheels = Path(next(iter(package.submodule_search_locations)))
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    replaced = [
        path
        for path in sorted(wheels.glob("*/lib/*.so.*"))
        if _stem(path) in ALWAYS or any((folder / path.name).exists() for folder in folders)
    ]
    replaced.sort(key=lambda path: FOUNDATIONS.index(_stem(path)) if _stem(path) in FOUNDATIONS else len(FOUNDATIONS))
    for path in replaced:
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            print(f"warning: {path} does not load, another may be taken: {error}", file=sys.stderr, flush=True)
    return replaced


def _stem(path: Path) -> str:
    return path.name.partition(".so")[0]
