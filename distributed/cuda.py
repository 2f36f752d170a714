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
from dataclasses import dataclass
from pathlib import Path

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
    """Why a GPU is expected here, in words; None where none is."""
    if CONTROL_DEVICE.exists():
        return f"this machine has an NVIDIA GPU ({CONTROL_DEVICE} exists)"
    if is_gpu_build():
        return f"this environment was made with make setup GPU=1 ({SETUP})"
    if found := cards():
        return f"the driver shows {found[0].name}"
    return None


def is_gpu_build() -> bool:
    """Whether ``make setup GPU=1`` has made this environment."""
    try:
        return "GPU=1" in SETUP.read_text().split()
    except OSError:
        return False


def tensorflow_complaints() -> list[str]:
    """What TensorFlow says while it looks for GPUs, the lines that tell why it takes none; takes seconds.

    It says so only as it is loaded, and only with its log on, hence in another process.
    """
    words = [sys.executable, "-c", "import tensorflow; tensorflow.config.list_physical_devices('GPU')"]
    loud = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    try:
        log = subprocess.run(words, env=loud, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=120).stderr
    except (OSError, subprocess.TimeoutExpired):
        return []
    return read_complaints(log.decode(errors="replace"))


def read_complaints(log: str) -> list[str]:
    """The lines of TensorFlow's log that say why it takes no GPU, in words, each once."""
    patterns = (
        (r"Could not load dynamic library '([^']+)'; dlerror: (.+)", r"\2"),
        (r"failed call to cuInit: (.+)", r"the driver does not start: \1"),
        (r"(kernel version .+ does not match DSO version .+)", r"\1"),
        (r"(Ignoring visible gpu device .+)", r"\1"),
    )
    found = [match.expand(words) for pattern, words in patterns for match in re.finditer(pattern, log)]
    return list(dict.fromkeys(line.strip().rstrip(".") for line in found))
