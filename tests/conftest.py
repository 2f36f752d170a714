"""What all tests share: the repository first on sys.path, silence, and runs of the main job under real launchers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """The environment of a shell in which .venv is active, and in which no launcher has started anything."""
    launchers = ("OMPI_", "PMIX_", "PMI_", "HOROVOD_", "SLURM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def run_command(*words, timeout: float = 240, **variables) -> subprocess.CompletedProcess:
    """Run a command as a user would, from a folder that is not the repository's."""
    words = [str(word) for word in words]
    return subprocess.run(
        words, env=environment() | variables, cwd="/", capture_output=True, text=True, timeout=timeout
    )


def run_jobs(folder: Path, jobs: dict[str, list], *launcher: str, timeout: float = 560) -> dict[str, int]:
    """Run many jobs of train.py in one set of processes (see jobs.py).

    Args:
        folder: job ``name`` gets the run directory ``folder/name``.
        jobs: name -> command line of train.py.
        launcher: what stands before ``python``, for example ``horovodrun -np 2``.

    Returns:
        Name -> exit code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = {name: [str(word) for word in [*line, "--run-dir", folder / name]] for name, line in jobs.items()}
    (folder / "jobs.json").write_text(json.dumps(listed))
    done = run_command(*launcher, sys.executable, ROOT / "tests" / "jobs.py", folder, timeout=timeout)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return json.loads((folder / "codes.json").read_text())


def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """An npz with 203 training and 103 validation images, 16x16, of 7 classes: numbers that no worker count divides."""
    import numpy as np

    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 203), ("val", 103)):
        labels = np.arange(count) % 7
        base = random.integers(0, 120, (count, 16, 16, 3))
        # A class is a bright row: learnable, so that losses move and decisions have something to decide.
        base[np.arange(count), labels * 2] += 120
        arrays |= {f"x_{split}": base.astype(np.uint8), f"y_{split}": labels}
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, **arrays)
    return path
