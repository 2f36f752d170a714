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
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distributed.checkpoint import disk, tensor_files
from distributed.checkpoint.tensor_files import Layout, LayoutError

FORMAT = 1
_LARGEST_JSON = 1 << 26  # bytes
_FILES = {"weights.safetensors", "optimizer.safetensors", "state.json"}
# What is under way, and what was one: the next save clears them away.
WRITING, FORMER = ".writing-", ".former-"


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

    One of the same step that verifies stays as it is, unless it was made before its epoch was ended and this one after.

    Args:
        monitored: where the checkpoint ends an epoch, name and value of the metric that decides; empty where it was not
            decided on.
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
    temporary = directory / f"{WRITING}{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    contents = {
        "weights.safetensors": tensor_files.parts(checkpoint.weights),
        "optimizer.safetensors": tensor_files.parts(checkpoint.optimizer),
        "state.json": [json.dumps(checkpoint.state, indent=1).encode()],
    }
    files = {name: disk.write_file(temporary / name, parts) for name, parts in contents.items()}
    manifest = {"format": FORMAT, "step": step, "monitored": monitored, "best": best, "files": files}
    disk.write_file(temporary / "manifest.json", [json.dumps(manifest, indent=1).encode()])
    disk.flush(temporary)
    verify(temporary)
    if os.path.lexists(target):
        # What nobody can read, or what was not judged yet, makes room: the better one is on the disk by now. If the
        # next line is never reached, ``manager.recover`` gives the name back.
        set_aside(target)
    os.rename(temporary, target)
    disk.flush(directory)
    return target


def verify(path: Path) -> dict:
    """Read every byte of a checkpoint and return its manifest.

    Raises:
        CheckpointError: if a file is missing, is not a regular file, or is not what was written.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise CheckpointError(f"{path} is not a directory; resume from another checkpoint")
        manifest = read_json(path / "manifest.json")
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
        state = read_json(path / "state.json")
        accept(state)
        for name, layout in (("weights.safetensors", weights), ("optimizer.safetensors", optimizer)):
            with disk.open_regular(path / name) as file:
                loaded.append({} if layout is None else tensor_files.read(file, layout))
        return Checkpoint(*loaded, state)
    except CheckpointError:
        raise
    except LayoutError as error:
        raise CheckpointError(f"{path / name} has {error}; resume with the settings the run began with") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); resume from another checkpoint") from error


def read_json(path: Path) -> object:
    """What a checkpoint's state or manifest says.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is a link or a pipe, larger than any, or no JSON.
    """
    return json.loads(disk.read_regular(path, _LARGEST_JSON))


def set_aside(path: Path) -> None:
    """Take a checkpoint's name away, so that a half-deleted directory never bears one."""
    former = path.with_name(f"{FORMER}{path.name}")
    shutil.rmtree(former, ignore_errors=True)
    os.rename(path, former)
