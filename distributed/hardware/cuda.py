"""What CUDA's driver says of the GPUs that this process sees, without TensorFlow; and why TensorFlow sees none.

The driver is asked through its C interface (CUDA Driver API, "Device Management"), since its numbers are those of
TensorFlow: both go by ``CUDA_VISIBLE_DEVICES``, which NVML does not know.
"""

import ctypes
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distributed.hardware import placement

DRIVER = "libcuda.so.1"
CONTROL_DEVICE = Path("/dev/nvidiactl")
# Written by launch/install/setup.sh: what .venv was made with.
SETUP = Path(sys.prefix) / "setup.txt"
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Card:
    """A GPU as this process sees it.

    Attributes:
        name: such as ``NVIDIA A100-SXM4-80GB``.
        capability: compute capability, such as ``8.0``.
        bus_id: its place on the PCI bus, such as ``0000:3b:00.0``.
        id: the UUID of the whole GPU, also where this process has a MIG slice of it.
    """

    name: str
    capability: str
    bus_id: str
    id: str


def cards() -> list[Card]:
    """The GPUs that this process sees, in CUDA's order; none where there is no driver, or it cannot start."""
    try:
        driver = ctypes.CDLL(DRIVER)
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return []
        return [_card(driver, index) for index in range(count.value)]
    except (OSError, AttributeError):
        return []


def _card(driver: ctypes.CDLL, index: int) -> Card:
    device, number = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name, bus_id, identity = (ctypes.create_string_buffer(size) for size in (128, 32, 16))
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetPCIBusId(bus_id, len(bus_id), device)
    driver.cuDeviceGetUuid(identity, device)
    capability = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    return Card(
        name.value.decode(errors="replace"),
        ".".join(capability),
        bus_id.value.decode(errors="replace").lower(),
        str(uuid.UUID(bytes=identity.raw)),
    )


def why_expected() -> str | None:
    """Why a GPU is expected here, in words: there is one, or ``make setup GPU=1`` has made this environment; else
    None."""
    if CONTROL_DEVICE.exists():
        return f"this machine has an NVIDIA GPU ({CONTROL_DEVICE} exists)"
    if found := cards():
        return f"the driver shows {len(found)}, the first of them {found[0].name}"
    return "this .venv was made with make setup GPU=1" if is_gpu_build() else None


def why_no_gpu(environment: Mapping[str, str]) -> str | None:
    """One sentence about why TensorFlow, which sees no GPU, sees none, where one is expected; else None.  It may take
    seconds to find out."""
    if (expected := why_expected()) is None:
        return None
    if placement.hides_gpus(environment):
        value = environment["CUDA_VISIBLE_DEVICES"]
        reason = f"CUDA_VISIBLE_DEVICES={value!r} hides all of them; unset it, or ask the scheduler for GPUs"
    else:
        complaints = tensorflow_complaints()
        reason = f"{'; '.join(complaints) or 'TensorFlow does not say why'}; {_remedy(complaints)}"
    return f"TensorFlow sees no GPU, but {expected}: {reason}; or say with --cpu that the CPU is meant"


def is_gpu_build() -> bool:
    """Whether ``make setup GPU=1`` has made this environment."""
    try:
        return "GPU=1" in SETUP.read_text().split()
    except OSError:
        return False


def _remedy(complaints: list[str]) -> str:
    if any(DRIVER in complaint for complaint in complaints):
        return "install NVIDIA's driver, or start the container with --gpus all"
    if not is_gpu_build():
        return "run make setup GPU=1, which brings CUDA's libraries"
    if any(".so" in complaint for complaint in complaints):
        return "run make clean and make setup GPU=1 again"
    return "see what nvidia-smi says, and whether the driver is new enough for CUDA 12"


def tensorflow_complaints() -> list[str]:
    """What TensorFlow says of why it takes no GPU, in words; takes seconds."""
    return read_complaints(_tensorflow_log())


def _tensorflow_log() -> str:
    # It tells only as it is loaded, and only with its log on, hence another process.
    words = [sys.executable, "-c", "import tensorflow; tensorflow.config.list_physical_devices('GPU')"]
    loud = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    try:
        done = subprocess.run(words, env=loud, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.decode(errors="replace")


def read_complaints(log: str) -> list[str]:
    """What in TensorFlow's log says why it takes no GPU: libraries that cannot be loaded, by the linker's reason for
    them; else what the driver answered, or which GPU is passed over."""
    missing = {}
    for name, reason in re.findall(r"Could not load dynamic library '([^']+)'; dlerror: [^:\n]+: ([^;\n]+)", log):
        missing.setdefault(reason.strip(), {})[name] = None
    if missing:
        return [f"{', '.join(names)}: {reason}" for reason, names in missing.items()]
    lines = re.findall(r"(kernel version .+ does not match DSO version .+|Ignoring visible gpu device .+)", log)
    lines += [f"the driver does not start: {reason}" for reason in re.findall(r"failed call to cuInit: (.+)", log)]
    return list(dict.fromkeys(line.strip().rstrip(".") for line in lines))
