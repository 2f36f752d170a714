"""Commit a checkpoint so that a crash at any instruction loses nothing.

A checkpoint is a directory ``step-XXXXXXXX``: tensors as safetensors, everything else as ``state.json``, and a
``manifest.json`` with the size and SHA-256 of each file.  It is written under a temporary name beside the others:
files, each flushed to disk; the manifest; the directory.  Then it is read back from the disk, and only then renamed to
its name, so that a directory that bears a checkpoint's name is complete.  No committed checkpoint is ever written to,
and one that is to go is renamed before it is deleted.  Nothing is unpickled; links and pipes are not followed.  No
TensorFlow in here.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distributed import disk, tensors
from distributed.tensors import Layout, LayoutError

FORMAT = 1
_FILES = {"weights.safetensors", "optimizer.safetensors", "state.json"}
_NAME = re.compile(r"step-(\d{8})")
# What is under way, and what was one: nobody reads these, and the next save clears them away.
_WRITING, _FORMER = ".writing-", ".former-"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its message is one sentence. It ends the run with exit code 2."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: named arrays of the model and of the optimizer, and a JSON state."""

    weights: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    state: dict


def write(
    directory: Path, step: int, checkpoint: Checkpoint, *, monitored: dict | None = None, best: bool = False
) -> Path:
    """Commit ``checkpoint`` as ``directory/step-XXXXXXXX`` and return that path.

    One of the same step that verifies stays as it is, unless it was made before its epoch was judged and this one
    after.

    Args:
        monitored: name and value of the metric that decides, where the checkpoint ends an epoch.
        best: whether that epoch is the best so far.

    Raises:
        OSError: if it cannot be written, naming the file; what was committed before is untouched.
        CheckpointError: if what was written does not read back; the same holds.
    """
    target = directory / f"step-{step:08d}"
    if os.path.lexists(target):
        with contextlib.suppress(CheckpointError):
            if verify(target)["monitored"] is not None or monitored is None:
                return target
    if not directory.is_dir():
        directory.mkdir(parents=True)
        disk.flush(directory.parent)
    temporary = directory / f"{_WRITING}{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    contents = {
        "weights.safetensors": tensors.parts(checkpoint.weights),
        "optimizer.safetensors": tensors.parts(checkpoint.optimizer),
        "state.json": [json.dumps(checkpoint.state, indent=1).encode()],
    }
    files = {name: disk.write_file(temporary / name, parts) for name, parts in contents.items()}
    manifest = {"format": FORMAT, "step": step, "monitored": monitored, "best": best, "files": files}
    disk.write_file(temporary / "manifest.json", [json.dumps(manifest, indent=1).encode()])
    disk.flush(temporary)
    verify(temporary)
    if os.path.lexists(target):
        # What nobody can read, or what was not judged yet, makes room: the better one is on the disk by now.
        _set_aside(target)
    os.rename(temporary, target)
    disk.flush(directory)
    return target


def commit(
    directory: Path, step: int, checkpoint: Checkpoint, *, keep: int, monitored: dict | None = None, best: bool = False
) -> None:
    """``write`` a checkpoint, point the links ``last`` and ``best`` to theirs, and ``prune``."""
    path = write(directory, step, checkpoint, monitored=monitored, best=best)
    point(directory / "last", path)
    if path_of_best := find_best(directory, step):
        point(directory / "best", path_of_best)
    prune(directory, keep, path)


def verify(path: Path) -> dict:
    """Read every byte of a checkpoint and return its manifest.

    Raises:
        CheckpointError: if a file is missing, is not a regular file, or is not what was written.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise CheckpointError(f"{path} is not a directory; resume from another checkpoint")
        with disk.open_regular(path / "manifest.json") as file:
            manifest = json.loads(file.read())
        if manifest["format"] != FORMAT or manifest["files"].keys() != _FILES:
            raise CheckpointError(f"{path}/manifest.json does not list a checkpoint's files; resume from another one")
        if not {"step", "monitored", "best"} <= manifest.keys():
            raise CheckpointError(f"{path}/manifest.json is not complete; resume from another checkpoint")
        for name, expected in manifest["files"].items():
            with disk.open_regular(path / name) as file:
                size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
            if size != expected["bytes"] or digest != expected["sha256"]:
                raise CheckpointError(
                    f"{path / name} is not the file that was saved (its SHA-256 differs); "
                    "resume from another checkpoint"
                )
        return manifest
    except CheckpointError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a complete checkpoint ({error}); resume from another one") from error


def load(
    path: Path, weights: Layout, optimizer: Layout | None = None, accept: Callable[[dict], None] = lambda state: None
) -> Checkpoint:
    """Verify a checkpoint and load it, after its shapes and dtypes were compared with what the model needs.

    Args:
        weights: shape and dtype of each of the model's weights, by name.
        optimizer: the same of the optimizer's; None leaves them where they are.
        accept: is shown the state before the tensors are looked at, and may raise a ``CheckpointError`` of its own.

    Raises:
        CheckpointError: if it does not verify or does not fit, before a tensor is allocated.
    """
    verify(path)
    loaded = []
    try:
        with disk.open_regular(path / "state.json") as file:
            state = json.loads(file.read())
        accept(state)
        for name, layout in (("weights.safetensors", weights), ("optimizer.safetensors", optimizer)):
            with disk.open_regular(path / name) as file:
                loaded.append({} if layout is None else tensors.read(file, layout))
        return Checkpoint(*loaded, state)
    except CheckpointError:
        raise
    except LayoutError as error:
        raise CheckpointError(f"{path / name} has {error}; resume with the settings the run began with") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); resume from another checkpoint") from error


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints of a run, oldest first; whether they can be read is another question."""
    if not directory.is_dir():
        return []
    paths = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(path for path in paths if path.is_dir() and not path.is_symlink())


def step_of(path: Path) -> int:
    """The number of steps that were taken before the checkpoint."""
    return int(_NAME.fullmatch(path.name)[1])


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
            with (
                contextlib.suppress(OSError, ValueError, KeyError, TypeError),
                disk.open_regular(path / "manifest.json") as file,
            ):
                if json.loads(file.read())["best"] is True:
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
                _set_aside(path)
        for path in directory.iterdir():
            if path.name.startswith((_WRITING, _FORMER)):
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


def _set_aside(path: Path) -> None:
    """Take a checkpoint's name away, so that a half-deleted directory never bears one."""
    former = path.with_name(f"{_FORMER}{path.name}")
    shutil.rmtree(former, ignore_errors=True)
    os.rename(path, former)
