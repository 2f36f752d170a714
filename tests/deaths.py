"""Faults for jobs.py: what a rank may suffer, and where.  ``KIND@PLACE`` at a rank and step.

KIND: the name of a signal that the rank sends to itself; "raise" an error; "loop" for ever.
PLACE: "start" (while the model is built), "step" (as the step begins), "validation" (in its second batch, after that
step), "saving" (as the checkpoint of that step is written, by the chief), "exit" (in the interpreter's teardown).
"""

import atexit
import os
import signal
from pathlib import Path

from distributed.world import World


def strike(kind: str) -> None:
    """Let it happen to this process."""
    if kind == "loop":
        while True:
            pass
    if kind == "raise":
        raise RuntimeError("planted")
    os.kill(os.getpid(), getattr(signal, kind))


def plant(fault: str | None, rank: int = 0, step: int = 0) -> None:
    """Put a fault into the job that begins now, in place of the last one's."""
    from distributed import checkpoint
    from launch import callbacks, session

    kind, _, place = (fault or "").partition("@")
    here = World.from_environment(os.environ).rank == rank
    at = {"step": step, "validation": step, "saving": step}.get(place)
    hooks = {
        "start": (session, "build", lambda *_: True),
        "step": (callbacks.LearningRate, "on_train_batch_begin", lambda callback, *_: callback.progress.step == at),
        "validation": (
            callbacks.Notices,
            "on_test_batch_end",
            lambda callback, batch, *_: callback.progress.step == at and batch == 1,
        ),
        "saving": (checkpoint, "write", lambda directory, number, *_: number == at),
    }
    for name, (home, function, due) in hooks.items():
        original = getattr(getattr(home, function), "original", getattr(home, function))

        def planted(*arguments, original=original, due=due, **named):
            if due(*arguments):
                strike(kind)
            return original(*arguments, **named)

        planted.original = original
        setattr(home, function, planted if name == place and here else original)
    if place == "exit" and here:
        atexit.register(strike, kind)


def processes(folder: Path) -> list[int]:
    """The ranks that run jobs of this folder, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if len(words) > 2 and words[1].endswith(b"jobs.py") and words[2] == str(folder).encode():
                variables = dict(
                    part.split("=", 1) for part in (entry / "environ").read_text().split("\0") if "=" in part
                )
                found[World.from_environment(variables).rank] = int(entry.name)
        except (OSError, ValueError):
            continue
    return [found[rank] for rank in sorted(found)]
