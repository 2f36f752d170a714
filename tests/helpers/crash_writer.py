"""A process that saves checkpoints, for tests that kill it or fail its disk: python tests/helpers/crash_writer.py.

For each line on stdin, a JSON list [folder, step], it forks a child and prints the child's process id.  The child waits
for SIGUSR1, commits the checkpoint as the saver would and ends; its wait status is printed next.  A fork takes
milliseconds, hence a test can afford one per system call.
"""

import ctypes
import functools
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np

from distributed.checkpoint import manager
from distributed.checkpoint.commit import Checkpoint, CheckpointError

SAVED, REFUSED, BROKEN = 0, 3, 4
PR_SET_PTRACER, ANY = 0x59616D61, ctypes.c_ulong(-1)


@functools.cache
def example(step: int) -> Checkpoint:
    """What a run of few weights would save after ``step`` steps; each tensor is larger than a write buffer."""
    generator = np.random.default_rng(step)
    weights = {f"dense{index}/kernel": generator.normal(size=(50, 60)).astype(np.float32) for index in range(2)}
    slots = {"momentum": generator.normal(size=3000).astype(np.float32), "iterations": np.array(step, np.int64)}
    return Checkpoint(weights, slots, {"step": step, "metrics": None})


def commit(folder: Path, step: int) -> None:
    """With ``keep=1``: the deletion of the checkpoint before it is part of what may be interrupted."""
    manager.commit(folder, step, example(step), keep=1, monitored={"accuracy": step / 10}, best=True)


def child(folder: Path, step: int) -> int:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY)
    print(os.getpid(), flush=True)  # now it can be traced
    signal.sigwait([signal.SIGUSR1])
    try:
        commit(folder, step)
    except (OSError, CheckpointError):
        return REFUSED
    except BaseException:
        return BROKEN
    return SAVED


def main() -> None:
    assert not {"tensorflow", "keras"} & set(sys.modules)
    example(2)  # what is made and loaded once is none of a save's system calls
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    for line in sys.stdin:
        folder, step = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(Path(folder), step))
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
