"""Shared libraries of a few functions, for tests of what the loader does with them."""

import subprocess
from pathlib import Path


def compile_library(path: Path, source: str, *linked: Path, options: tuple[str, ...] = ()) -> Path:
    """Compile C++ ``source`` into ``path``, whose name becomes the SONAME, linked with ``linked`` in that order.

    As in NVIDIA's wheels, libraries of one folder find each other by their RUNPATH.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    link = ["-Wl,--no-as-needed,--enable-new-dtags,-rpath,$ORIGIN", f"-Wl,-soname,{path.name}", *options]
    command = ["g++", "-shared", "-fPIC", *link, "-o", path, "-x", "c++", "-", "-x", "none", *linked]
    subprocess.run(command, input=source, text=True, check=True)
    return path
