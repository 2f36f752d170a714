"""What all tests share: the repository first on sys.path, silence, and runs of the main job under real launchers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "tests" / "helpers"
sys.path[:0] = [str(ROOT), str(HELPERS)]
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What these tests start computes on the CPU, also where there is a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# A shell that starts this in the background lets it ignore Ctrl-C, and so all that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
import launch.job  # noqa: E402, F401  (before a test file loads TensorFlow: it settles the kernels, and says so if it cannot)

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


def run_jobs(
    folder: Path,
    jobs: dict[str, list],
    *launcher: str,
    plants: dict[str, list[list]] | None = None,
    timeout: float = 560,
) -> dict[str, int]:
    """Run many jobs of train.py in one set of processes (see jobs.py).

    Args:
        folder: job ``name`` gets the run directory ``folder/name`` if its line names none.
        jobs: name -> command line of train.py; what it prints is in ``folder/output.txt``.
        launcher: what stands before ``python``, for example ``horovodrun -np 2``.
        plants: name -> faults to plant in that job, each [kind, rank, step], see jobs.py.

    Returns:
        Name -> exit code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = {
        name: [str(word) for word in (line if "--run-dir" in line else [*line, "--run-dir", folder / name])]
        for name, line in jobs.items()
    }
    (folder / "jobs.json").write_text(json.dumps({"lines": listed, "plants": plants or {}}))
    done = run_command(*launcher, sys.executable, HELPERS / "jobs.py", folder, timeout=timeout)
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    (folder / "errors.txt").write_text(done.stderr)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return json.loads((folder / "codes.json").read_text())


def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def record_fault(kind: str, injected: int, lost: int) -> None:
    """Add a line to the file that LOCKSTEP_FAULTS names: how many faults were injected, and how many cost something."""
    if path := os.environ.get("LOCKSTEP_FAULTS"):
        with open(path, "a") as file:
            file.write(json.dumps({"fault": kind, "injected": injected, "lost": lost}) + "\n")


@contextlib.contextmanager
def counted(kind: str, injected: int = 1):
    """Around all that is expected after a fault: one that does not come counts as lost."""
    try:
        yield
    except BaseException:
        record_fault(kind, injected, injected)
        raise
    record_fault(kind, injected, 0)


def pytest_runtest_setup(item):
    """On a slow machine a run of all tests must come to an end: after this moment (seconds since 1970) none begins."""
    end = float(os.environ.get("LOCKSTEP_NO_TEST_AFTER", "inf"))
    if time.time() > end:
        pytest.skip(f"not begun: the time for all tests was over at {time.strftime('%H:%M', time.localtime(end))}")


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    """A test that failed half-way has not waited for what it had started."""
    yield
    if deaths := sys.modules.get("deaths"):
        deaths.end_all()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Image sets of 7 classes, 16x16, as npz.

    ``tiny.npz``, which is returned, has 203 training and 103 validation images: numbers that no worker count divides.
    Beside it lie ``val1003.npz``, ``val2.npz``, ``val1.npz`` with so many validation images, and ``train_only.npz``;
    learning rates of a user's, ``rates.py``, and weights of the classes, ``weights.yaml``.
    """
    import numpy as np

    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 203), ("val", 1003)):
        labels = np.arange(count) % 7
        base = random.integers(0, 120, (count, 16, 16, 3))
        # A class is a bright row: learnable, so that losses move and decisions have something to decide.
        base[np.arange(count), labels * 2] += 120
        arrays |= {f"x_{split}": base.astype(np.uint8), f"y_{split}": labels}
    folder = tmp_path_factory.mktemp("data")
    (folder / "rates.py").write_text(
        "def by_epoch(epoch, lr):\n    return lr if epoch < 1 else lr * 0.5\n\n\n"
        "def by_step(step):\n    return 0.02 / (1 + step)\n"
    )
    weights = {0: 1.0, 1: 2.5, 2: 0.0, 3: 0.25, 4: 1.0, 5: 3.0, 6: 1.0}
    (folder / "weights.yaml").write_text("".join(f"{label}: {weight}\n" for label, weight in weights.items()))
    training = {name: array for name, array in arrays.items() if name.endswith("train")}
    np.savez(folder / "train_only.npz", **training)
    for name, count in (("tiny", 103), ("val1003", 1003), ("val2", 2), ("val1", 1)):
        validation = {name: array[:count] for name, array in arrays.items() if name.endswith("val")}
        np.savez(folder / f"{name}.npz", **training, **validation)
    return folder / "tiny.npz"
