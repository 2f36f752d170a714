"""Which libraries a run would use: that they load, their versions as built and as loaded, and the device."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

from launch.job import environment

# Libraries of a GPU build: what a process has in memory under this name, and the function that says its version.
LIBRARIES = {
    "CUDA": ("libcudart.so", "cudaRuntimeGetVersion"),
    "driver's CUDA": ("libcuda.so", "cuDriverGetVersion"),
    "NCCL": ("libnccl.so", "ncclGetVersion"),
}


BUILT = {"CUDA": "cuda_version", "cuDNN": "cudnn_version"}


def failing_imports() -> dict[str, str]:
    """Load TensorFlow, Keras, Horovod and MPI; what does not load, and why, in one line each."""
    failing = {}

    def attempt(name: str, load: Callable) -> None:
        try:
            load()
        except Exception as error:  # whatever a broken installation raises is the answer
            failing[name] = reason(error)

    with environment.loading(quiet=True):
        attempt("TensorFlow", lambda: __import__("tensorflow"))
        if not failing:
            attempt("Keras", lambda: __import__("keras"))
            attempt("Horovod", _horovod)
            attempt("mpi4py", _mpi)
    return failing


def reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error: TensorFlow wraps the linker's in pages."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")


def _mpi() -> str:
    from distributed.control import mpi_library

    return mpi_library()


def _horovod() -> dict:
    from distributed.collectives import horovod_build

    return horovod_build()


def device_kind() -> str:
    """``GPU`` or ``CPU``: what TensorFlow would use."""
    import tensorflow as tf

    return "GPU" if tf.config.get_visible_devices("GPU") else "CPU"


def facts() -> dict:
    """A JSON object of versions and devices; call it once everything is loaded that a run would load."""
    import tensorflow as tf

    from launch.job.identity import versions

    horovod, build = _horovod(), tf.sysconfig.get_build_info()
    gpus = tf.config.list_physical_devices("GPU")
    mine = tf.config.get_visible_devices("GPU")
    details = tf.config.experimental.get_device_details(mine[0]) if mine else {}
    capability = details.get("compute_capability")
    return {
        "versions": versions(),
        "cuda_build": bool(build.get("is_cuda_build")),
        "built": {name: build[key] for name, key in BUILT.items() if key in build},
        "loaded": loaded_versions(),
        "device_kind": device_kind(),
        "gpu": details.get("device_name"),
        "compute_capability": ".".join(map(str, capability)) if capability else None,
        "gpus_seen": len(gpus),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled() if mine else None,
        "horovod": horovod | {"nccl": dotted(horovod["nccl"], "NCCL") if horovod["nccl"] else None},
        "mpi": _mpi(),
    }


def loaded_libraries(maps: str) -> dict[str, str]:
    """Which file each of ``LIBRARIES`` was loaded from, by the text of ``/proc/self/maps``."""
    paths = set(re.findall(r"(/\S+)$", maps, re.MULTILINE))
    found = {}
    for name, (file, _) in LIBRARIES.items():
        for path in sorted(paths):
            if Path(path).name.startswith(file):
                found[name] = path
    return found


def loaded_versions() -> dict[str, dict]:
    """``version`` and ``file`` of each of ``LIBRARIES`` that this process has in memory."""
    found = {}
    for name, path in loaded_libraries(Path("/proc/self/maps").read_text()).items():
        number = ctypes.c_int()
        try:
            getattr(ctypes.CDLL(path), LIBRARIES[name][1])(ctypes.byref(number))
        except (OSError, AttributeError):
            continue
        found[name] = {"version": dotted(number.value, name), "file": path}
    return found


def dotted(number: int, name: str) -> str:
    """A version as NVIDIA's libraries count: 12050 of CUDA is 12.5, 22105 of NCCL 2.21.5."""
    if name == "NCCL":
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number % 1000 // 10}"
