"""Check what ``make setup GPU=1`` has built, as far as that needs no GPU.  setup.sh calls it, and so may you:

.venv/bin/python launch/install/check_gpu_build.py

A line per check: what was found, or ``wrong:`` with what was expected and the remedy.  Exit code 0, or 2 if anything is
wrong.  LD_LIBRARY_PATH is put aside first, so that what is checked is what the wheels bring.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# What TensorFlow asks the loader for by name: MaybeTryDlopenGPULibraries of its dso_loader.cc.
ASKED_FOR = ("libcudart", "libcublas", "libcublasLt", "libcufft", "libcusolver", "libcusparse", "libcudnn")
# A100 and H100. Other cards of their generations run the same code; older ones are not what this is built for.
CAPABILITIES = ("80", "90")


class BuildError(ValueError):
    """What was built is not what a GPU needs; the message says what was expected, and the remedy."""


def main() -> int:
    """Run every check and return the exit code."""
    if os.environ.pop("LD_LIBRARY_PATH", None):
        # The loader read it when this process began.
        os.execv(sys.executable, [sys.executable, *sys.argv])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    checks = (pinned_packages, runpath, closed_set, library_versions, assembler, linkage, native_code, gpu_kernels)
    wrong = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            print(f"{name}: {check()}", flush=True)
        except BuildError as error:
            wrong += 1
            print(f"wrong: {name}: {error}", flush=True)
            if check is pinned_packages:
                break  # All that follows looks into them.
    return 2 if wrong else 0


def pins() -> dict[str, str]:
    """The packages of requirements-gpu.txt and their versions."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements-gpu.txt").read_text(), re.MULTILINE))


def libraries() -> list[Path]:
    """Every shared library that the pinned packages bring."""
    found = []
    for name in pins():
        wheel = distribution(name)
        found += [Path(wheel.locate_file(file)) for file in wheel.files if re.search(r"\.so(\.\d+)*$", file.name)]
    return [path.resolve() for path in found]


def package_folder(name: str) -> Path:
    """Where an installed package lies; it is not imported."""
    return Path(next(iter(find_spec(name).submodule_search_locations))).resolve()


def horovod_library() -> Path:
    """Horovod's operations for TensorFlow."""
    if find_spec("horovod") is None:
        raise BuildError("Horovod is not installed; run make setup GPU=1")
    return next((package_folder("horovod") / "tensorflow").glob("mpi_lib.*.so"))


def nccl_library() -> Path:
    """NCCL as its wheel brings it."""
    return next(path for path in libraries() if path.name == "libnccl.so.2")


def dynamic_section(library: Path) -> tuple[list[str], list[Path]]:
    """The libraries that one is linked with, in order, and the folders of its RUNPATH (or RPATH)."""
    listed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", listed)
    folders = ":".join(re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", listed)).split(":")
    # Not resolved yet: `..` after a link would lead elsewhere for the loader too.
    return needed, [Path(folder.replace("$ORIGIN", str(library.parent))) for folder in folders if folder]


def pinned_packages() -> str:
    """What is installed is what requirements-gpu.txt names."""
    wrong = []
    for name, version in pins().items():
        try:
            installed = distribution(name).version
        except PackageNotFoundError:
            installed = "missing"
        if installed != version:
            wrong.append(f"{name} is {installed}, {version} was expected")
    if wrong:
        raise BuildError("; ".join(wrong) + "; run make clean, then make setup GPU=1")
    return f"{len(pins())} as in requirements-gpu.txt"


def runpath() -> str:
    """What TensorFlow asks for by name is found in its own RUNPATH, in the wheels."""
    folder = package_folder("tensorflow")
    searched = [
        path for name in ("framework", "cc") for path in dynamic_section(folder / f"libtensorflow_{name}.so.2")[1]
    ]
    brought = set(libraries())
    wrong = []
    for name in ASKED_FOR:
        found = next((hit for place in searched if place.is_dir() for hit in sorted(place.glob(f"{name}.so*"))), None)
        if found is None or found.resolve() not in brought:
            wrong.append(f"{name}.so is {'not there' if found is None else found}")
    if wrong:
        raise BuildError(f"in TensorFlow's RUNPATH {', '.join(wrong)}; run make clean, then make setup GPU=1")
    return f"leads to the wheels for {', '.join(ASKED_FOR)}"


def closed_set() -> str:
    """Every library opens, and none of them takes another one of CUDA's from elsewhere on this machine."""
    wrong = []
    for path in libraries():
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            wrong.append(str(error))
    loaded = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    names = {path.name for path in libraries()}
    strangers = sorted(str(path) for path in loaded if path.name in names and path.resolve() not in libraries())
    if wrong or strangers:
        raise BuildError("; ".join(wrong + [f"{path} was taken instead of the wheel's" for path in strangers]))
    return f"{len(names)} libraries open, and need no other CUDA"


def library_versions() -> str:
    """The libraries say what they are; TensorFlow says what it was built with."""
    import tensorflow as tf

    built = tf.sysconfig.get_build_info()
    number = ctypes.c_int()
    opened = {path.name.partition(".")[0]: ctypes.CDLL(str(path)) for path in libraries()}
    opened["libcudart"].cudaRuntimeGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    opened["libnccl"].ncclGetVersion(ctypes.byref(number))
    nccl = f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"
    opened["libcudnn"].cudnnGetVersion.restype = ctypes.c_size_t
    cudnn = opened["libcudnn"].cudnnGetVersion()
    cudnn = f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}"
    expected = f"CUDA {built['cuda_version']}, cuDNN {built['cudnn_version']}"
    if not (_begins(built["cuda_version"], cuda) and _begins(cudnn, built["cudnn_version"])):
        raise BuildError(
            f"TensorFlow was built with {expected}, the wheels are CUDA {cuda} and cuDNN {cudnn}; "
            "pin those of TensorFlow's extra and-cuda in requirements-gpu.txt"
        )
    return f"CUDA {cuda}, cuDNN {cudnn}, NCCL {nccl}; TensorFlow was built with {expected}"


