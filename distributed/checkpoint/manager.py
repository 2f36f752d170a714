"""The checkpoints of one run: which there are, the newest that can be read, the best, and which may go."""

import contextlib
import os
import re
import shutil
from pathlib import Path

from distributed.checkpoint import disk
from distributed.checkpoint.commit import (
    FORMER,
    WRITING,
    Checkpoint,
    CheckpointError,
    read_json,
    set_aside,
    verify,
    write,
)

_NAME = re.compile(r"step-(\d{8})")


def commit(
    directory: Path, step: int, checkpoint: Checkpoint, *, keep: int, monitored: dict | None = None, best: bool = False
) -> None:
    """``write`` a checkpoint, point the links ``last`` and ``best`` to theirs, and ``prune``."""
    path = write(directory, step, checkpoint, monitored=monitored, best=best)
    point(directory / "last", path)
    if path_of_best := find_best(directory, step):
        point(directory / "best", path_of_best)
    prune(directory, keep, path)


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints of a run, oldest first; whether they can be read is another question."""
    if not directory.is_dir():
        return []
    paths = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(path for path in paths if path.is_dir() and not path.is_symlink())


def step_of(path: Path) -> int:
    """The number of steps that were taken before the checkpoint."""
    return int(_NAME.fullmatch(path.name)[1])


def recover(directory: Path) -> None:
    """Give its name back to what a crash has left without one: a checkpoint that was about to be replaced by one of the
    same step, or to be deleted and still is whole."""
    with contextlib.suppress(OSError):
        for former in directory.glob(f"{FORMER}step-*"):
            path = former.with_name(former.name.removeprefix(FORMER))
            if not os.path.lexists(path):
                with contextlib.suppress(CheckpointError):
                    verify(former)
                    os.rename(former, path)
                    disk.flush(directory)


def newest(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, or None if the run has none yet; and why newer ones were passed over.

    Raises:
        CheckpointError: if there are checkpoints but none can be read; starting over silently would lose the run.
    """
    try:
        paths, problems = committed(directory), []
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be listed ({error.strerror}); make it readable") from error
    for path in reversed(paths):
        try:
            verify(path)
            return path, problems
        except CheckpointError as error:
            problems.append(str(error))
    if paths:
        raise CheckpointError(
            f"none of the {len(paths)} checkpoints in {directory} can be read: {problems[0].partition(';')[0]}; "
            "bring one back, or begin anew in another --run-dir"
        )
    return None, problems


def find_best(directory: Path, upto: int | None = None) -> Path | None:
    """The checkpoint of the best epoch, by the manifests: the newest that was the best when it was made.

    Args:
        upto: leave out what was made after this step: a run that fell back behind a damaged checkpoint decides anew.
    """
    for path in reversed(committed(directory)):
        if upto is None or step_of(path) <= upto:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                if read_json(path / "manifest.json")["best"] is True:
                    return path
    return None


def prune(directory: Path, keep: int, current: Path) -> None:
    """Delete all but the last ``keep`` checkpoints up to ``current``, which has been verified, and the best of them.

    Those after ``current`` are left alone: the run fell back behind them, and will come by again.  What cannot be
    deleted stays for the next time.
    """
    with contextlib.suppress(OSError):
        older = [path for path in committed(directory) if step_of(path) <= step_of(current)]
        # By name, since one path may be relative and another not.
        kept = {path.name for path in (*older[-keep:], find_best(directory, step_of(current))) if path}
        for path in older:
            if path.name not in kept:
                set_aside(path)
        for path in directory.iterdir():
            if path.name.startswith((WRITING, FORMER)):
                shutil.rmtree(path, ignore_errors=True)


def point(link: Path, target: Path) -> None:
    """Make the relative symbolic link ``link`` name ``target``, at once.

    Links are for people; nothing depends on them, and a file system that has none does not stop a run.
    """
    temporary = link.with_name(f".{link.name}-new")
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        os.replace(temporary, link)