def _begins(version: str, prefix: str) -> bool:
    return version.split(".")[: len(prefix.split("."))] == prefix.split(".")


def assembler() -> str:
    """XLA and TensorFlow's redzone checker call ptxas and read libdevice."""
    folder = package_folder("nvidia") / "cuda_nvcc"
    said = subprocess.run([folder / "bin" / "ptxas", "--version"], capture_output=True, text=True, check=False).stdout
    release = re.search(r"release ([\d.]+)", said)
    if release is None or not (folder / "nvvm" / "libdevice" / "libdevice.10.bc").is_file():
        raise BuildError(f"{folder} has no ptxas that runs, or no libdevice; run make clean, then make setup GPU=1")
    return f"ptxas {release[1]} runs, libdevice is there"


def linkage() -> str:
    """Horovod calls the wheel's NCCL, and brings the CUDA runtime that it was compiled with."""
    check_linkage(horovod_library(), nccl_library())
    return "Horovod takes NCCL from its wheel, before TensorFlow's, and holds its own CUDA runtime"


def check_linkage(library: Path, nccl: Path) -> None:
    """Raise BuildError unless ``library`` finds the symbols of NCCL in the file ``nccl`` and no CUDA runtime elsewhere.

    TensorFlow's library has an NCCL of its own in it and shows its symbols; the loader takes them from whichever
    library stands first in the list.
    """
    needed, folders = dynamic_section(library)
    before = needed[: needed.index("libnccl.so.2")] if "libnccl.so.2" in needed else None
    if before is None:
        raise BuildError(f"{library} is not linked with libnccl.so.2; run make clean, then make setup GPU=1")
    if early := [name for name in before if "tensorflow" in name]:
        raise BuildError(
            f"{library} is linked with {', '.join(early)} before libnccl.so.2, and would call the NCCL in it"
        )
    if any(name.startswith("libcudart") for name in needed):
        raise BuildError(f"{library} is linked with libcudart.so; the CUDA runtime must be in it (static)")
    found = next((place / nccl.name for place in folders if (place / nccl.name).exists()), None)
    if found is None or found.resolve() != nccl:
        raise BuildError(f"the RUNPATH of {library} leads to {found or 'no libnccl.so.2'} instead of {nccl}")


def native_code() -> str:
    """Horovod's kernels and NCCL's as machine code, which no driver has to compile first."""
    tool = shutil.which("cuobjdump")
    if tool is None:
        return "not checked: cuobjdump, which comes with the CUDA toolkit, is not on PATH"
    said = []
    for library in (horovod_library(), nccl_library()):
        listed = subprocess.run([tool, "--list-elf", library], capture_output=True, text=True, check=True).stdout
        found = sorted({int(number) for number in re.findall(r"\.sm_(\d+)a?\.", listed)})
        missing = [number for number in CAPABILITIES if int(number) not in found]
        if missing:
            raise BuildError(
                f"{library} holds code for sm {found}, not for {', '.join(missing)}; unset HOROVOD_BUILD_CUDA_CC_LIST"
            )
        said.append(f"{library.name.partition('.')[0]} for sm {', '.join(map(str, found))}")
    return "; ".join(said)


def gpu_kernels() -> str:
    """Each of Horovod's operations that a CPU can do has a kernel for GPUs too."""
    import tensorflow as tf
    from tensorflow.python.framework.kernels import get_all_registered_kernels

    tf.load_op_library(str(horovod_library()))
    devices = {}
    for kernel in get_all_registered_kernels().kernel:
        if kernel.op.startswith("Horovod"):
            devices.setdefault(kernel.op, set()).add(kernel.device_type)
    without = sorted(op for op, known in devices.items() if "GPU" not in known)
    if without or not devices:
        raise BuildError(f"{', '.join(without) or 'all operations'} of Horovod have no kernel for GPUs")
    return f"{len(devices)} of Horovod's operations have one"


if __name__ == "__main__":
    sys.exit(main())
